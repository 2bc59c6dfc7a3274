"""AVR109 on the wire (Atmel AVR109, "Self-programming", table of commands): commands to bytes, answers to values. No I/O.

A command is a letter and its arguments; the answer is a value, or a carriage return where there is nothing to tell, or
"?" to a letter that the loader doesn't know. No checksum, no frame. Flash addresses are those of words, big endian.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from ..errors import USUAL_SILENCES, Meaning, PartRefused, ProtocolError, Step

DONE = b"\r"
UNKNOWN = b"?"
YES = b"Y"
MANUFACTURER = 0x1E
"""Atmel's, in the signature of each AVR (data sheets, "Signature Bytes")."""

MEANINGS: Mapping[int, Meaning] = {UNKNOWN[0]: Meaning.REFUSED}
"""Of an answer that is not DONE; any other byte is LOST. There is no checksum, so a refusal counts once it came again in another
attempt."""
SILENCES: Mapping[Step, Meaning] = USUAL_SILENCES
"""START: `AvrFlasher.start_application` resets the part or asks the loader, which shows whether the request was lost."""


class Command(StrEnum):
    """AVR109, table 2 ("Commands")."""

    ENTER_PROGRAMMING_MODE = "P"
    CHIP_ERASE = "e"
    SET_ADDRESS = "A"
    SET_EXTENDED_ADDRESS = "H"
    CHECK_BLOCK_SUPPORT = "b"
    START_BLOCK_LOAD = "B"
    START_BLOCK_READ = "g"
    READ_LOCK_BITS = "r"
    READ_LOW_FUSE = "F"
    READ_HIGH_FUSE = "N"
    READ_EXTENDED_FUSE = "Q"
    LEAVE_PROGRAMMING_MODE = "L"
    EXIT_BOOTLOADER = "E"
    READ_SIGNATURE = "s"
    SOFTWARE_IDENTIFIER = "S"
    SOFTWARE_VERSION = "V"


LASTING = {
    **dict.fromkeys("eBCcmD", "erases or writes memory"),
    **dict.fromkeys("lfn", "writes fuses or lock bits"),
    "E": "leaves it",
}
"""What loaders do at single letters that lasts (AVR109, table 2; the fuses: AVR910, which older loaders follow)."""


def command(code: Command, arguments: bytes = b"") -> bytes:
    return code.value.encode() + arguments


def set_address(number: int) -> bytes:
    """`number`: of a word of flash, or of a byte of EEPROM, below 64 Ki."""
    return command(Command.SET_ADDRESS, number.to_bytes(2, "big"))


def set_extended_address(number: int) -> bytes:
    """`number`: of a word, with the bits that SET_ADDRESS has no room for."""
    return command(Command.SET_EXTENDED_ADDRESS, number.to_bytes(3, "big"))


def block_load(kind: bytes, data: bytes) -> bytes:
    """`kind`: b"F" for flash, b"E" for EEPROM."""
    return command(Command.START_BLOCK_LOAD, len(data).to_bytes(2, "big") + kind + data)


def block_read(kind: bytes, size: int) -> bytes:
    return command(Command.START_BLOCK_READ, size.to_bytes(2, "big") + kind)


def done(answer: bytes, what: str) -> None:
    """Raises PartRefused on "?", ProtocolError on anything else than a carriage return."""
    if answer == DONE:
        return
    if MEANINGS.get(answer[0] if answer else -1) is Meaning.REFUSED:
        raise PartRefused(f"the loader doesn't know how {what}")
    raise ProtocolError(f"the loader answered the command {what} with {answer.hex(' ') or 'nothing'}")


def block_size(answer: bytes) -> int:
    """Bytes that a block may have, from the three bytes of the answer to CHECK_BLOCK_SUPPORT. Raises ProtocolError."""
    size = int.from_bytes(answer[1:3], "big")
    if answer[:1] != YES or len(answer) != 3 or not size:
        raise ProtocolError(f"the loader answered the question for its block size with {answer.hex(' ') or 'nothing'}")
    return size


def signature(answer: bytes) -> int:
    """The last byte comes first. Raises ProtocolError, also for another maker's: a peer that sends one byte again and again
    would pass for a name and a version."""
    if len(answer) != 3:
        raise ProtocolError(f"the bootloader sent {len(answer)} of 3 signature bytes")
    if answer[2] != MANUFACTURER:
        raise ProtocolError(f"the bootloader sent {answer.hex(' ')} as signature; that of an AVR ends with 1e here")
    return int.from_bytes(answer, "little")


def identifier(answer: bytes) -> str:
    """The loader's name of seven characters. Raises ProtocolError where it is none."""
    if len(answer) != 7 or not all(0x20 <= byte < 0x7F for byte in answer):
        raise ProtocolError(f"the loader calls itself {answer.hex(' ') or 'nothing'}")
    return answer.decode("ascii").strip()
