"""The bytes of NXP's MBoot, after the MCU Bootloader Reference Manual (MCUBOOTRM; Kinetis Bootloader v2.0 Reference Manual,
"Bootloader packet types" and "Bootloader command set").

A frame is a start byte, a type, and for some types a length, a CRC and a payload. A command's payload is its tag, flags, a
reserved byte, the number of its parameters, and these as words. Numbers are little endian. The CRC is CRC-16/XMODEM over all
of the frame but itself.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from ..errors import USUAL_SILENCES, Meaning, ProtocolError, Step

START = 0x5A
AROUND = 6
"""Bytes of a frame beside its payload."""
LEAST_PACKET, MOST_PACKET = 32, 4096
"""Bytes of a data packet: what every bootloader takes, and more than any reports. A response is no longer than that either."""
PING_BYTES = 8
WORD = 4


class Frame(IntEnum):
    """The types of frames ("Framing packet types")."""

    ACK = 0xA1
    NAK = 0xA2
    ACK_ABORT = 0xA3
    COMMAND = 0xA4
    DATA = 0xA5
    PING = 0xA6
    PING_RESPONSE = 0xA7


class Command(IntEnum):
    FLASH_ERASE_ALL = 0x01
    FLASH_ERASE_REGION = 0x02
    READ_MEMORY = 0x03
    WRITE_MEMORY = 0x04
    FILL_MEMORY = 0x05
    FLASH_SECURITY_DISABLE = 0x06
    GET_PROPERTY = 0x07
    RECEIVE_SB_FILE = 0x08
    EXECUTE = 0x09
    CALL = 0x0A
    RESET = 0x0B
    SET_PROPERTY = 0x0C
    FLASH_ERASE_ALL_UNSECURE = 0x0D
    FLASH_PROGRAM_ONCE = 0x0E
    FLASH_READ_ONCE = 0x0F
    FLASH_READ_RESOURCE = 0x10
    CONFIGURE_MEMORY = 0x11
    RELIABLE_UPDATE = 0x12


class Response(IntEnum):
    GENERIC = 0xA0
    READ_MEMORY = 0xA3
    GET_PROPERTY = 0xA7
    FLASH_READ_ONCE = 0xAF
    FLASH_READ_RESOURCE = 0xB0


class Property(IntEnum):
    BOOTLOADER_VERSION = 0x01
    FLASH_START = 0x03
    FLASH_SIZE = 0x04
    FLASH_SECTOR_SIZE = 0x05
    AVAILABLE_COMMANDS = 0x07
    MAX_PACKET_SIZE = 0x0B
    RESERVED_REGIONS = 0x0C
    SYSTEM_DEVICE_ID = 0x10
    FLASH_SECURITY_STATE = 0x11
    UNIQUE_DEVICE_ID = 0x12


class Status(IntEnum):
    """Those that a flash may meet ("Status error codes")."""

    SUCCESS = 0
    FAIL = 1
    OUT_OF_RANGE = 3
    INVALID_ARGUMENT = 4
    TIMEOUT = 5
    FLASH_SIZE_ERROR = 100
    FLASH_ALIGNMENT_ERROR = 101
    FLASH_ADDRESS_ERROR = 102
    FLASH_ACCESS_ERROR = 103
    FLASH_PROTECTION_VIOLATION = 104
    FLASH_COMMAND_FAILURE = 105
    FLASH_REGION_EXECUTE_ONLY = 108
    UNKNOWN_COMMAND = 10000
    SECURITY_VIOLATION = 10001
    ABORT_DATA_PHASE = 10002
    PING = 10003
    ROMLDR_SIGNATURE = 10101
    ROMLDR_UNENCRYPTED_ONLY = 10103
    ROMLDR_KEY_NOT_FOUND = 10112
    ROMLDR_SECURE_ONLY = 10113
    ROMLDR_ROLLBACK_BLOCKED = 10115
    MEMORY_RANGE_INVALID = 10200
    MEMORY_WRITE_FAILED = 10202
    MEMORY_CUMULATIVE_WRITE = 10203
    MEMORY_NOT_CONFIGURED = 10205
    MEMORY_ALIGNMENT_ERROR = 10206
    MEMORY_WRITE_PROTECTED = 10208
    UNKNOWN_PROPERTY = 10300


MEANINGS: Mapping[int, Meaning] = {
    Status.INVALID_ARGUMENT: Meaning.LOST,
    Status.TIMEOUT: Meaning.LOST,
    Status.ABORT_DATA_PHASE: Meaning.LOST,
    Status.PING: Meaning.LOST,
    Status.OUT_OF_RANGE: Meaning.REFUSED,
    Status.FLASH_SIZE_ERROR: Meaning.REFUSED,
    Status.FLASH_ALIGNMENT_ERROR: Meaning.REFUSED,
    Status.FLASH_ADDRESS_ERROR: Meaning.REFUSED,
    Status.FLASH_ACCESS_ERROR: Meaning.REFUSED,
    Status.FLASH_PROTECTION_VIOLATION: Meaning.REFUSED,
    Status.FLASH_REGION_EXECUTE_ONLY: Meaning.REFUSED,
    Status.UNKNOWN_COMMAND: Meaning.REFUSED,
    Status.SECURITY_VIOLATION: Meaning.REFUSED,
    Status.ROMLDR_SIGNATURE: Meaning.REFUSED,
    Status.ROMLDR_UNENCRYPTED_ONLY: Meaning.REFUSED,
    Status.ROMLDR_KEY_NOT_FOUND: Meaning.REFUSED,
    Status.ROMLDR_SECURE_ONLY: Meaning.REFUSED,
    Status.ROMLDR_ROLLBACK_BLOCKED: Meaning.REFUSED,
    Status.MEMORY_RANGE_INVALID: Meaning.REFUSED,
    Status.MEMORY_NOT_CONFIGURED: Meaning.REFUSED,
    Status.MEMORY_ALIGNMENT_ERROR: Meaning.REFUSED,
    Status.MEMORY_WRITE_PROTECTED: Meaning.REFUSED,
    Status.UNKNOWN_PROPERTY: Meaning.REFUSED,
}
"""Any other status is FAILED. LOST: the data phase was ended, by a byte that was lost or a ping in the midst of it, or an
acknowledgement did not come: what the part holds is compared, and the rest is written."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.ERASE: Meaning.LOST, Step.START: Meaning.DONE}
"""ERASE: the answer comes after the work, which has its time; a ping then shows where the bootloader is. START: the answer to
RESET comes before the reset, and may be lost with it."""
NOT_SECURE = 0x5A5A5A5A
"""The security state of a part with a flash that is open, in later bootloaders; in earlier ones it is 0."""


