"""Erasing by the STM32 system memory bootloader, and looking at what became of what was erased or written.

The loader acknowledges what write protection keeps it from doing (AN3155, 3.6 to 3.8: "no error is returned").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..errors import OperationFailed, PartProtected, PartRefused, Unsupported, WrongLayout
from ..memory import MemoryMap, Range
from .codec import MassErase
from .erase_plan import chunks, erasures
from .identity import FoundPart
from .loader import Stm32Loader
from .parts import FLASH_START
from .profile import Stm32PartProfile

ERASE_CHUNK_SECONDS = 0.5
"""About how long the pages of one Erase command take at most, so that progress and cancelling stay fine-grained."""
LAST_PAGE = 0xFF
"""Of Erase. Extended Erase sends each page as two bytes, and a profile's numbers fit into these."""
UNKNOWN_ERASE_SECONDS = 5.0
UNKNOWN_MASS_SECONDS = 40.0
"""For a part of which only its memory is known."""
USUAL_UNITS = tuple(1 << power for power in range(7, 19))
"""Bytes. The erase units of STM32 and of their clones, from 128 bytes to 256 KiB."""
LOOK = 16
"""Bytes read of what was erased, to see that it was."""
WRITE_PROTECTED_REMEDY = (
    "Lift its write protection, which proxyflash does not: stm32flash -u does, or ST's own tools. If it has none, the "
    "flash is worn out there."
)
DESCRIBED_REMEDY = (
    "Are start, erase_unit, number and erased_value right, which the profile's memory gives? If they are, the flash is "
    "write-protected there: stm32flash -u lifts that, or ST's own tools."
)


