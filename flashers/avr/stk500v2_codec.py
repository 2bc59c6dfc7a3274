"""STK500 version 2 on the wire (Atmel AVR068, "STK500 Communication Protocol"): messages to bytes and back. No I/O.

    0x1B  sequence  size (2, big endian)  0x0E  body  XOR of all before

The answer has the command's sequence number; its body begins with the command's code and a status. Addresses are those
of words for flash and of bytes for EEPROM; bit 31 asks for the extended address of parts with more than 128 KiB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import reduce
from operator import xor

from ..errors import USUAL_SILENCES, Meaning, OperationFailed, PartRefused, ProtocolError, Step

START, TOKEN = 0x1B, 0x0E
HEADER = 5
LONGEST = 275
"""Bytes of a message body (AVR068, 3.1)."""
EXTENDED = 1 << 31
PAGE_MODE = 0xC1
"""Write a page, poll by time (AVR068, 4.2.4)."""


class Command(IntEnum):
    """AVR068, 4; the names are its own."""

    SIGN_ON = 0x01
    GET_PARAMETER = 0x03
    LOAD_ADDRESS = 0x06
    ENTER_PROGMODE_ISP = 0x10
    LEAVE_PROGMODE_ISP = 0x11
    CHIP_ERASE_ISP = 0x12
    PROGRAM_FLASH_ISP = 0x13
    READ_FLASH_ISP = 0x14
    PROGRAM_EEPROM_ISP = 0x15
    READ_EEPROM_ISP = 0x16
    READ_FUSE_ISP = 0x18
    READ_LOCK_ISP = 0x1A
    READ_SIGNATURE_ISP = 0x1B


class Status(IntEnum):
    """AVR068, "Status constants"."""

    CMD_OK = 0x00
    CMD_TOUT = 0x80
    RDY_BSY_TOUT = 0x81
    SET_PARAM_MISSING = 0x82
    CMD_FAILED = 0xC0
    CKSUM_ERROR = 0xC1
    CMD_UNKNOWN = 0xC9


MEANINGS: Mapping[int, Meaning] = {
    Status.CMD_TOUT: Meaning.FAILED,
    Status.RDY_BSY_TOUT: Meaning.FAILED,
    Status.CKSUM_ERROR: Meaning.LOST,
}
"""Of a status that is not CMD_OK; the others are REFUSED."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.ERASE: Meaning.LOST}
"""A page is erased by writing it. START: as in avr109_codec."""


class Parameter(IntEnum):
    """AVR068, "Parameters"."""

    HW_VER = 0x90
    SW_MAJOR = 0x91
    SW_MINOR = 0x92


def message(sequence: int, body: bytes) -> bytes:
    head = bytes([START, sequence]) + len(body).to_bytes(2, "big") + bytes([TOKEN]) + body
    return head + bytes([reduce(xor, head)])


def take(heard: bytearray, sequence: int) -> bytes | None:
    """The body of the first whole message with this sequence number; None: more must come. Takes what it has seen.

    Other bytes, and a message of another number (a late answer), are passed over.
    """
    while True:
        start = heard.find(START)
        del heard[: len(heard) if start < 0 else start]
        if len(heard) < HEADER:
            return None
        size = int.from_bytes(heard[2:4], "big")
        if heard[4] != TOKEN or not 2 <= size <= LONGEST:
            del heard[0]
            continue
        end = HEADER + size
        if len(heard) <= end:
            return None
        if reduce(xor, heard[: end + 1]):
            del heard[0]
            continue
        body, found = bytes(heard[HEADER:end]), heard[1]
        del heard[: end + 1]
        if found == sequence:
            return body


def load_address(address: int) -> bytes:
    return bytes([Command.LOAD_ADDRESS]) + address.to_bytes(4, "big")


def enter_progmode() -> bytes:
    """The programmer's timings mean nothing to a bootloader; AVR068, 4.2.1, gives these for an AVR."""
    return bytes([Command.ENTER_PROGMODE_ISP, 200, 100, 25, 32, 0, 0x53, 3, 0xAC, 0x53, 0, 0])


def leave_progmode() -> bytes:
    return bytes([Command.LEAVE_PROGMODE_ISP, 1, 1])


def chip_erase() -> bytes:
    return bytes([Command.CHIP_ERASE_ISP, 45, 0, 0xAC, 0x80, 0, 0])


def program(command: Command, data: bytes) -> bytes:
    """PROGRAM_FLASH_ISP or PROGRAM_EEPROM_ISP: a page, by the ISP instructions of AVR068, 4.2.4."""
    instructions = b"\x40\x4c\x20" if command is Command.PROGRAM_FLASH_ISP else b"\xc1\xc2\xa0"
    return bytes([command]) + len(data).to_bytes(2, "big") + bytes([PAGE_MODE, 10]) + instructions + b"\xff\xff" + data


def read(command: Command, size: int) -> bytes:
    """READ_FLASH_ISP or READ_EEPROM_ISP."""
    return bytes([command]) + size.to_bytes(2, "big") + (b"\x20" if command is Command.READ_FLASH_ISP else b"\xa0")


def read_byte(command: Command, instruction: Sequence[int]) -> bytes:
    """READ_SIGNATURE_ISP, READ_FUSE_ISP, READ_LOCK_ISP: one byte by an ISP instruction, the last of four that come back."""
    return bytes([command, 4, *instruction])


def result(body: bytes, command: Command, size: int, what: str) -> bytes:
    """What follows the status, `size` bytes at least. Raises PartRefused, OperationFailed, ProtocolError."""
    if len(body) < 2 or body[0] != command:
        raise ProtocolError(f"the loader answered {what} with {body[:8].hex(' ') or 'nothing'}")
    if body[1] != Status.CMD_OK:
        name = Status(body[1]).name if body[1] in set(Status) else f"0x{body[1]:02X}"
        match MEANINGS.get(body[1], Meaning.REFUSED):
            case Meaning.FAILED:
                raise OperationFailed(f"the part did not do {what} in time ({name})")
            case Meaning.LOST:
                raise ProtocolError(f"the loader did not get {what} whole ({name})")
            case _:
                raise PartRefused(f"the loader refuses {what} ({name})").passing(False)
    if len(body) < 2 + size:
        raise ProtocolError(f"the loader answered {what} with {len(body) - 2} of {size} bytes")
    return body[2:]
