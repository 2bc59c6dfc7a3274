"""How a part gets into a loader that talks in text, and out of it again."""

from __future__ import annotations

from ...transports.serial.port import SerialPort
from ..serial.boot_pins import LineSettings, StrappedEntry, Wiring
from .profile import MenuProfile


def menu_entry(port: SerialPort, profile: MenuProfile) -> StrappedEntry:
    """The port's settings as they are now are the application's. The loader has no parity (7.2)."""
    entry = profile.entry
    wiring = Wiring(
        entry.reset, entry.reset_asserted, entry.select, entry.select_asserted, hold=entry.hold, settle=entry.settle
    )
    return StrappedEntry(
        port,
        wiring,
        text=profile.enter,
        text_seconds=profile.timings.knock,
        loader=LineSettings(profile.baudrate, "N"),
        application=LineSettings(port.baudrate, port.parity),
    )
