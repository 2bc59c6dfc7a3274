"""The STM32 bootloader's protocols on CAN and CAN FD in words, after ST's AN3154 and AN5405.

A command is an arbitration id, and its answers have the same one, so who has sent a frame shows by its direction; of another
host's traffic, by what is due. The frames of a block, and their ACKs, make one line.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...transports.plain import counted
from ...transports.recording.records import CanFrame, Record
from ..describing import ERROR, EXTENDED, REMOTE, Describer, Line, Said, name_in, shown
from .codec import ACK, DATA, INITIALISE, NACK, OPENER_ID, SPEEDS, WORD, Command, MassErase
from .describe import MASS_ERASES, NAMES, erased, version_words

IDS = (*Command, INITIALISE, DATA, OPENER_ID)
ANSWERS = {Command.GET: 0, Command.GET_VERSION: 3, Command.GET_ID: 2}
"""Bytes between the ACKs; of Get the first one says how many follow."""
RATES = {code: rate for rate, code in SPEEDS.items()}
ADDRESSED = (Command.READ_MEMORY, Command.WRITE_MEMORY)
ERASES = (Command.ERASE, Command.EXTENDED_ERASE)


class Stm32CanDescriber(Describer):
    """One loader and its host."""

    def __init__(self, part: str = "") -> None:
        super().__init__(part)
        self._command = -1
        self._taking = 0
        """Bytes of data, or of numbers of erase units, that the loader still waits for."""
        self._giving = 0
        """Bytes that the loader is still to send."""
        self._kept = b""

    def take(self, record: Record) -> Iterable[Line] | None:
        if not isinstance(record, CanFrame) or record.flags & (ERROR | REMOTE | EXTENDED):
            return None
        if record.can_id not in IDS:
            return None
        is_answer = record.data in (bytes([ACK]), bytes([NACK])) or bool(self._giving)
        sent = record.outgoing or (not is_answer and (self._command == -1 or bool(self._taking)))
        said = self._request(record.can_id, record.data) if sent else self._answer(record.can_id, record.data)
        return [] if said is None else [self.line(record, sent, said, record.data)]

    def _request(self, identifier: int, data: bytes) -> Said | None:
        name = name_in(NAMES, self._command)
        if self._taking and identifier in (self._command, DATA):
            self._kept += data
            if len(self._kept) < self._taking:
                return None
            kept, self._kept, size, self._taking = self._kept, b"", self._taking, 0
            if self._command in ERASES:
                width = 1 if self._command == Command.ERASE else 2
                numbers = [int.from_bytes(kept[at : at + width], "big") for at in range(0, size, width)]
                return Said(f"{name} {erased(numbers)}")
            return Said(f"{name} {counted(size, 'byte')}")
        self._command, self._taking, self._giving, self._kept = identifier, 0, 0, b""
        if identifier == INITIALISE:
            return Said("initialise 0x79")
        if identifier == OPENER_ID:
            return Said("opener 0x111")
        return Said(f"{name_in(NAMES, identifier)}{self._arguments(identifier, data)}")

    def _arguments(self, command: int, data: bytes) -> str:
        address = f" 0x{int.from_bytes(data[:WORD], 'big'):08X}"
        if command in ADDRESSED and len(data) > WORD:
            size = data[WORD] + 1
            self._taking = size if command == Command.WRITE_MEMORY else 0
            self._giving = size if command == Command.READ_MEMORY else 0
            return f"{address}, {counted(size, 'byte')}"
        if command == Command.GO and len(data) >= WORD:
            return address
        if command == Command.SPEED and data:
            return f" {RATES[data[0]]:,} bit/s" if data[0] in RATES else f" {data[0]}"
        if command == Command.ERASE and data:
            self._taking = data[0] + 1 if data[0] < 0xFF else 0
            return f" of {counted(self._taking, 'page')}" if self._taking else " global"
        if command == Command.EXTENDED_ERASE and len(data) >= 2:
            count = int.from_bytes(data[:2], "big")
            if count in MASS_ERASES:
                return f" {MASS_ERASES[MassErase(count)]}"
            self._taking = 2 * count
            return f" of {counted(count, 'page')}"
        self._giving = ANSWERS.get(Command(command), 0) if command in ANSWERS else 0
        return ""

    def _answer(self, identifier: int, data: bytes) -> Said | None:
        if data == bytes([NACK]) and not self._kept:
            self._taking = self._giving = 0
            return Said(f"NACK {name_in(NAMES, identifier)}".replace("NACK 0x79", "NACK initialise"), True)
        if data == bytes([ACK]) and not self._kept:
            if self._command == Command.GET and not self._giving:
                self._giving = 1
            return Said("ACK")
        if identifier != self._command or not self._giving:
            return None if data == bytes([ACK]) else Said(f"unknown: {shown(data)}")
        self._kept += data
        if self._command == Command.GET and self._giving == 1:
            self._giving = data[0] + 2
        if len(self._kept) < self._giving:
            return None
        kept, self._kept, size, self._giving, self._command = self._kept, b"", self._giving, 0, -1
        return Said(f"{name_in(NAMES, identifier)} {_data_words(identifier, kept[:size])}")


def _data_words(command: int, data: bytes) -> str:
    match command:
        case Command.GET:
            commands = ", ".join(NAMES.get(byte, f"0x{byte:02X}") for byte in data[2:])
            return f"{version_words(data[1])}: {commands}"
        case Command.GET_VERSION:
            return f"{version_words(data[0])}, option bytes {shown(data[1:])}"
        case Command.GET_ID:
            return f"0x{data.hex().upper()}"
    return f"data, {counted(len(data), 'byte')}"
