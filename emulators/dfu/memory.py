"""The memories behind emulated DFU devices: a slot (DFU 1.1), and ST's addressed memory (DfuSe: UM0391, AN2662).

A slot's bootloader never boots what did not arrive whole: it erases the first sector before anything else, keeps the
first block back, and programs it after all others, at manifestation, last word first. Until then nothing there starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .. import application
from ..flash import FlashRefused, NorFlash
from .states import DfuMemory, DfuRefused, Status

GET_COMMANDS, SET_ADDRESS, ERASE, READ_UNPROTECT = 0x00, 0x21, 0x41, 0x92
"""DfuSe commands (AN2662, 4.4.2 and 4.5)."""
READABLE, ERASABLE, WRITABLE = 1, 2, 4
"""Bits of a sector's letter (UM0391, 10.3.2)."""


class Slot(DfuMemory):
    """DFU 1.1: one firmware, in blocks that follow each other from 0 on; a sector is erased when its first byte comes."""

    def __init__(self, flash: NorFlash) -> None:
        self._flash = flash
        flash.busy = self._busy
        self.begin()

    def begin(self) -> None:
        self._first = b""
        self._position = 0
        self._next_block = 0

    def _busy(self, seconds: float) -> None:
        self.seconds += seconds

    def carry_out(self, block: int, data: bytes) -> Status:
        if block != self._next_block & 0xFFFF:
            return Status.ERR_ADDRESS
        address = self._flash.base + self._position
        try:
            self._erase_for(address, len(data))
            if block or self._position:
                self._program(address, data)
            else:
                self._first = data
        except FlashRefused as refused:
            return Status.ERR_ADDRESS if refused.reason == "range" else Status.ERR_WRITE
        self._next_block += 1
        self._position += len(data)
        return Status.OK

    def complete(self) -> bool:
        """By the size in the firmware's own descriptor, if it has one."""
        start = self._flash.base + len(self._first)
        rest = self._flash.read(start, min(application.SEARCHED, self._flash.end - start))
        wanted = application.told_size(self._first + rest)
        return wanted is None or self._position >= wanted

    def manifest(self) -> Status:
        unit = self._flash.program_unit
        first = self._first + b"\xff" * (-len(self._first) % unit)
        for offset in reversed(range(0, len(first), unit)):
            self._flash.program(self._flash.base + offset, first[offset : offset + unit])
        if application.find(self._flash, self._flash.base) is not None:
            return Status.OK
        self._flash.erase(self._flash.base)
        return Status.ERR_FIRMWARE

    def upload(self, block: int, length: int) -> bytes:
        address = self._flash.base + self._position
        data = self._flash.read(address, min(length, self._flash.end - address))
        self._position += len(data)
        return data

    def _erase_for(self, address: int, size: int) -> None:
        start, length = self._flash.unit_of(address)
        while start < address + size:
            if start >= address:
                self._flash.erase(start)
            start += length
            if start < address + size:
                start, length = self._flash.unit_of(start)

    def _program(self, address: int, data: bytes) -> None:
        self._flash.program(address, data + b"\xff" * (-len(data) % self._flash.program_unit))


@dataclass(eq=False, slots=True)
class Area:
    """A memory beside the flash: option bytes, OTP. Not kept in a file. `resets`: writing it needs a reset."""

    start: int
    cells: bytearray
    letter: str
    resets: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.cells)


