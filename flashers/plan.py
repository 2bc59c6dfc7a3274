"""What programming an image into a part takes: which units to erase, which bytes to write, in which order.

Pure: an image, a memory map and the units that are known to hold the image already go in, a `FlashPlan` comes out. The
rule behind the order: what makes the old image bootable goes first, what makes the new one bootable comes last. So the
unit at the image's start is erased before all others and written after them, its first few bytes last of all; a cut at
any moment between finds a part without a bootable image, in its bootloader, and never a mixture that boots.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..transports.plain import meant
from ..transports.quoting import shell_line
from .errors import ImageEmpty, ImageMisplaced, ImageTooLarge, ImageWrongPart
from .events import Layout, Run
from .formats.places import conventional
from .image import FirmwareImage, Segment, join
from .memory import Beside, Erase, MemoryMap, Range, Region, Write

BLANK_BLOCK = 256
"""Stretches of erased value that are at least this long, at multiples of it, are not written. In bytes."""
HEAD = 8
"""Bytes at the image's start that are written last, in one write: a Cortex-M's initial stack pointer and reset vector,
without which nothing starts. More where the part writes more at once."""


@dataclass(frozen=True)
class FlashPlan:
    """`image` as placed in the part's memory. `erase` and `writes` in the order in which they are done.

    `blank_bytes`: of the image, not written because erasing leaves them as they should be. `present_bytes`: of the
    image, in units that hold it already; `present`: those units. `rewritten`: units that writing erases. `replaces`: the
    slot whose contents go, whole, in the words of a message; "": it is not a slot. `regions`: the part's memory.
    `unchecked`: see Slot.
    """

    image: FirmwareImage
    memory_bytes: int
    erase: tuple[Range, ...]
    writes: tuple[Segment, ...]
    present: tuple[Range, ...] = ()
    blank_bytes: int = 0
    present_bytes: int = 0
    rewritten: tuple[Range, ...] = ()
    replaces: str = ""
    regions: tuple[Region, ...] = ()
    unchecked: str = ""

    @property
    def layout(self) -> Layout:
        """Where all of this lies."""
        image = sorted(_range(segment) for segment in self.image.segments)
        return Layout(
            regions=tuple((region.name, region.start, region.size) for region in self.regions),
            image=_joined(image),
            present=_joined(sorted(self.present)),
            erase=_joined(self.erase),
            rewritten=_joined(self.rewritten),
            writes=_joined(map(_range, self.writes)),
        )

    @property
    def erase_bytes(self) -> int:
        """What erase commands take; writing may erase more."""
        return sum(unit.size for unit in self.erase)

    @property
    def erased(self) -> tuple[Range, ...]:
        """Every unit that is erased, by a command or by writing, in order of address."""
        return tuple(sorted({*self.erase, *self.rewritten}))

    @property
    def erased_bytes(self) -> int:
        return sum(unit.size for unit in self.erased)

    @property
    def write_bytes(self) -> int:
        return sum(segment.size for segment in self.writes)

    @property
    def nothing_to_do(self) -> bool:
        return not self.erase and not self.writes

    def unproven(self) -> Iterator[Segment]:
        """What of the image lies outside of the units that were seen to hold it."""
        present = sorted(self.present)
        for segment in self.image.segments:
            start = segment.address
            for unit in present:
                if unit.end <= start or unit.start >= segment.end:
                    continue
                if unit.start > start:
                    yield segment.slice(start, unit.start)
                start = min(unit.end, segment.end)
            if start < segment.end:
                yield segment.slice(start, segment.end)


def place(
    image: FirmwareImage, memory: MemoryMap, holds: Callable[[Segment], bool | None] | None = None
) -> FirmwareImage:
    """The image at the addresses that it will have, checked against the part's memory.

    What can't be written is left out where the part holds it already, or where the image says what is `only` meant; it is
    listed in `left_out`. `holds`: reads the part and compares, None where it refuses; None where the part can't be read.

    Raises ImageEmpty, ImageTooLarge, ImageMisplaced, ImageWrongPart.
    """
    if not image.segments:
        raise ImageEmpty(f"{image.source or 'the image'} holds no bytes")
    placed = image.at(memory.regions[0].start) if image.relocatable else image
    _check_only(image.only, memory)
    _check_machine(image, memory)
    if not image.only:
        _check_part(placed, memory)
    kept: list[Segment] = []
    left_out: list[str] = []
    for segment in placed.segments:
        for part, there in _split(segment, memory):
            if isinstance(there, Region) and there.writable and _is_meant(there, image.only):
                kept.append(part)
            else:
                left_out.append(_left_out(part, there, segment, placed, memory, holds))
    if not kept and image.only:
        raise ImageEmpty(
            f"{image.source or 'the image'} holds nothing for {', '.join(image.only)}: {'; '.join(left_out)}",
            remedy="See what it holds: proxyflash image FILE",
        )
    placed = replace(placed, segments=join(kept), only=(), left_out=tuple(left_out))
    for region in memory.regions:
        # A blank one starts nothing: that is a part's own content read before, which `make` finds there, or refuses.
        if region.head is not None and not _is_blank(list(placed.within(region.start, region.start + HEAD)), region):
            try:
                region.head.check(placed, region)
            except ImageWrongPart:
                # A piece of what the part holds: what it starts by stays as it is.
                if holds is None or not region.readable or not all(map(holds, placed.within(region.start, region.end))):
                    raise
    return placed


def _check_only(names: Collection[str], memory: MemoryMap) -> None:
    """Raises ImageMisplaced for a name that no memory has which is written."""
    known = [region.name for region in memory.regions if region.writable]
    for name in names:
        if name.lower() not in map(str.lower, known):
            raise ImageMisplaced(
                f"no memory of this part that is written is called {name!r}{meant(name, known)}",
                remedy=f"One of {', '.join(known)}.",
            )


def _check_machine(image: FirmwareImage, memory: MemoryMap) -> None:
    """Raises ImageWrongPart for a file that is built for another processor, wherever in the memory it lies."""
    machine = image.target.get("machine")
    for region in memory.regions:
        if machine and region.head is not None and region.head.machine not in ("", machine):
            raise ImageWrongPart(
                f"{image.source or 'the image'} is built for {machine}, and {region.name} is that of an "
                f"{region.head.machine} processor",
                remedy="Is it the right file for this component?",
            )


def _check_part(image: FirmwareImage, memory: MemoryMap) -> None:
    """Raises ImageWrongPart for a file that names another part."""
    for place in memory.beside:
        for part in image.within(place.start, place.end):
            if place.names_part and place.holds(part) is False:
                found = bytes(part.data).hex(" ").upper()
                own = " ".join(f"{byte:02X}" for byte in place.contents[0] if byte is not None)
                raise ImageWrongPart(
                    f"{image.source or 'the image'} is for a part with the {place.name} {found}, and this one's is {own}"
                )


def _is_meant(region: Region, only: Collection[str]) -> bool:
    return not only or region.name.lower() in map(str.lower, only)


def _split(segment: Segment, memory: MemoryMap) -> Iterator[tuple[Segment, Region | Beside | None]]:
    """A segment in pieces, each in one place of the part or in none."""
    starts = sorted([*(region.start for region in memory.regions), *(place.start for place in memory.beside)])
    address = segment.address
    while address < segment.end:
        there = memory.place_of(address)
        end = there.end if there is not None else next((start for start in starts if start > address), segment.end)
        end = min(end, segment.end)
        yield segment if end - address == segment.size else segment.slice(address, end), there
        address = end


LINKED = "Is the file linked for this part? "
MOVED = "Is the address right? "


def _left_out(
    part: Segment,
    there: Region | Beside | None,
    segment: Segment,
    image: FirmwareImage,
    memory: MemoryMap,
    holds: Callable[[Segment], bool | None] | None,
) -> str:
    """Why a piece of a segment that is not written may be left out. Raises what speaks against that."""
    source, place = image.source or "the image", Range(part.address, part.size)
    fitting = [
        region.name for region in memory.regions if region.writable and any(image.within(region.start, region.end))
    ]
    writes = ", ".join(region.name for region in memory.regions if region.writable)
    # Of a file without addresses, what does not fit shows that all of it lies wrong: none of it is to be left out.
    fitting = [] if image.is_moved else fitting
    without = (
        f"To leave it out, name what is meant: {shell_line(['--only', fitting[0]])}"
        if fitting
        else f"What can be written: {writes or 'nothing'}."
    )
    if there is None:
        # Bytes that run on beyond a memory are those of an image that is too large for it.
        if image.only and part.address == segment.address:
            return f"{place}, no memory of the part"
        if part.address > segment.address:
            raise ImageTooLarge(
                f"{source} has {Range(segment.address, segment.size)}, but the part's memory ends at "
                f"0x{part.address - 1:08X}, {segment.end - part.address:,} bytes short"
            )
        memories = ", ".join(f"{region.name} {Range(region.start, region.size)}" for region in memory.regions)
        known = conventional(part.address)
        raise ImageMisplaced(
            f"{source} has {place}, which is not in the part's memory ({memories})"
            + (f"; files have {known} there" if known else ""),
            remedy=f"{'' if known else MOVED if image.is_moved else LINKED}{without}",
        )
    if image.only:
        return f"{place}, {there.name}"
    same = there.holds(part) if isinstance(there, Beside) else None
    if same is None and there.readable and holds is not None:
        same = holds(part)
    if same:
        return f"{place}, {there.name}: the part holds it already"
    why = "the part holds other bytes there" if same is False else "what the part holds there can't be read"
    if part.address > segment.address:
        # Perhaps a program that is too large: what is left out of that would be missed.
        raise ImageTooLarge(
            f"{source} has {Range(segment.address, segment.size)}, and from 0x{part.address:08X} on is the {there.name}, "
            f"which may not be written: {segment.end - part.address:,} bytes too many; {why}"
        )
    raise ImageMisplaced(
        f"{source} has {place}, the part's {there.name}, which may not be written; {why}", remedy=without
    )


def units_of(image: FirmwareImage, memory: MemoryMap) -> list[tuple[Region, Range]]:
    """The erase units that a placed image touches, in order of address, without those of regions that nothing erases."""
    found: dict[int, tuple[Region, Range]] = {}
    for region in memory.regions:
        if region.erase is Erase.NEVER:
            continue
        for segment in image.within(region.start, region.end):
            for unit in region.erase_units(segment.address, segment.end):
                found[unit.start] = (region, unit)
    return [found[start] for start in sorted(found)]


def never_erased(image: FirmwareImage, memory: MemoryMap) -> Iterator[Segment]:
    """What a placed image has for regions that nothing erases."""
    for region in memory.regions:
        if region.erase is Erase.NEVER:
            yield from image.within(region.start, region.end)


def headless(image: FirmwareImage, memory: MemoryMap) -> list[Region]:
    """The regions whose first unit a placed image touches without any byte of what the processor starts by."""
    return [
        region
        for region in memory.regions
        if region.head is not None
        and not any(image.within(region.start, region.start + HEAD))
        and any(image.within(region.start, next(region.erase_units(region.start, region.end)).end))
    ]


def make(
    image: FirmwareImage, memory: MemoryMap, present: Collection[Range] = (), used: Collection[Region] = ()
) -> FlashPlan:
    """The plan for a placed image. `present`: units known to hold what the image has for them, and segments that lie in
    regions which nothing erases. `used`: of `headless`, those that hold something which the processor starts by.

    Raises ImageMisplaced or ImageWrongPart where what the processor starts by would be erased, and the image has none.
    """
    units = units_of(image, memory)
    heads = {unit for index, (region, unit) in enumerate(units) if index == 0 or units[index - 1][0] is not region}
    there = set(present)
    dirty = {id(region) for region, unit in units if unit not in there}
    # A unit that makes a region bootable is done again whenever anything else of that region is; so is each unit of a
    # region whose segments are written whole.
    todo = [
        (region, unit)
        for region, unit in units
        if unit not in there or (id(region) in dirty and (unit in heads or region.write is Write.WHOLE_SEGMENTS))
    ]
    kept = sorted({unit for _, unit in units} - {unit for _, unit in todo})
    kept += [unit for part in never_erased(image, memory) if (unit := Range(part.address, part.size)) in there]
    erase = tuple(
        unit
        for region, unit in sorted(todo, key=lambda item: (item[1] not in heads, item[1].start))
        if unit in heads or region.erase is not Erase.BY_WRITE
    )
    for region, unit in todo:
        if region.head is not None and unit.start == region.start:
            _check_head(image, region, unit, used)
    writes: list[Segment] = []
    blank = 0
    # The first page of a processor's own memory makes it boot: memory beside (its EEPROM) goes before.
    for region in sorted(memory.regions, key=lambda region: region.erase is Erase.BY_WRITE):
        if region.erase is Erase.NEVER or region.write is Write.WHOLE_SEGMENTS:
            writes += _whole(image, region, [unit for owner, unit in todo if owner is region], there)
            continue
        skipped, chunks = _runs(image, region, [unit for owner, unit in todo if owner is region])
        blank += skipped
        writes += _head_last(chunks, heads, region)
    return FlashPlan(
        image,
        memory_bytes=sum(region.size for region in memory.regions),
        erase=erase,
        writes=tuple(writes),
        present=tuple(kept),
        blank_bytes=blank,
        present_bytes=sum(part.size for unit in kept for part in image.within(unit.start, unit.end)),
        rewritten=tuple(unit for region, unit in todo if region.erase is Erase.BY_WRITE),
        regions=memory.regions,
    )


def _range(segment: Segment) -> Range:
    return Range(segment.address, segment.size)


def _joined(pieces: Iterable[Range]) -> tuple[Run, ...]:
    """Pieces in their order; each that begins where the one before ends is joined to that one."""
    found: list[Run] = []
    for piece in pieces:
        if found and sum(found[-1]) == piece.start:
            found[-1] = found[-1][0], found[-1][1] + piece.size
        else:
            found.append((piece.start, piece.size))
    return tuple(found)


def _is_blank(parts: Sequence[Segment], region: Region) -> bool:
    """Whether these are there, and nothing but erased value."""
    return bool(parts) and not any(bytes(part.data).strip(bytes([region.erased_value])) for part in parts)


def _check_head(image: FirmwareImage, region: Region, unit: Range, used: Collection[Region]) -> None:
    """Raises ImageMisplaced, ImageWrongPart."""
    covered = sum(part.size for part in image.within(region.start, region.start + HEAD))
    if not covered and region not in used:
        return
    if covered < HEAD:
        raise ImageMisplaced(
            f"{image.source or 'the image'} begins at 0x{image.start:08X}, and {unit} is erased with it: what the part "
            f"starts by, at 0x{region.start:08X}, would be lost",
            remedy="Is the address right? Else flash a file that begins where the memory does.",
        )
    assert region.head is not None
    region.head.check(image, region)


def _whole(image: FirmwareImage, region: Region, todo: Sequence[Range], there: Collection[Range]) -> list[Segment]:
    """Whole segments, in order of address; none of a region that holds all of them already."""
    parts = list(image.within(region.start, region.end))
    if region.erase is Erase.NEVER:
        todo = [unit for part in parts if (unit := Range(part.address, part.size)) not in there]
    if not todo:
        return []
    return [part.padded(region.write_alignment, region.erased_value) for part in parts]


def _runs(image: FirmwareImage, region: Region, todo: Sequence[Range]) -> tuple[int, list[Segment]]:
    """What is to be written of the units to do: bytes skipped as blank, and aligned runs that touch no other run."""
    blank = 0
    runs: list[list[int]] = []
    grain = region.write_alignment
    for unit in todo:
        parts = list(image.within(unit.start, unit.end))
        if region.erase is Erase.BY_WRITE:
            # Its first bytes erase it, so they are written even where the image has none there.
            stretches = [(unit.start, parts[-1].end)]
        else:
            stretches = [stretch for part in parts for stretch in _not_blank(part, region)]
            blank += sum(part.size for part in parts) - sum(end - start for start, end in stretches)
        for start, end in stretches:
            low, high = start // grain * grain, -(-end // grain) * grain
            if runs and low <= runs[-1][1]:
                runs[-1][1] = max(high, runs[-1][1])
            else:
                runs.append([low, high])
    return blank, [
        Segment(low, image.read(low, min(high, region.end) - low, region.erased_value)) for low, high in runs
    ]


def _not_blank(part: Segment, region: Region) -> Iterator[tuple[int, int]]:
    """The stretches of a part that are not erased value, in multiples of BLANK_BLOCK."""
    view = memoryview(part.data)
    step = max(BLANK_BLOCK, region.write_alignment)
    filler = bytes([region.erased_value]) * step
    address = part.address
    while address < part.end:
        end = min(part.end, (address // step + 1) * step)
        if view[address - part.address : end - part.address] != filler[: end - address]:
            yield address, end
        address = end


def _head_last(chunks: list[Segment], heads: Collection[Range], region: Region) -> list[Segment]:
    """The chunks of the head unit after all others, its first bytes last; whole where writing erases it."""
    head = next((unit for unit in heads if region.start <= unit.start < region.end), None)
    if head is None:
        return chunks
    inside: list[Segment] = []
    outside: list[Segment] = []
    for chunk in chunks:
        if chunk.end <= head.start or chunk.address >= head.end:
            outside.append(chunk)
            continue
        inside.append(chunk.slice(chunk.address, min(chunk.end, head.end)))
        if chunk.end > head.end:
            outside.append(chunk.slice(head.end, chunk.end))
    if inside:
        first = inside.pop(0)
        by_write = region.erase is Erase.BY_WRITE
        cut = first.end if by_write else min(first.end, first.address + max(HEAD, region.write_alignment))
        if cut < first.end:
            inside.insert(0, first.slice(cut, first.end))
        inside.append(first.slice(first.address, cut))
    return outside + inside
