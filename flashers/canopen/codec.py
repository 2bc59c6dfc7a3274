"""Frames of CANopen's SDO, NMT, heartbeat and LSS, the objects of program download, and what aborts mean. No I/O.

After CiA 301 version 4.2.0 (7.2.4 SDO, 7.2.8 NMT and heartbeat), CiA 302-3 version 4.1.0 (1F50 to 1F57) and CiA 305 version 2.2
(LSS). Integers are little endian.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import crcmod

from ..errors import USUAL_SILENCES, Meaning, Step

NODES = range(1, 128)
UNCONFIGURED = 0xFF
"""The node id of a node that has none."""
NMT, HEARTBEAT, SDO_REQUEST, SDO_RESPONSE, LSS_REQUEST, LSS_RESPONSE = 0x000, 0x700, 0x600, 0x580, 0x7E5, 0x7E4
FRAME, SEGMENT = 8, 7
MOST_SEGMENTS = 127
"""Segments of a sub-block, at most."""
crc16 = crcmod.mkCrcFun(0x11021, initCrc=0, rev=False)
"""CRC of a block transfer (CiA 301, 7.2.4.3.16): x^16 + x^12 + x^5 + 1, from 0 on."""


class Object(IntEnum):
    """Indices of the object dictionary."""

    DEVICE_TYPE = 0x1000
    DEVICE_NAME = 0x1008
    HARDWARE_VERSION = 0x1009
    SOFTWARE_VERSION = 0x100A
    HEARTBEAT_TIME = 0x1017
    IDENTITY = 0x1018
    PROGRAM_DATA = 0x1F50
    PROGRAM_CONTROL = 0x1F51
    PROGRAM_ID = 0x1F56
    FLASH_STATUS = 0x1F57


class Control(IntEnum):
    """Values of 1F51; 0x80 is Zephyr's: the program runs on trial, and is confirmed by the same value."""

    STOP = 0
    START = 1
    CLEAR = 3
    ON_TRIAL = 0x80


class Nmt(IntEnum):
    """Commands to a node, and the states that a heartbeat reports."""

    START = 0x01
    PRE_OPERATIONAL = 0x80
    RESET_NODE = 0x81
    RESET_COMMUNICATION = 0x82


STATES: Mapping[int, str] = {0x00: "boot-up", 0x04: "stopped", 0x05: "operational", 0x7F: "pre-operational"}
OPERATIONAL = 0x05


class Abort(IntEnum):
    """SDO abort codes (CiA 301, table 22)."""

    TOGGLE = 0x0503_0000
    TIMED_OUT = 0x0504_0000
    COMMAND = 0x0504_0001
    BLOCK_SIZE = 0x0504_0002
    SEQUENCE = 0x0504_0003
    CRC = 0x0504_0004
    MEMORY = 0x0504_0005
    ACCESS = 0x0601_0000
    WRITE_ONLY = 0x0601_0001
    READ_ONLY = 0x0601_0002
    NO_OBJECT = 0x0602_0000
    MAPPING = 0x0604_0041
    PDO_LENGTH = 0x0604_0042
    INCOMPATIBLE = 0x0604_0043
    INTERNAL = 0x0604_0047
    HARDWARE = 0x0606_0000
    LENGTH = 0x0607_0010
    TOO_LONG = 0x0607_0012
    TOO_SHORT = 0x0607_0013
    NO_SUB_INDEX = 0x0609_0011
    VALUE = 0x0609_0030
    VALUE_HIGH = 0x0609_0031
    VALUE_LOW = 0x0609_0032
    RANGE = 0x0609_0036
    NO_RESOURCE = 0x060A_0023
    GENERAL = 0x0800_0000
    STORAGE = 0x0800_0020
    LOCAL_CONTROL = 0x0800_0021
    STATE = 0x0800_0022
    DICTIONARY = 0x0800_0023
    NO_DATA = 0x0800_0024


