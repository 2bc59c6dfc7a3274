"""Raw binary: the bytes of one contiguous piece of memory, from an address that the file does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ..errors import ImageNotWritten
from ..image import FirmwareImage, Segment, join

WIDEST_GAP = 16 << 20
"""Bytes. A wider gap is two memories in one image rather than a hole in one, and the file would be mostly filling."""
FILL = 0xFF


def read(stream: BinaryIO, source: str) -> FirmwareImage:
    """The whole file, relocatable, at 0."""
    return FirmwareImage(join([Segment(0, stream.read())]), "bin", source, relocatable=True)


def write(image: FirmwareImage, stream: BinaryIO) -> None:
    for chunk in filled(image):
        stream.write(chunk)


def filled(image: FirmwareImage) -> Iterator[bytes | memoryview]:
    """From the image's first byte to its last, 0xFF in the gaps. Raises ImageNotWritten for one of over 16 MiB."""
    end = image.start
    for segment in image.segments:
        if (gap := segment.address - end) > WIDEST_GAP:
            raise ImageNotWritten(
                f"the image has a gap of {gap:,} bytes from 0x{end:08X} on, which a raw binary would have to fill",
                remedy="Save it in a format that has addresses: .hex, .s19 or .dfu.",
            )
        yield bytes([FILL]) * gap
        yield segment.data
        end = segment.end
