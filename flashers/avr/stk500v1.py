"""`stk500v1`: AVR bootloaders that speak STK500 version 1 (AVR061): Optiboot, ATmegaBOOT and their kin.

What they leave out of it is in Optiboot's wiki ("How Optiboot works"): a page is erased as it is written, the EEPROM is
mostly not there, fuses read as 0, most commands are answered and do nothing. Two things follow. A byte that Optiboot does
not expect has its watchdog start the application, so that after anything unexpected the part is reset, and the rest
begins with GET_SYNC. And the address of a page goes out in one write with the page: the loader has taken the one
before the first byte of the other is over, and on a USB adapter that is half of the waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...transports.deadline import Deadline
from ...transports.serial.port import SerialPort
from . import stk500v1_codec as codec
from .flasher import AvrFlasher
from .loader import About, AvrLoader, Fuses, MemoryKind
from .parts import AvrPart
from .profile import AvrProfile
from .stk500v1_codec import IN_STEP, Command, Parameter

if TYPE_CHECKING:
    from ..describing import Describer

SYNCS = 3
"""How often a loader that may still be starting is sent GET_SYNC."""
SYNC_SECONDS = 0.3
"""How long each answer is waited for: Optiboot blinks for that long before it listens."""
LONG_BLOCK = 256
"""Bytes of one read from the loaders that are known by name; else a page."""
KINDS = {MemoryKind.FLASH: b"F", MemoryKind.EEPROM: b"E"}
FAR = 0x2_0000
"""Bytes that the address of LOAD_ADDRESS reaches."""
FUSES = {
    "low": b"\x50\x00\x00\x00",
    "high": b"\x58\x08\x00\x00",
    "extended": b"\x50\x08\x00\x00",
    "lock": b"\x58\x00\x00\x00",
}
"""ISP instructions that read fuses and lock bits (data sheets, "Serial Programming Instruction Set")."""
SIGNATURE_0 = b"\x30\x00\x00\x00"
"""The ISP instruction that reads the first signature byte, which is 0x1E of every AVR."""
ATMEGABOOT = (2, 1, 16)
OPTIBOOT_HARDWARE, OPTIBOOT_MAJOR = 3, 3
"""What the loaders give for hardware and software version; Optiboot's is its own from 3 on."""


class Stk500v1Loader(AvrLoader):
    may_be_jumped_to = False
    is_patient = False

    def __init__(self, port: SerialPort, *, answer: float) -> None:
        super().__init__(port, answer=answer)
        self._combines = True
        self._long_blocks = False
        self._extended: int | None = None

    def sync(self) -> bool:
        self._extended = None
        self.port.drain()
        for number in range(SYNCS):
            self.line.send(codec.command(Command.GET_SYNC))
            if self._hears_in_step():
                if number or not self._combines:
                    self.line.until_quiet()  # Those before may be answered, too: answers have no numbers.
                return True
        return False

    def _hears_in_step(self) -> bool:
        """Whether the answer is the last that comes within the time: an application may have been talking before it."""
        limit = Deadline.after(min(SYNC_SECONDS, self.line.answer) + self.port.wire_seconds(4))
        heard = b""
        while not heard.endswith(IN_STEP):
            more = self.port.read_some(limit)
            if not more:
                return False
            heard = (heard + more)[-64:]
        return True

    def about(self) -> About:
        hardware, major, minor = (self._parameter(which) for which in Parameter)
        name = "ATmegaBOOT" if (hardware, major, minor) == ATMEGABOOT else ""
        self.may_be_jumped_to = bool(name)
        if hardware == OPTIBOOT_HARDWARE and major >= OPTIBOOT_MAJOR:
            name = "Optiboot"
        self._long_blocks = bool(name) and self._combines
        return About(name, f"{major}.{minor}")

    def signature(self) -> int:
        return int.from_bytes(self._ask(codec.command(Command.READ_SIGN), 3, "who it is"), "big")

    def fuses(self) -> Fuses:
        """Only of a loader that really has UNIVERSAL; a loader that answers 0 to each doesn't read them."""
        if self._universal(SIGNATURE_0) != 0x1E:
            return Fuses()
        found = {name: self._universal(instruction) for name, instruction in FUSES.items()}
        return Fuses(**found) if any(found.values()) else Fuses()

    def prepare(self, part: AvrPart) -> None:
        self._ask(codec.command(Command.ENTER_PROGMODE), 0, "to enter programming mode")

    def read(self, part: AvrPart, memory: MemoryKind, address: int, size: int) -> bytes:
        what = f"to read {size} bytes of {memory.value} at 0x{address:05X}"
        return self._at(part, memory, address, codec.read_page(KINDS[memory], size), size, what)

    def write(self, part: AvrPart, memory: MemoryKind, address: int, data: bytes) -> None:
        what = f"to write {len(data)} bytes of {memory.value} at 0x{address:05X}"
        self._at(part, memory, address, codec.prog_page(KINDS[memory], data), 0, what)

    def leave(self) -> None:
        self._ask(codec.command(Command.LEAVE_PROGMODE), 0, "to start the application")

    def read_block(self, part: AvrPart) -> int:
        return LONG_BLOCK if self._long_blocks else part.page

    def take_care(self) -> None:
        self._combines = False
        self._long_blocks = False

    def _at(self, part: AvrPart, memory: MemoryKind, address: int, request: bytes, size: int, what: str) -> bytes:
        """A request that the address goes before, in the same write unless that was seen to go wrong."""
        if part.flash > FAR and memory is MemoryKind.FLASH and self._extended != address >> 17:
            self._ask(codec.extended_address(address), 1, "the extended address")
            self._extended = address >> 17
        load = codec.load_address(address)
        if not self._combines:
            self._ask(load, 0, f"the address 0x{address:05X}")
            return self._ask(request, size, what)
        answer = self.line.ask(load + request, len(IN_STEP) + size + 2)
        codec.payload(answer[: len(IN_STEP)], f"the address 0x{address:05X}")
        return codec.payload(answer[len(IN_STEP) :], what)

    def _parameter(self, which: Parameter) -> int:
        return self._ask(codec.command(Command.GET_PARAMETER, bytes([which])), 1, which.name)[0]

    def _universal(self, instruction: bytes) -> int:
        return self._ask(codec.universal(instruction), 1, f"the instruction {instruction.hex(' ')}")[0]

    def _ask(self, request: bytes, size: int, what: str) -> bytes:
        return codec.payload(self.line.ask(request, size + 2), what)


class Stk500v1Flasher(AvrFlasher):
    """One part behind Optiboot, ATmegaBOOT or another loader that speaks STK500 version 1."""

    protocol = "stk500v1"
    other_names = ("arduino", "atmegaboot", "avrisp", "optiboot", "stk500")
    silences = codec.SILENCES

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import Stk500v1Describer

        return Stk500v1Describer(name)

    @classmethod
    def make_loader(cls, port: SerialPort, profile: AvrProfile) -> AvrLoader:
        return Stk500v1Loader(port, answer=profile.answer)
