"""A slot of MCUboot's, with the trailer at its end that says what is to happen to it (docs/design.md: "Image Trailer").

From the end downwards: 16 bytes of magic, then the flags image-ok, copy-done, the swap's kind and its size, each in a
field of its own, then the swap's progress, one record for each step. A flag that a cut has left half written is neither
set nor unset. What the trailer's sectors hold is never part of an image.
"""

from __future__ import annotations

from enum import Enum, auto

from ..flash import NorFlash
from . import image as mcuboot_image
from .image import BadImage, Image

MAGIC = b"".join(word.to_bytes(4, "little") for word in (0xF395C277, 0x7FEFD260, 0x0F505235, 0x8079B62C))
SET = 0x01
FIELD = 8
"""Bytes that a flag takes, at least (BOOT_MAX_ALIGN)."""
STEPS = 3
"""Records of progress for each sector."""


class Flag(Enum):
    UNSET = auto()
    SET = auto()
    BAD = auto()


class Slot:
    """`size` bytes of the flash from `start` on, whole erase units."""

    def __init__(self, flash: NorFlash, start: int, size: int) -> None:
        self.flash = flash
        self.start = start
        self.size = size
        self._sectors = list(self._units())
        align = max(FIELD, flash.program_unit)
        self._magic_at = size - len(MAGIC)
        self._image_ok_at = (self._magic_at - align) // align * align
        self._copy_done_at = self._image_ok_at - align
        self._size_at = self._copy_done_at - 2 * align
        records = STEPS * len(self._sectors) * flash.program_unit
        self._progress_at = self._size_at - records
        self.room = flash.unit_of(start + self._progress_at)[0] - start
        """The largest image that fits, in bytes."""
        self.sectors = [sector for sector in self._sectors if sector[0] < start + self.room]
        """Those that images lie in: start and size of each."""

    # The image.

    def image(self) -> Image:
        """Raises BadImage."""
        return mcuboot_image.find(self.flash, self.start, self.room)

    def whole_image(self) -> Image | None:
        """The image, if there is one and its hash is right."""
        try:
            image = self.image()
        except BadImage:
            return None
        return image if mcuboot_image.is_whole(self.flash, self.start, image) else None

    def read(self, offset: int, size: int) -> bytes:
        return self.flash.read(self.start + offset, size)

    def is_blank(self) -> bool:
        return self.read(0, self.size).count(self.flash.erased) == self.size

    def program(self, offset: int, data: bytes) -> None:
        """From a multiple of the program unit on; what is missing to the next one is left erased."""
        padding = bytes([self.flash.erased]) * (-len(data) % self.flash.program_unit)
        self.flash.program(self.start + offset, data + padding)

    def erase(self, offset: int, size: int) -> None:
        """All sectors that this touches."""
        for start, length in self._sectors:
            if start < self.start + offset + size and start + length > self.start + offset:
                self.flash.erase(start)

    # The trailer.

    @property
    def magic(self) -> Flag:
        found = self.read(self._magic_at, len(MAGIC))
        if found == MAGIC:
            return Flag.SET
        return Flag.UNSET if found.count(self.flash.erased) == len(MAGIC) else Flag.BAD

    @property
    def image_ok(self) -> Flag:
        return self._flag(self._image_ok_at)

    @property
    def copy_done(self) -> Flag:
        return self._flag(self._copy_done_at)

    @property
    def swap_size(self) -> int | None:
        """Bytes that the swap under way has to move; None: there is none under way."""
        if self.magic is not Flag.SET or self.copy_done is Flag.SET:
            return None
        size = int.from_bytes(self.read(self._size_at, 4), "little")
        return None if size == 0xFFFFFFFF else size

    def set_magic(self) -> None:
        self._write(self._magic_at, MAGIC)

    def set_image_ok(self) -> None:
        self._write(self._image_ok_at, bytes([SET]))

    def set_copy_done(self) -> None:
        self._write(self._copy_done_at, bytes([SET]))

    def set_swap_size(self, size: int) -> None:
        self._write(self._size_at, size.to_bytes(4, "little"))

    def is_done(self, sector: int, step: int) -> bool:
        """Whether this step of the swap is recorded for this sector."""
        return self.read(self._record_at(sector, step), 1)[0] == step + 1

    def set_done(self, sector: int, step: int) -> None:
        self._write(self._record_at(sector, step), bytes([step + 1]))

    def erase_trailer(self) -> None:
        self.erase(self.room, self.size - self.room)

    def _record_at(self, sector: int, step: int) -> int:
        """The last sector's records come first: they are the first to be written."""
        return self._progress_at + (STEPS * (len(self._sectors) - 1 - sector) + step) * self.flash.program_unit

    def _flag(self, offset: int) -> Flag:
        value = self.read(offset, 1)[0]
        return {SET: Flag.SET, self.flash.erased: Flag.UNSET}.get(value, Flag.BAD)

    def _write(self, offset: int, data: bytes) -> None:
        """`data` may begin in the middle of a program unit."""
        before = offset % self.flash.program_unit
        self.program(offset - before, bytes([self.flash.erased]) * before + data)

    def _units(self) -> list[tuple[int, int]]:
        found = []
        at = self.start
        while at < self.start + self.size:
            start, size = self.flash.unit_of(at)
            if start != at:
                raise ValueError(f"a slot begins at 0x{at:X}, within a sector")
            found.append((start, size))
            at += size
        if at != self.start + self.size:
            raise ValueError(f"the slot at 0x{self.start:X} ends within a sector")
        return found
