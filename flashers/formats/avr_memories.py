"""Where avr-libc's linker scripts put an AVR's memories beside its flash, as .hex and .elf files of avr-gcc have them.

An AVR has several memories that all begin at 0. In a file each but the flash has an offset of its own (avr-ld's avr5.xc
and others: the regions eeprom, fuse, lock, signature and user_signatures). A file that ends in .eep holds the EEPROM
alone, from 0 on, as `avr-objcopy -j .eeprom --change-section-lma .eeprom=0` makes it.
"""

from __future__ import annotations

from dataclasses import replace

from ..image import FirmwareImage, Segment

EEPROM, FUSES, LOCK, SIGNATURE, USER_SIGNATURES = 0x810000, 0x820000, 0x830000, 0x840000, 0x850000
EEPROM_ENDING = ".eep"


def in_eeprom(image: FirmwareImage) -> FirmwareImage:
    """The image of a file that holds an EEPROM, at the address that avr-libc gives it; one that is there already stays."""
    if image.end > 0x10000:
        return image
    segments = tuple(Segment(segment.address + EEPROM, segment.data) for segment in image.segments)
    return replace(image, segments=segments, relocatable=False)