ABORTS: Mapping[int, str] = {
    Abort.TOGGLE: "toggle bit not alternated",
    Abort.TIMED_OUT: "SDO protocol timed out",
    Abort.COMMAND: "command specifier not valid or unknown",
    Abort.BLOCK_SIZE: "invalid block size",
    Abort.SEQUENCE: "invalid sequence number",
    Abort.CRC: "CRC error",
    Abort.MEMORY: "out of memory",
    Abort.ACCESS: "unsupported access to an object",
    Abort.WRITE_ONLY: "attempt to read a write only object",
    Abort.READ_ONLY: "attempt to write a read only object",
    Abort.NO_OBJECT: "object does not exist",
    Abort.MAPPING: "object cannot be mapped to the PDO",
    Abort.PDO_LENGTH: "mapped objects exceed the PDO's length",
    Abort.INCOMPATIBLE: "general parameter incompatibility",
    Abort.INTERNAL: "general internal incompatibility in the device",
    Abort.HARDWARE: "access failed due to a hardware error",
    Abort.LENGTH: "length of the data does not match",
    Abort.TOO_LONG: "data too long",
    Abort.TOO_SHORT: "data too short",
    Abort.NO_SUB_INDEX: "sub-index does not exist",
    Abort.VALUE: "invalid value",
    Abort.VALUE_HIGH: "value too high",
    Abort.VALUE_LOW: "value too low",
    Abort.RANGE: "maximum value is less than minimum value",
    Abort.NO_RESOURCE: "resource not available",
    Abort.GENERAL: "general error",
    Abort.STORAGE: "data cannot be transferred or stored",
    Abort.LOCAL_CONTROL: "data cannot be transferred or stored because of local control",
    Abort.STATE: "data cannot be transferred or stored in the present device state",
    Abort.DICTIONARY: "no object dictionary is present",
    Abort.NO_DATA: "no data available",
}
MEANINGS: Mapping[int, Meaning] = {
    **dict.fromkeys((Abort.TOGGLE, Abort.TIMED_OUT, Abort.BLOCK_SIZE, Abort.SEQUENCE, Abort.STATE), Meaning.LOST),
    **dict.fromkeys((Abort.CRC, Abort.HARDWARE, Abort.GENERAL, Abort.STORAGE), Meaning.FAILED),
}
"""All others: REFUSED. STATE: the part has restarted, or is in a state that another attempt begins by changing."""
MISSING = (Abort.NO_OBJECT, Abort.NO_SUB_INDEX)
ABSENT = (*MISSING, Abort.WRITE_ONLY, Abort.ACCESS, Abort.NO_DATA)
"""With these a part says that it has no such value to read."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.START: Meaning.DONE}


class Status(IntEnum):
    """What 1F57 says of a program, without its bit 0, which is set as long as the part works on it (CiA 302-3)."""

    OK = 0
    NO_PROGRAM = 1
    UNKNOWN_FORMAT = 2
    FORMAT_OR_CRC = 3
    NOT_CLEARED = 4
    WRITE_ERROR = 5
    ADDRESS_ERROR = 6
    SECURED = 7
    UNSPECIFIED = 63


STATUSES: Mapping[int, str] = {
    Status.OK: "no error",
    Status.NO_PROGRAM: "no valid program",
    Status.UNKNOWN_FORMAT: "data format unknown",
    Status.FORMAT_OR_CRC: "data format error or CRC error",
    Status.NOT_CLEARED: "not cleared before it was written",
    Status.WRITE_ERROR: "flash write error",
    Status.ADDRESS_ERROR: "general address error",
    Status.SECURED: "flash secured",
    Status.UNSPECIFIED: "unspecified error",
}
STATUS_MEANINGS: Mapping[int, Meaning] = {
    **dict.fromkeys((Status.UNKNOWN_FORMAT, Status.ADDRESS_ERROR, Status.SECURED), Meaning.REFUSED),
}
"""All others but OK: FAILED."""


def status_words(value: int) -> str:
    """1F57 in words: its code in bits 1 to 7, and the maker's detail in bits 16 to 31."""
    code = value >> 1 & 0x7F
    words = STATUSES.get(code, f"the maker's code {code}" if code > Status.UNSPECIFIED else f"reserved code {code}")
    return words + (f", the maker's detail 0x{value >> 16:04X}" if value >> 16 else "")


