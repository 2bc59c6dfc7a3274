"""Katapult itself, as the document has it (protocol.md of Arksine/katapult): messages, blocks, pages. Shares nothing with the
flasher.

A message that is not well formed gets one NACK; bytes are thrown away from then on until a message is well formed again.
Flash is written as src/stm32/flash.c and src/rp2040/flash.c of that repository do: a page is erased when its first block comes
and anything else is in the page; a later block is taken where its place is erased; a block that is there already is
acknowledged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from ..flash import FlashRefused, NorFlash

STX, TRAILER = b"\x01\x88", b"\x99\x03"
SHORTEST, LONGEST = 8, 128
"""Bytes of a message."""
BLOCK = 64
PROTOCOL = 0x00010100
CONNECT, SEND_BLOCK, EOF, REQUEST_BLOCK, COMPLETE, GET_CANBUS_ID = range(0x11, 0x17)
ACK, NACK, ERROR = 0xA0, 0xF1, 0xF2


def crc16(data: bytes) -> int:
    """CRC-16/MCRF4XX, bit by bit (check value 0x6F91)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8408 if crc & 1 else crc >> 1
    return crc


def reply(result: int, payload: bytes = b"") -> bytes:
    padded = payload + bytes(-len(payload) % 4)
    body = bytes((result, len(padded) // 4)) + padded
    return STX + body + struct.pack("<H", crc16(body)) + TRAILER


class Loader:
    """`part`: its row of parts.toml. `uuid`: of a node on CAN; b"": it is on a serial line. `completed`: COMPLETE has come."""

    def __init__(self, part: Mapping[str, Any], flash: NorFlash, uuid: bytes = b"") -> None:
        self._part = part
        self._flash = flash
        self._uuid = uuid
        self._kept = bytearray()
        self._is_lost = False
        """Whether a NACK was sent since the last message that was well formed."""
        self._pages = 0
        self._buffer: tuple[int, bytearray] | None = None
        self.completed = False

    @property
    def is_valid(self) -> bool:
        """Whether Katapult takes what is in the flash for an application."""
        return self._flash.read(self._part["start"], 4) not in (bytes(4), b"\xff" * 4)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The replies to these bytes. Raises PowerLost, ResetPulled."""
        self._kept += data
        while self._kept:
            found = self._next()
            if found is None:
                return
            if found:
                self._is_lost = False
                yield self._answer(found[0], found[2:])
            elif not self._is_lost:
                self._is_lost = True
                yield reply(NACK)

    def _next(self) -> bytes | None:
        """The next message's command and payload; b"": bytes were thrown away; None: there is no whole message."""
        kept = self._kept
        if len(kept) < SHORTEST:
            return None
        size = kept[3] * 4 + SHORTEST
        if kept[:2] == STX and size <= LONGEST:
            if len(kept) < size:
                return None
            body, end = bytes(kept[2 : size - 4]), bytes(kept[size - 4 : size])
            if end == struct.pack("<H", crc16(body)) + TRAILER:
                del kept[:size]
                return body
        start = kept.find(STX[:1], 1)
        del kept[: start if start > 0 else len(kept)]
        return b""

    def _answer(self, command: int, payload: bytes) -> bytes:
        try:
            answer = self._carry_out(command, payload)
        except FlashRefused:
            answer = None
        return reply(ERROR) if answer is None else reply(ACK, struct.pack("<I", command) + answer)

    def _carry_out(self, command: int, payload: bytes) -> bytes | None:
        """The acknowledgement's payload behind the command; None: an error. Raises FlashRefused."""
        part = self._part
        address = int.from_bytes(payload[:4], "little")
        match command:
            case 0x11:
                mcu: bytes = part["mcu"].encode()
                padded = mcu + bytes(-len(mcu) % 4 + 4)
                software: bytes = part["software"].encode()
                return struct.pack("<III", PROTOCOL, part["start"], BLOCK) + padded + software
            case 0x12:
                data = payload[4:]
                if len(data) != BLOCK or address % BLOCK or address < part["start"]:
                    return None
                return payload[:4] if self._take_block(address, data) else None
            case 0x13:
                self._flush()
                return struct.pack("<I", self._pages)
            case 0x14:
                return payload[:4] + self._flash.read(address, BLOCK)
            case 0x15:
                self.completed = True
                return b""
            case 0x16 if self._uuid:
                return self._uuid + bytes(2)
        return None

    def _take_block(self, address: int, data: bytes) -> bool:
        size = self._part.get("buffered", 0)
        if not size:
            return self._write(address, data)
        self._flash.read(address, BLOCK)
        start = address - address % size
        if self._buffer is not None and self._buffer[0] != start:
            self._flush()
        if self._buffer is None:
            self._buffer = start, bytearray(b"\xff" * size)
        self._buffer[1][address - start : address - start + BLOCK] = data
        return True

    def _flush(self) -> None:
        """Writes what is collected; a sector goes with its first bytes, whatever they are."""
        if self._buffer is None:
            return
        start, data = self._buffer
        self._buffer = None
        if self._flash.unit_of(start)[0] == start:
            self._flash.erase(start)
        self._pages += 1
        self._flash.program(start, bytes(data))

    def _write(self, address: int, data: bytes) -> bool:
        page, size = self._flash.unit_of(address)
        there = self._flash.read(address, BLOCK)
        if page == address:
            whole = self._flash.read(page, size)
            is_rest_erased = whole.count(0xFF, BLOCK) == size - BLOCK
            if there == data and is_rest_erased and data.count(0xFF) != BLOCK:
                return True
            if whole.count(0xFF) != size:
                self._flash.erase(page)
            self._pages += 1
        elif there.count(0xFF) != BLOCK:
            return there == data
        self._flash.program(address, data)
        return self._flash.read(address, BLOCK) == data
