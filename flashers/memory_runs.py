"""Memory as a person describes it in a bench file: a list of runs of erase units, each with its start.

A run has units of one size; a part that mixes sizes (4 x 16 KiB, 64 KiB, 7 x 128 KiB) has one run for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .memory import EraseRun, Region, Watch
from .settings import Field, Settings

MOST = 1 << 32
"""Where addresses end, in bytes."""


class MemoryRun(Settings):
    """A run of erase units of one size."""

    name: str = "flash"
    """Name of the memory, for messages."""
    start: int = Field(ge=0, lt=MOST)
    """Address of the run."""
    size: int = Field(gt=0, le=MOST)
    """Bytes of the run."""
    erase_unit: int = Field(gt=0)
    """Bytes of each erase unit (sector, page) in the run."""

    def check_together(self) -> None:
        if self.size % self.erase_unit:
            raise ValueError(f"size is not a multiple of erase_unit ({self.size} and {self.erase_unit})")
        if self.end > MOST:
            raise ValueError("the run ends beyond 32 bits of address")

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def units(self) -> EraseRun:
        return EraseRun(self.size // self.erase_unit, self.erase_unit)


def listed(value: object, example: str) -> object:
    """For validators: refuses one table in the place of a list of runs, and shows what to write. Raises ValueError."""
    if isinstance(value, dict):
        raise ValueError(f"memory is a list of runs of erase units, each with its start: memory = {example}")
    return tuple(value) if isinstance(value, list) else value


def check_apart(runs: Sequence[MemoryRun]) -> None:
    """Raises ValueError where two overlap."""
    for low, high in pairwise(sorted(runs, key=lambda run: run.start)):
        if low.end > high.start:
            raise ValueError(f"the runs at 0x{low.start:08X} and 0x{high.start:08X} overlap")


def regions(runs: Sequence[MemoryRun], **facts: Any) -> tuple[Region, ...]:
    """Runs that follow one another become one region. `facts` are further fields of Region."""
    found: list[Region] = []
    for run in sorted(runs, key=lambda run: run.start):
        before = found.pop() if found and found[-1].end == run.start and found[-1].name == run.name else None
        start, units = (before.start, before.units) if before else (run.start, ())
        found.append(Region(run.name, start, run.end - start, (*units, run.units), watch=Watch.EACH, **facts))
    return tuple(found)
