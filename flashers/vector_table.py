"""`VectorTable`: what an ARM Cortex-M starts by (ARMv7-M Architecture Reference Manual, B1.5.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .errors import ImageWrongPart
from .image import FirmwareImage
from .memory import Head, Region

ARM = "EM_ARM"
"""The machine of ELF files for Cortex-M, the processors whose memory has a vector table."""
RAM = range(0x10000000, 0x40000000)
"""Where the initial stack pointer of such a processor may point to."""


def are_vectors(stack: int, reset: int) -> bool:
    """Whether the two words can be an initial stack pointer and a reset vector."""
    return stack % 4 == 0 and stack in RAM and bool(reset & 1)


@dataclass(frozen=True, slots=True)
class VectorTable(Head):
    """The initial stack pointer and the reset vector, one word each."""

    machine = ARM

    def check(self, image: FirmwareImage, region: Region) -> None:
        """Raises ImageWrongPart for words that can't be those two."""
        if sum(part.size for part in image.within(region.start, region.start + 8)) < 8:
            return
        stack, reset = struct.unpack("<II", image.read(region.start, 8, region.erased_value))
        inside = any(segment.address <= reset - 1 < segment.end for segment in image.segments)
        if not are_vectors(stack, reset) or not inside:
            is_mcuboot = "image_hash" in image.target
            raise ImageWrongPart(
                f"{image.source or 'the image'}{', an image for MCUboot,' * is_mcuboot} does not begin with a vector "
                f"table: at 0x{region.start:08X} the stack pointer would be 0x{stack:08X} and the reset vector 0x{reset:08X}",
                remedy="Give the address of its slot: --address. Or give the program itself."
                if is_mcuboot
                else "Is it linked for this part, and for this address? A raw binary for another address needs it: --address",
            )
