"""`Stk500v2Device`: an emulated sensor on an ATmega2560, updated through the stk500v2 loader of the Arduino Mega.

Follows Atmel's AVR068 (STK500 communication protocol, version 2; a section for each command), as far as the loader
does. Its own ways, from what is known of it:

- Program Flash erases a page before it writes one, but not the same: it erases the page after its last
  erased page, from page 0 on. So pages are written from the first on without a gap, or not erased. Chip Erase answers
  STATUS_CMD_FAILED, and makes it begin at page 0 again;
- of an EEPROM address Load Address makes the double; Program EEPROM takes the half of that, Read EEPROM doesn't;
- fuses are read by SPI Multi (low and high; extended reads as 0) and by Read Fuse; lock bits by Read Lock alone. Chip
  Erase, and everything else that it doesn't know, answers STATUS_CMD_FAILED;
- it serves after every reset but the watchdog's. A byte within a second, whatever it is, keeps it; then silence starts the
  application if the flash begins with one;
- a message with a wrong checksum or token is not answered.

The loader's monitor, which three exclamation marks start, is not there.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from enum import IntEnum
from typing import ClassVar

from ..serial.board import Silence
from .board import AvrLoader, Reset
from .device import AvrDevice


class Command(IntEnum):
    """AVR068, "Command Definitions"."""

    CMD_SIGN_ON = 0x01
    CMD_SET_PARAMETER = 0x02
    CMD_GET_PARAMETER = 0x03
    CMD_LOAD_ADDRESS = 0x06
    CMD_ENTER_PROGMODE_ISP = 0x10
    CMD_LEAVE_PROGMODE_ISP = 0x11
    CMD_CHIP_ERASE_ISP = 0x12
    CMD_PROGRAM_FLASH_ISP = 0x13
    CMD_READ_FLASH_ISP = 0x14
    CMD_PROGRAM_EEPROM_ISP = 0x15
    CMD_READ_EEPROM_ISP = 0x16
    CMD_READ_FUSE_ISP = 0x18
    CMD_PROGRAM_LOCK_ISP = 0x19
    CMD_READ_LOCK_ISP = 0x1A
    CMD_READ_SIGNATURE_ISP = 0x1B
    CMD_SPI_MULTI = 0x1D


class Parameter(IntEnum):
    """AVR068, "Parameter Definitions"."""

    PARAM_HW_VER = 0x90
    PARAM_SW_MAJOR = 0x91
    PARAM_SW_MINOR = 0x92


MESSAGE_START, TOKEN = 0x1B, 0x0E
STATUS_CMD_OK, STATUS_CMD_FAILED = b"\x00", b"\xc0"
NAME = b"AVRISP_2"
HW_VER = 0x0F
LONGEST_BODY = 280
"""Bytes that its buffer takes, about: a page, and what Program Flash says before it. More overwrite what it works with."""
DATA_AT = 10
"""Where the data of the program commands begin."""
NEVER_ERASED = 0x4000
"""Bytes at the end of the flash that it does not erase: twice what its boot section has."""
SIGNATURE_INSTRUCTION, LOW_FUSE_INSTRUCTION, HIGH_FUSE_INSTRUCTION = 0x30, 0x50, 0x58
"""First bytes of serial programming instructions (datasheet, "Serial Programming Instruction Set")."""


class Wiring(AvrLoader):
    """The loader. A message is its body; the answer's first byte is the command's own code."""

    def enters(self, cause: Reset) -> bool:
        return cause is not Reset.WATCHDOG

    def run(self) -> None:
        self._address = 0
        self._erased_to = 0
        self._is_leaving = False
        try:
            first = self._board.receive(1, self.window)
        except Silence:
            return
        while not self._is_leaving:
            message = self._message(first)
            first = b""
            if message is None:
                return
            sequence, body = message
            self._board.send(_framed(sequence, body[:1] + self._obey(body)))

    def _byte(self) -> int | None:
        """None: too long a silence, and there is an application to start."""
        while True:
            try:
                return self._board.receive(1, self._patience)[0]
            except Silence:
                if not self._memory.starts_blank:
                    return None

    def _message(self, first: bytes) -> tuple[int, bytes] | None:
        """The next whole message's sequence number and body; None: the application is to be started."""
        heard = bytearray(first)
        while True:
            wanted = _wanted(heard)
            if wanted < 0:
                heard.clear()
            elif wanted == 0 and len(heard) > 5:
                return heard[1], bytes(heard[5:-1])
            elif wanted > LONGEST_BODY + 6:
                self._board.hang()
            else:
                byte = self._byte()
                if byte is None:
                    return None
                heard.append(byte)

    # Commands.

    def _obey(self, body: bytes) -> bytes:
        handlers: dict[int, Callable[[bytes], bytes]] = {
            Command.CMD_SIGN_ON: lambda body: STATUS_CMD_OK + bytes([len(NAME)]) + NAME,
            Command.CMD_SET_PARAMETER: lambda body: STATUS_CMD_OK,
            Command.CMD_GET_PARAMETER: self._get_parameter,
            Command.CMD_LOAD_ADDRESS: self._load_address,
            Command.CMD_ENTER_PROGMODE_ISP: lambda body: STATUS_CMD_OK,
            Command.CMD_LEAVE_PROGMODE_ISP: self._leave_progmode,
            Command.CMD_CHIP_ERASE_ISP: self._chip_erase,
            Command.CMD_PROGRAM_FLASH_ISP: self._program_flash,
            Command.CMD_READ_FLASH_ISP: self._read_flash,
            Command.CMD_PROGRAM_EEPROM_ISP: self._program_eeprom,
            Command.CMD_READ_EEPROM_ISP: self._read_eeprom,
            Command.CMD_READ_FUSE_ISP: self._read_fuse,
            Command.CMD_PROGRAM_LOCK_ISP: self._program_lock,
            Command.CMD_READ_LOCK_ISP: lambda body: _one(self._memory.lock),
            Command.CMD_READ_SIGNATURE_ISP: lambda body: _one(self._signature(body[4])),
            Command.CMD_SPI_MULTI: self._spi_multi,
        }
        # Of a message that is too short it takes what its buffer held before.
        handler = handlers.get(body[0] if body else 0)
        return STATUS_CMD_FAILED if handler is None else handler(body.ljust(DATA_AT, b"\0"))

    def _get_parameter(self, body: bytes) -> bytes:
        major, minor = self._memory.part.version
        known: dict[int, int] = {
            Parameter.PARAM_HW_VER: HW_VER,
            Parameter.PARAM_SW_MAJOR: major,
            Parameter.PARAM_SW_MINOR: minor,
        }
        return STATUS_CMD_OK + bytes([known.get(body[1], 0)])

    def _load_address(self, body: bytes) -> bytes:
        """In words. The highest bit, which announces extended addresses, drops out by the doubling."""
        self._address = int.from_bytes(body[1:5], "big") * 2 & 0xFFFF_FFFF
        return STATUS_CMD_OK

    def _leave_progmode(self, body: bytes) -> bytes:
        self._is_leaving = True
        return STATUS_CMD_OK

    def _chip_erase(self, body: bytes) -> bytes:
        self._erased_to = 0
        return STATUS_CMD_FAILED

    def _program_flash(self, body: bytes) -> bytes:
        size = int.from_bytes(body[1:3], "big")
        data = body[DATA_AT : DATA_AT + size]
        if self._erased_to < self._memory.part.flash - NEVER_ERASED:
            self._memory.erase_page(self._erased_to)
            self._erased_to += self._memory.part.page
        self._memory.fill(self._address, data)
        self._memory.write_page(self._address)
        self._address += size
        return STATUS_CMD_OK

    def _read_flash(self, body: bytes) -> bytes:
        size = min(int.from_bytes(body[1:3], "big"), LONGEST_BODY)
        data = self._memory.read(self._address, size)
        self._address += size
        return STATUS_CMD_OK + data + STATUS_CMD_OK

    def _program_eeprom(self, body: bytes) -> bytes:
        size = int.from_bytes(body[1:3], "big")
        self._memory.write_eeprom(self._address // 2, body[DATA_AT : DATA_AT + size])
        self._address += 2 * size
        return STATUS_CMD_OK

    def _read_eeprom(self, body: bytes) -> bytes:
        size = min(int.from_bytes(body[1:3], "big"), LONGEST_BODY)
        data = self._memory.read_eeprom(self._address, size)
        self._address += size
        return STATUS_CMD_OK + data + STATUS_CMD_OK

    def _read_fuse(self, body: bytes) -> bytes:
        low, high, extended = self._memory.part.fuses
        if body[2] != LOW_FUSE_INSTRUCTION:
            return _one(high)
        return _one(extended if body[3] == 0x08 else low)

    def _program_lock(self, body: bytes) -> bytes:
        """The boot lock bits alone: LB1 and LB2 stay as they are."""
        self._memory.set_lock(body[4] | ~0x3C & 0xFF)
        return STATUS_CMD_OK + STATUS_CMD_OK

    def _spi_multi(self, body: bytes) -> bytes:
        instruction = body[4]
        low, high, _ = self._memory.part.fuses
        known = {
            SIGNATURE_INSTRUCTION: self._signature(body[6]),
            LOW_FUSE_INSTRUCTION: low,
            HIGH_FUSE_INSTRUCTION: high,
        }
        answer = bytes([0, instruction, 0, known.get(instruction, 0)])
        return STATUS_CMD_OK + answer + STATUS_CMD_OK

    def _signature(self, place: int) -> int:
        return self._memory.part.signature_bytes[min(place, 2)]


def _one(value: int) -> bytes:
    return STATUS_CMD_OK + bytes([value]) + STATUS_CMD_OK


def _wanted(heard: bytearray) -> int:
    """How many bytes are missing to a whole message, as far as is known; -1: the bytes are not a message."""
    if len(heard) > 0 and heard[0] != MESSAGE_START:
        return -1
    if len(heard) < 5:
        return 5 - len(heard)
    if heard[4] != TOKEN:
        return -1
    # A body of no bytes is one of 65536 to it, whose buffer is far smaller.
    size = int.from_bytes(heard[2:4], "big") or 0x10000
    missing = 5 + size + 1 - len(heard)
    if missing > 0:
        return missing
    return 0 if functools.reduce(operator.xor, heard) == 0 else -1


def _framed(sequence: int, body: bytes) -> bytes:
    """AVR068, "Message Format"."""
    head = bytes([MESSAGE_START, sequence]) + len(body).to_bytes(2, "big") + bytes([TOKEN])
    return head + body + bytes([functools.reduce(operator.xor, head + body)])


class Stk500v2Device(AvrDevice):
    """One part, alone on its line."""

    loaders: ClassVar[dict[str, type[AvrLoader]]] = {"wiring": Wiring}
