"""The bytes of the STM32 system memory bootloader's protocols, as ST has them: AN3155 (rev 20) on a USART, AN3154 on CAN, AN5405
on CAN FD.

On a USART a command is its code and the code's complement. Its arguments follow in groups, each with the XOR of its bytes; the
loader answers the command and each group with ACK or NACK. On CAN the arbitration id is the command, its arguments are the
frame's data, nothing has a checksum of its own, and answers come under the command's id. What is here does no I/O: values in,
bytes out, one bytes object for each write or frame.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import cache, reduce
from operator import xor

from ..errors import USUAL_SILENCES, Meaning, Step

ACK = 0x79
NACK = 0x1F
MEANINGS: Mapping[int, Meaning] = {NACK: Meaning.FAILED}
"""Of a byte that is not ACK; any other is LOST. A command that gets NACK three times is refused for good: by chance of the wire
it would not be."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.WRITE: Meaning.BUSY}
"""START: `Stm32Commands.go` asks whether the loader is still there. Only that shows which was lost, the answer or the request."""
SYNCHRONISE = 0x7F
"""AN3155, 1 and 2: the byte by which the loader measures the bit rate. Once it has, the byte is half a command."""
BLOCK = 256
"""Most bytes of one Read Memory or Write Memory command."""
WORD = 4
"""Write Memory takes whole words (3.6), and Get Checksum computes over them (3.13). In bytes."""


class Command(IntEnum):
    """AN3155, table 2."""

    GET = 0x00
    GET_VERSION = 0x01
    GET_ID = 0x02
    SPEED = 0x03
    """On CAN (AN3154, 3.5)."""
    READ_MEMORY = 0x11
    GO = 0x21
    WRITE_MEMORY = 0x31
    ERASE = 0x43
    EXTENDED_ERASE = 0x44
    WRITE_PROTECT = 0x63
    WRITE_UNPROTECT = 0x73
    READOUT_PROTECT = 0x82
    READOUT_UNPROTECT = 0x92
    GET_CHECKSUM = 0xA1


class MassErase(IntEnum):
    """Page counts of Extended Erase that mean more than pages (AN3155, 3.8)."""

    ALL = 0xFFFF
    BANK_1 = 0xFFFE
    BANK_2 = 0xFFFD


GLOBAL_ERASE = b"\xff\x00"
"""What follows Erase to erase all (AN3155, 3.7): a page count that means more, and its complement."""

CRC_POLYNOMIAL = 0x04C11DB7
CRC_INITIAL = 0xFFFFFFFF


def command(code: Command) -> bytes:
    return bytes([code, code ^ 0xFF])


def checked(data: bytes) -> bytes:
    """A group: `data` and the XOR of its bytes."""
    return data + bytes([reduce(xor, data)])


def word(value: int) -> bytes:
    """An address, or another number of 32 bits, most significant byte first."""
    return checked(value.to_bytes(WORD, "big"))


def read_length(size: int) -> bytes:
    """How many bytes to read, 1 to 256: one less of it, and its complement (AN3155, 3.4)."""
    return bytes([size - 1, size - 1 ^ 0xFF])


def block(data: bytes) -> bytes:
    """A block to write, 1 to 256 bytes (AN3155, 3.6)."""
    return checked(bytes([len(data) - 1]) + data)


def pages(numbers: Sequence[int]) -> bytes:
    """Pages to Erase, 1 to 255 of them (AN3155, 3.7)."""
    return checked(bytes([len(numbers) - 1, *numbers]))


def extended_pages(numbers: Sequence[int]) -> bytes:
    """Pages, or sectors, to Extended Erase (AN3155, 3.8)."""
    return checked(b"".join(number.to_bytes(2, "big") for number in [len(numbers) - 1, *numbers]))


def mass_erase(what: MassErase) -> bytes:
    return checked(what.to_bytes(2, "big"))


def is_checked(data: bytes) -> bool:
    """Whether the last byte is the XOR of the others."""
    return reduce(xor, data) == 0


def crc32_mpeg2(data: bytes) -> int:
    """What Get Checksum computes with its usual polynomial and initial value over whole words.

    CRC-32/MPEG-2 as ST's CRC unit takes it: 32 bits of a register at a time, highest first, so that the bytes of each
    little-endian word come in reverse. Raises ValueError when the size is not a multiple of 4.
    """
    words = array("I", data)
    words.byteswap()
    return _crc()(words.tobytes())


@cache
def _crc() -> Callable[[bytes], int]:
    import crcmod

    compute: Callable[[bytes], int] = crcmod.mkCrcFun(1 << 32 | CRC_POLYNOMIAL, initCrc=CRC_INITIAL, rev=False)
    return compute


# On CAN.

INITIALISE = 0x79
"""AN3154, 2: the id of the frame by which hosts have the loader measure the bit rate. Later the loader answers NACK to it."""
DATA = 0x04
"""AN3154, 3.8: the id that is recommended for the data of Write Memory. The loader takes any."""
OPENER_ID, OPENER = 0x111, b"\x5a"
"""AN5405, 1: the only frame that starts a loader whose protocol is above 2.1."""
FRAME, FD_FRAME = 8, 64
"""Most bytes of a frame."""
FD_PAGES = FD_FRAME // 2 - 1
"""Pages of one Extended Erase on CAN FD. ST's sources (OpenBL) read one frame of numbers, and count from 1 where AN3155 counts
from 0, so a further number that repeats the last has room in the frame."""
SPEEDS: Mapping[int, int] = {125_000: 1, 250_000: 2, 500_000: 3, 1_000_000: 4}
"""Bit rates in bit/s, and what Speed calls them (AN3154, 3.5)."""


def place(address: int, size: int) -> bytes:
    """Of Read Memory and Write Memory, 1 to 256 bytes: the address, and one less than the size (AN3154, 3.6 and 3.8)."""
    return address.to_bytes(WORD, "big") + bytes([size - 1])


def data_frames(data: bytes) -> list[bytes]:
    """The data of Write Memory in frames (AN3154, 3.8)."""
    return [data[at : at + FRAME] for at in range(0, len(data), FRAME)]


def fd_data_frames(data: bytes) -> list[bytes]:
    """The data of Write Memory in whole frames (AN5405; OpenBL reads 64 bytes of each)."""
    return [data[at : at + FD_FRAME].ljust(FD_FRAME, b"\xff") for at in range(0, len(data), FD_FRAME)]


def fd_pages(numbers: Sequence[int]) -> bytes:
    """The numbers of Extended Erase on CAN FD, most significant byte first; the last one fills the frame."""
    padded = [*numbers, *[numbers[-1]] * (FD_FRAME // 2 - len(numbers))]
    return b"".join(number.to_bytes(2, "big") for number in padded)