class DfuSeMemory(DfuMemory):
    """ST's loader: commands in block 0, data from block 2 on, at an address that is set before.

    Strict in one thing that ST's ROM may not be: an address counts only in the alternate setting that it belongs to.
    `letters`: of each sector of the flash, by its address. `transfer_size`: wTransferSize. `write_protected`: the
    addresses of sectors where erasing and writing do nothing, without any error (AN2662, 4.5.3). `read_protected`: all
    but addresses and the lifting of the protection is refused.
    """

    def __init__(
        self,
        flash: NorFlash,
        letters: Mapping[int, str],
        areas: Mapping[int, Area],
        alternate: Callable[[], int],
        transfer_size: int,
        *,
        write_protected: frozenset[int] = frozenset(),
        read_protected: bool = False,
    ) -> None:
        self._flash = flash
        self._letters = letters
        self._areas = areas
        self._alternate = alternate
        self._transfer_size = transfer_size
        self._write_protected = write_protected
        self.read_protected = read_protected
        self._pointer = flash.base
        self._commands = {SET_ADDRESS: self._set_address, ERASE: self._erase, READ_UNPROTECT: self._unprotect}
        flash.busy = self._busy

    def begin(self) -> None:
        """Nothing: the address pointer outlives a transfer."""

    def restarted(self) -> None:
        self._pointer = self._flash.base

    def _busy(self, seconds: float) -> None:
        self.seconds += seconds

    def carry_out(self, block: int, data: bytes) -> Status:
        if block == 0:
            command = self._commands.get(data[0])
            return command(data[1:]) if command else Status.ERR_STALLEDPKT
        if block == 1:
            return Status.ERR_STALLEDPKT
        if self.read_protected:
            return Status.ERR_VENDOR
        return self._write(self._address(block), data)

    def manifest(self) -> Status:
        return Status.OK

    def upload(self, block: int, length: int) -> bytes:
        if self.read_protected:
            raise DfuRefused(Status.ERR_VENDOR)
        if block == 0:
            return bytes([GET_COMMANDS, *self._commands])[:length]
        address = self._address(block)
        area = self._area()
        if block == 1 or not self._allowed(address, min(length, 1), READABLE):
            raise DfuRefused(Status.ERR_TARGET)
        if area is not None:
            return bytes(area.cells[address - area.start :][:length])
        return self._flash.read(address, min(length, self._flash.end - address))

    def _address(self, block: int) -> int:
        """Of a block of data (AN2662, 4.4.1). wTransferSize is that of the descriptor, also for a shorter last block, as
        in ST's USB device library; dfu-util and fwupd rely on it."""
        return self._pointer + (block - 2) * self._transfer_size

    def _area(self) -> Area | None:
        """The memory of the alternate setting in use; None: the flash."""
        return self._areas.get(self._alternate())

    def _allowed(self, address: int, size: int, what: int) -> bool:
        area = self._area()
        if area is not None:
            return area.start <= address and address + size <= area.end and bool(ord(area.letter) & what)
        if not self._flash.base <= address or address + size > self._flash.end:
            return False
        return all(ord(self._letters[sector]) & what for sector in self._sectors(address, size))

    def _sectors(self, address: int, size: int) -> list[int]:
        """The sectors that this stretch of flash lies in."""
        found = []
        end = address + size
        while address < end:
            start, length = self._flash.unit_of(address)
            found.append(start)
            address = start + length
        return found

    def _write(self, address: int, data: bytes) -> Status:
        if not self._allowed(address, len(data), WRITABLE):
            return Status.ERR_TARGET
        area = self._area()
        if area is not None:
            area.cells[address - area.start : address - area.start + len(data)] = data
            self.resets = area.resets
            return Status.OK
        if self._write_protected.intersection(self._sectors(address, len(data))):
            return Status.OK
        try:
            self._flash.program(address, data + b"\xff" * (-len(data) % self._flash.program_unit))
        except FlashRefused as refused:
            return Status.ERR_PROG if refused.reason == "not erased" else Status.ERR_WRITE
        return Status.OK

    def _set_address(self, argument: bytes) -> Status:
        address = int.from_bytes(argument, "little")
        if len(argument) != 4 or not self._allowed(address, 1, READABLE | ERASABLE | WRITABLE):
            return Status.ERR_TARGET
        self._pointer = address
        return Status.OK

    def _erase(self, argument: bytes) -> Status:
        if self.read_protected:
            return Status.ERR_VENDOR
        if not argument:
            self._erase_flash(list(self._letters))
            return Status.OK
        address = int.from_bytes(argument, "little")
        if len(argument) != 4 or not self._allowed(address, 1, ERASABLE):
            return Status.ERR_TARGET
        area = self._area()
        if area is not None:
            area.cells[:] = b"\xff" * len(area.cells)
        else:
            self._erase_flash(self._sectors(address, 1))
        return Status.OK

    def _erase_flash(self, sectors: Sequence[int]) -> None:
        for sector in sectors:
            if ord(self._letters[sector]) & ERASABLE and sector not in self._write_protected:
                self._flash.erase(sector)

    def _unprotect(self, argument: bytes) -> Status:
        if argument:
            return Status.ERR_STALLEDPKT
        self._erase_flash(list(self._letters))
        self.read_protected = False
        self.resets = True
        return Status.OK
