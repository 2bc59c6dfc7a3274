"""Raw binary: the bytes of one contiguous piece of memory, from an address that the file does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ..errors import ImageNotWritten
from ..image import FirmwareImage, Segment, join
from .format import Format

MOST_FILLING = 16 << 20
"""Bytes. An image with wider gaps has several memories rather than holes in one, and its file would be filling."""
FILL = 0xFF


def read(stream: BinaryIO, source: str) -> FirmwareImage:
    """The whole file, relocatable, at 0."""
    return FirmwareImage(join([Segment(0, stream.read())]), "bin", source, relocatable=True)


def write(image: FirmwareImage, stream: BinaryIO) -> None:
    for chunk in filled(image):
        stream.write(chunk)


class RawBinary(Format):
    """Raw binary, which only the file's ending shows."""

    name = "bin"
    endings = (".bin",)
    priority = 100
    addresses = False
    is_written = True

    @staticmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        return False

    read = staticmethod(read)
    write = staticmethod(write)


def filled(image: FirmwareImage) -> Iterator[bytes | memoryview]:
    """From the image's first byte to its last, 0xFF in the gaps. Raises ImageNotWritten for over 16 MiB of those."""
    filling = image.end - image.start - image.size
    if filling > MOST_FILLING:
        raise ImageNotWritten(
            f"the image has gaps of {filling:,} bytes between 0x{image.start:08X} and 0x{image.end - 1:08X}, which a "
            "raw binary would have to fill",
            remedy="Save it in a format that has addresses: .hex, .s19, or .dfu for a part with DfuSe.",
        )
    end = image.start
    for segment in image.segments:
        yield bytes([FILL]) * (segment.address - end)
        yield segment.data
        end = segment.end
