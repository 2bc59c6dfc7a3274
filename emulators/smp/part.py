"""The facts of the parts in parts.toml, which says what each means."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from ..flash import NorFlash
from ..mcuboot.loader import Mcuboot, Mode, Pair
from ..mcuboot.slot import Slot
from ..supply import Supply


@dataclass(frozen=True, slots=True)
class SmpPart:
    """A table of parts.toml. Times in seconds."""

    name: str
    base: int
    sectors: tuple[tuple[int, int, float], ...]
    program_unit: int
    program_seconds: float
    pairs: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    scratch: int
    mode: Mode
    ram: range
    board: str
    processor: str

    def make_flash(self, supply: Supply, path: Path | None, busy: Callable[[float], None]) -> NorFlash:
        """It takes zeroes over what is written, as flash without an ECC does: MCUboot completes what a cut has torn."""
        seconds = {size: erase for _, size, erase in self.sectors}
        return NorFlash(
            self.base,
            [(count, size) for count, size, _ in self.sectors],
            supply,
            program_unit=self.program_unit,
            program_seconds=self.program_seconds,
            erase_seconds=seconds.__getitem__,
            path=path,
            strict=False,
            busy=busy,
        )

    def make_loader(self, flash: NorFlash, mode: Mode, *, no_downgrade: bool) -> Mcuboot:
        pairs = [Pair(Slot(flash, *primary), Slot(flash, *secondary)) for primary, secondary in self.pairs]
        return Mcuboot(flash, pairs, self.scratch, mode, no_downgrade=no_downgrade)


@cache
def parts() -> Mapping[str, SmpPart]:
    """All parts, by name."""
    tables = tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))
    found = {}
    for name, table in tables.items():
        start, size = table.pop("ram")
        mode = Mode(table.pop("mode"))
        found[name] = SmpPart(name, ram=range(start, start + size + 1), mode=mode, **table)
    return found
