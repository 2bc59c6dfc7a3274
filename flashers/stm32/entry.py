"""How an STM32 gets into its system memory bootloader and out of it again.

AN2606, 4 (bootloader activation): BOOT0 high while the part leaves reset selects the loader.
"""

from __future__ import annotations

from ...transports.serial.port import SerialPort
from ..serial.boot_pins import LineSettings, StrappedEntry, Wiring
from .profile import Stm32Profile


def stm32_entry(port: SerialPort, profile: Stm32Profile) -> StrappedEntry:
    """The port's settings as they are now are the application's, where the profile names no others."""
    entry = profile.entry
    wiring = Wiring(
        entry.reset, entry.reset_asserted, entry.boot0, entry.boot0_asserted, hold=entry.hold, settle=entry.settle
    )
    return StrappedEntry(
        port,
        wiring,
        text=profile.enter,
        text_seconds=profile.answer,
        loader=LineSettings(profile.baudrate, profile.parity),
        application=LineSettings(profile.app_baudrate or port.baudrate, profile.app_parity or port.parity),
    )
