"""Images at the edges: of the memory, of an erase unit, of what is written or transferred at once.

Most of these are no firmware: they are written, verified and read back in the bootloader. Whatever was written before,
the release that is flashed afterwards runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import pytest
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers.errors import ImageMisplaced, ImageWrongPart, Unsupported, VerifyMismatch
from proxyflash.flashers.flasher import Capability
from proxyflash.flashers.image import FirmwareImage, Segment, join
from proxyflash.flashers.memory import Erase, Range, Region, Write
from proxyflash.flashers.plan import HEAD
from proxyflash.flashers.programmer import FlashResult
from proxyflash.hil_tests.boot_session import Session, bootloader, running
from proxyflash.hil_tests.firmware import Firmware
from proxyflash.transports.errors import ProxyflashError

pytestmark = pytest.mark.destructive

TRANSFERRED = (64, 256, 512, 1024, 2048, 4093)
"""Bytes that bootloaders take at once; no protocol announces it."""


SMALLEST = 400
"""Bytes of the smallest firmware that can be made for an emulated part."""


def content(region: Region, start: int, size: int, salt: str) -> bytes:
    """Bytes without a stretch that looks erased. At the start of an ARM's memory they begin with a vector table."""
    data = bytearray(random.Random(f"{salt} {start} {size}").randbytes(size))
    if region.head is not None and start == region.start and size >= 8:
        data[:8] = (0x20001000).to_bytes(4, "little") + (start + 1).to_bytes(4, "little")
    return bytes(data)


class Edges:
    """Writes odd images into a part that is in its bootloader."""

    def __init__(self, session: Session, component: BenchComponent, firmware: Firmware, salt: str) -> None:
        self.session = session
        self.salt = salt
        self.region = session.region
        self._component = component
        self._firmware = firmware

    def image(self, *pieces: tuple[int, int]) -> FirmwareImage:
        """Of pieces, each an offset from the region's start and a size in bytes. Each test has its own content."""
        starts = [(self.region.start + offset, size) for offset, size in pieces]
        segments = join(Segment(start, content(self.region, start, size, self.salt)) for start, size in starts)
        return FirmwareImage(segments, "bin", "edge")

    def from_start(self, size: int) -> FirmwareImage | None:
        """Writes an image of `size` bytes. None: the part judged that it is not firmware, and did not take it.

        A part with a slot judges what it is given. Where it is emulated it gets a firmware to its taste.
        """
        if not self.session.is_slot:
            return self.written(self.image((0, size)))
        if self._component.emulated and size >= SMALLEST:
            made = self._firmware.made(version="9.9.9", size=size).image.at(self.region.start)
            return self.written(made)
        try:
            return self.written(self.image((0, size)))
        except self.judgements:
            return None

    @property
    def judgements(self) -> tuple[type[ProxyflashError], ...]:
        """The errors that say that a slot takes no such image. A slot of a certain format alone, and a silent one
        that says so, report nothing else of the file."""
        known = self._firmware.new.image.target
        return (VerifyMismatch, *((ImageWrongPart,) if "image_hash" in known or self.session.is_silent else ()))

    def refuses(self, image: FirmwareImage) -> None:
        """A slot refuses an image that is not firmware. Only a silent loader may put any file into its flash."""
        refusals: tuple[type[ProxyflashError], ...] = (ImageMisplaced, *self.judgements)
        with suppress(*refusals) if self.session.is_silent else pytest.raises(refusals):
            self.flashed(image)

    def begins_later(self, image: FirmwareImage) -> bool:
        """Writes an image that has nothing for the region's start. False: this part can't, which it said, and holds what
        it held: a loader that erases from the first page on, whatever is written."""
        programmer, start = self.session.programmer, Range(self.region.start, first_unit(self.region).size)
        if self.region.erase is not Erase.BY_WRITE:
            self.flashed(image)
            return True
        before = programmer.read([start])
        try:
            self.flashed(image)
        except Unsupported:
            assert programmer.read([start]) == before
            return False
        return True

    def written(self, image: FirmwareImage) -> FirmwareImage:
        self.flashed(image)
        return image

    def flashed(self, image: FirmwareImage) -> FlashResult:
        """Verified, and read back where it can be."""
        programmer = self.session.programmer
        result = programmer.flash(programmer.plan(image), boot=False)
        assert result.verified
        if self.session.capabilities & Capability.READ:
            compared = programmer.memory_map().compared(image.segments)
            read = programmer.read([Range(segment.address, segment.size) for segment in compared])
            assert [bytes(piece.data) for piece in read] == [bytes(segment.data) for segment in compared]
        return result

    def touched(self, result: FlashResult, units: list[Range]) -> None:
        """These were erased, by a command or by writing, and no others."""
        size = sum(unit.size for unit in units)
        assert result.erased_bytes == size
        if self.region.erase is Erase.BY_WRITE:
            # The end of a unit behind the image's last bytes is erased, and need not be written.
            assert size - max(unit.size for unit in units) < result.written_bytes <= size
            assert result.written_bytes == size or self.region.write_alignment < units[0].size


