"""STK500 version 1 on the wire (Atmel AVR061, "STK500 Communication Protocol"): commands to bytes, answers to values. No I/O.

    command, arguments, EOP (0x20)  ->  INSYNC (0x14), payload, OK (0x10)

Addresses are those of words, little endian; sizes are in bytes, big endian. There is no checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from ..errors import USUAL_SILENCES, Meaning, PartRefused, ProtocolError, Step

EOP = 0x20


class Command(IntEnum):
    """AVR061, "Commands"; the names are its own."""

    GET_SYNC = 0x30
    GET_PARAMETER = 0x41
    ENTER_PROGMODE = 0x50
    LEAVE_PROGMODE = 0x51
    CHIP_ERASE = 0x52
    LOAD_ADDRESS = 0x55
    UNIVERSAL = 0x56
    PROG_PAGE = 0x64
    READ_PAGE = 0x74
    READ_SIGN = 0x75


class Answer(IntEnum):
    """AVR061, "Responses"."""

    OK = 0x10
    FAILED = 0x11
    UNKNOWN = 0x12
    NODEVICE = 0x13
    INSYNC = 0x14
    NOSYNC = 0x15


MEANINGS: Mapping[int, Meaning] = {
    Answer.FAILED: Meaning.REFUSED,
    Answer.NODEVICE: Meaning.REFUSED,
    Answer.UNKNOWN: Meaning.REFUSED,
    Answer.NOSYNC: Meaning.LOST,
}
"""Of an answer's last byte, and NOSYNC of its first; any other byte is LOST. There is no checksum: a refusal counts once it
came again in another attempt."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.ERASE: Meaning.LOST}
"""A page is erased by writing it. START: as in avr109_codec."""


class Parameter(IntEnum):
    """AVR061, "Parameters"."""

    HARDWARE_VERSION = 0x80
    SOFTWARE_MAJOR = 0x81
    SOFTWARE_MINOR = 0x82


IN_STEP = bytes([Answer.INSYNC, Answer.OK])
"""The whole answer to a command without a payload."""


def command(code: Command, arguments: bytes = b"") -> bytes:
    return bytes([code]) + arguments + bytes([EOP])


def load_address(address: int) -> bytes:
    """`address` in bytes, even; its bits 17 and up go out by `extended_address`."""
    return command(Command.LOAD_ADDRESS, (address // 2 & 0xFFFF).to_bytes(2, "little"))


def extended_address(address: int) -> bytes:
    """Bits 23 to 17 of an address in bytes: the ISP instruction Load Extended Address (0x4D) of larger parts."""
    return universal(bytes([0x4D, 0x00, address >> 17 & 0xFF, 0x00]))


def universal(instruction: bytes) -> bytes:
    """An ISP instruction of 4 bytes; the answer's payload is the byte that the last of them would shift out."""
    return command(Command.UNIVERSAL, instruction)


def prog_page(kind: bytes, data: bytes) -> bytes:
    """`kind`: b"F" for flash, b"E" for EEPROM."""
    return command(Command.PROG_PAGE, len(data).to_bytes(2, "big") + kind + data)


def read_page(kind: bytes, size: int) -> bytes:
    return command(Command.READ_PAGE, size.to_bytes(2, "big") + kind)


def payload(answer: bytes, what: str) -> bytes:
    """What lies between INSYNC and OK. Raises PartRefused where the loader says no, ProtocolError on anything else."""
    if answer[:1] != bytes([Answer.INSYNC]):
        raise ProtocolError(f"the loader answered {what} with {answer[:4].hex(' ') or 'nothing'}")
    if MEANINGS.get(answer[-1]) is Meaning.REFUSED:
        raise PartRefused(f"the loader refuses {what} ({Answer(answer[-1]).name})")
    if len(answer) < 2 or answer[-1] != Answer.OK:
        raise ProtocolError(f"the loader ended its answer to {what} with 0x{answer[-1]:02X}")
    return answer[1:-1]