def abort_words(code: int) -> str:
    return f"0x{code:08X}, {ABORTS.get(code, 'a code of its maker')}"


# SDO (CiA 301, 7.2.4.3). A request and its answer are frames of 8 bytes.


def multiplexer(index: int, sub: int) -> bytes:
    return index.to_bytes(2, "little") + bytes((sub,))


def word32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def upload(index: int, sub: int) -> bytes:
    return b"\x40" + multiplexer(index, sub) + bytes(4)


def upload_segment(toggle: int) -> bytes:
    return bytes((0x60 | toggle << 4,)) + bytes(7)


def expedited(index: int, sub: int, data: bytes) -> bytes:
    """Download of 1 to 4 bytes."""
    return bytes((0x23 | (4 - len(data)) << 2,)) + multiplexer(index, sub) + data.ljust(4, b"\0")


def download(index: int, sub: int, size: int) -> bytes:
    """Begins a segmented download."""
    return b"\x21" + multiplexer(index, sub) + word32(size)


def download_segment(data: bytes, toggle: int, *, last: bool) -> bytes:
    return bytes((toggle << 4 | (SEGMENT - len(data)) << 1 | last,)) + data.ljust(SEGMENT, b"\0")


def block_download(index: int, sub: int, size: int) -> bytes:
    """Begins a block download, with CRC and size."""
    return b"\xc6" + multiplexer(index, sub) + word32(size)


def block_segment(data: bytes, number: int, *, last: bool) -> bytes:
    return bytes((last << 7 | number,)) + data.ljust(SEGMENT, b"\0")


def block_end(size: int, crc: int) -> bytes:
    unused = -size % SEGMENT
    return bytes((0xC1 | unused << 2,)) + crc.to_bytes(2, "little") + bytes(5)


def abort(index: int, sub: int, code: int) -> bytes:
    return b"\x80" + multiplexer(index, sub) + word32(code)


# NMT.


def nmt(command: Nmt, node: int) -> bytes:
    return bytes((command, node))


def heartbeat(data: bytes) -> int | None:
    """The state in a frame under 0x700 + node id; None: it is none. A node that is guarded toggles bit 7."""
    return data[0] & 0x7F if len(data) == 1 and data[0] & 0x7F in STATES else None


# LSS (CiA 305).


class Lss(IntEnum):
    """Command specifiers."""

    SWITCH_ALL = 0x04
    CONFIGURE_NODE = 0x11
    SELECT_VENDOR = 0x40
    SELECT_PRODUCT = 0x41
    SELECT_REVISION = 0x42
    SELECT_SERIAL = 0x43
    SELECTED = 0x44
    FOUND = 0x4F
    FASTSCAN = 0x51


class Ident(NamedTuple):
    """A node's LSS address, which is object 1018, sub-indices 1 to 4."""

    vendor: int
    product: int
    revision: int
    serial: int


def lss(command: Lss, *data: int) -> bytes:
    return bytes((command, *data)).ljust(FRAME, b"\0")


def lss_word(command: Lss, value: int) -> bytes:
    return (bytes((command,)) + word32(value)).ljust(FRAME, b"\0")


def fastscan(value: int, bit: int, sub: int, following: int) -> bytes:
    """Who has a part number `sub` whose bits from `bit` on are those of `value` answers; `bit` 0x80: who has no node id."""
    return bytes((Lss.FASTSCAN,)) + word32(value) + bytes((bit, sub, following))
