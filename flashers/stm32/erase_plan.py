"""Which erase commands erase a list of erase units: all at once, a bank at once, or page by page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..memory import MemoryMap, Range
from .codec import MassErase


def erasures(
    units: Sequence[Range], memory: MemoryMap, banks: Mapping[MassErase, Range], *, mass: bool
) -> Iterator[tuple[MassErase | None, Sequence[Range]]]:
    """What to erase in one go, and what by pages (None); what holds the first of `units` comes first.

    `banks`: those that can be erased by themselves. `mass`: all can.
    """
    if mass and _size(units) == sum(region.size for region in memory.regions):
        yield MassErase.ALL, units
        return
    whole = {what: bank for what, bank in banks.items() if _size(_inside(units, bank)) == bank.size}
    groups: dict[MassErase | None, list[Range]] = {}
    for unit in units:
        what = next((what for what, bank in whole.items() if bank.start <= unit.start < bank.end), None)
        groups.setdefault(what, []).append(unit)
    yield from groups.items()


def chunks(units: Sequence[Range], count: int) -> Iterator[Sequence[Range]]:
    """The pages of each erase command: the first one alone, then `count` at a time."""
    yield units[:1]
    for first in range(1, len(units), count):
        yield units[first : first + count]


def _inside(units: Sequence[Range], bank: Range) -> list[Range]:
    return [unit for unit in units if bank.start <= unit.start < bank.end]


def _size(units: Sequence[Range]) -> int:
    return sum(unit.size for unit in units)
