"""Serial ports that are USB devices themselves, and come back under another name: found again.

A board whose processor is its own USB device leaves the bus at a reset, and what comes back (its bootloader, another
program) may have other ids, another serial number and another tty. What stays is the socket that it is plugged into:
sysfs names it as bus and port path, "1-4.2". Where that changes too, as behind a virtual machine that the device is handed to
again, the device is known by its serial number, or by being the only device that came.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..usb import claims
from ..usb.claims import Claim, Claimed

TTYS = Path("/sys/class/tty")
BRIDGES = frozenset(
    (
        *(
            f"{vendor}:{product}"
            for vendor in ("2341", "2a03")
            for product in ("0001", "0010", "003b", "003f", "0042", "0043", "0044", "0242", "0243")
        ),
        *(f"1a86:{product:04x}" for product in range(0x55D2, 0x55ED)),
    )
)
"""Ids of devices of the class CDC-ACM that have a UART between themselves and the part: the USB processors of Arduino's boards
(Arduino's boards.txt), and WCH's converters, such as CH343 and CH9102 (WCH's ch343.c)."""
PROBE = re.compile(r"link|dap\b|debug|probe|uart", re.IGNORECASE)
"""What debug probes call themselves, whose port is a UART too."""
MOST_LISTED = 5
"""Ports that a message names."""


@dataclass(frozen=True, slots=True)
class UsbTty:
    """A serial port of the device that is plugged in at `place` now. `number`: of the device, another each time.

    `interface`: which of the device's interfaces it is. The rest: the device's own descriptors, "" where it has none.
    """

    place: str
    number: int
    path: str
    interface: int = field(default=0, compare=False)
    ids: str = field(default="", compare=False)
    product: str = field(default="", compare=False)
    serial: str = field(default="", compare=False)

    def __str__(self) -> str:
        about = " ".join(text for text in (self.ids, self.product) if text)
        serial = f"serial number {self.serial}" if self.serial else "no serial number"
        return f"{self.path} ({', '.join(text for text in (about, serial, f'USB port {self.place}') if text)})"


def ports() -> Sequence[UsbTty]:
    """All of this host, by name."""
    found = (_look(device.parent) for device in sorted(TTYS.glob("tty*/device")))
    return [port for port in found if port is not None]


def usb_tty(path: str) -> UsbTty | None:
    """Where a port is plugged in; None for a port that isn't on USB, or isn't there."""
    own = str(Path(path).resolve()) if path.startswith("/") else path
    name = Path(own).name
    port = _look(TTYS / name) if name.startswith("tty") else None
    return port if port is not None and port.path == own else None


def alike(port: UsbTty) -> Sequence[UsbTty]:
    """This port, and the same port of each other device that says the same of itself."""

    def said(one: UsbTty) -> tuple[object, ...]:
        return one.ids, one.product, one.serial, one.interface

    return [port, *(other for other in ports() if other.place != port.place and said(other) == said(port))]


def has_bit_rate(path: str) -> bool:
    """Whether the bit rate of a port means something: not where the part itself is a USB device of the class CDC-ACM."""
    if not path.startswith("/") or not Path(path).resolve().name.startswith("ttyACM"):
        return True
    found = usb_tty(path)
    return found is not None and (found.ids in BRIDGES or PROBE.search(found.product) is not None)


def listed(found: Sequence[UsbTty]) -> str:
    """For messages: which USB serial ports are there."""
    more = f", and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return ", ".join(map(str, found[:MOST_LISTED])) + more if found else "none"


class Followed:
    """The USB device behind a port, which leaves and comes back. Made, or seen again, while it is there.

    `device`: None where the port isn't on this host's USB.
    """

    _all: ClassVar[weakref.WeakValueDictionary[int, Followed]] = weakref.WeakValueDictionary()

    def __init__(self, path: str, owner: str = "") -> None:
        """`owner`: the bus whose port it is; a device that follows that of the same bus is the same."""
        self._owner = owner or path
        self.device: UsbTty | None = None
        self._there: set[tuple[str, int]] = set()
        self._serials: set[str] = set()
        """Of its application, and of its bootloader."""
        self._claim = Claim()
        weakref.finalize(self, self._claim.close)
        self.see(path)
        self._all[id(self)] = self

    def see(self, path: str) -> None:
        """The device is there, at this path; what else is there is not it. Nothing changes where it has left already."""
        found = usb_tty(path)
        if found is not None:
            self.device = found
            self._serials.add(found.serial)
            self._there = {(port.place, port.number) for port in ports()}
            self._claim.say(found.place, self._serials)

    def now(self, *, only_one: bool) -> UsbTty | None:
        """Its port now: at its place, else where `claims.returned` sees it; the port of the same interface, or the first. None:
        it is not back yet, or not known."""
        before = self.device
        if before is None:
            return None
        now, others = ports(), self._others()
        own = Claimed(before.place, claims.marks(self._serials))
        seen = {port: Claimed(port.place, claims.marks([port.serial])) for port in now}
        place = before.place
        if not any(port.place == place and not claims.is_anothers(seen[port], own, others) for port in now):
            places = {before.place, *(port.place for port in now)}
            came = [seen[port] for port in now if (port.place, port.number) not in self._there]
            place = claims.returned(
                own, came, others, lambda place: place not in places and claims.is_away(place), only_one=only_one
            )
        wanted = before.interface
        found = [port for port in now if port.place == place]
        return min(found, key=lambda port: (port.interface != wanted, port.interface, port.path), default=None)

    def _others(self) -> list[Claimed]:
        mine = [other for ref in self._all.valuerefs() if (other := ref()) is not None and other._owner != self._owner]
        said = (Claimed(other.device.place, claims.marks(other._serials)) for other in mine if other.device is not None)
        return [*said, *claims.of_others()]


def _look(tty: Path) -> UsbTty | None:
    """A tty's `device` is an interface, or a port of one; the device with its number is above that."""
    try:
        interface = (tty / "device").resolve(strict=True)
        number = 0
        for folder in (interface, *interface.parents):
            if said := _said(folder, "bInterfaceNumber"):
                number = int(said, 16)
            if (folder / "devnum").is_file() and (folder / "idVendor").is_file():
                return UsbTty(
                    folder.name,
                    int((folder / "devnum").read_text()),
                    f"/dev/{tty.name}",
                    number,
                    ":".join(_said(folder, name) for name in ("idVendor", "idProduct")),
                    _said(folder, "product"),
                    _said(folder, "serial"),
                )
    except (OSError, ValueError):
        pass
    return None


def _said(folder: Path, name: str) -> str:
    with suppress(OSError):
        return (folder / name).read_bytes().decode(errors="replace").strip()
    return ""
