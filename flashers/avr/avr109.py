"""`avr109`: AVR bootloaders that speak AVR109: Caterina of the Arduino Leonardo and Micro, LUFA's CDC loader, and others.

Caterina is a USB device itself: the application is asked to become the bootloader by the touch of its port at 1200 bit/s
(entry.py), and the port goes and comes back on the way in and on the way out. Its blocks erase the page that they
write, and so do LUFA's; a loader with another name is taken for one as AVR109 describes it, which erases all of the
application section and no less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...transports.deadline import Deadline
from ...transports.errors import SerialTimeout
from ...transports.serial.port import SerialPort
from ..errors import PartRefused, ProtocolError
from . import avr109_codec as codec
from .avr109_codec import Command
from .flasher import AvrFlasher
from .loader import STARTING_WAITS, About, AvrLoader, Fuses, MemoryKind
from .parts import AvrPart
from .profile import AvrProfile, AvrUsbEntrySettings

if TYPE_CHECKING:
    from ..describing import Describer

KINDS = {MemoryKind.FLASH: b"F", MemoryKind.EEPROM: b"E"}
FAR = 0x2_0000
"""Bytes that SET_ADDRESS reaches."""
PAGE_ERASERS = ("CATERIN", "LUFACDC")
"""The names of loaders whose blocks erase the page that they write."""
ERASE_SECONDS = 20.0
"""For all pages of the largest part, at 9 ms each."""
FUSES = {
    "low": Command.READ_LOW_FUSE,
    "high": Command.READ_HIGH_FUSE,
    "extended": Command.READ_EXTENDED_FUSE,
    "lock": Command.READ_LOCK_BITS,
}


class Avr109Profile(AvrProfile):
    """As of the other AVR protocols, but for the entry."""

    entry: AvrUsbEntrySettings = AvrUsbEntrySettings()
    erases_pages: bool | None = None
    """Whether writing a page erases it. Default: depends on the bootloader's name."""


class Avr109Loader(AvrLoader):
    def __init__(self, port: SerialPort, *, answer: float, erases_pages: bool | None = None) -> None:
        super().__init__(port, answer=answer)
        self._given = erases_pages
        self._block = 0

    def sync(self) -> bool:
        self.port.drain()
        for number, seconds in enumerate(STARTING_WAITS):
            try:
                self._identifier(min(seconds, self.line.answer))
            except SerialTimeout as late:
                if late.received:
                    self.line.until_quiet()
            except ProtocolError:
                self.line.until_quiet()
            else:
                if number:
                    self.line.until_quiet()  # Those before may be answered, too: answers have no numbers.
                return True
        return False

    def about(self) -> About:
        name = self._identifier(self.line.answer)
        self.erases_pages = name in PAGE_ERASERS if self._given is None else self._given
        version = self.line.ask(codec.command(Command.SOFTWARE_VERSION), 2)
        return About(name, ".".join(version.decode("ascii", "replace")))

    def signature(self) -> int:
        return codec.signature(self.line.ask(codec.command(Command.READ_SIGNATURE), 3))

    def fuses(self) -> Fuses:
        found = {name: self._byte(which) for name, which in FUSES.items()}
        return Fuses(**found)

    def prepare(self, part: AvrPart) -> None:
        self._done(codec.command(Command.ENTER_PROGRAMMING_MODE), "to enter programming mode")
        self._block = codec.block_size(self.line.ask(codec.command(Command.CHECK_BLOCK_SUPPORT), 3))
        if self._block < part.page:
            raise PartRefused(f"the loader takes {self._block} bytes at once, and a page has {part.page}")

    def read(self, part: AvrPart, memory: MemoryKind, address: int, size: int) -> bytes:
        self._go_to(part, memory, address)
        return self.line.ask(codec.block_read(KINDS[memory], size), size)

    def write(self, part: AvrPart, memory: MemoryKind, address: int, data: bytes) -> None:
        self._go_to(part, memory, address)
        what = f"to write {len(data)} bytes of {memory.value} at 0x{address:05X}"
        self._done(codec.block_load(KINDS[memory], data), what, seconds=len(data) * 0.01)

    def erase_all(self) -> None:
        self._done(codec.command(Command.CHIP_ERASE), "to erase the application section", seconds=ERASE_SECONDS)

    def leave(self) -> None:
        self._done(codec.command(Command.LEAVE_PROGRAMMING_MODE), "to leave programming mode")
        self._done(codec.command(Command.EXIT_BOOTLOADER), "to start the application")

    def read_block(self, part: AvrPart) -> int:
        return self._block

    def _go_to(self, part: AvrPart, memory: MemoryKind, address: int) -> None:
        number = address // 2 if memory is MemoryKind.FLASH else address
        if memory is MemoryKind.FLASH and part.flash > FAR:
            self._done(codec.set_extended_address(number), f"the address 0x{address:05X}")
        else:
            self._done(codec.set_address(number), f"the address 0x{address:05X}")

    def _identifier(self, seconds: float) -> str:
        """The whole answer, and nothing after it: another program would say more, or less."""
        self.line.send(codec.command(Command.SOFTWARE_IDENTIFIER))
        name = codec.identifier(self.port.read_exactly(7, Deadline.after(seconds + self.port.wire_seconds(8))))
        if self.port.drain():
            raise ProtocolError("the loader says more than its name")
        return name

    def _byte(self, which: Command) -> int | None:
        """None where the loader doesn't know the command: "?" is 0x3F, no fuse byte of a part that runs a loader is."""
        answer = self.line.ask(codec.command(which), 1)
        return None if answer == codec.UNKNOWN else answer[0]

    def _done(self, request: bytes, what: str, *, seconds: float = 0.0) -> None:
        codec.done(self.line.ask(request, 1, seconds=seconds), what)


class Avr109Flasher(AvrFlasher):
    """One part behind Caterina or another loader that speaks AVR109."""

    protocol = "avr109"
    other_names = ("avr910", "butterfly", "caterina")
    silences = codec.SILENCES
    Profile = Avr109Profile

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import Avr109Describer

        return Avr109Describer(name)

    @classmethod
    def harmed_by(cls, question: bytes) -> str:
        """Each letter counts, even where the loader might take it for the argument of the letter before."""
        for letter in question.decode("latin-1"):
            if does := codec.LASTING.get(letter):
                return f"at {letter!r} its bootloader {does}"
        return ""

    @classmethod
    def make_loader(cls, port: SerialPort, profile: AvrProfile) -> AvrLoader:
        given = profile.erases_pages if isinstance(profile, Avr109Profile) else None
        return Avr109Loader(port, answer=profile.answer, erases_pages=given)
