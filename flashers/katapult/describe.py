"""Katapult's messages in words, after its protocol.md, and the admin messages of CAN, after Klipper's CANBUS_protocol.md.

On CAN a node's messages go under ids that an admin message gives it, so a node is known once that message passed. On a bus
whose nodes no file lists, only nodes that have said that they need a node id are known: elsewhere the ids of the admin messages
may be those of anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ...transports.recording.records import CanFrame, Record
from ..describing import ERROR, EXTENDED, REMOTE, Describer, Line, Said, StreamDescriber, name_in, shown
from ..errors import ProtocolError
from .codec import (
    ADMIN,
    ADMIN_ANSWER,
    AROUND,
    CRC,
    HEADER,
    NODES,
    TRAILER,
    UUID_BYTES,
    WORD,
    Admin,
    Command,
    Program,
    Result,
    about,
    node_ids,
    unassigned,
)

NAMES: dict[int, str] = {
    **{code: code.name.replace("_", " ") for code in Command},
    0x17: "GET SD CARD STATUS",
}
RESULTS: dict[int, str] = {
    Result.ACKNOWLEDGED: "acknowledged",
    Result.NACK: "NACK",
    Result.COMMAND_ERROR: "command error",
    Result.BUSY: "busy",
}
ADMIN_NAMES: dict[int, str] = {
    Admin.QUERY_UNASSIGNED: "query nodes without a node id",
    0x01: "set node id of the application",
    Admin.REQUEST_BOOTLOADER: "request bootloader",
    Admin.SET_NODE_ID: "set node id of the bootloader",
    Admin.CLEAR_NODE_IDS: "clear node ids of all bootloaders",
    Admin.NEED_NODE_ID: "needs a node id",
}
PROGRAMS: dict[int, str] = {Program.KLIPPER: "application", Program.KATAPULT: "bootloader"}
LONGEST = AROUND + 255 * WORD
"""Bytes of a message, at most."""
MOST_NODES = 256
"""UUIDs that are kept."""
TO_ALL = (bytes((Admin.QUERY_UNASSIGNED,)), bytes((Admin.CLEAR_NODE_IDS,)))
ADDRESSED = (Command.SEND_BLOCK, Command.REQUEST_BLOCK)


def cut(data: bytes | bytearray, ended: bool) -> tuple[int, Said] | None:
    """The length of the first message of `data`, and what it says; None: its end has not come. See `StreamDescriber`."""
    if data[: len(HEADER)] != HEADER[: len(data)]:
        start = data.find(HEADER, 1)
        size = start if start > 0 else len(data)
        return size, Said(f"unknown: {shown(data[:size])}")
    size = AROUND + WORD * data[3] if len(data) > 3 else LONGEST
    if len(data) < size:
        return (len(data), Said(f"broken off: {shown(data)}", True)) if ended else None
    body = bytes(data[2 : size - 4])
    said = _said(body[0], body[2:])
    if data[size - 4 : size] != struct.pack("<H", CRC(body)) + TRAILER:
        return size, Said(f"{said.words}, CRC wrong", True)
    return size, said


def _said(code: int, payload: bytes) -> Said:
    if code not in RESULTS:
        return Said(f"{name_in(NAMES, code)}{_place(code, payload)}")
    if code != Result.ACKNOWLEDGED:
        return Said(RESULTS[code], code != Result.BUSY)
    command = int.from_bytes(payload[:WORD], "little")
    payload = payload[WORD:]
    words = f"acknowledged {name_in(NAMES, command)}{_place(command, payload)}"
    if command == Command.CONNECT:
        words += _connected(payload)
    elif command == Command.EOF:
        words += f": {int.from_bytes(payload[:WORD], 'little'):,} pages"
    elif command == Command.GET_CANBUS_ID:
        words += f": UUID {payload[:UUID_BYTES].hex()}"
    return Said(words)


def _place(command: int, payload: bytes) -> str:
    if command not in ADDRESSED or len(payload) < WORD:
        return ""
    data = payload[WORD:]
    return f" 0x{int.from_bytes(payload[:WORD], 'little'):08X}" + (f": {shown(data)}" if data else "")


def _connected(payload: bytes) -> str:
    try:
        found = about(payload)
    except ProtocolError:
        return f": {shown(payload)}"
    return (
        f": protocol {found.protocol}, application at 0x{found.start:08X}, blocks of {found.block} bytes, {found.mcu}"
        f"{' ' * bool(found.software)}{found.software}"
    )


def admin_words(data: bytes) -> str:
    """An admin message."""
    if not data:
        return "admin message without a command"
    words = name_in(ADMIN_NAMES, data[0])
    if len(data) > UUID_BYTES:
        words += f", UUID {data[1 : 1 + UUID_BYTES].hex()}"
        if len(data) > 1 + UUID_BYTES:
            last = data[1 + UUID_BYTES]
            words += f", {name_in(PROGRAMS, last)}" if data[0] == Admin.NEED_NODE_ID else f", node id {last}"
    return words


class KatapultUartDescriber(StreamDescriber):
    """One bootloader on a serial line."""

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        return cut(data, ended)


class KatapultCanDescriber(Describer):
    """One node. `uuid`: its own; None: the nodes of the bus that have said that they need a node id."""

    addressed = True

    def __init__(self, part: str = "", uuid: bytes | None = None) -> None:
        super().__init__(part)
        self._learns = uuid is None
        self._uuids = set() if uuid is None else {uuid}
        self._kept: dict[int, bytearray] = {}
        """Of each id of a node that has got a node id the bytes of a message that has not ended."""
        self._last: dict[int, CanFrame] = {}

    def take(self, record: Record) -> Iterable[Line] | None:
        if not isinstance(record, CanFrame) or record.flags & (ERROR | REMOTE | EXTENDED):
            return None
        if record.can_id in (ADMIN, ADMIN_ANSWER):
            return self._admin(record)
        kept = self._kept.get(record.can_id)
        if kept is None:
            return None
        kept += record.data
        self._last[record.can_id] = record
        return list(self._taken(record.can_id, ended=False))

    def end(self) -> Iterator[Line]:
        for identifier in self._kept:
            yield from self._taken(identifier, ended=True)

    def _admin(self, record: CanFrame) -> Iterable[Line] | None:
        data, sent = record.data, record.can_id == ADMIN
        if sent and data in TO_ALL and self._uuids:
            return [replace(self.line(record, sent, Said(admin_words(data)), data), part="")]
        uuid = bytes(data[1 : 1 + UUID_BYTES])
        if self._learns and not sent and unassigned(data) is not None and data[-1] in PROGRAMS:
            self._uuids.add(uuid)
            while len(self._uuids) > MOST_NODES:
                self._uuids.pop()
        if uuid not in self._uuids:
            return None
        if data[0] == Admin.SET_NODE_ID and len(data) > 1 + UUID_BYTES and data[-1] in NODES:
            if not self._learns:
                self._kept.clear()
            for identifier in node_ids(data[-1]):
                self._kept[identifier] = bytearray()
        return [self.line(record, sent, Said(admin_words(data)), data)]

    def _taken(self, identifier: int, ended: bool) -> Iterator[Line]:
        kept = self._kept[identifier]
        while kept and (found := cut(kept, ended)) is not None:
            size, said = found
            data = bytes(kept[:size])
            del kept[:size]
            yield self.line(self._last[identifier], identifier % 2 == 0, said, data)
