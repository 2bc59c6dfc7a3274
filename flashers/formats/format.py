"""`Format`: what a firmware file format is. Registered under the entry-point group `proxyflash.formats` by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import BinaryIO, ClassVar

from ..errors import ImageNotWritten
from ..image import FirmwareImage


class Format(ABC):
    """One format. Nothing of it is an instance: all methods are static."""

    name: ClassVar[str]
    """As `FirmwareImage.format` has it, and the entry point."""
    endings: ClassVar[tuple[str, ...]] = ()
    """Of file names, in lower case with the dot."""
    priority: ClassVar[int] = 70
    """A file belongs to the first format that recognises its content, in ascending order of this number.

    The built-in ones have 10 (elf) to 60 (mcuboot), and 100 (bin), which recognises nothing.
    """
    addresses: ClassVar[bool] = True
    """Whether a file says where its bytes go."""
    is_written: ClassVar[bool] = False
    """Whether `write` works."""

    @staticmethod
    @abstractmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        """Whether a file with these first and last 64 bytes is of this format."""

    @staticmethod
    @abstractmethod
    def read(stream: BinaryIO, source: str) -> FirmwareImage:
        """The whole file. `source`: what errors call it. Raises ImageFormat and ImageOverlap, with the line or the offset."""

    @staticmethod
    def write(image: FirmwareImage, stream: BinaryIO) -> None:
        """Writes an image that has bytes, and an address if files of this format have. Raises ImageNotWritten, OSError."""
        raise ImageNotWritten("a format that is only read")
