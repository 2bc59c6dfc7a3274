"""Serial ports that are USB devices themselves, and come back under another name: found again by their place.

A board whose processor is its own USB device leaves the bus at a reset, and what comes back (its boot loader, another
program) may have other ids, another serial number and another tty. What stays is the socket that it is plugged into:
sysfs names it as bus and port path, "1-4.2".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TTYS = Path("/sys/class/tty")


@dataclass(frozen=True, slots=True)
class UsbTty:
    """A serial port of the device that is plugged in at `place` now. `number`: of the device, another each time."""

    place: str
    number: int
    path: str


def usb_tty(url: str, ttys: Path = TTYS) -> UsbTty | None:
    """Where a port is plugged in; None for one that is no USB device, or isn't there."""
    if not url.startswith("/"):
        return None
    return _look(ttys / Path(url).resolve().name)


def at_place(place: str, ttys: Path = TTYS) -> UsbTty | None:
    """The port of what is plugged in there now, the first of several; None: none is."""
    found = (_look(tty) for tty in sorted(ttys.glob("tty*")))
    return next((port for port in found if port is not None and port.place == place), None)


def _look(tty: Path) -> UsbTty | None:
    """A tty's `device` is an interface, or a port of one; the device with its number is above that."""
    try:
        interface = (tty / "device").resolve(strict=True)
        for folder in (interface, *interface.parents):
            if (folder / "devnum").is_file() and (folder / "idVendor").is_file():
                return UsbTty(folder.name, int((folder / "devnum").read_text()), f"/dev/{tty.name}")
    except (OSError, ValueError):
        pass
    return None
