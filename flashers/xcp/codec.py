"""The packets of XCP, after ASAM MCD-1 XCP 1.x, part 2 (protocol layer), and part 3 (transport layer: CAN, and serial lines as
OpenBLT frames them).

A packet begins with the command, or with what kind of answer it is. Numbers have the byte order that CONNECT reports.
Addresses count elements of AG bytes (address granularity); an element's bytes lie at multiples of AG in the packet.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import crcmod

from ..errors import USUAL_SILENCES, Meaning, ProtocolError, Step

RESPONSE, ERROR, EVENT, SERVICE = 0xFF, 0xFE, 0xFD, 0xFC
"""The kinds of answers."""
PGM = 0x10
"""The resource of programming, in CONNECT, GET_STATUS, GET_SEED."""
PENDING = 0x05
"""EV_CMD_PENDING: the time limit of the request begins again."""
TERMINATED = 0x07
"""EV_SESSION_TERMINATED: the session was ended by the slave."""
LONGEST_BLOCK = 255
"""Elements of a block, which its first packet says in one byte."""
SLAVE_ID = b"XCP"


class Command(IntEnum):
    CONNECT = 0xFF
    DISCONNECT = 0xFE
    GET_STATUS = 0xFD
    SYNCH = 0xFC
    GET_ID = 0xFA
    GET_SEED = 0xF8
    UNLOCK = 0xF7
    SET_MTA = 0xF6
    UPLOAD = 0xF5
    SHORT_UPLOAD = 0xF4
    BUILD_CHECKSUM = 0xF3
    TRANSPORT_LAYER_CMD = 0xF2
    DOWNLOAD = 0xF0
    PROGRAM_START = 0xD2
    PROGRAM_CLEAR = 0xD1
    PROGRAM = 0xD0
    PROGRAM_RESET = 0xCF
    PROGRAM_PREPARE = 0xCC
    PROGRAM_NEXT = 0xCA
    PROGRAM_MAX = 0xC9
    PROGRAM_VERIFY = 0xC8


class Err(IntEnum):
    CMD_SYNCH = 0x00
    CMD_BUSY = 0x10
    DAQ_ACTIVE = 0x11
    PGM_ACTIVE = 0x12
    CMD_UNKNOWN = 0x20
    CMD_SYNTAX = 0x21
    OUT_OF_RANGE = 0x22
    WRITE_PROTECTED = 0x23
    ACCESS_DENIED = 0x24
    ACCESS_LOCKED = 0x25
    PAGE_NOT_VALID = 0x26
    MODE_NOT_VALID = 0x27
    SEGMENT_NOT_VALID = 0x28
    SEQUENCE = 0x29
    DAQ_CONFIG = 0x2A
    MEMORY_OVERFLOW = 0x30
    GENERIC = 0x31
    VERIFY = 0x32
    RESOURCE_TEMPORARY_NOT_ACCESSIBLE = 0x33


MEANINGS: Mapping[int, Meaning] = {
    Err.CMD_SYNCH: Meaning.LOST,
    Err.CMD_BUSY: Meaning.BUSY,
    Err.DAQ_ACTIVE: Meaning.BUSY,
    Err.PGM_ACTIVE: Meaning.BUSY,
    Err.RESOURCE_TEMPORARY_NOT_ACCESSIBLE: Meaning.BUSY,
    Err.SEQUENCE: Meaning.LOST,
    Err.MEMORY_OVERFLOW: Meaning.FAILED,
    Err.GENERIC: Meaning.FAILED,
    Err.VERIFY: Meaning.FAILED,
}
"""Any other error is REFUSED. By GENERIC a slave says that erasing or programming failed (part 2, table of error codes)."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.START: Meaning.DONE}
"""PROGRAM_RESET restarts the part, which need not answer it (part 2, PROGRAM_RESET)."""


def _sums(element: int, width: int, order: str, data: bytes) -> int:
    """Elements of `element` bytes, added up in a number of `width` bytes."""
    end = len(data) - len(data) % element
    numbers = (int.from_bytes(data[at : at + element], order) for at in range(0, end, element))  # type: ignore[arg-type]
    return sum(numbers) & ((1 << 8 * width) - 1)


ADDS: Mapping[int, tuple[str, int, int]] = {
    0x01: ("XCP_ADD_11", 1, 1),
    0x02: ("XCP_ADD_12", 1, 2),
    0x03: ("XCP_ADD_14", 1, 4),
    0x04: ("XCP_ADD_22", 2, 2),
    0x05: ("XCP_ADD_24", 2, 4),
    0x06: ("XCP_ADD_44", 4, 4),
}
"""The sums: bytes of an element and of the result."""
CRCS: Mapping[int, tuple[str, Callable[[bytes], int]]] = {
    0x07: ("XCP_CRC_16", crcmod.mkCrcFun(0x18005, initCrc=0, rev=True, xorOut=0)),
    0x08: ("XCP_CRC_16_CITT", crcmod.mkCrcFun(0x11021, initCrc=0xFFFF, rev=False, xorOut=0)),
    0x09: ("XCP_CRC_32", zlib.crc32),
}


