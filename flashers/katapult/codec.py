"""The bytes of Katapult's protocol, after protocol.md of the repository Arksine/katapult (protocol version 1.1.0), and of the
admin messages by which nodes on CAN get their ids: Klipper's CANBUS_protocol.md, and Katapult's own commands.

A message has a header, a command or a result, the number of its payload's 4-byte words, the payload, a CRC, a trailer.
Numbers are little endian. protocol.md calls the CRC CRC16-CCITT; by the messages that it shows it is CRC-16/MCRF4XX.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

import crcmod

from ..errors import USUAL_SILENCES, Meaning, ProtocolError, Step

HEADER, TRAILER = b"\x01\x88", b"\x99\x03"
AROUND = 8
"""Bytes of a message beside its payload."""
WORD = 4
BLOCKS = (64, 128, 256, 512)
"""Sizes of a block that a Katapult may have, in bytes."""
CRC = crcmod.mkCrcFun(0x11021, initCrc=0xFFFF, rev=True, xorOut=0)
ADMIN, ADMIN_ANSWER = 0x3F0, 0x3F1
"""Ids of the admin messages to the nodes, and of those from them."""
NODES = range(128, 256)
"""Node ids for bootloaders: Klipper gives lower ones to its applications."""
UUID_BYTES = 6


class Command(IntEnum):
    CONNECT = 0x11
    SEND_BLOCK = 0x12
    EOF = 0x13
    REQUEST_BLOCK = 0x14
    COMPLETE = 0x15
    GET_CANBUS_ID = 0x16


class Result(IntEnum):
    ACKNOWLEDGED = 0xA0
    NACK = 0xF1
    COMMAND_ERROR = 0xF2
    BUSY = 0xF3


class Admin(IntEnum):
    QUERY_UNASSIGNED = 0x00
    REQUEST_BOOTLOADER = 0x02
    """To the node with a UUID whose application is Klipper's: it restarts into its bootloader."""
    SET_NODE_ID = 0x11
    CLEAR_NODE_IDS = 0x12
    """To the bootloaders of all nodes. proxyflash doesn't send it: others may be about to flash."""
    NEED_NODE_ID = 0x20
    """The answer to QUERY_UNASSIGNED."""


class Program(IntEnum):
    """What a node without a node id runs, by the command that gives it one."""

    KLIPPER = 0x01
    KATAPULT = 0x11


MEANINGS: Mapping[int, Meaning] = {
    Result.NACK: Meaning.LOST,
    Result.COMMAND_ERROR: Meaning.FAILED,
    Result.BUSY: Meaning.BUSY,
}
"""Any other result is LOST. A block may be refused because a block before it is missing in its page: the engine compares
then, and writes the page again."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.START: Meaning.DONE}
"""COMPLETE restarts the node, and its answer may be lost."""


@dataclass(frozen=True, slots=True)
class About:
    """The answer to CONNECT. `start`: where the application lies; `block`: bytes of a block; `mcu`: the type of the
    microcontroller; `software`: Katapult's version, "" where it says none (before protocol 1.1.0)."""

    protocol: str
    start: int
    block: int
    mcu: str
    software: str


def message(code: int, payload: bytes = b"") -> bytes:
    """`payload`: whole words."""
    body = bytes((code, len(payload) // WORD)) + payload
    return HEADER + body + struct.pack("<H", CRC(body)) + TRAILER


def word(value: int) -> bytes:
    return struct.pack("<I", value)


def size_with(payload: int) -> int:
    """Bytes of an acknowledgement with a payload of this size, the command's word included."""
    return AROUND + WORD + payload


def messages_in(kept: bytearray) -> Iterator[tuple[int, bytes]]:
    """The results and payloads of the whole messages in `kept`, which loses them, and what is not a message.

    Raises ProtocolError for a message that is garbled; its bytes are gone then.
    """
    while (start := kept.find(HEADER)) >= 0:
        del kept[:start]
        if len(kept) < AROUND:
            return
        size = AROUND + WORD * kept[3]
        if len(kept) < size:
            return
        body, crc, trailer = bytes(kept[2 : size - 4]), kept[size - 4 : size - 2], kept[size - 2 : size]
        if trailer != TRAILER or crc != struct.pack("<H", CRC(body)):
            del kept[: len(HEADER)]
            raise ProtocolError("a garbled answer")
        del kept[:size]
        yield body[0], body[2:]
    del kept[: -1 if kept.endswith(HEADER[:1]) else len(kept)]


def about(payload: bytes) -> About:
    """The payload of CONNECT's acknowledgement, behind the command. Raises ProtocolError."""
    if len(payload) < 3 * WORD:
        raise ProtocolError(f"the answer to CONNECT has {len(payload)} bytes")
    version, start, block = struct.unpack_from("<III", payload)
    if block not in BLOCKS:
        raise ProtocolError(f"the answer to CONNECT says that a block has {block} bytes")
    mcu, _, software = payload[3 * WORD :].partition(b"\0")
    protocol = ".".join(str(version >> shift & 0xFF) for shift in (16, 8, 0))
    return About(protocol, start, block, _text(mcu), _text(software.strip(b"\0")))


def node_ids(node: int) -> tuple[int, int]:
    """The ids that a node with this node id receives and sends under (CANBUS_protocol.md)."""
    return 0x100 + 2 * node, 0x101 + 2 * node


def admin(command: Admin, uuid: bytes = b"", *rest: int) -> bytes:
    return bytes((command,)) + uuid + bytes(rest)


def unassigned(data: bytes) -> tuple[bytes, int] | None:
    """The UUID and the program of a node that says that it has no node id; None: another message.

    A node that names no program is Klipper's (CANBUS_protocol.md has no such byte).
    """
    if len(data) <= UUID_BYTES or data[0] != Admin.NEED_NODE_ID:
        return None
    return data[1 : 1 + UUID_BYTES], data[1 + UUID_BYTES] if len(data) > 1 + UUID_BYTES else Program.KLIPPER


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace")
