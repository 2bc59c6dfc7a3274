"""SMP packets on a serial line, from the part's side (Zephyr, "SMP Protocol Specification", "SMP Transport Specification").

A packet is a header of 8 bytes, big endian, and a CBOR map. On a console it travels as lines of base64 between other text:
the first begins with 06 09 and holds length, packet and CRC-16, the further ones begin with 04 14. On a raw line the
packets follow each other with nothing between.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

HEADER = struct.Struct(">BBHHBB")
FIRST, FURTHER = b"\x06\x09", b"\x04\x14"
LINE = 127
"""Bytes of a line that is sent, with its marker and its end."""
OVERHEAD = 4
"""Bytes of a console packet beside the packet itself: length and CRC. They take room in the part's buffer."""


class Op(IntEnum):
    READ = 0
    READ_RSP = 1
    WRITE = 2
    WRITE_RSP = 3


@dataclass(frozen=True, slots=True)
class Packet:
    """`version`: 0 for SMP version 1, 1 for version 2. `body`: the CBOR map, as it came."""

    op: int
    version: int
    group: int
    sequence: int
    command: int
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> Packet | None:
        """None where the length in the header isn't the packet's."""
        if len(data) < HEADER.size:
            return None
        first, _, length, group, sequence, command = HEADER.unpack_from(data)
        if length != len(data) - HEADER.size:
            return None
        return cls(first & 7, first >> 3 & 3, group, sequence, command, data[HEADER.size :])

    def answer(self, version: int, body: bytes) -> bytes:
        head = version << 3 | (Op.READ_RSP if self.op == Op.READ else Op.WRITE_RSP)
        return HEADER.pack(head, 0, len(body), self.group, self.sequence, self.command) + body


class Framing(Protocol):
    """How packets lie on the line. Keeps the beginning of a packet that isn't complete."""

    overhead: int

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The packets that these bytes complete."""

    def lines(self, packet: bytes) -> Iterator[bytes]:
        """What is sent for a packet, in pieces between which other text may come."""

    def heard(self) -> bytes:
        """What came beside packets since the last time: text for the application."""

    def silence(self) -> None:
        """Nothing came for as long as the part waits within a packet."""


class Console:
    """`room`: bytes that the part's buffer holds; longer packets are dropped. `line`: bytes of its line buffer."""

    overhead = OVERHEAD

    def __init__(self, room: int, line: int = LINE + 1) -> None:
        self._room = room
        self._limit = line
        self._marker = b""
        self._line = bytearray()
        self._packet: bytearray | None = None
        self._text = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        for byte in data:
            if len(self._marker) < 2:
                self._outside(byte)
            elif byte == 0x0A:
                packet = self._take_line()
                self._marker = b""
                self._line.clear()
                if packet is not None:
                    yield packet
            elif len(self._line) < self._limit:
                self._line.append(byte)

    def _outside(self, byte: int) -> None:
        marker = self._marker + bytes([byte])
        if FIRST.startswith(marker) or FURTHER.startswith(marker):
            self._marker = marker
            return
        self._text += marker
        del self._text[: -self._limit]
        self._marker = b""

    def _take_line(self) -> bytes | None:
        """The packet that this line completes."""
        if self._marker == FIRST:
            self._packet = bytearray()
        if self._packet is None:
            return None
        try:
            self._packet += base64.b64decode(self._line.rstrip(b"\r"), validate=True)
        except binascii.Error:
            self._packet = None
            return None
        if len(self._packet) < 2:
            return None
        size = int.from_bytes(self._packet[:2], "big")
        if size > self._room - 2 or len(self._packet) - 2 > size:
            self._packet = None
            return None
        if len(self._packet) - 2 < size:
            return None
        body, self._packet = bytes(self._packet[2:]), None
        return body[:-2] if len(body) > 2 and binascii.crc_hqx(body, 0) == 0 else None

    def lines(self, packet: bytes) -> Iterator[bytes]:
        """The CRC lies in one line, as Zephyr has it."""
        rest = (len(packet) + 2).to_bytes(2, "big") + packet
        crc = binascii.crc_hqx(packet, 0).to_bytes(2, "big")
        room = (LINE - 3) // 4 * 3
        marker = FIRST
        while len(rest) + len(crc) > room:
            size = min(room, (len(rest) - 1) // 3 * 3)
            yield marker + base64.b64encode(rest[:size]) + b"\n"
            rest, marker = rest[size:], FURTHER
        yield marker + base64.b64encode(rest + crc) + b"\n"

    def heard(self) -> bytes:
        text = bytes(self._text)
        self._text.clear()
        return text

    def silence(self) -> None:
        """A line is waited for without limit."""


class Raw:
    """`room`: bytes that the part's buffer holds."""

    overhead = 0

    def __init__(self, room: int) -> None:
        self._room = room
        self._packet = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What can't be the start of a request is dropped, with all that has come by then: nothing marks the next one."""
        self._packet += data
        while len(self._packet) >= HEADER.size:
            size = HEADER.size + int.from_bytes(self._packet[2:4], "big")
            if size > self._room or self._packet[0] & 7 not in (Op.READ, Op.WRITE):
                self._packet.clear()
            elif len(self._packet) < size:
                return
            else:
                packet = bytes(self._packet[:size])
                del self._packet[:size]
                yield packet

    def lines(self, packet: bytes) -> Iterator[bytes]:
        yield packet

    def heard(self) -> bytes:
        """A raw line carries no text."""
        return b""

    def silence(self) -> None:
        self._packet.clear()
