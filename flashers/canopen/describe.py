"""SDO, NMT, heartbeats and LSS in words, after CiA 301 and CiA 305.

A node that no file lists is known once it has sent a heartbeat, or was asked for its device type: elsewhere the ids of SDO may be
those of anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...transports.recording.records import CanFrame, Record
from ..describing import ERROR, EXTENDED, REMOTE, Describer, Line, Said, name_in, shown
from . import codec
from .codec import NODES, STATES, Lss, Object, abort_words, heartbeat

COMMANDS: dict[int, str] = {
    0x01: "NMT start",
    0x02: "NMT stop",
    0x80: "NMT pre-operational",
    0x81: "NMT reset node",
    0x82: "NMT reset communication",
}
LSS: dict[int, str] = {
    Lss.SWITCH_ALL: "LSS switch all",
    Lss.CONFIGURE_NODE: "LSS configure node id",
    Lss.SELECT_VENDOR: "LSS select vendor",
    Lss.SELECT_PRODUCT: "LSS select product",
    Lss.SELECT_REVISION: "LSS select revision",
    Lss.SELECT_SERIAL: "LSS select serial number",
    Lss.SELECTED: "LSS selected",
    Lss.FOUND: "LSS matches",
    Lss.FASTSCAN: "LSS fastscan",
}
OBJECTS: dict[int, str] = {
    Object.PROGRAM_DATA: "program data",
    Object.PROGRAM_CONTROL: "program control",
    Object.PROGRAM_ID: "program identification",
    Object.FLASH_STATUS: "flash status",
}
ASKED = codec.upload(Object.DEVICE_TYPE, 0)


class CanopenDescriber(Describer):
    """One node; None: those of the bus that are known by what they send."""

    addressed = True

    def __init__(self, part: str = "", node: int | None = None) -> None:
        super().__init__(part)
        self._node = node
        self._known = set() if node is None else {node}
        self._in_blocks: set[int] = set()
        """The nodes that take segments of a block now."""

    def take(self, record: Record) -> Iterable[Line] | None:
        if not isinstance(record, CanFrame) or record.flags & (ERROR | REMOTE | EXTENDED):
            return None
        identifier, data = record.can_id, bytes(record.data)
        if identifier == codec.NMT:
            return self._managed(record, data)
        if identifier in (codec.LSS_REQUEST, codec.LSS_RESPONSE):
            return self._by_lss(record, data)
        node = identifier & 0x7F
        if node not in NODES or (self._node is not None and node != self._node):
            return None
        match identifier & 0x780:
            case codec.HEARTBEAT:
                return self._beaten(record, node, data)
            case codec.SDO_REQUEST | codec.SDO_RESPONSE if len(data) == codec.FRAME:
                sent = identifier & 0x780 == codec.SDO_REQUEST
                if self._node is None and sent and data == ASKED:
                    self._known.add(node)
                if node not in self._known:
                    return None
                said = self._sdo(node, data, sent)
                return [] if said is None else [self.line(record, sent, self._of(node, said), data)]
        return None

    def _of(self, node: int, said: Said) -> Said:
        return said if self._node is not None else Said(f"node {node}: {said.words}", said.failed)

    def _managed(self, record: CanFrame, data: bytes) -> Iterable[Line] | None:
        if len(data) != 2 or data[0] not in COMMANDS or not (data[1] in self._known or (data[1] == 0 and self._known)):
            return None
        words = COMMANDS[data[0]] + (" of all nodes" if data[1] == 0 else "")
        line = self.line(record, True, self._of(data[1], Said(words)), data)
        return [replace(line, part="") if data[1] == 0 else line]

    def _beaten(self, record: CanFrame, node: int, data: bytes) -> Iterable[Line] | None:
        state = heartbeat(data)
        if state is None:
            return None
        self._known.add(node)
        if state == 0:
            self._in_blocks.discard(node)
        words = "boot-up" if state == 0 else f"heartbeat: {STATES[state]}"
        return [self.line(record, False, self._of(node, Said(words)), data)]

    def _by_lss(self, record: CanFrame, data: bytes) -> Iterable[Line] | None:
        if len(data) != codec.FRAME or data[0] not in LSS or (data[0] in (4, 0x11) and any(data[3:])):
            return None
        words, word = LSS[data[0]], int.from_bytes(data[1:5], "little")
        match data[0]:
            case Lss.SWITCH_ALL:
                words += " to configuration" if data[1] else " to waiting"
            case Lss.CONFIGURE_NODE:
                words += f" {data[1]}"
            case Lss.SELECT_VENDOR | Lss.SELECT_PRODUCT | Lss.SELECT_REVISION | Lss.SELECT_SERIAL:
                words += f" 0x{word:08X}"
            case Lss.FASTSCAN:
                words += (
                    " of who has no node id"
                    if data[5] == 0x80
                    else f" part {data[6]}, 0x{word:08X} from bit {data[5]} on"
                )
        return [replace(self.line(record, record.can_id == codec.LSS_REQUEST, Said(words), data), part="")]

    def _sdo(self, node: int, data: bytes, sent: bool) -> Said | None:
        """None: a segment, of which the acknowledgement is shown."""
        if data[0] == 0x80:
            self._in_blocks.discard(node)
            return Said(f"abort {_place(data)}: {abort_words(int.from_bytes(data[4:], 'little'))}", True)
        if sent and node in self._in_blocks:
            return None
        kind = data[0] >> 5
        return self._requested(data, kind) if sent else self._answered(node, data, kind)

    def _requested(self, data: bytes, kind: int) -> Said | None:
        size = int.from_bytes(data[4:], "little")
        match kind:
            case 1 if data[0] & 2:
                return Said(f"write {_place(data)}: {shown(_value(data))}")
            case 1:
                return Said(f"begin download to {_place(data)}, {size:,} bytes")
            case 2:
                return Said(f"read {_place(data)}")
            case 6 if data[0] & 1:
                return Said(f"end block download, CRC 0x{int.from_bytes(data[1:3], 'little'):04X}")
            case 6:
                return Said(f"begin block download to {_place(data)}, {size:,} bytes")
            case 0 | 3:
                return None
        return Said(f"unknown: {shown(data)}")

    def _answered(self, node: int, data: bytes, kind: int) -> Said | None:
        match kind:
            case 2 if data[0] & 2:
                return Said(f"{_place(data)} is {shown(_value(data))}")
            case 2:
                return Said(f"{_place(data)} has {int.from_bytes(data[4:], 'little'):,} bytes")
            case 3:
                return Said(f"{_place(data)} accepted")
            case 0:
                return Said(f"segment: {shown(data[1 : 8 - (data[0] >> 1 & 7)])}")
            case 1:
                return None
            case 5:
                return self._block_answered(node, data)
        return Said(f"unknown: {shown(data)}")

    def _block_answered(self, node: int, data: bytes) -> Said:
        match data[0] & 3:
            case 0:
                self._in_blocks.add(node)
                return Said(f"block download to {_place(data)} accepted, {data[4]} segments each")
            case 2:
                # The last one of all is followed by the end, which no segment looks like.
                return Said(f"{data[1]} segments acknowledged, {data[2]} are next")
        self._in_blocks.discard(node)
        return Said("block download complete")


def _place(data: bytes) -> str:
    index = int.from_bytes(data[1:3], "little")
    return f"0x{index:04X}:{data[3]}" + (f" ({name_in(OBJECTS, index)})" if index in OBJECTS else "")


def _value(data: bytes) -> bytes:
    return data[4 : 8 - (data[0] >> 2 & 3)] if data[0] & 1 else data[4:]