@dataclass(frozen=True, slots=True)
class Checksum:
    """What BUILD_CHECKSUM answered. `compute` gives the same over the bytes that should be there; None: a method of the maker's.
    `proves`: equal checksums mean equal bytes, as far as a CRC can tell; a sum doesn't notice bytes that changed places."""

    name: str
    value: int
    compute: Callable[[bytes], int] | None
    proves: bool


@dataclass(frozen=True, slots=True)
class Connected:
    """The answer to CONNECT. `order`: "little" or "big". `granularity`: bytes of an element (AG). `max_cto`: bytes of a
    packet to the slave and of its answers."""

    resources: int
    order: str
    granularity: int
    max_cto: int
    protocol: str

    def number(self, data: bytes) -> int:
        return int.from_bytes(data, self.order)  # type: ignore[arg-type]

    def dword(self, value: int) -> bytes:
        return struct.pack("<I" if self.order == "little" else ">I", value)

    def word(self, value: int) -> bytes:
        return struct.pack("<H" if self.order == "little" else ">H", value)

    def mta(self, address: int, extension: int) -> bytes:
        """SET_MTA. `address` in elements."""
        return bytes((Command.SET_MTA, 0, 0, extension)) + self.dword(address)

    def uploaded(self, answer: bytes, elements: int) -> bytes:
        """The bytes of an answer to UPLOAD or SHORT_UPLOAD. Raises ProtocolError."""
        data = answer[self.granularity : self.granularity * (1 + elements)]
        if len(data) != elements * self.granularity:
            raise ProtocolError(f"the part was asked for {elements} elements and sent {len(data)} bytes")
        return data

    @property
    def upload_elements(self) -> int:
        return (self.max_cto - self.granularity) // self.granularity

    def checksum(self, answer: bytes) -> Checksum:
        """Raises ProtocolError."""
        if len(answer) < 8:
            raise ProtocolError(f"the answer to BUILD_CHECKSUM has {len(answer)} bytes")
        kind, value = answer[1], self.number(answer[4:8])
        if kind in CRCS:
            return Checksum(CRCS[kind][0], value, CRCS[kind][1], True)
        if kind in ADDS:
            name, element, width = ADDS[kind]
            return Checksum(name, value, partial(_sums, element, width, self.order), False)
        return Checksum(f"checksum of type 0x{kind:02X}", value, None, False)


@dataclass(frozen=True, slots=True)
class Programming:
    """The answer to PROGRAM_START. `block_packets`: packets of a block, 1 where the slave has no block mode;
    `separation`: seconds between them."""

    max_cto: int
    block_packets: int
    separation: float

    def program_bytes(self, granularity: int) -> int:
        """Bytes of data that PROGRAM and PROGRAM_NEXT take."""
        start = max(2, granularity)
        return (self.max_cto - start) // granularity * granularity

    def block_bytes(self, granularity: int) -> int:
        each = self.program_bytes(granularity)
        return min(self.block_packets * each, LONGEST_BLOCK * granularity) if self.block_packets > 1 else each


def connected(answer: bytes) -> Connected:
    """Raises ProtocolError."""
    if len(answer) < 8 or answer[3] < 8:
        raise ProtocolError(f"the answer to CONNECT is {answer.hex(' ').upper()}")
    mode = answer[2]
    granularity = 1 << (mode >> 1 & 3)
    if granularity > 4:
        raise ProtocolError("the answer to CONNECT has the address granularity 3, which is reserved")
    return Connected(answer[1], "big" if mode & 1 else "little", granularity, answer[3], f"{answer[6]}.{answer[7]}")


def programming(answer: bytes, max_cto: int) -> Programming:
    """`max_cto`: of CONNECT. Raises ProtocolError."""
    if len(answer) < 7:
        raise ProtocolError(f"the answer to PROGRAM_START is {answer.hex(' ').upper()}")
    blocks = answer[4] if answer[2] & 1 else 1
    return Programming(answer[3] if answer[3] >= 8 else max_cto, max(1, blocks), answer[5] * 1e-4)


def program(command: int, count: int, data: bytes, granularity: int) -> bytes:
    """PROGRAM or PROGRAM_NEXT. `count`: elements of the block that are still to come, these included."""
    return bytes((command, count)) + bytes(max(2, granularity) - 2) + data


def program_max(data: bytes, granularity: int) -> bytes:
    return bytes((Command.PROGRAM_MAX,)) + bytes(granularity - 1) + data


def block(data: bytes, each: int, granularity: int) -> Iterator[bytes]:
    """PROGRAM and as many PROGRAM_NEXT as the data takes, `each` bytes in each."""
    for at in range(0, len(data), each):
        command = Command.PROGRAM_NEXT if at else Command.PROGRAM
        yield program(command, (len(data) - at) // granularity, data[at : at + each], granularity)


def slave_id(data: bytes) -> int | None:
    """The CAN id, as A2L files write it (bit 31: 29 bits), under which a slave that answers GET_SLAVE_ID takes commands; None:
    another message. The slave's byte order is not known yet: one of both makes an id."""
    if len(data) < 8 or data[0] != RESPONSE or data[1:4] != SLAVE_ID:
        return None
    for order in ("little", "big"):
        number = int.from_bytes(data[4:8], order)
        if number <= 0x7FF or 0x8000_0000 <= number <= 0x9FFF_FFFF:
            return number
    return None
