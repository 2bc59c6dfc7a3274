"""The STM32 bootloader's USART protocol in words, after ST's AN3155 (rev 20); the names are those of its table 2.

A command is followed by groups of arguments, each of which the loader acknowledges, so what bytes are follows from what
came before them.
"""

from __future__ import annotations

from ...transports.plain import counted
from ..describing import Said, StreamDescriber, name_in, shown
from .codec import ACK, GLOBAL_ERASE, NACK, SYNCHRONISE, WORD, Command, MassErase, is_checked

NAMES: dict[int, str] = {
    **{code: code.name.replace("_", " ").title().replace("Id", "ID") for code in Command},
    0x50: "Special",
    0x51: "Extended Special",
}
GROUPS: dict[int, tuple[str, ...]] = {
    Command.READ_MEMORY: ("address", "count"),
    Command.GO: ("address",),
    Command.WRITE_MEMORY: ("address", "block"),
    Command.ERASE: ("pages",),
    Command.EXTENDED_ERASE: ("extended pages",),
    Command.WRITE_PROTECT: ("sectors",),
    Command.GET_CHECKSUM: ("address", "size", "polynomial", "initial value"),
}
"""What follows a command, a group for each acknowledgement (3.1 to 3.13)."""
MASS_ERASES = {
    MassErase.ALL: "global mass erase",
    MassErase.BANK_1: "bank 1 mass erase",
    MassErase.BANK_2: "bank 2 mass erase",
}
"""Page counts of Extended Erase (3.8)."""
WORDS = ("address", "size", "polynomial", "initial value")
"""Groups that are a number of 32 bits and its checksum."""
NO_COMMAND = -1
MOST_PAGES = 8
"""Numbers of pages that words list."""


class Stm32Describer(StreamDescriber):
    """One loader and its host."""

    def __init__(self, part: str = "") -> None:
        super().__init__(part)
        self._command = NO_COMMAND
        self._groups: tuple[str, ...] = ()
        """What the host has not sent of the command."""
        self._accepted = False
        """Whether the loader has acknowledged what the host sent last."""
        self._count = 0
        """Bytes that Read Memory asked for."""
        self._due = False
        """Whether the answer's data comes next."""

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        return self._request(data) if sent else self._answer(data, ended)

    def _request(self, data: bytearray) -> tuple[int, Said] | None:
        if self._groups and self._accepted:
            size = _group_size(self._groups[0], data)
            if len(data) < size:
                return None
            group, *rest = self._groups
            self._groups = tuple(rest)
            self._accepted = False
            return size, self._group(group, bytes(data[:size]))
        self._groups, self._due, self._accepted = (), False, False
        if data[0] == SYNCHRONISE:
            self._command = NO_COMMAND
            return 1, Said("synchronisation 0x7F")
        if len(data) < 2:
            return None
        if data[0] ^ data[1] != 0xFF:
            return len(data), Said(f"unknown: {shown(data)}")
        self._command = data[0]
        self._groups = GROUPS.get(data[0], ())
        return 2, Said(NAMES.get(data[0], f"unknown command 0x{data[0]:02X}"))

    def _group(self, group: str, data: bytes) -> Said:
        name = name_in(NAMES, self._command)
        if group == "count":
            self._count = data[0] + 1
            checked = data[0] ^ data[1] == 0xFF
            words = counted(self._count, "byte")
        else:
            checked = is_checked(data) or data == GLOBAL_ERASE
            words = _group_words(group, data)
        return Said(f"{name} {words}{'' if checked else ', checksum wrong'}", not checked)

    def _answer(self, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        if self._due:
            size = self._data_size(data)
            if len(data) < size:
                return None
            self._due = False
            return size, self._data(bytes(data[:size]))
        if data[0] == NACK:
            self._groups, self._accepted = (), False
            return 1, Said("NACK", True)
        if data[0] == ACK:
            self._accepted = True
            if not self._groups:
                self._due = self._command in (
                    Command.GET,
                    Command.GET_VERSION,
                    Command.GET_ID,
                    Command.READ_MEMORY,
                    Command.GET_CHECKSUM,
                )
                command = self._command
                if not self._due:
                    self._command = NO_COMMAND
                return 1, Said("ACK, the application starts" if command == Command.GO else "ACK")
            return 1, Said("ACK")
        size = next((at for at, byte in enumerate(data) if byte in (ACK, NACK)), len(data))
        return size, Said(f"unknown: {shown(data[:size])}")

    def _data_size(self, data: bytearray) -> int:
        match self._command:
            case Command.READ_MEMORY:
                return self._count
            case Command.GET_CHECKSUM:
                return WORD + 1
            case Command.GET_VERSION:
                return 3
            case _:
                return data[0] + 2

    def _data(self, data: bytes) -> Said:
        """The answer's data. After it a last ACK may come, which is the answer's end."""
        name, command = NAMES[self._command], self._command
        self._command = NO_COMMAND
        match command:
            case Command.READ_MEMORY:
                return Said(f"{name} data, {counted(len(data), 'byte')}")
            case Command.GET_CHECKSUM:
                wrong = not is_checked(data)
                return Said(f"{name} 0x{data[:WORD].hex().upper()}{', checksum wrong' if wrong else ''}", wrong)
            case Command.GET_VERSION:
                return Said(f"{name} {version_words(data[0])}, option bytes {shown(data[1:])}")
            case Command.GET_ID:
                return Said(f"{name} 0x{data[1:].hex().upper()}")
            case _:
                commands = ", ".join(NAMES.get(byte, f"0x{byte:02X}") for byte in data[2:])
                return Said(f"{name} {version_words(data[1])}: {commands}")


def _group_size(group: str, data: bytearray) -> int:
    """Bytes of the group that begins with `data`; where more of it must be known first, one more than there are."""
    if group in WORDS:
        return WORD + 1
    if group == "count":
        return 2
    if group == "extended pages":
        if len(data) < 2:
            return 3
        number = int.from_bytes(data[:2], "big")
        return 3 if number in MASS_ERASES else 2 * (number + 1) + 3
    if group == "pages" and data[0] == GLOBAL_ERASE[0]:
        return 2
    return data[0] + 3


def _group_words(group: str, data: bytes) -> str:
    if group in WORDS:
        number = int.from_bytes(data[:WORD], "big")
        if group == "size":
            return f"over {counted(number, 'byte')}"
        return f"{'' if group == 'address' else f'{group} '}0x{number:08X}"
    if group == "block":
        return counted(len(data) - 2, "byte")
    if group == "extended pages":
        first = int.from_bytes(data[:2], "big")
        if first in MASS_ERASES:
            return MASS_ERASES[MassErase(first)]
        return _listed([int.from_bytes(data[at : at + 2], "big") for at in range(2, len(data) - 1, 2)], "page")
    if data == GLOBAL_ERASE:
        return "global erase"
    return _listed(list(data[1:-1]), "sector" if group == "sectors" else "page")


def erased(numbers: list[int]) -> str:
    """Erase units by their numbers."""
    return _listed(numbers, "page")


def _listed(numbers: list[int], noun: str) -> str:
    names = ", ".join(map(str, numbers[:MOST_PAGES]))
    return f"{counted(len(numbers), noun)} ({names}{', ...' if len(numbers) > MOST_PAGES else ''})"


def version_words(number: int) -> str:
    return f"version {number >> 4}.{number & 0x0F}"
