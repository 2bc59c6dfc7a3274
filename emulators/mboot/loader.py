"""MBoot itself, as the MCU Bootloader Reference Manual has it: packets, commands, properties, data phases. Shares nothing with
the flasher.

What the manual leaves open follows the source that NXP publishes (Kinetis Bootloader 2.0, `serial_packet.c`, `bl_command.c`,
`memory.c`, `flash_memory.c`): the acknowledgement of a packet leaves when the next packet is waited for or sent; an
acknowledgement of the host's is waited for without limit, and anything in its place ends the wait; a packet that pauses is
dropped, in a data phase with that; a status is `kStatus_...`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ..flash import FlashRefused, NorFlash
from ..serial.board import Silence
from .sb import SbLoader

START = 0x5A
ACK, NAK, ACK_ABORT, COMMAND, DATA, PING, PING_RESPONSE = range(0xA1, 0xA8)
BYTE_SECONDS = 0.01
"""How long each byte of a packet that has begun may take."""
SUCCESS, FAIL, INVALID_ARGUMENT, TIMEOUT = 0, 1, 4, 5
ALIGNMENT, ADDRESS, COMMAND_FAILURE = 101, 102, 105
UNKNOWN_COMMAND, SECURITY_VIOLATION, ABORTED, PINGED = 10000, 10001, 10002, 10003
RANGE_INVALID, UNKNOWN_PROPERTY, READ_ONLY = 10200, 10300, 10301
GENERIC, READ_RESPONSE, PROPERTY_RESPONSE = 0xA0, 0xA3, 0xA7
ALLOWED_SECURED = (6, 7, 8, 11, 12, 13)
REFUSALS = {"range": RANGE_INVALID, "alignment": ALIGNMENT, "not erased": COMMAND_FAILURE}


class Dropped(Exception):
    """There is no packet. `status`: why."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Port(Protocol):
    def receive(self, count: int, silence: float | None = None) -> bytes:
        """Raises Silence, and what stops the firmware."""

    def send(self, data: bytes) -> None: ...


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, bit by bit (check value 0x31C3)."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def packet(kind: int, payload: bytes) -> bytes:
    head = struct.pack("<BBH", START, kind, len(payload))
    return head + struct.pack("<H", crc16(head + payload)) + payload