class Answer(NamedTuple):
    """A response: its tag, its status, its other parameters."""

    tag: int
    status: int
    values: tuple[int, ...]


def short(kind: Frame) -> bytes:
    """A frame without a payload: ACK, NAK, ACK ABORT, PING."""
    return bytes((START, kind))


def framed(kind: Frame, payload: bytes) -> bytes:
    head = struct.pack("<BBH", START, kind, len(payload))
    return head + struct.pack("<H", crc_hqx(head + payload, 0)) + payload


def command(tag: Command, *parameters: int, has_data: bool = False) -> bytes:
    """A command's frame. `has_data`: a data phase to the part follows."""
    payload = struct.pack(f"<BBBB{len(parameters)}I", tag, has_data, 0, len(parameters), *parameters)
    return framed(Frame.COMMAND, payload)


def size_of_command(parameters: int) -> int:
    """Bytes of a frame with a command or a response with this number of parameters."""
    return AROUND + WORD + WORD * parameters


def next_frame(kept: bytearray) -> tuple[Frame, bytes] | None:
    """The next frame in `kept`, which loses it and what is before it that is not a frame; None: none is whole yet.

    A ping's response gives its version as payload. Raises ProtocolError for a frame that is garbled; its first byte is gone then.
    """
    while (start := kept.find(START)) >= 0:
        del kept[:start]
        if len(kept) < 2:
            return None
        if kept[1] not in Frame.__members__.values():
            del kept[:1]
            continue
        kind = Frame(kept[1])
        if kind is Frame.PING_RESPONSE:
            return _taken(kept, kind, 2, 2 + PING_BYTES, 2)
        if kind not in (Frame.COMMAND, Frame.DATA):
            del kept[:2]
            return kind, b""
        if len(kept) < AROUND:
            return None
        size = int.from_bytes(kept[2:4], "little")
        if size > MOST_PACKET:
            del kept[:1]
            raise ProtocolError(f"an answer of {size} bytes")
        return _taken(kept, kind, AROUND, AROUND + size, 0)
    kept.clear()
    return None


def _taken(kept: bytearray, kind: Frame, start: int, end: int, after: int) -> tuple[Frame, bytes] | None:
    """The frame whose payload is from `start` to `end`, with its CRC before that, or as the last `after` bytes of it."""
    if len(kept) < end:
        return None
    data = bytes(kept[:end])
    at = end - after if after else start - 2
    if crc_hqx(data[:at] + data[at + 2 :], 0) != int.from_bytes(data[at : at + 2], "little"):
        del kept[:1]
        raise ProtocolError("a garbled answer")
    del kept[:end]
    return kind, data[start : end - after]


def answer(payload: bytes) -> Answer:
    """A response's payload. Raises ProtocolError."""
    if len(payload) < 2 * WORD or len(payload) < WORD + WORD * payload[3] or not payload[3]:
        raise ProtocolError(f"a response of {len(payload)} bytes: {payload[:16].hex(' ')}")
    status, *values = struct.unpack_from(f"<{payload[3]}I", payload, WORD)
    return Answer(payload[0], status, tuple(values))


def version_text(value: int) -> str:
    """A version as the bootloader packs it: a letter, major, minor, bug fix ("K1.5.1")."""
    name = chr(value >> 24) if 0x20 < value >> 24 < 0x7F else ""
    return f"{name}{value >> 16 & 0xFF}.{value >> 8 & 0xFF}.{value & 0xFF}"
