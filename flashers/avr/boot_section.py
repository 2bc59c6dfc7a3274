"""Where an AVR's boot section begins, so that nothing is ever written there, and a first page that starts no application.

The fuses BOOTSZ tell (data sheets, "Boot Size Configuration"). Few loaders can be asked for them, and of these not each
reads what it means to. So it is looked for as well: a section begins with the loader's first instructions, at one of the
four places that the part allows. The largest answer counts; where there is none the section is taken to be as large as the
part allows.
"""

from __future__ import annotations

from collections.abc import Callable

from .loader import Fuses
from .parts import AvrPart

HEAD = 32
"""Bytes read of a place where the loader may begin."""
JMP, JMP_MASK = 0x940C, 0xFE0E
"""JMP k: 1001 010k kkkk 110k, and k's low 16 bits in the next word (AVR Instruction Set Manual, JMP). k in words."""
RJMP, RJMP_MASK = 0xC000, 0xF000
"""RJMP k: 1100 kkkk kkkk kkkk, to PC + 1 + k in words (AVR Instruction Set Manual, RJMP)."""
JMP_FROM = 0x4000
"""Bytes of flash from which on a part's vectors are JMP, two words each; smaller parts have RJMP."""
CLEAR_R1 = 0x2411
"""CLR R1, which is EOR R1, R1: what Optiboot begins with, as it does without the C library's start."""
IN_MCUSR, IN_MCUSR_MASK = 0xB604, 0xFE0F
"""IN Rd, 0x34: the next thing that Optiboot does is to look why the part was reset (MCUSR)."""


def size(part: AvrPart, fuses: Fuses, given: int | None, read: Callable[[int, int], bytes]) -> int:
    """The boot section's size in bytes. `given`: what the profile says. `read(address, size)` reads flash.

    Fuses by which no reset leads into the loader (BOOTRST, bit 0 of the byte with BOOTSZ, is 0 where one does) are not
    believed: it is running.
    """
    fuse = fuses.high if part.bootsz == "high" else fuses.extended
    found = [part.boot_size(fuse)] if fuse is not None and not fuse & 1 else []
    if given is not None:
        found.append(-(-given // part.page) * part.page)
    for candidate in reversed(part.boot_sizes):
        start = part.flash - candidate
        if candidate > max(found, default=0) and is_start(read(start, HEAD), start, part):
            found.append(candidate)
    return max(found, default=part.boot_sizes[-1])


def is_start(head: bytes, start: int, part: AvrPart) -> bool:
    """Whether `head`, read at `start`, is how a loader begins: a vector that leads into its section, or Optiboot's way."""
    words = [int.from_bytes(head[at : at + 2], "little") for at in range(0, len(head) - 1, 2)]
    if len(words) < 2:
        return False
    if words[0] == CLEAR_R1:
        return any(word & IN_MCUSR_MASK == IN_MCUSR for word in words[1:])
    if words[0] & JMP_MASK == JMP:
        target = ((words[0] >> 3 & 0x3E | words[0] & 1) << 16 | words[1]) * 2
        return start < target < part.flash
    if words[0] & RJMP_MASK == RJMP and part.flash < JMP_FROM:
        target = (start // 2 + 1 + (words[0] & 0xFFF)) * 2 % part.flash
        return start < target < part.flash
    return False


def parked(part: AvrPart, boot_start: int, *, jumps: bool) -> bytes:
    """A first page of flash by which no application starts: it leads back into the loader, or stays where it is.

    Erased words are instructions that do nothing: a processor that starts at an erased page runs into what comes after
    it. So as long as the pages of an application aren't all there its first one holds this.
    """
    word = boot_start // 2
    if not jumps:
        code = (RJMP | -1 & 0xFFF).to_bytes(2, "little")
    elif part.flash < JMP_FROM:
        code = (RJMP | (word - 1) & 0xFFF).to_bytes(2, "little")
    else:
        high = JMP | (word >> 17 & 0x1F) << 4 | word >> 16 & 1
        code = high.to_bytes(2, "little") + (word & 0xFFFF).to_bytes(2, "little")
    return code + b"\xff" * (part.page - len(code))
