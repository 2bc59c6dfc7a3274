"""`FirmwareImage`: what is to be written, whatever file it came from. Files are read by `formats`."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from .errors import ImageMisplaced, ImageOverlap

HIGHEST = 1 << 64
"""Addresses lie below; those of a 64-bit ELF file and of a UDS download may take 8 bytes."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Contiguous bytes at an address (in the part's own address space, in bytes)."""

    address: int
    data: bytes | memoryview

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.address + len(self.data)

    def padded(self, grain: int, filler: int) -> Segment:
        """From one multiple of `grain` bytes to another, with `filler` before and after its bytes."""
        before = self.address % grain
        after = -self.end % grain
        if not before and not after:
            return self
        byte = bytes([filler])
        return Segment(self.address - before, byte * before + bytes(self.data) + byte * after)

    def slice(self, start: int, end: int) -> Segment:
        """What of this segment lies in [start, end), sharing its memory. Both bounds are addresses inside it."""
        view = memoryview(self.data)
        return Segment(start, view[start - self.address : end - self.address])


@dataclass(frozen=True)
class FirmwareImage:
    """Segments sorted by address, not empty, not overlapping, not touching (touching ones are joined).

    `format`: ihex, srec, elf, bin, dfu, dfuse. `entry`: the start address if the file has one. `target`: what the
    file says of the part that it is for, by the format's own names (vendor_id, product_id, device of DFU; machine of
    ELF; alt_setting of DfuSe), so that a flasher can refuse it for another part. `relocatable`: the addresses mean
    nothing (raw binary without an address, DFU): the flasher places it at the start of the region it writes. `version`:
    what the file says of its own version, "" where its format has no place for one (all but DFU). `only`: names of the
    part's memories that are to be written, where the rest of the file is left out on purpose; (): all of it is meant.
    `left_out`: of an image that was placed, what of it is not written, and why, for a person.
    `is_moved`: it was relocatable, and its address came from a person or a part, not from the file.
    `is_alone`: what lies beside the file does not belong to it, as a signed update vouches for the file alone.
    """

    segments: tuple[Segment, ...]
    format: str
    source: str = ""
    entry: int | None = None
    target: Mapping[str, int | str] = field(default_factory=dict)
    relocatable: bool = False
    version: str = ""
    only: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    is_moved: bool = False
    is_alone: bool = False

    @property
    def size(self) -> int:
        """Bytes to write, without gaps."""
        return sum(segment.size for segment in self.segments)

    @property
    def start(self) -> int:
        return self.segments[0].address

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.segments[-1].end

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hex over each segment's address (8 bytes, big endian), size (likewise) and bytes, in order.

        The same content from another file format has the same digest.
        """
        digest = hashlib.sha256()
        for segment in self.segments:
            digest.update(segment.address.to_bytes(8, "big") + segment.size.to_bytes(8, "big"))
            digest.update(segment.data)
        return digest.hexdigest()

    def read(self, start: int, size: int, fill: int = 0xFF) -> bytes:
        """The bytes of [start, start + size), `fill` where the image has none."""
        out = bytearray([fill]) * size
        for segment in self.within(start, start + size):
            offset = segment.address - start
            out[offset : offset + segment.size] = segment.data
        return bytes(out)

    def within(self, start: int, end: int) -> Iterator[Segment]:
        """The parts of the segments that lie in [start, end), in order, sharing their memory."""
        first = bisect_right(self.segments, start, key=lambda segment: segment.end)
        for segment in self.segments[first:]:
            low = max(start, segment.address)
            if low >= end:
                return
            yield segment.slice(low, min(end, segment.end))

    def at(self, address: int) -> FirmwareImage:
        """A relocatable image placed at an address. Raises ImageMisplaced when it would not lie in 64 bits of them."""
        if not 0 <= address <= HIGHEST - (self.end - self.start):
            raise ImageMisplaced(
                f"{self.source or 'the image'} can't be placed at {address:#x}: addresses have 64 bits",
                remedy="Give the address at which the part has its memory: --address 0x08000000",
            )
        moved = tuple(Segment(segment.address - self.start + address, segment.data) for segment in self.segments)
        return replace(self, segments=moved, relocatable=False, is_moved=True)


def join(chunks: Iterable[Segment], *, source: str = "") -> tuple[Segment, ...]:
    """Sorts chunks by address and joins those that touch. Empty ones vanish.

    Raises ImageOverlap when two chunks claim one address, even with equal bytes.
    """
    ordered = sorted((chunk for chunk in chunks if chunk.size), key=lambda chunk: chunk.address)
    runs: list[list[Segment]] = []
    for chunk in ordered:
        if runs and chunk.address < runs[-1][-1].end:
            raise ImageOverlap(
                f"{source or 'the image'}: 0x{chunk.address:08X} is given twice "
                f"(0x{runs[-1][-1].address:08X}..0x{runs[-1][-1].end - 1:08X} and "
                f"0x{chunk.address:08X}..0x{chunk.end - 1:08X})",
                address=chunk.address,
            )
        if runs and chunk.address == runs[-1][-1].end:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return tuple(
        run[0] if len(run) == 1 else Segment(run[0].address, b"".join(chunk.data for chunk in run)) for run in runs
    )
