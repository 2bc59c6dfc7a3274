"""STM32 parts, from stm32.toml beside this file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ..memory import EraseRun, Region

FLASH_START = 0x08000000


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
    uid: int
    uid_words: tuple[int, ...]
    size: int
    erase_seconds: float
    mass_seconds: float
    program_seconds: float

    def region(self, size: int | None = None) -> Region:
        """The flash of a part of this family that has `size` bytes of it; None: as many as the largest."""
        total = min(size or self.flash, self.flash)
        units: list[EraseRun] = []
        covered = 0
        while covered < total:
            for count, unit in self.sectors:
                fitting = min(count, -(-(total - covered) // unit))
                if fitting > 0:
                    units.append(EraseRun(fitting, unit))
                    covered += fitting * unit
        return Region(
            "flash",
            FLASH_START,
            covered,
            tuple(units),
            write_alignment=self.write,
            erased_value=self.erased,
            vector_table=True,
        )


@cache
def families() -> dict[int, Stm32Family]:
    """All families by product id."""
    rows = tomllib.loads((files(__package__) / "stm32.toml").read_text(encoding="utf-8"))["family"]
    return {
        row["id"]: Stm32Family(
            row["id"],
            row["name"],
            row["flash"],
            tuple((count, size) for count, size in row["sectors"]),
            row["write"],
            row.get("block", 256),
            row.get("erased", 0xFF),
            row.get("mass", True),
            row["uid"],
            tuple(row.get("uid_words", (0, 4, 8))),
            row["size"],
            float(row["erase_s"]),
            float(row["mass_s"]),
            row["program_us"] / 1e6,
        )
        for row in rows
    }
