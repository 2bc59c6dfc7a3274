"""`Lookout`: whether an erase took more than was planned, or less. Seen from a few bytes, before and after.

A part that gets numbers of erase units erases by its own numbering, and one whose memory a person described may have other
units than that. So bytes outside of the units are read before the first erase, and again after it: both neighbours, the
far ends, and more of them where a person gave the units. Bytes that were blank before prove nothing, and have lost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple

from .errors import PartProtected, PartRefused, SecurityDenied, Unsupported, WrongLayout
from .memory import Erase, MemoryMap, Range, Region, Watch

LOOK = 16
"""Bytes read at each place."""
GRID = 64
"""Where a person described the memory: the greatest number of places, evenly spread, and of starts of units."""
STATE = (
    "the part's erase units are not those of the plan. Nothing was erased or written after that. The part is in its "
    "bootloader, and what it holds is not whole"
)
NEAREST = 3
"""Places on each side of what was erased that are looked at each time."""
SUSPECTED = 8
"""Units, the first to be erased, of which it is asked what else they may be."""
SAID = 6
"""Places that a message names, at most."""


class _Witness(NamedTuple):
    """What was read at an address, and was not blank."""

    address: int
    data: bytes

    def is_in(self, ranges: Sequence[Range]) -> bool:
        return any(item.start <= self.address and self.address + len(self.data) <= item.end for item in ranges)

    def is_outside_of(self, ranges: Sequence[Range]) -> bool:
        return all(self.address + len(self.data) <= item.start or item.end <= self.address for item in ranges)


class Lookout:
    """For the units that are to be erased, in their order. `read`: an address and a size, the bytes there. `suspects`:
    addresses of what the part may erase instead of a unit, which may lie outside of the memory that was described.

    Reads at once what it compares with later.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        memory: MemoryMap,
        units: Sequence[Range],
        suspects: Callable[[Range], Sequence[int]] = lambda unit: (),
    ) -> None:
        self._read = read
        self._memory = memory
        self._units = units
        region = memory.region_of(units[0].start) if units else None
        self._watch = region.watch if region is not None else Watch.NO
        self._sees_inside = region is not None and region.erase is Erase.BY_UNIT
        self._is_raised = False
        """What is wrong with the erase units was raised."""
        self._count = 0
        """How many of the units are erased."""
        self._suspects: dict[Range, frozenset[int]] = {}
        if self._watch is Watch.EACH:
            self._suspects = {unit: frozenset(suspects(unit)) for unit in units[:SUSPECTED]}
        self._witnesses = list(self._seen()) if self._watch is not Watch.NO else []

    def after(self, done: int) -> None:
        """To be called after each step of erasing, with the bytes erased so far. Raises WrongLayout."""
        first = self._count == 0
        self._count = self._units_in(done)
        if self._witnesses and (first or self._watch is Watch.EACH):
            # A bank that goes at once takes its units in no order of ours: then only what is not planned must be there.
            together = self._count > 1 and self._watch is not Watch.EACH
            erased = self._units if together else self._units[: self._count]
            self._check_outside(erased[-1], self._near(erased))
            if self._sees_inside and not together:
                self._check_inside(erased)
            self._witnesses = [witness for witness in self._witnesses if not witness.is_in(erased)]

    def after_refusal(self) -> None:
        """To be called where the part did not erase what it was asked to: something else may be gone instead."""
        if self._count < len(self._units) and not self._is_raised:
            unit = self._units[self._count]
            # Of the others a part may have erased some before it refused.
            self._check_outside(unit, [witness for witness in self._witnesses if witness.is_outside_of(self._units)])

    def _units_in(self, done: int) -> int:
        """How many of the first units make up `done` bytes; all units if the bytes end within one."""
        sizes = accumulate(unit.size for unit in self._units)
        return next((count for count, total in enumerate(sizes, 1) if total == done), len(self._units))

    def _check_outside(self, unit: Range, witnesses: Sequence[_Witness]) -> None:
        lost = [witness for witness in witnesses if self._is_lost(witness)]
        if lost:
            places = ", ".join(f"0x{witness.address:08X}" for witness in lost[:SAID])
            raise self._wrong(f"erasing {unit} has also erased what lay at {places}: {STATE}")

    def _wrong(self, cause: str) -> WrongLayout:
        self._is_raised = True
        return WrongLayout(cause)

    def _is_lost(self, witness: _Witness) -> bool:
        """Whether something else is there now: it is blank, or holds what came with a page. A garbled read is not a proof."""
        now = self._bytes(witness.address)
        return now not in (None, witness.data) and now == self._bytes(witness.address)

    def _check_inside(self, erased: Sequence[Range]) -> None:
        unit = erased[-1]
        kept = (witness for witness in self._witnesses if witness.is_in([unit]))
        if any(self._bytes(witness.address) == witness.data for witness in kept):
            self._check_outside(unit, [witness for witness in self._witnesses if witness.is_outside_of(erased)])
            raise self._wrong(f"erasing {unit} has left a part of it as it was: {STATE}")

    def _near(self, erased: Sequence[Range]) -> list[_Witness]:
        """Those that must be as they were: all of them, or the nearest on both sides, and the ends."""
        outside = [witness for witness in self._witnesses if witness.is_outside_of(erased)]
        last = erased[-1]
        if self._watch is not Watch.EACH:
            return outside
        below = [witness for witness in outside if witness.address < last.start]
        above = [witness for witness in outside if witness.address >= last.end]
        suspected = [witness for witness in outside if witness.address in self._suspects.get(last, ())]
        return list(dict.fromkeys([*below[:1], *below[-NEAREST:], *above[:NEAREST], *above[-1:], *suspected]))

    def _seen(self) -> Iterator[_Witness]:
        places = {address for region in self._memory.regions for address in self._places(region)}
        for address in sorted(places.union(*self._suspects.values())):
            region = self._memory.region_of(address) or self._memory.regions[0]
            blank = bytes([region.erased_value]) * LOOK
            data = self._bytes(address)
            # A wire may garble what it brings: twice the same is believed.
            if data is not None and data != blank and data == self._bytes(address):
                yield _Witness(address, data)

    def _bytes(self, address: int) -> bytes | None:
        """What is there; None where the part does not tell, which says nothing."""
        with suppress(PartProtected, PartRefused, SecurityDenied, Unsupported):
            return self._read(address, LOOK)
        return None

    def _places(self, region: Region) -> Iterator[int]:
        """Addresses of LOOK bytes each, within the region."""
        if not region.readable or region.size < LOOK:
            return
        yield from (region.start, region.end - LOOK)
        if region.watch is Watch.NO:
            return
        inside = [unit for unit in self._units if region.start <= unit.start < region.end]
        if not inside:
            return
        last = [max(inside, key=lambda unit: unit.end)] if region.watch is Watch.EACH else []
        for unit in (inside[0], *last):
            around = (max(region.start, unit.start - 1), min(region.end, unit.end + 1))
            for item in region.erase_units(*around):
                if item.size >= LOOK:
                    yield from (item.start, item.start + item.size // 2 // LOOK * LOOK, item.end - LOOK)
        if region.watch is Watch.EACH:
            yield from (unit.start for unit in inside[:: -(-len(inside) // GRID)] if unit.size >= LOOK)
            step = 1 << max(10, (region.size // GRID - 1).bit_length())
            yield from range(region.start, region.end - LOOK, step)