@pytest.fixture
def edges(component: BenchComponent, firmware: Firmware, request: pytest.FixtureRequest) -> Iterator[Edges]:
    """Afterwards it is flashed, and runs."""
    release = firmware.new
    with bootloader(component, judged=False) as session:
        yield Edges(session, component, firmware, request.node.nodeid)
    component.flash(release.image)
    running(component, release.version)


def first_unit(region: Region) -> Range:
    return next(region.erase_units(region.start, region.start + 1))


def last_unit(region: Region) -> Range:
    return next(region.erase_units(region.end - 1, region.end))


SIZES: dict[str, Callable[[Region], Iterable[int]]] = {
    "one byte": lambda region: (1,),
    "around the write unit": lambda region: {
        max(1, region.write_alignment * count + more) for count in (1, 2) for more in (-1, 0, 1)
    },
    "around a transfer": lambda region: (block + more for block in TRANSFERRED for more in (-1, 0, 1)),
    "around the first erase unit": lambda region: (first_unit(region).size + more for more in (-1, 0, 1)),
}


@pytest.mark.parametrize(
    "sizes", ["one byte", *(pytest.param(name, marks=pytest.mark.slow) for name in SIZES if name != "one byte")]
)
def test_small_images(edges: Edges, sizes: str) -> None:
    """What is shorter than that which the processor starts by takes its place, and is refused."""
    for size in sorted(SIZES[sizes](edges.region)):
        if edges.region.head is not None and size < HEAD:
            edges.refuses(edges.image((0, size)))
        else:
            edges.from_start(min(size, edges.region.size))


@pytest.mark.slow
def test_all_of_the_memory(edges: Edges) -> None:
    edges.from_start(edges.region.size)


def test_last_unit_and_last_byte(edges: Edges) -> None:
    """A slot that judges what it is given takes none of this, and takes a firmware afterwards."""
    region = edges.region
    last = last_unit(region)
    offset = last.start - region.start
    for piece in ((offset, last.size), (offset, 1), (region.size - 1, 1), (offset, last.size - 1)):
        image = edges.image(piece)
        if edges.session.is_slot:
            edges.refuses(image)
        elif not edges.begins_later(image):
            edges.flashed(edges.image((0, 1), piece))


def test_first_and_last_unit_with_nothing_between(edges: Edges) -> None:
    """What lies between stays as it was, where that can be seen."""
    region = edges.region
    first, last = first_unit(region), last_unit(region)
    image = edges.image((0, min(first.size, region.size // 2)), (last.end - region.start - 8, 8))
    if edges.session.is_slot:
        edges.refuses(image)
        return
    between = (first.size, 64)
    if not edges.begins_later(edges.image(between)):
        edges.flashed(edges.image((0, 8), between))
    edges.touched(edges.flashed(image), [first, last])
    if edges.session.capabilities & Capability.READ:
        (kept,) = edges.session.programmer.read([Range(first.end, 64)])
        assert bytes(kept.data) == content(region, first.end, 64, edges.salt)


def test_one_changed_byte_writes_its_unit_and_the_first(edges: Edges) -> None:
    """The first one holds what makes it bootable, and is written last.

    A part that can't be compared, or judges a download as a whole, is written whole.
    """
    region, session = edges.region, edges.session
    if edges.session.is_slot:
        if (last := edges.from_start(min(2000, region.size))) is None:
            return
    else:
        units = list(region.erase_units(region.start, region.end))[:3]
        size = units[2].end - units[2].size // 2 - region.start
        before = edges.written(edges.image((0, size)))
        data = bytearray(before.read(region.start, size))
        data[-1] ^= 0x5A
        last = FirmwareImage((Segment(region.start, bytes(data)),), "bin", "edge")
        result = edges.flashed(last)
        edges.touched(
            result, [units[0], units[2]] if session.tells and region.write is not Write.WHOLE_SEGMENTS else units
        )
    again = session.programmer.flash(session.programmer.plan(last), boot=False)
    assert (again.written_bytes == 0) == session.tells
