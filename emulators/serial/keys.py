"""What the `emulated` tables of parts on serial lines have in common: the application's line, and what drives the pins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ..device import BadDevice
from ..keys import Range, Table, around_group
from .board import Sensor
from .boot_pin_board import Driver, Pins
from .line import Line


@dataclass(frozen=True, kw_only=True)
class UartKeys(Table):
    """The keys of each part on a serial line. Every method raises BadDevice."""

    firmware: str | None = None
    """Raw binary that the flash of a new part holds. A relative path starts at the bench file's folder. Default: the flash is
    erased."""
    app_baudrate: Annotated[int, Range(1)] = 115_200
    """Bit rate of the application's line in bit/s."""
    app_parity: Literal["N", "E", "O"] = "N"
    """Parity of the application's line: none, even or odd."""

    def sensor(self, version: Mapping[str, str]) -> Sensor:
        line = Line(self.app_baudrate, 8, self.app_parity, 1)
        if not version:
            return Sensor(line)
        before, after = around_group(version["match"])
        return Sensor(line, version["send"].encode(), lambda text: f"{before}{text}{after}\r\n".encode())


@dataclass(frozen=True, kw_only=True)
class BootPinKeys(UartKeys):
    """The keys of a part that a strap pin keeps in its bootloader. A subclass has the key that holds the pin high."""

    strap: ClassVar[str]
    """The name of the strap pin: as the key that holds the pin high, and in `wiring`."""

    wiring: str = "none"
    """What the adapter's outputs drive."""

    def pins(self) -> Pins:
        drivers: dict[str, Driver] = {}
        for wish in [] if self.wiring == "none" else self.wiring.split(","):
            found = re.fullmatch(rf"(!?)(dtr|rts)-(reset|{self.strap})", wish.strip())
            if found is None or found[3] in drivers or found[2] in [driver.output for driver in drivers.values()]:
                raise BadDevice("wiring", f'{self.wiring!r} is not of the form "dtr-reset,rts-{self.strap}"')
            drivers[found[3]] = Driver(found[2], inverted=bool(found[1]))
        return Pins(drivers.get("reset"), drivers.get(self.strap), strap_held=getattr(self, self.strap))
