"""What the `emulated` tables of parts on serial lines have in common: keys, their kinds, and the application's line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from ..device import BadDevice
from .board import Sensor
from .boot_pin_board import Driver, Pins
from .keys import around_group
from .line import Line

T = TypeVar("T")


class UartSettings:
    """The `emulated` table. Every method raises BadDevice."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._table = dict(table)
        self._known = {"firmware"}

    def refuse_others(self) -> None:
        """Called after all keys were asked for."""
        for key in self._table:
            if key not in self._known:
                raise BadDevice(key, f"no key of this table; there are: {', '.join(sorted(self._known))}")

    def sensor(self, version: Mapping[str, str]) -> Sensor:
        parity = self._get("app_parity", str, "N")
        if parity not in ("N", "E", "O"):
            raise BadDevice("app_parity", f"{parity!r} is none of N, E, O")
        line = Line(int(self.number("app_baudrate", 115_200)), 8, parity, 1)
        if line.baudrate < 1:
            raise BadDevice("app_baudrate", f"{line.baudrate} is not a bit rate")
        if not version:
            return Sensor(line)
        before, after = around_group(version["match"])
        return Sensor(line, version["send"].encode(), lambda text: f"{before}{text}{after}\r\n".encode())

    def pins(self, strap: str) -> Pins:
        """`strap`: the name of the strap pin, in `wiring` and as the key that holds it high."""
        wiring = self._get("wiring", str, "none")
        drivers: dict[str, Driver] = {}
        for wish in [] if wiring == "none" else wiring.split(","):
            found = re.fullmatch(rf"(!?)(dtr|rts)-(reset|{strap})", wish.strip())
            if found is None or found[3] in drivers or found[2] in [driver.output for driver in drivers.values()]:
                raise BadDevice("wiring", f'{wiring!r} is not of the form "dtr-reset,rts-{strap}"')
            drivers[found[3]] = Driver(found[2], inverted=bool(found[1]))
        return Pins(drivers.get("reset"), drivers.get(strap), strap_held=self.choice(strap, False))

    def choice(self, key: str, default: bool) -> bool:
        return bool(self._get(key, bool, default))

    def number(self, key: str, default: float) -> float:
        value = self._get(key, (int, float), default)
        if value < 0:
            raise BadDevice(key, f"{value} is below 0")
        return float(value)

    def one_of(self, parts: Mapping[str, T]) -> T:
        """The part that the table names."""
        name = self._get("part", str, "")
        if name not in parts:
            raise BadDevice("part", f"no part is called {name!r}; there are: {', '.join(parts)}")
        return parts[name]

    def _get(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        self._known.add(key)
        value = self._table.get(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BadDevice(key, f"{value!r} is of the wrong type")
        return value
