"""STM32 parts, from parts.toml beside this file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from ..memory import EraseRun, Range, Region, Watch
from ..vector_table import VectorTable

FLASH_START = 0x08000000
LEAST_WRITE = 4
"""The loader takes whole words, whatever the flash programs at once (AN3155, 3.6). In bytes."""


class OptionLayout(NamedTuple):
    """The sectors that a part has while `bit` of the option word at `address` is `value`."""

    address: int
    bit: int
    value: int
    sectors: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Stm32Family:
    """One row; the file's head says what each value means. Sizes in bytes, times in seconds."""

    product_id: int
    name: str
    flash: int
    sectors: tuple[tuple[int, int], ...]
    write: int
    block: int
    erased: int
    mass: bool
    banks: int
    bank_gap: bool
    uid: int
    uid_words: tuple[int, ...]
    size: int
    registers_from: int
    erase_seconds: float
    mass_seconds: float
    program_seconds: float
    option: OptionLayout | None = None

    def by_option(self, word: int) -> Stm32Family:
        """The family as a part is that has this option word: its sectors may be others than those as delivered."""
        option = self.option
        if option is None or word >> option.bit & 1 != option.value:
            return self
        return replace(self, sectors=option.sectors, banks=1)

    @property
    def write_alignment(self) -> int:
        return max(LEAST_WRITE, self.write)

    def regions(self, size: int | None = None) -> tuple[Region, ...]:
        """The flash of a part of this family that has `size` bytes of it; None: as many as the largest."""
        total = min(size or self.flash, self.flash)
        if self.bank_gap and total * 2 == self.flash:
            return (
                self._region("bank 1", FLASH_START, total // 2),
                self._region("bank 2", FLASH_START + self.flash // 2, total // 2),
            )
        return (self._region("flash", FLASH_START, total),)

    def bank(self, number: int, size: int | None = None) -> Range | None:
        """Bank 1 or 2 of a part with `size` bytes of flash; None where it isn't known to have one.

        Smaller parts of a family with two banks may have but one, by an option: only of the largest it is known, and of
        parts whose banks lie apart.
        """
        regions = self.regions(size)
        if self.banks == 2 and len(regions) == 2:
            return Range(regions[number - 1].start, regions[number - 1].size)
        if self.banks == 2 and regions[0].size == self.flash:
            half = self.flash // 2
            return Range(FLASH_START + (number - 1) * half, half)
        return None

    def page_numbers(self) -> dict[int, int]:
        """What Erase and Extended Erase call each erase unit, by its address: it counts on over the whole family's."""
        whole = self._region("flash", FLASH_START, self.flash)
        return {unit.start: number for number, unit in enumerate(whole.erase_units(whole.start, whole.end))}

    def _region(self, name: str, start: int, size: int) -> Region:
        units = tuple(self._units(size))
        covered = sum(run.count * run.size for run in units)
        return Region(
            name,
            start,
            covered,
            units,
            write_alignment=self.write_alignment,
            erased_value=self.erased,
            head=VectorTable() if start == FLASH_START else None,
            watch=Watch.FIRST,
        )

    def _units(self, size: int) -> Iterator[EraseRun]:
        """The sectors from the start on, repeated until they cover `size`."""
        left = size
        while left > 0:
            for count, unit in self.sectors:
                fitting = min(count, -(-left // unit))
                if fitting > 0:
                    yield EraseRun(fitting, unit)
                    left -= fitting * unit


@cache
def families() -> dict[int, Stm32Family]:
    """All families by product id."""
    rows = tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))["family"]
    return {row["id"]: _family(row) for row in rows}


def _sectors(pairs: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((count, size) for count, size in pairs)


def _family(row: dict[str, Any]) -> Stm32Family:
    option = row.get("option")
    return Stm32Family(
        product_id=row["id"],
        name=row["name"],
        flash=row["flash"],
        sectors=_sectors(row["sectors"]),
        write=row["write"],
        block=row.get("block", 256),
        erased=row.get("erased", 0xFF),
        mass=row.get("mass", True),
        banks=row.get("banks", 1),
        bank_gap=row.get("bank_gap", False),
        uid=row["uid"],
        uid_words=tuple(row.get("uid_words", (0, 4, 8))),
        size=row["size"],
        registers_from=row.get("registers_from", 1),
        erase_seconds=float(row["erase_s"]),
        mass_seconds=float(row["mass_s"]),
        program_seconds=row["program_us"] / 1e6,
        option=OptionLayout(**option | {"sectors": _sectors(option["sectors"])}) if option else None,
    )
