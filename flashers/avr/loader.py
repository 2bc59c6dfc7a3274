"""What the bootloaders of AVRs have in common, whatever they speak: `AvrLoader`, the commands that `avr` needs.

A loader's pages: some erase a page as they write it, and have no other way to erase one (`ERASES_PAGES`); others erase the
application section only as a whole, by a command.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

from ...transports.serial.port import SerialPort
from ..errors import PartRefused
from ..serial.exchange import Exchange
from .parts import AvrPart

STARTING_WAITS = (0.05, 0.05, 0.1, 0.2, 0.3, 0.3)
"""How long the answer to each sync of a loader that may still be starting is waited for. What comes while it starts is lost;
the first waits are longer than any USB adapter holds an answer back."""


class MemoryKind(Enum):
    FLASH = "flash"
    EEPROM = "eeprom"


@dataclass(frozen=True, slots=True)
class Fuses:
    """Fuse and lock bytes as read; None where the loader doesn't tell one."""

    low: int | None = None
    high: int | None = None
    extended: int | None = None
    lock: int | None = None


@dataclass(frozen=True, slots=True)
class About:
    """Which loader it says it is. `name` is "" where it doesn't say."""

    name: str
    version: str


class AvrLoader(ABC):
    """The loader at the other end of `port`. `answer`: seconds that it has for an answer, the wire's time aside.

    Each command raises SerialTimeout, ProtocolError and PartRefused. After the first two the loader may be anywhere in a
    command: `sync` comes next, after a reset where there is a way to make one.
    """

    erases_pages = True
    """Writing a page of flash erases it before; else `erase_all` comes first."""
    erases_in_order = False
    """It does so only from the first page on, one after the other."""
    may_be_jumped_to = True
    """An application may jump to its start, however often. Without the C library's start, which sets the stack pointer, each
    time takes some of the stack, down into the registers of the ports."""
    numbers_answers = False
    """A late answer is known from that of the next request."""
    is_patient = True
    """It waits for the next command as long as that takes. Else a watchdog starts the application meanwhile."""
    tells_memories_apart = False
    """It has commands of their own for EEPROM, and refuses them where it can't."""

    def __init__(self, port: SerialPort, *, answer: float) -> None:
        self.port = port
        self.line = Exchange(port, answer)

    @abstractmethod
    def sync(self) -> bool:
        """Whether a loader answers, and is in step from now on."""

    @abstractmethod
    def about(self) -> About: ...

    @abstractmethod
    def signature(self) -> int: ...

    def fuses(self) -> Fuses:
        """Fuses and lock bits, as far as the loader reports them; by default nothing."""
        return Fuses()

    def prepare(self, part: AvrPart) -> None:  # noqa: B027 - most loaders need nothing
        """What comes between the signature and the first read or write."""

    @abstractmethod
    def read(self, part: AvrPart, memory: MemoryKind, address: int, size: int) -> bytes:
        """At most `read_block` bytes. `address` in bytes, even."""

    @abstractmethod
    def write(self, part: AvrPart, memory: MemoryKind, address: int, data: bytes) -> None:
        """A whole page of flash, or at most `eeprom_block` bytes of EEPROM. `address` in bytes, even."""

    def erase_all(self) -> None:
        """Erases the application section; a loader that erases pages refuses it."""
        raise PartRefused("this loader erases no more than the page that it writes")

    @abstractmethod
    def leave(self) -> None:
        """Has the loader start the application."""

    def read_block(self, part: AvrPart) -> int:
        """Most bytes of one read."""
        return part.page

    def eeprom_block(self, part: AvrPart) -> int:
        """Most bytes of one EEPROM write."""
        return min(64, part.page)

    def unerased(self, part: AvrPart) -> int:
        """Bytes at the flash's end that it never erases, the boot section among them; 0: it erases all up to that."""
        return 0

    def take_care(self) -> None:  # noqa: B027 - most loaders have nothing to leave out
        """Something went wrong: shortcuts that the loader may not like are left out from now on."""
