"""An emulated CANopen device: its bootloader, the application that it starts, and their object dictionaries.

The application restarts into the bootloader when its program is stopped. The bootloader starts a program that is whole, from a
reset on and when it is asked to.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...transports import clock
from .. import application
from ..application import Application
from ..board import ResetPulled
from ..can.board import CanBoard
from ..can.wire import CanWire
from ..flash import FlashRefused, NorFlash
from ..supply import Supply
from .lss import UNCONFIGURED, LssSlave
from .sdo import Refused, Server

RESET_SECONDS = 0.02
NO_OBJECT, NO_SUB_INDEX, READ_ONLY, WRITE_ONLY = 0x0602_0000, 0x0609_0011, 0x0601_0002, 0x0601_0001
INVALID_VALUE, WRONG_STATE, HARDWARE, TOO_LONG = 0x0609_0030, 0x0800_0022, 0x0606_0000, 0x0607_0012
STOPPED, STARTED, CLEARED = 0, 1, 3
NO_PROGRAM, NOT_CLEARED, WRITE_ERROR = 1 << 1, 4 << 1, 5 << 1
BOOT_UP, NMT_STOPPED, OPERATIONAL, PRE_OPERATIONAL = 0x00, 0x04, 0x05, 0x7F


class CanopenNode(CanBoard):
    """One device."""

    buffer: ClassVar[int] = 160

    def __init__(
        self,
        name: str,
        part: Mapping[str, Any],
        supply: Supply,
        wire: CanWire,
        flash: NorFlash,
        node: int,
        *,
        serial: int,
        program: int,
        heartbeat: float,
        pace: float,
    ) -> None:
        self._part = part
        self._flash = flash
        self._serial = serial
        self._program = program
        self._heartbeat = heartbeat
        self.state = BOOT_UP
        self.active = node
        """The node id that it has now."""
        self._lss = LssSlave((part["vendor"], part["product"], part["revision"], serial), node)
        self._stored = node
        self._wanted = False
        """Whether the next start is that of the bootloader: a mark in the memory that a reset leaves as it is."""
        self._control, self._status = STOPPED, 0
        self._place = 0
        self._rest = b""
        self._restarts = False
        self._next_beat = 0.0
        # The wire may bring frames from now on.
        super().__init__(name, supply, wire, None, pace=pace)
        flash.busy = self._work

    def _switched(self, on: bool) -> None:
        self._wanted = self._wanted and on
        if not on:
            self._lss.node = self._stored
        super()._switched(on)

    def firmware(self) -> None:
        self._restarted()
        self._restarts = False
        wanted, self._wanted = self._wanted, False
        found = None if wanted else self._whole()
        self._control, self._status = (STARTED, 0) if found else (STOPPED, 0)
        self.running = found
        server = Server(self._read, self._begin, self._write, block=self._part["block"], crc=self._part["crc"])
        self.active = self._lss.node
        self._boots()
        while True:
            self._serve(server)

    def _whole(self) -> Application | None:
        """The program, if its CRC is right."""
        found = application.find(self._flash, self._flash.base)
        return found if found is not None and found.size else None

    def _boots(self) -> None:
        self.state = PRE_OPERATIONAL
        if self.active != UNCONFIGURED:
            self._clock = clock.monotonic()
            self._send(0x700 + self.active, b"\0")
        self._next_beat = clock.monotonic() + self._heartbeat

    def _serve(self, server: Server) -> None:
        left = max(0.0, self._next_beat - clock.monotonic()) if self._heartbeat else None
        frame = self._next_within(left)
        if frame is None:
            if clock.monotonic() < self._next_beat or not self._heartbeat:
                return
            self._next_beat += self._heartbeat
            if self.active != UNCONFIGURED:
                self._clock = clock.monotonic()
                self._send(0x700 + self.active, bytes((self.state,)))
            return
        identifier, data = frame
        if identifier == 0x000:
            self._manage(data)
        elif identifier == 0x7E5:
            if answer := self._lss.answer(data, self.active):
                self._send(0x7E4, answer)
            if self.active == UNCONFIGURED and self._lss.node != UNCONFIGURED and data[:2] == b"\x04\x00":
                self.active = self._lss.node
                self._boots()
        elif self.active != UNCONFIGURED and self.state != NMT_STOPPED:
            answer = server.answer(data)
            if answer and not (self._restarts and self._part["silent"]):
                self._send(0x580 + self.active, answer)
            if self._restarts:
                self._busy(RESET_SECONDS)
                raise ResetPulled

    def _manage(self, data: bytes) -> None:
        if len(data) != 2 or data[1] not in (0, self.active):
            return
        match data[0]:
            case 0x01:
                self.state = OPERATIONAL
            case 0x02:
                self.state = NMT_STOPPED
            case 0x80:
                self.state = PRE_OPERATIONAL
            case 0x81:
                raise ResetPulled
            case 0x82:
                self.active = self._lss.node
                self._boots()

    # The object dictionary.

    def _read(self, index: int, sub: int) -> bytes:
        runs = self.running is not None
        part = self._part
        match index, sub:
            case 0x1000, 0:
                return struct.pack("<I", 0x00010196 if runs else 0)
            case 0x1008, 0:
                return str(part["name"] if runs else part["boot_name"]).encode()
            case 0x1009, 0:
                return b"B2"
            case 0x100A, 0:
                return (self.running.version if self.running is not None else str(part["version"])).encode()
            case 0x1017, 0:
                return struct.pack("<H", int(self._heartbeat * 1000))
            case 0x1018, 0:
                return b"\x04"
            case 0x1018, (1 | 2 | 3 | 4):
                product = part["product"] if runs else part["boot_product"]
                return struct.pack("<I", (part["vendor"], product, part["revision"], self._serial)[sub - 1])
            case ((0x1F50 | 0x1F51 | 0x1F56 | 0x1F57), 0):
                return bytes((self._program,))
            case 0x1F50, self._program:
                raise Refused(WRITE_ONLY)
            case 0x1F51, self._program:
                return bytes((self._control,))
            case 0x1F56, self._program:
                return struct.pack("<I", self._identification())
            case 0x1F57, self._program:
                return struct.pack("<I", self._status)
        raise Refused(NO_SUB_INDEX if index in (0x1018, 0x1F50, 0x1F51, 0x1F56, 0x1F57) else NO_OBJECT)

    def _identification(self) -> int:
        flash = self._flash
        size = application.told_size(flash.read(flash.base, min(application.SEARCHED, flash.size)))
        return zlib.crc32(flash.read(flash.base, size)) if size is not None and size <= flash.size else 0

    def _begin(self, index: int, sub: int, size: int | None) -> None:
        if (index, sub) == (0x1F50, self._program):
            if self._control != CLEARED:
                self._status = NOT_CLEARED
                raise Refused(WRONG_STATE)
            if size is not None and size > self._flash.size:
                raise Refused(TOO_LONG)
            self._place, self._rest = self._flash.base, b""
        elif (index, sub) != (0x1F51, self._program):
            self._read(index, sub)
            raise Refused(READ_ONLY)

    def _write(self, index: int, sub: int, data: bytes, last: bool) -> None:
        if index == 0x1F51:
            self._controlled(data[0])
            return
        unit = self._part["program_unit"]
        data = self._rest + data
        size = len(data) if last else len(data) - len(data) % unit
        self._rest = data[size:]
        data = data[:size].ljust(-(-size // unit) * unit, b"\xff")
        try:
            self._flash.program(self._place, data)
        except FlashRefused:
            self._status = WRITE_ERROR
            raise Refused(HARDWARE) from None
        self._place += len(data)
        if last:
            self._control = STOPPED

    def _controlled(self, value: int) -> None:
        if self.running is not None:
            if value == STARTED:
                return
            if value != STOPPED:
                raise Refused(WRONG_STATE)
            self._wanted = self._restarts = True
        elif value == STOPPED:
            self._control = STOPPED
        elif value == CLEARED:
            for index in range(self._flash.unit_count):
                self._flash.erase(self._flash.unit(index)[0])
            self._control, self._status = CLEARED, 0
        elif value == STARTED:
            if self._whole() is None:
                self._status = NO_PROGRAM
                raise Refused(WRONG_STATE)
            self._restarts = True
        else:
            raise Refused(INVALID_VALUE)

    def _listens_to(self) -> Sequence[int]:
        return (0x000, 0x600 + self.active, 0x7E5)
