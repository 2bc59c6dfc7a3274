"""MBoot's packets in words, after the MCU Bootloader Reference Manual."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from ...transports.recording.records import CanFrame, Record
from ..describing import ERROR, EXTENDED, REMOTE, Describer, Line, Said, StreamDescriber, name_in, shown
from ..errors import ProtocolError
from .codec import (
    AROUND,
    MOST_PACKET,
    PING_BYTES,
    START,
    WORD,
    Command,
    Frame,
    Property,
    Response,
    Status,
    answer,
    next_frame,
    version_text,
)

COMMANDS = {code: code.name.replace("_", " ") for code in Command}
PROPERTIES = {code: code.name.replace("_", " ") for code in Property}
STATUSES = {code: code.name.replace("_", " ") for code in Status}
KINDS = {kind: kind.name.replace("_", " ") for kind in Frame}
RANGES = (Command.FLASH_ERASE_REGION, Command.READ_MEMORY, Command.WRITE_MEMORY, Command.FILL_MEMORY)


def cut(data: bytes | bytearray, ended: bool) -> tuple[int, Said] | None:
    """The length of the first packet of `data`, and what it says; None: its end has not come. See `StreamDescriber`."""
    if data[0] != START or (len(data) > 1 and data[1] not in KINDS):
        start = data.find(START, 1)
        size = start if start > 0 else len(data)
        return size, Said(f"unknown: {shown(data[:size])}")
    size = _size(data)
    if len(data) < size:
        return (len(data), Said(f"broken off: {shown(data)}", True)) if ended else None
    kind = Frame(data[1])
    words, failed = _said(kind, bytes(data[AROUND:size]), bytes(data[:size]))
    try:
        next_frame(bytearray(data[:size]))
    except ProtocolError:
        return size, Said(f"{words}, CRC wrong", True)
    return size, Said(words, failed)


def _size(data: bytes | bytearray) -> int:
    if len(data) < 2:
        return 2
    kind = data[1]
    if kind == Frame.PING_RESPONSE:
        return 2 + PING_BYTES
    if kind not in (Frame.COMMAND, Frame.DATA):
        return 2
    size = int.from_bytes(data[2:4], "little") if len(data) >= AROUND else 0
    return AROUND + min(size, MOST_PACKET)


def _said(kind: Frame, payload: bytes, whole: bytes) -> tuple[str, bool]:
    """Words, and whether it is a failure."""
    match kind:
        case Frame.PING:
            return "ping", False
        case Frame.PING_RESPONSE:
            return f"ping response: protocol {version_text(int.from_bytes(whole[2:6], 'little'))}", False
        case Frame.DATA:
            return (f"data: {shown(payload)}" if payload else "end of the data"), False
        case Frame.COMMAND:
            return _command(payload)
    return KINDS[kind], kind in (Frame.NAK, Frame.ACK_ABORT)


def _command(payload: bytes) -> tuple[str, bool]:
    if not payload or payload[0] in Response.__members__.values():
        try:
            found = answer(payload)
        except ProtocolError:
            return f"response: {shown(payload)}", True
        what = f" to {name_in(COMMANDS, found.values[0])}" if found.tag == Response.GENERIC and found.values else ""
        values = "" if what else "".join(f" 0x{value:X}" for value in found.values)
        return f"response{what}: {name_in(STATUSES, found.status)}{values}", found.status != Status.SUCCESS
    words = name_in(COMMANDS, payload[0])
    parameters = struct.unpack(f"<{len(payload[WORD:]) // WORD}I", payload[WORD : len(payload) // WORD * WORD])
    if payload[0] == Command.GET_PROPERTY and parameters:
        words += f" {name_in(PROPERTIES, parameters[0])}"
    elif payload[0] in RANGES and len(parameters) > 1:
        words += f" 0x{parameters[0]:08X}, {parameters[1]:,} bytes"
    elif parameters:
        words += "".join(f" 0x{value:X}" for value in parameters)
    return words, False


class MbootCanDescriber(Describer):
    """One bootloader on CAN, by its two ids."""

    addressed = True

    def __init__(self, part: str, request: int, response: int) -> None:
        super().__init__(part)
        self._kept = {request: bytearray(), response: bytearray()}
        self._request = request
        self._last: dict[int, CanFrame] = {}

    def take(self, record: Record) -> Iterable[Line] | None:
        if not isinstance(record, CanFrame) or record.flags & (ERROR | REMOTE) or record.can_id not in self._kept:
            return None
        if bool(record.flags & EXTENDED) != (record.can_id > 0x7FF):
            return None
        self._kept[record.can_id] += record.data
        self._last[record.can_id] = record
        return list(self._taken(record.can_id, ended=False))

    def end(self) -> Iterator[Line]:
        for identifier in self._kept:
            yield from self._taken(identifier, ended=True)

    def _taken(self, identifier: int, ended: bool) -> Iterator[Line]:
        kept = self._kept[identifier]
        while kept and (found := cut(kept, ended)) is not None:
            size, said = found
            data = bytes(kept[:size])
            del kept[:size]
            yield self.line(self._last[identifier], identifier == self._request, said, data)


class MbootUartDescriber(StreamDescriber):
    """One bootloader on a serial line."""

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        return cut(data, ended)
