"""The commands of the STM32's system-memory bootloader on a USART, from the part's side.

Follows AN3155 rev 20 (USART protocol used in the STM32 bootloader; a section 3.x for each command). What it leaves
open follows the loader that ST publishes (STMicroelectronics/stm32-mw-openbl): a command is two bytes, so that once
synchronised a first 0x7F waits for its complement and a second one is answered with NACK; bytes are waited for without
limit, unless `silence` says otherwise. Any NACK ends the command.

Get Checksum (3.13) is taken as: address, size in words, polynomial and initial value, each of 4 bytes with its XOR and
its own ACK, then one more ACK once the CRC is computed, and the CRC with its XOR. So it is in the sister protocol on
SPI (AN4286), as a published program speaks it with silicon; `ChecksumForm` has the other readings.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from ..serial.board import Silence
from .board import Stm32Board
from .part import Stm32Memory


class Command(IntEnum):
    """AN3155, table 2."""

    GET = 0x00
    GET_VERSION = 0x01
    GET_ID = 0x02
    READ_MEMORY = 0x11
    GO = 0x21
    WRITE_MEMORY = 0x31
    ERASE = 0x43
    EXTENDED_ERASE = 0x44
    WRITE_PROTECT = 0x63
    WRITE_UNPROTECT = 0x73
    READOUT_PROTECT = 0x82
    READOUT_UNPROTECT = 0x92
    GET_CHECKSUM = 0xA1


SYNCHRONISE = b"\x7f"
ACK = b"\x79"
NACK = b"\x1f"

GLOBAL_ERASE = 0xFF
SPECIAL_ERASES: Mapping[int, int | None] = {0xFFFF: None, 0xFFFE: 1, 0xFFFD: 2}
"""Extended Erase: the special codes, and the bank that each erases (None: all)."""
RESERVED_ERASES = range(0xFFF0, 0x10000)

PROTOCOL_WITH_CHECKSUM = 0x33
"""The protocol version of a loader with Get Checksum (AN3155, section 4)."""

LEFT_BY_PROTECTION = frozenset({Command.GET, Command.GET_VERSION, Command.GET_ID, Command.READOUT_UNPROTECT})
"""What readout protection leaves (AN3155, table 2, note 2)."""


class CommandRefused(Exception):
    """The command ends with NACK."""


@dataclass(frozen=True, slots=True)
class ChecksumForm:
    """`unit`: bytes in one of the sizes that Get Checksum takes. `announced`: an ACK of its own precedes the CRC."""

    unit: int = 4
    announced: bool = True


class Stm32Loader:
    """`checksum`: how its Get Checksum is, None for without. `silence`: seconds after which a command that waits for
    bytes is given up."""

    def __init__(
        self, board: Stm32Board, memory: Stm32Memory, *, checksum: ChecksumForm | None, silence: float | None
    ) -> None:
        self._board = board
        self._memory = memory
        self._silence = silence
        self._checksum = checksum
        part = memory.part
        self._version = PROTOCOL_WITH_CHECKSUM if checksum else part.protocol_version
        self._commands: dict[int, Callable[[], None]] = {
            Command.GET: self._get,
            Command.GET_VERSION: self._get_version,
            Command.GET_ID: self._get_id,
            Command.READ_MEMORY: self._read_memory,
            Command.GO: self._go,
            Command.WRITE_MEMORY: self._write_memory,
            **({Command.ERASE: self._erase} if part.erase == "erase" else {}),
            **({Command.EXTENDED_ERASE: self._extended_erase} if part.erase == "extended" else {}),
            Command.WRITE_PROTECT: self._write_protect,
            Command.WRITE_UNPROTECT: self._write_unprotect,
            Command.READOUT_PROTECT: self._readout_protect,
            Command.READOUT_UNPROTECT: self._readout_unprotect,
            **({Command.GET_CHECKSUM: self._get_checksum} if checksum else {}),
        }
        self._go_to: int | None = None

    def run(self) -> int | None:
        """Serves commands until Go: the address to start at. None: the first byte was wrong, and it stays deaf."""
        self._go_to = None
        if self._board.receive(1) != SYNCHRONISE:
            return None
        self._board.send(ACK)
        while self._go_to is None:
            try:
                self._command()
            except (CommandRefused, Silence):
                self._board.send(NACK)
        return self._go_to

    def _command(self) -> None:
        code = self._board.receive(1)[0]
        if self._take(1)[0] != code ^ 0xFF or code not in self._commands:
            raise CommandRefused
        if self._memory.options.rdp and code not in LEFT_BY_PROTECTION:
            raise CommandRefused
        self._board.send(ACK)
        self._commands[code]()

    # Bytes.

    def _take(self, count: int) -> bytes:
        return self._board.receive(count, self._silence)

    def _checked(self, data: bytes) -> bytes:
        """`data`, if the XOR that follows it is right."""
        if self._take(1)[0] != functools.reduce(operator.xor, data):
            raise CommandRefused
        return data

    def _word(self) -> int:
        """A number of 4 bytes, most significant first, with its XOR."""
        return int.from_bytes(self._checked(self._take(4)), "big")

    def _accept(self, accepted: bool) -> None:
        if not accepted:
            raise CommandRefused
        self._board.send(ACK)

    # Commands, after their ACK.

    def _get(self) -> None:
        codes = bytes(self._commands)
        self._board.send(bytes([len(codes), self._version]) + codes + ACK)

    def _get_version(self) -> None:
        self._board.send(bytes([self._version, 0, 0]) + ACK)

    def _get_id(self) -> None:
        self._board.send(b"\x01" + self._memory.part.product_id.to_bytes(2, "big") + ACK)

    def _read_memory(self) -> None:
        address = self._word()
        self._accept(self._memory.is_readable(address))
        count, complement = self._take(2)
        self._accept(complement == count ^ 0xFF and self._memory.is_readable(address, count + 1))
        self._board.send(self._memory.read(address, count + 1))

    def _go(self) -> None:
        address = self._word()
        self._accept(self._memory.is_writable(address))
        self._go_to = address

    def _write_memory(self) -> None:
        address = self._word()
        self._accept(self._memory.is_writable(address))
        count = self._take(1)
        data = self._checked(count + self._take(count[0] + 1))[1:]
        self._accept(len(data) % 4 == 0 and self._memory.write(address, data))

    def _erase(self) -> None:
        count = self._take(1)
        if count[0] == GLOBAL_ERASE:
            self._accept(self._take(1) == b"\0" and self._memory.erase_all())
        else:
            pages = self._checked(count + self._take(count[0] + 1))[1:]
            self._accept(self._memory.erase(pages))

    def _extended_erase(self) -> None:
        head = self._take(2)
        count = int.from_bytes(head, "big")
        if count in RESERVED_ERASES:
            self._checked(head)
            self._accept(count in SPECIAL_ERASES and self._memory.erase_all(SPECIAL_ERASES[count]))
        else:
            codes = self._checked(head + self._take(2 * (count + 1)))[2:]
            pages = [int.from_bytes(codes[at : at + 2], "big") for at in range(0, len(codes), 2)]
            self._accept(self._memory.erase(pages))

    def _write_protect(self) -> None:
        count = self._take(1)
        sectors = self._checked(count + self._take(count[0] + 1))[1:]
        self._memory.protect(sectors)
        self._board.send(ACK)
        self._board.reset_itself()

    def _write_unprotect(self) -> None:
        self._memory.protect(())
        self._board.send(ACK)
        self._board.reset_itself()

    def _readout_protect(self) -> None:
        self._memory.protect_readout()
        self._board.send(ACK)
        self._board.reset_itself()

    def _readout_unprotect(self) -> None:
        self._memory.unprotect_readout()
        self._board.send(ACK)
        self._board.reset_itself()

    def _get_checksum(self) -> None:
        form = self._checksum or ChecksumForm()
        address = self._word()
        self._accept(address % 4 == 0 and self._memory.is_readable(address))
        size = self._word() * form.unit
        self._accept(size > 0 and size % 4 == 0 and self._memory.is_readable(address, size))
        polynomial = self._word()
        self._board.send(ACK)
        initial = self._word()
        self._board.send(ACK)
        crc = self._memory.crc(address, size, polynomial, initial).to_bytes(4, "big")
        self._board.send((ACK if form.announced else b"") + crc + bytes([functools.reduce(operator.xor, crc)]))