class Eraser:
    """Of one part; `part` and `memory` come with each connection. `changed` is called once something was erased."""

    part: FoundPart
    memory: MemoryMap

    def __init__(self, loader: Stm32Loader, profile: Stm32PartProfile, changed: Callable[[], object]) -> None:
        self._loader = loader
        self._profile = profile
        self._changed = changed
        self._more: bool | None = None
        self._erased: set[int] = set()
        self.is_wary = False
        """Something was erased for a second time, so it didn't hold what was written: every step is looked at."""

    def found(self, part: FoundPart, memory: MemoryMap) -> None:
        self.part, self.memory, self._more = part, memory, None

    def check(self, ranges: Sequence[Range]) -> None:
        """Raises Unsupported where the loader has no name for a page that is not erased with all others."""
        for what, units in self._erasures(ranges):
            if what is None:
                self._check_numbers(units)

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        """By a mass erase where everything is to be erased, by a bank's where all of it is, else by pages."""
        done = 0
        self.is_wary |= any(unit.start in self._erased for unit in ranges)
        for what, units in list(self._erasures(ranges)):
            if what is not None and self._mass_erased(what):
                self._look(units)
                done += sum(unit.size for unit in units)
                yield done
                continue
            self._check_numbers(units)
            for chunk in chunks(units, self._pages_at_once):
                self._erase_pages(chunk)
                self._look(chunk)
                done += sum(unit.size for unit in chunk)
                yield done

    def suspects(self, unit: Range) -> list[int]:
        """Where the unit of this number lies in flash of other units: of one size all, or as the part's family has them."""
        if not self._profile.memory:
            return []
        number, family, size = self.part.numbers[unit.start], self.part.family, self.part.flash_size
        places = {FLASH_START + number * usual for usual in USUAL_UNITS}
        if family is not None:
            places |= {start for start, known in family.page_numbers().items() if known == number}
        end = FLASH_START + size if size else self.memory.regions[-1].end
        return sorted(start for start in places if start + LOOK <= end and not unit.start <= start < unit.end)

    def seconds_for(self, units: Sequence[Range]) -> float:
        """The part's limits for erasing these."""
        family = self.part.family
        assert family is not None, "nothing is known of other parts"
        return sum(
            family.mass_seconds if what else len(some) * family.erase_seconds for what, some in self._erasures(units)
        )

    def look_at_block(self, address: int, data: bytes) -> None:
        """Raises PartProtected where the block was acknowledged and not written, OperationFailed where it is another one."""
        if self._holds(address, data):
            return
        if self._holds(address, bytes([self.blank(address)]) * len(data)):
            raise PartProtected(
                f"the loader acknowledged the block at 0x{address:08X}, and nothing was written: it is write-protected",
                remedy=WRITE_PROTECTED_REMEDY,
            )
        raise OperationFailed(f"the block at 0x{address:08X} was acknowledged, and holds something else")

    def blank(self, address: int) -> int:
        """What a byte that was erased reads as."""
        region = self.memory.region_of(address)
        return region.erased_value if region is not None else 0xFF

    def _erasures(self, units: Sequence[Range]) -> Iterator[tuple[MassErase | None, Sequence[Range]]]:
        return erasures(units, self.memory, self._banks, mass=self._takes_mass_erase(units))

    def _takes_mass_erase(self, units: Sequence[Range]) -> bool:
        """Whether a mass erase erases these and nothing else. Parts may have more flash than they say: what lies beyond
        would go with it."""
        everything = sum(region.size for region in self.memory.regions)
        if not self._has_mass_erase or sum(unit.size for unit in units) != everything:
            return False
        if self._more is None:
            region = self.memory.regions[-1]
            try:
                self._more = not self._holds(region.end, bytes([region.erased_value]) * LOOK)
            except PartRefused:
                self._more = False
        return not self._more

    @property
    def _has_mass_erase(self) -> bool:
        if self._profile.mass_erase is not None:
            return self._profile.mass_erase
        return self.part.family is not None and self.part.family.mass and not self._profile.memory

    @property
    def _banks(self) -> dict[MassErase, Range]:
        family, size = self.part.family, self.part.flash_size
        if not (self.part.has_extended_erase and self._has_mass_erase) or family is None or self._profile.memory:
            return {}
        found = {MassErase.BANK_1: family.bank(1, size), MassErase.BANK_2: family.bank(2, size)}
        return {what: bank for what, bank in found.items() if bank is not None}

    @property
    def _page_seconds(self) -> float:
        return self.part.family.erase_seconds if self.part.family else UNKNOWN_ERASE_SECONDS

    @property
    def _pages_at_once(self) -> int:
        if self._profile.memory:
            return 1  # The engine looks what became of each.
        return max(1, min(self._loader.most_pages, int(ERASE_CHUNK_SECONDS / (self._page_seconds / 10))))

    def _mass_erased(self, what: MassErase) -> bool:
        """False where the loader refuses it."""
        seconds = self.part.family.mass_seconds if self.part.family else UNKNOWN_MASS_SECONDS
        return self._loader.mass_erase(what, extended=self.part.has_extended_erase, seconds=seconds)

    def _check_numbers(self, units: Sequence[Range]) -> None:
        """Erase sends each page as one byte (AN3155, 3.7; AN3154, 3.9). Raises Unsupported."""
        for unit in () if self.part.has_extended_erase else units:
            if (number := self.part.numbers[unit.start]) > LAST_PAGE:
                raise Unsupported(
                    f"{unit} is the erase unit {number}, and this loader has no Extended Erase: it erases 0 to {LAST_PAGE}",
                    remedy="Are the numbers in the profile's memory right? The units above go only with all others at once: "
                    "with mass_erase = true in the profile, where the whole memory is to be erased.",
                )

    def _erase_pages(self, units: Sequence[Range]) -> None:
        numbers = [self.part.numbers[unit.start] for unit in units]
        seconds = self._page_seconds * len(units)
        self._loader.erase_pages(numbers, extended=self.part.has_extended_erase, seconds=seconds)

    def _look(self, erased: Sequence[Range]) -> None:
        """Looks whether the first of these units was erased, or all of them where something failed before.

        Raises PartProtected if not, and WrongLayout where a person described the units.
        """
        self._changed()
        self._erased.update(unit.start for unit in erased)
        for unit in erased if self.is_wary else erased[:1]:
            if not self._holds(unit.start, bytes([self.blank(unit.start)]) * min(LOOK, unit.size)):
                if self._profile.memory:
                    raise WrongLayout(
                        f"the loader acknowledged erasing {unit}, which is not blank now: another place may be erased instead",
                        remedy=DESCRIBED_REMEDY,
                    )
                raise PartProtected(
                    f"the loader acknowledged erasing {unit}, and nothing was erased: it is write-protected",
                    remedy=WRITE_PROTECTED_REMEDY,
                )

    def _holds(self, address: int, data: bytes) -> bool:
        """A read that the wire garbled proves nothing: it is read again."""
        return any(self._loader.read_memory(address, len(data)) == data for _ in range(2))
