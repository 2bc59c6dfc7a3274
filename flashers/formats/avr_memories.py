"""Where avr-libc's linker scripts put an AVR's memories beside its flash, as .hex and .elf files of avr-gcc have them.

An AVR has several memories that all begin at 0. In a file each but the flash has an offset of its own (avr-ld's avr5.xc
and others: the regions eeprom, fuse, lock, signature and user_signatures). A file of one memory alone begins at 0, as
`avr-objcopy -j .eeprom --change-section-lma .eeprom=0` makes it. Then only its name shows which memory: app.eep,
app.eeprom.hex, app.fuse, app_fuses.hex, hfuse.hex, app.usersignatures.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import PurePath

from ..image import FirmwareImage, Segment

EEPROM, FUSES, LOCK, SIGNATURE, USER_SIGNATURES = 0x810000, 0x820000, 0x830000, 0x840000, 0x850000
EEPROM_ENDING = ".eep"
WORDS = {
    **dict.fromkeys(("eep", "eeprom"), EEPROM),
    **dict.fromkeys(("fuse", "fuses", "fus", "lfuse", "lfs"), FUSES),
    **dict.fromkeys(("hfuse", "hfs"), FUSES + 1),
    **dict.fromkeys(("efuse", "efs"), FUSES + 2),
    **dict.fromkeys(("lock", "lck"), LOCK),
    **dict.fromkeys(("sig", "signature"), SIGNATURE),
    "usersignatures": USER_SIGNATURES,
}
"""What makefiles, Microchip Studio and MPLAB X call such files."""
MOST = {EEPROM: 0x10000, USER_SIGNATURES: 0x400}
"""Bytes that these memories have at most."""
MOST_FUSES = 16
"""Bytes of fuses, lock bits or a signature, at most. A file of more that is called door-lock.hex is a program."""


def in_its_memory(image: FirmwareImage, path: PurePath, endings: Collection[str]) -> FirmwareImage:
    """The image of a file that holds one memory alone, at avr-libc's address; any other image as it is.

    `endings`: of the names of the files that may hold such a memory.
    """
    start = WORDS.get(path.suffix[1:].lower())
    if start is None and path.suffix.lower() in endings:
        word = re.split("[._-]", path.stem.lower())[-1]
        start = WORDS.get(word)
        # A program that tests an EEPROM may be called test_eeprom.hex.
        if start == EEPROM and not path.stem.lower().endswith(f".{word}"):
            start = None
    if start is None or image.end > MOST.get(start, MOST_FUSES):
        return image
    segments = tuple(Segment(segment.address + start, segment.data) for segment in image.segments)
    return replace(image, segments=segments, relocatable=False)