class Loader:
    """`part`: its row of parts.toml. `secured`: whether the flash security is on. `is_reset`: RESET has been answered."""

    def __init__(
        self, part: Mapping[str, Any], flash: NorFlash, port: Port, unique: bytes, *, secured: bool = False
    ) -> None:
        self._part = part
        self._flash = flash
        self._port = port
        self._unique = unique
        self._secured = secured
        self.byte_seconds = BYTE_SECONDS
        self._owed = b""
        """The acknowledgement that leaves before the next packet."""
        self._commands: dict[int, Callable[..., None]] = {
            1: self._erase_all,
            2: self._erase_region,
            3: self._read_memory,
            4: self._write_memory,
            7: self._get_property,
            8: self._receive_sb_file,
            11: self._reset,
        }
        self.is_reset = False
        self.is_active = False
        """Whether a ping or a command has come."""

    def serve(self) -> None:
        """Returns when RESET was answered."""
        while not self.is_reset:
            try:
                self._command(self._read(COMMAND))
            except Dropped:
                continue

    # Packets.

    def _read(self, kind: int) -> bytes:
        """The next packet of this kind. Raises Dropped."""
        self._settle_owed()
        while True:
            found = self._byte()
            if found == PING:
                self.is_active = True
                self._port.send(bytes((START, PING_RESPONSE)) + bytes.fromhex("000201500000aaea"))
                raise Dropped(PINGED)
            if found != kind:
                raise Dropped(FAIL)
            try:
                size, crc = struct.unpack("<HH", self._rest(4))
                size = min(size, self._part["packet"])
                payload = self._rest(size) if size else b""
            except Silence:
                raise Dropped(TIMEOUT) from None
            head = struct.pack("<BBH", START, kind, size)
            if crc == crc16(head + payload):
                self.is_active = True
                self._owed = bytes((START, ACK))
                return payload
            self._port.send(bytes((START, NAK)))

    def _byte(self) -> int:
        """The type of the next packet. Raises Dropped."""
        while self._port.receive(1)[0] != START:
            pass
        try:
            return self._rest(1)[0]
        except Silence:
            raise Dropped(TIMEOUT) from None

    def _rest(self, count: int) -> bytes:
        return self._port.receive(count, self.byte_seconds * count)

    def _settle_owed(self) -> None:
        owed, self._owed = self._owed, b""
        if owed:
            self._port.send(owed)

    def _write(self, kind: int, payload: bytes) -> int:
        """Sends a packet and waits for its acknowledgement; the status."""
        self._settle_owed()
        whole = packet(kind, payload)
        while True:
            self._port.send(whole)
            try:
                found = self._byte()
            except Dropped as dropped:
                return dropped.status
            if found == NAK:
                continue
            return {ACK: SUCCESS, ACK_ABORT: ABORTED}.get(found, INVALID_ARGUMENT)

    def _respond(self, tag: int, *parameters: int, has_data: bool = False) -> int:
        body = struct.pack(f"<BBBB{len(parameters)}I", tag, has_data, 0, len(parameters), *parameters)
        return self._write(COMMAND, body)

    # Commands.

    def _command(self, payload: bytes) -> None:
        if not payload:
            return
        tag = payload[0]
        words = [*struct.unpack(f"<{(len(payload) - 4) // 4}I", payload[4 : len(payload) // 4 * 4]), *[0] * 7]
        carry_out = self._commands.get(tag)
        if carry_out is None:
            self._respond(GENERIC, UNKNOWN_COMMAND, tag)
        elif self._secured and tag not in ALLOWED_SECURED:
            self._respond(GENERIC, SECURITY_VIOLATION, tag)
        else:
            carry_out(*words[:4])

    def _erase_all(self, *_: int) -> None:
        for start in self._sectors(self._start, self._flash.end):
            self._flash.erase(start)
        self._respond(GENERIC, SUCCESS, 1)

    def _erase_region(self, start: int, size: int, *_: int) -> None:
        self._respond(GENERIC, self._erased(start, size), 2)

    def _erased(self, start: int, size: int) -> int:
        if not size:
            return SUCCESS
        try:
            self._flash.read(start, size)
            if start < self._start:
                return RANGE_INVALID
            if self._flash.unit_of(start)[0] != start or sum(self._flash.unit_of(start + size - 1)) != start + size:
                return ALIGNMENT
        except FlashRefused:
            return RANGE_INVALID
        for sector in self._sectors(start, start + size):
            self._flash.erase(sector)
        return SUCCESS

    def _sectors(self, start: int, end: int) -> Iterator[int]:
        while start < end:
            yield start
            start += self._flash.unit_of(start)[1]

    def _read_memory(self, start: int, size: int, *_: int) -> None:
        self._respond(READ_RESPONSE, SUCCESS, size, has_data=True)
        status, end = SUCCESS, start + size
        while status == SUCCESS and start < end:
            count = min(self._part["packet"], end - start)
            try:
                data = self._flash.read(start, count)
            except FlashRefused:
                self._write(DATA, b"")
                status = RANGE_INVALID
                break
            status = self._write(DATA, data)
            start += count
        self._respond(GENERIC, status, 3)

    def _write_memory(self, start: int, size: int, *_: int) -> None:
        self._respond(GENERIC, SUCCESS, 4)
        status, end = SUCCESS, start + size
        while start < end:
            try:
                data = self._read(DATA)[: end - start]
            except Dropped as dropped:
                status = dropped.status
            else:
                status = self._written(start, data) if data else ABORTED
                start += len(data)
                if not data:
                    break
            if status != SUCCESS:
                if start < end:
                    self._owed = bytes((START, ACK_ABORT))
                break
        self._respond(GENERIC, status, 4)

    def _receive_sb_file(self, size: int, *_: int) -> None:
        """A file that asks for a reset ends its data phase with ABORT DATA PHASE, and the part resets."""
        self._respond(GENERIC, SUCCESS, 8)
        file, status, left = SbLoader(self._written, self._erased), SUCCESS, size
        while left > 0 and status == SUCCESS:
            try:
                data = self._read(DATA)[:left]
            except Dropped as dropped:
                status = dropped.status
                break
            left -= len(data)
            status = file.feed(data) if data else ABORTED
        if status != SUCCESS and left > 0:
            self._owed = bytes((START, ACK_ABORT))
        self._respond(GENERIC, status, 8)
        self.is_reset = file.resets

    def _written(self, start: int, data: bytes) -> int:
        if start < self._start:
            return RANGE_INVALID
        padded = data + b"\xff" * (-len(data) % self._flash.program_unit)
        try:
            self._flash.program(start, padded)
        except FlashRefused as refused:
            return REFUSALS[refused.reason]
        return SUCCESS if self._flash.read(start, len(data)) == data else COMMAND_FAILURE

    def _get_property(self, tag: int, *_: int) -> None:
        values = self._properties.get(tag)
        if values is None:
            self._respond(PROPERTY_RESPONSE, UNKNOWN_PROPERTY)
        else:
            self._respond(PROPERTY_RESPONSE, SUCCESS, *values)

    @property
    def _properties(self) -> dict[int, tuple[int, ...]]:
        part = self._part
        version = part["version"]
        packed = int.from_bytes(bytes((ord(version[0]), *map(int, version[1:].split(".")))), "big")
        sector = self._flash.unit(0)[1]
        reserved = (part["base"], self._start - 1) if part["reserved"] else (part["base"], part["base"])
        return {
            0x01: (packed,),
            0x02: (1,),
            0x03: (part["base"],),
            0x04: (self._flash.size,),
            0x05: (sector,),
            0x06: (1,),
            0x07: (sum(1 << tag - 1 for tag in self._commands),),
            0x0A: (1,),
            0x0B: (part["packet"],),
            0x0C: (*reserved, part["ram"][0], part["ram"][0] + 0x5FF),
            0x0E: (part["ram"][0],),
            0x0F: (part["ram"][1],),
            0x10: (part["device"],),
            0x11: (int(self._secured),),
            0x12: struct.unpack("<4I", self._unique),
        }

    def _reset(self, *_: int) -> None:
        self._respond(GENERIC, SUCCESS, 11)
        self.is_reset = True

    @property
    def _start(self) -> int:
        """Where the application may begin."""
        return int(self._part["base"] + self._part["reserved"])
