"""`MemoryMap`: what memory a part has, in the unit in which it erases and the alignment in which it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

from .image import FirmwareImage, Segment


class Range(NamedTuple):
    """Addresses [start, start + size), in bytes."""

    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    def __str__(self) -> str:
        return f"0x{self.start:08X}..0x{self.end - 1:08X}"


@dataclass(frozen=True, slots=True)
class EraseRun:
    """`count` erase units of `size` bytes each, one after the other. Real parts mix sizes: 4 x 16K, 64K, 7 x 128K."""

    count: int
    size: int


class Erase(Enum):
    """What erases the units of a region."""

    BY_UNIT = auto()
    """A command of the bootloader: the engine erases what it is about to write."""
    BY_WRITE = auto()
    """Writing the first bytes of a unit erases it before, and nothing else does (an AVR loader's pages, of which a write has
    all bytes): units are written from their start on, in order of address, and the engine erases the image's first one
    alone, so that nothing boots until that is written again. Where a unit takes several writes, the part may boot
    while the image's first one is written."""
    NEVER = auto()
    """Nothing needs to be erased, or writing does so byte by byte (an EEPROM): the engine erases nothing."""


class Write(Enum):
    """In which pieces a region takes what is written."""

    RUNS = auto()
    """Any aligned run of bytes, in any order: what is blank or there already is left out."""
    WHOLE_SEGMENTS = auto()
    """Each segment of the image whole, in order of address, because the part judges it as such (a UDS download)."""


class Watch(Enum):
    """After which erases the engine looks whether more went than was planned, where the part can be read."""

    NO = auto()
    """After none: the part itself says where its erase units are."""
    FIRST = auto()
    """After the first: the part gets numbers of units, which are counted by a table of parts."""
    EACH = auto()
    """After each: a person described the units."""


class Head(ABC):
    """What a processor starts by, at the start of a region.

    `machine`: the machine of ELF files for such a processor; "": any may be.
    """

    machine: ClassVar[str] = ""

    @abstractmethod
    def check(self, image: FirmwareImage, region: Region) -> None:
        """Raises ImageWrongPart where the placed image has none that this part could start by."""


@dataclass(frozen=True, slots=True)
class Region:
    """One contiguous memory of a part.

    `units`: its erase units from `start` on; they cover the region, or ValueError is raised. Neighbouring runs of one size are
    kept as one run. `write_alignment`: writes start and end at its multiples, in bytes (a power of two); the engine pads
    with `erased_value`. `head`: what the processor starts by at the region's start, where that can be checked. `watch`: how
    far `units` are trusted. `own`: bytes that the bootloader writes itself, whatever the image has for them.
    """

    name: str
    start: int
    size: int
    units: tuple[EraseRun, ...]
    write_alignment: int = 1
    erased_value: int = 0xFF
    readable: bool = True
    writable: bool = True
    erase: Erase = Erase.BY_UNIT
    write: Write = Write.RUNS
    head: Head | None = None
    watch: Watch = Watch.NO
    own: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        covered = sum(run.count * run.size for run in self.units)
        if not self.size or covered != self.size:
            raise ValueError(f"the region {self.name!r} has {self.size:,} bytes, and its erase units {covered:,}")
        runs = groupby(self.units, key=lambda run: run.size)
        object.__setattr__(self, "units", tuple(EraseRun(sum(run.count for run in same), size) for size, same in runs))

    @property
    def end(self) -> int:
        return self.start + self.size

    def erase_units(self, start: int, end: int) -> Iterator[Range]:
        """The erase units that [start, end) touches, in order of address."""
        if start >= end:
            return
        unit_start = self.start
        for run in self.units:
            run_end = unit_start + run.count * run.size
            if run_end > start and unit_start < end:
                first = max(0, (start - unit_start) // run.size)
                last = min(run.count, -((unit_start - end) // run.size))
                for index in range(first, last):
                    yield Range(unit_start + index * run.size, run.size)
            unit_start = run_end


def listed(regions: Iterable[Region]) -> str:
    """The regions with their first and last addresses, for a message."""
    return "; ".join(f"{one.name} from 0x{one.start:08X} to 0x{one.end - 1:08X}" for one in regions)


def uniform(name: str, start: int, size: int, unit: int, **facts: Any) -> Region:
    """A region whose erase units all have `unit` bytes. `facts` are further fields of Region."""
    return Region(name, start, size, (EraseRun(size // unit, unit),), **facts)


@dataclass(frozen=True, slots=True)
class Beside:
    """A place that files have bytes for and that is not memory to write: fuses, signatures, option bytes.

    `contents`: what the part holds there, a byte each, None where it can't be asked; several where files have it in
    several orders. `readable`: whether it is read to see. `names_part`: other bytes are those of another part.
    """

    name: str
    start: int
    size: int
    contents: tuple[tuple[int | None, ...], ...] = ()
    readable: bool = False
    names_part: bool = False

    @property
    def end(self) -> int:
        return self.start + self.size

    def holds(self, part: Segment) -> bool | None:
        """Whether the part holds these bytes of this place already; None where `contents` doesn't show that."""
        low, high = part.address - self.start, part.end - self.start
        wanted = tuple(bytes(part.data))
        known = [content[low:high] for content in self.contents]
        if wanted in known:
            return True
        return None if not known or any(None in content for content in known) else False


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """The regions of a part, sorted by address, not overlapping. The first one takes relocatable images.

    `beside`: places outside of the regions whose meaning is known. `target`: what a file with their contents says of its
    part, where one is needed to find them again (alt_setting of DfuSe).
    """

    regions: tuple[Region, ...]
    beside: tuple[Beside, ...] = ()
    target: Mapping[str, int | str] = field(default_factory=dict)

    def region_of(self, address: int) -> Region | None:
        """The region that holds this address."""
        for region in self.regions:
            if region.start <= address < region.end:
                return region
        return None

    @property
    def starts(self) -> frozenset[int]:
        """Where the processor may start: at the known heads, or at each region's start where none is known."""
        known = frozenset(region.start for region in self.regions if region.head is not None)
        return known or frozenset(region.start for region in self.regions)

    def compared(self, parts: Iterable[Segment]) -> list[Segment]:
        """What of these parts can be compared with what the part holds: without the bytes that the bootloader writes itself."""
        found = list(parts)
        for own in (own for region in self.regions for own in region.own):
            found = [
                part.slice(low, high)
                for part in found
                for low, high in ((part.address, min(part.end, own.start)), (max(part.address, own.end), part.end))
                if low < high
            ]
        return found

    def place_of(self, address: int) -> Region | Beside | None:
        """The region that holds this address, or the place beside."""
        found = next((place for place in self.beside if place.start <= address < place.end), None)
        return self.region_of(address) or found
