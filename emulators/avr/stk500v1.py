"""`Stk500v1Device`: an emulated sensor on an ATmega, updated through Optiboot or ATmegaBOOT on a serial line.

Follows Atmel's AVR061 (STK500 communication protocol), whose names the commands have, as far as the two loaders follow
it. Where they don't, Optiboot's documentation and the loaders' known ways say how they are:

- neither looks at device parameters, erases a chip, or reads fuses and lock bits: the answer is 0 or none;
- a page is erased while, or before, it is written; there is no other erase;
- Optiboot 4.4 knows no EEPROM: what is written "to" it goes into the flash, and reads come from there. It writes a
  whole page from its buffer, whatever the length says. A command that doesn't end with Sync_CRC_EOP ends in a reset by the
  watchdog, and so does a second of silence; the application runs then. It serves after a reset from outside alone;
- ATmegaBOOT serves after every reset. It doesn't answer a command with a wrong end, and the fifth error, as the silence,
  starts the application. Its addresses of the EEPROM are words, too.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import ClassVar

from ..serial.board import Silence
from .board import AvrLoader, Reset
from .device import AvrDevice


class Command(IntEnum):
    """AVR061, "Commands"."""

    GET_SYNC = 0x30
    GET_SIGN_ON = 0x31
    SET_PARAMETER = 0x40
    GET_PARAMETER = 0x41
    SET_DEVICE = 0x42
    SET_DEVICE_EXT = 0x45
    ENTER_PROGMODE = 0x50
    LEAVE_PROGMODE = 0x51
    CHIP_ERASE = 0x52
    LOAD_ADDRESS = 0x55
    UNIVERSAL = 0x56
    PROG_PAGE = 0x64
    READ_PAGE = 0x74
    READ_SIGN = 0x75
    READ_OSCCAL = 0x76


class Parameter(IntEnum):
    """AVR061, "Parameters"."""

    HW_VER = 0x80
    SW_MAJOR = 0x81
    SW_MINOR = 0x82


INSYNC, OK = b"\x14", b"\x10"
CRC_EOP = b"\x20"
DEVICE_BYTES, EXTENDED_BYTES = 20, 5
"""What Set Device Programming Parameters carries, and the loaders take of Set Extended."""
WATCHDOG_SHORT = 0.016
"""Seconds until Optiboot's watchdog bites when it is to start the application."""


class Optiboot(AvrLoader):
    """Optiboot 4.4. Its watchdog ends every wait."""

    def enters(self, cause: Reset) -> bool:
        return cause is Reset.EXTERNAL

    def run(self) -> None:
        self._address = 0
        self._buffer = bytearray(256)
        self._watchdog = self.window
        self._board.work(self._memory.part.led_seconds)
        try:
            while True:
                self._command(self._take(1)[0])
        except Silence:
            self._board.watchdog()

    def _take(self, count: int) -> bytes:
        return b"".join(self._board.receive(1, self._watchdog) for _ in range(count))

    def _end(self) -> None:
        """The end of a command, and the start of its answer."""
        if self._take(1) != CRC_EOP:
            self._board.watchdog(WATCHDOG_SHORT)
        self._board.send(INSYNC)

    def _command(self, code: int) -> None:
        handlers: dict[int, Callable[[], bytes]] = {
            Command.GET_PARAMETER: self._get_parameter,
            Command.SET_DEVICE: lambda: self._ignore(DEVICE_BYTES),
            Command.SET_DEVICE_EXT: lambda: self._ignore(EXTENDED_BYTES),
            Command.LOAD_ADDRESS: self._load_address,
            Command.UNIVERSAL: lambda: self._ignore(4) + b"\0",
            Command.PROG_PAGE: self._prog_page,
            Command.READ_PAGE: self._read_page,
            Command.READ_SIGN: lambda: self._ignore(0) + self._memory.part.signature_bytes,
            Command.LEAVE_PROGMODE: self._leave_progmode,
        }
        # A command that it doesn't know is one without arguments and answers.
        answer = handlers.get(code, lambda: self._ignore(0))()
        self._board.send(answer + OK)

    def _ignore(self, count: int) -> bytes:
        self._take(count)
        self._end()
        return b""

    def _get_parameter(self) -> bytes:
        which = self._take(1)[0]
        self._end()
        major, minor = self._memory.part.version
        known: dict[int, int] = {Parameter.SW_MAJOR: major, Parameter.SW_MINOR: minor}
        return bytes([known.get(which, 3)])

    def _load_address(self) -> bytes:
        self._address = int.from_bytes(self._take(2), "little") * 2 & 0xFFFF
        self._end()
        return b""

    def _prog_page(self) -> bytes:
        count = self._take(3)[1] or 256  # Of the length it takes the low byte alone, of the memory nothing.
        erases_first = self._address < self._memory.part.nrww
        if erases_first:
            self._board.erase_in_background(self._address)
        self._buffer[:count] = self._take(count)
        if not erases_first:
            self._memory.erase_page(self._address)
        self._end()
        self._board.wait_for_spm()
        self._memory.fill(self._address, bytes(self._buffer[: self._memory.part.page]))
        self._memory.write_page(self._address)
        return b""

    def _read_page(self) -> bytes:
        count = self._take(3)[1] or 256
        self._end()
        data = self._memory.read(self._address, count)
        self._address = self._address + count & 0xFFFF
        return data

    def _leave_progmode(self) -> bytes:
        self._watchdog = WATCHDOG_SHORT
        self._end()
        return b""


