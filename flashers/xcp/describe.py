"""XCP's packets in words, after ASAM MCD-1 XCP 1.x, part 2.

An answer does not say what it answers: it is that to the packet before it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...transports.can.bus import CanId
from ...transports.recording.records import CanFrame, Record
from ..describing import ERROR as ERROR_FRAME
from ..describing import EXTENDED, REMOTE, Describer, Line, Said, StreamDescriber, name_in, shown
from ..errors import ProtocolError
from .codec import ADDS, CRCS, ERROR, EVENT, RESPONSE, SERVICE, Command, Connected, Err, connected

NAMES: dict[int, str] = {
    **{code: code.name for code in Command},
    0xFB: "GET_COMM_MODE_INFO",
    0xF9: "SET_REQUEST",
    0xF1: "USER_CMD",
    0xEF: "DOWNLOAD_NEXT",
    0xEE: "DOWNLOAD_MAX",
    0xCE: "GET_PGM_PROCESSOR_INFO",
    0xCD: "GET_SECTOR_INFO",
    0xCB: "PROGRAM_FORMAT",
}
EVENTS: dict[int, str] = {
    0x00: "EV_RESUME_MODE",
    0x01: "EV_CLEAR_DAQ",
    0x02: "EV_STORE_DAQ",
    0x03: "EV_STORE_CAL",
    0x05: "EV_CMD_PENDING",
    0x06: "EV_DAQ_OVERLOAD",
    0x07: "EV_SESSION_TERMINATED",
    0xFE: "EV_USER",
    0xFF: "EV_TRANSPORT",
}
WITH_DATA = (Command.PROGRAM, Command.PROGRAM_NEXT, Command.DOWNLOAD)
HIDDEN = (Command.GET_SEED, Command.UNLOCK)
DETAILED = 8
"""Bytes of a packet with an address or a number at its end."""


class Words:
    """What the packets of one slave say, one after the other. `secret`: the last one held a seed or a key."""

    def __init__(self) -> None:
        self.secret = False
        self._last = 0
        self._session = Connected(0, "little", 1, DETAILED, "")

    def sent(self, packet: bytes) -> Said:
        command = self._last = packet[0] if packet else 0
        self.secret = command == Command.UNLOCK
        words = name_in(NAMES, command)
        number = self._session.number(packet[4:8]) if len(packet) >= DETAILED else None
        if command in WITH_DATA and len(packet) > 1:
            words += f" {packet[1]:,}" + (f": {shown(packet[2:])}" if packet[1] else ", the end")
        elif command == Command.PROGRAM_MAX:
            words += f": {shown(packet[1:])}"
        elif command in (Command.SET_MTA, Command.SHORT_UPLOAD) and number is not None:
            words += f" 0x{number:08X}"
        elif command == Command.BUILD_CHECKSUM and number is not None:
            words += f" {number:,}"
        elif command == Command.PROGRAM_CLEAR and number is not None:
            words += f" areas 0x{number:08X}" if packet[1] else f" {number:,}"
        if command in (Command.UPLOAD, Command.SHORT_UPLOAD) and len(packet) > 1:
            words += f" {packet[1]:,}"
        if command == Command.UNLOCK:
            words += f": {max(0, len(packet) - 2)} bytes of a key"
        return Said(words)

    def received(self, packet: bytes) -> Said:
        kind = packet[0] if packet else 0
        self.secret = kind == RESPONSE and self._last == Command.GET_SEED
        if kind == ERROR and len(packet) > 1:
            number = packet[1]
            name = f"ERR_{Err(number).name}" if number in list(Err) else f"error 0x{number:02X}"
            return Said(name, not (number == Err.CMD_SYNCH and self._last == Command.SYNCH))
        if kind == EVENT and len(packet) > 1:
            return Said(name_in(EVENTS, packet[1]))
        if kind == SERVICE:
            return Said(f"service request: {shown(packet[1:])}")
        if kind != RESPONSE:
            return Said(f"data: {shown(packet)}")
        return Said(f"{name_in(NAMES, self._last)}: {self._answer(packet)}".removesuffix(": "))

    def _answer(self, packet: bytes) -> str:
        if self._last == Command.CONNECT:
            try:
                self._session = connected(packet)
            except ProtocolError:
                return shown(packet[1:])
            found = self._session
            return (
                f"packets of {found.max_cto} bytes, {found.order} endian, elements of {found.granularity} bytes, "
                f"version {found.protocol}"
            )
        if self._last in HIDDEN:
            return "done" if self._last == Command.UNLOCK else f"{packet[1] if len(packet) > 1 else 0} bytes of a seed"
        if self._last == Command.BUILD_CHECKSUM and len(packet) >= DETAILED:
            names = {**{kind: row[0] for kind, row in ADDS.items()}, **{kind: row[0] for kind, row in CRCS.items()}}
            return f"{name_in(names, packet[1])} 0x{self._session.number(packet[4:8]):08X}"
        return shown(packet[1:]) if len(packet) > 1 else ""


class XcpCanDescriber(Describer):
    """One slave. `request`: under which it takes commands; None: it has not said that yet."""

    addressed = True

    def __init__(self, part: str, request: CanId | None, response: CanId, broadcast: CanId | None) -> None:
        super().__init__(part)
        self._sent = {item for item in (request, broadcast) if item is not None}
        self._response = response
        self._words = Words()

    def take(self, record: Record) -> Iterable[Line] | None:
        self.secret = False
        if not isinstance(record, CanFrame) or record.flags & (ERROR_FRAME | REMOTE):
            return None
        found = CanId(record.can_id, bool(record.flags & EXTENDED))
        sent = found in self._sent
        if not sent and found != self._response:
            return None
        said = self._words.sent(record.data) if sent else self._words.received(record.data)
        self.secret = self._words.secret
        return [self.line(record, sent, said, record.data)]


class XcpUartDescriber(StreamDescriber):
    """One slave on a serial line. `around`: bytes beside a packet: its length, and its sum where there is one."""

    def __init__(self, part: str, around: int) -> None:
        super().__init__(part)
        self._around = around
        self._words = Words()

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        size = data[0] + self._around
        if len(data) < size:
            return (len(data), Said(f"broken off: {shown(data)}", True)) if ended else None
        packet = bytes(data[1 : 1 + data[0]])
        said = self._words.sent(packet) if sent else self._words.received(packet)
        self.secret = self._words.secret
        if self._around > 1 and sum(data[: size - 1]) & 0xFF != data[size - 1]:
            return size, Said(f"{said.words}, sum wrong", True)
        return size, said
