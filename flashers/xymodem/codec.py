"""Blocks of XMODEM, XMODEM-1K, YMODEM and YMODEM-g, after the "X/YMODEM Protocol Reference" (C. Forsberg, 1988-06-18).

Bytes in, bytes out; nothing here waits or sends. A block (figures 9 and 11): SOH or STX, its number, the number's
complement, 128 or 1024 bytes, and a checksum of one byte or a CRC of two, as the receiver has asked for.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from ..errors import USUAL_SILENCES, Meaning, ProfileWrong, Step


class Control(IntEnum):
    """Control characters (7.1, 4.3), and the two by which a receiver asks for a CRC (8.2) or for a stream (6)."""

    SOH = 0x01
    STX = 0x02
    EOT = 0x04
    ACK = 0x06
    NAK = 0x15
    CAN = 0x18
    CPMEOF = 0x1A
    C = 0x43
    G = 0x47


class Start(IntEnum):
    """What a receiver asks for by the character that it sends first."""

    CHECKSUM = Control.NAK
    CRC = Control.C
    STREAM = Control.G
    """A CRC, and no acknowledgement of each block."""


MEANINGS: Mapping[int, Meaning] = {Control.NAK: Meaning.LOST, Control.CAN: Meaning.REFUSED}
"""Of an answer to a block that is not ACK; CAN counts where two come in a row. Any other byte is passed over, and LOST where
nothing else comes."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.WRITE: Meaning.BUSY, Step.END: Meaning.BUSY}
"""START: a loader answers nothing to a step of `run` without `expect`, and the console does not wait. With `expect` a silence is
a SerialTimeout."""

SHORT, LONG = 128, 1024
"""Bytes in a block that begins with SOH, and with STX."""
ABORT = bytes([Control.CAN]) * 8 + b"\b" * 8
"""What ends a transfer from either side; the backspaces take it out of a command line that it may have got into (4.1)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one block carries. `end`: bytes of the file up to and with it, its padding left out."""

    data: bytes
    end: int


def block(number: int, data: bytes, start: Start) -> bytes:
    """Block `number` (which wraps from 255 to 0) with 128 or 1024 bytes.

    CRC-16/XMODEM: polynomial 0x1021, from 0, most significant bit first (8.1); the checksum is the sum of the data (7.2).
    """
    if len(data) not in (SHORT, LONG):
        raise ValueError(f"a block has {SHORT} or {LONG} bytes, not {len(data)}")
    head = bytes([Control.SOH if len(data) == SHORT else Control.STX, number & 0xFF, ~number & 0xFF])
    if start is Start.CHECKSUM:
        return head + data + bytes([sum(data) & 0xFF])
    return head + data + binascii.crc_hqx(data, 0).to_bytes(2, "big")


def pieces(data: bytes | memoryview, block_size: int, padding: int, *, whole: bool = False) -> Iterator[Piece]:
    """A file cut into blocks; the last one filled up. What is left of a long block goes into short ones, if that is less.

    `whole`: it goes into a long one all the same.
    """
    view = memoryview(data)
    offset = 0
    while offset < len(view):
        left = len(view) - offset
        size = block_size if whole or left > block_size - SHORT else SHORT
        part = bytes(view[offset : offset + size])
        offset += len(part)
        yield Piece(part + bytes([padding]) * (size - len(part)), offset)


def header(name: str, size: int) -> bytes:
    """The data of a YMODEM batch's block 0: the file's name and size in decimal digits, then NULs (5).

    Date and mode, which may be left out, are. Raises ProfileWrong for a name that a block doesn't hold.
    """
    data = name.encode() + b"\0" + str(size).encode() + b"\0"
    if len(data) > LONG:
        raise ProfileWrong(f"file_name has {len(name)} characters, and has to fit into a block of {LONG} bytes")
    return data.ljust(SHORT if len(data) <= SHORT else LONG, b"\0")


LAST_HEADER = bytes(SHORT)
"""The data of the block 0 that ends a batch: no name (5)."""