class Abandoned(Exception):
    """ATmegaBOOT starts the application."""


class AtmegaBoot(AvrLoader):
    """ATmegaBOOT_168, as it is built for the ATmega168 and the ATmega328P."""

    MOST_ERRORS: ClassVar[int] = 5
    BUFFER: ClassVar[int] = 256
    """Bytes; more of them overwrite what it works with."""
    HW_VER: ClassVar[int] = 2
    STUDIO: ClassVar[int] = 0x98
    """A parameter that AVR Studio asks for; the answer is 3."""

    def enters(self, cause: Reset) -> bool:
        return True

    def run(self) -> None:
        self._address = 0
        self._errors = 0
        self._board.work(self._memory.part.led_seconds)
        try:
            while True:
                self._command(self._take(1)[0])
        except (Silence, Abandoned):
            return

    def _take(self, count: int) -> bytes:
        return b"".join(self._board.receive(1, self._patience) for _ in range(count))

    def _error(self) -> None:
        self._errors += 1
        if self._errors == self.MOST_ERRORS:
            raise Abandoned

    def _answer(self, data: bytes = b"") -> None:
        """If the command ends as it should."""
        if self._take(1) == CRC_EOP:
            self._board.send(INSYNC + data + OK)
        else:
            self._error()

    def _command(self, code: int) -> None:
        handlers: dict[int, Callable[[], None]] = {
            Command.GET_SYNC: self._answer,
            Command.GET_SIGN_ON: lambda: self._answer(b"AVR ISP"),
            Command.SET_PARAMETER: self._set_parameter,
            Command.GET_PARAMETER: self._get_parameter,
            Command.SET_DEVICE: lambda: self._ignore(DEVICE_BYTES),
            Command.SET_DEVICE_EXT: lambda: self._ignore(EXTENDED_BYTES),
            Command.ENTER_PROGMODE: self._answer,
            Command.CHIP_ERASE: self._answer,
            Command.LEAVE_PROGMODE: self._answer,
            Command.LOAD_ADDRESS: self._load_address,
            Command.UNIVERSAL: self._universal,
            Command.PROG_PAGE: self._prog_page,
            Command.READ_PAGE: self._read_page,
            Command.READ_SIGN: lambda: self._answer(self._memory.part.signature_bytes),
            Command.READ_OSCCAL: lambda: self._answer(b"\0"),
        }
        handlers.get(code, self._error)()

    def _ignore(self, count: int) -> None:
        self._take(count)
        self._answer()

    def _set_parameter(self) -> None:
        self._ignore(1 if self._take(1)[0] > 0x85 else 0)

    def _get_parameter(self) -> None:
        which = self._take(1)[0]
        major, minor = self._memory.part.version
        known: dict[int, int] = {
            Parameter.HW_VER: self.HW_VER,
            Parameter.SW_MAJOR: major,
            Parameter.SW_MINOR: minor,
            self.STUDIO: 3,
        }
        self._answer(bytes([known.get(which, 0)]))

    def _load_address(self) -> None:
        self._address = int.from_bytes(self._take(2), "little")
        self._answer()

    def _universal(self) -> None:
        """Of the serial programming instructions it has Read Signature Byte."""
        first, _, place, _ = self._take(4)
        signature = self._memory.part.signature_bytes
        self._answer(signature[min(place, 2) :][:1] if first == 0x30 else b"\0")

    def _prog_page(self) -> None:
        count = int.from_bytes(self._take(2), "big")
        memory = self._take(1)
        if count > self.BUFFER:
            self._board.hang()
        data = self._take(count)
        if self._take(1) != CRC_EOP:
            self._error()
            return
        start = self._address * 2 & 0xFFFF
        if memory == b"E":
            self._memory.write_eeprom(start, data)
            self._address = start + count
        else:
            self._write_flash(start, data + b"\xff" * (len(data) % 2))
            self._address = start
        self._board.send(INSYNC + OK)

    def _write_flash(self, start: int, data: bytes) -> None:
        page = self._memory.part.page
        for offset in range(0, len(data), page):
            self._memory.erase_page(start + offset)
            self._memory.fill(start + offset, data[offset : offset + page])
            self._memory.write_page(start + offset)

    def _read_page(self) -> None:
        count = int.from_bytes(self._take(2), "big")
        memory = self._take(1)
        start = self._address * 2 & 0xFFFF
        self._address = start
        if self._take(1) != CRC_EOP:
            return
        read = self._memory.read_eeprom if memory == b"E" else self._memory.read
        self._board.send(INSYNC + read(start, count) + OK)
        self._address = start + count & 0xFFFF


class Stk500v1Device(AvrDevice):
    """One part, alone on its line."""

    loaders: ClassVar[dict[str, type[AvrLoader]]] = {"optiboot": Optiboot, "atmegaboot": AtmegaBoot}
