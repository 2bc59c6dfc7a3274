"""`stk500v2`: AVR bootloaders that speak STK500 version 2 (AVR068), foremost that of the Arduino Mega 2560 ("Wiring").

That loader erases a page with each PROGRAM_FLASH_ISP, but not the page that is written: the next one, counted from 0 on
since its start, or since the last CHIP_ERASE_ISP (which does nothing else, and says that it failed). So each page is
written when the count is at it; to begin again the count is set back; and pages between that aren't to be changed are
written again with what they hold. A loader that erases the page it is given is served by that as well.

Its EEPROM commands take the address of a byte for writing, and twice as much for reading. Both kinds of loaders read
alike from address 0 only, so each read begins there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...transports.deadline import Deadline
from ...transports.errors import SerialTimeout
from ...transports.serial.port import SerialPort
from ..errors import PartError, PartRefused
from . import stk500v2_codec as codec
from .flasher import AvrFlasher
from .loader import STARTING_WAITS, About, AvrLoader, Fuses, MemoryKind
from .parts import AvrPart
from .profile import AvrProfile
from .stk500v2_codec import Command, Parameter

if TYPE_CHECKING:
    from ..describing import Describer

WIRING = "AVRISP_2"
"""What the Mega 2560's loader calls itself."""
BLOCK = 256
"""Bytes of one read."""
FAR = 0x2_0000
"""Bytes of flash from which on the address is extended."""
UNERASED = 0x4000
"""Bytes at the flash's end that the Mega 2560's loader erases no page of: twice its boot section (APP_END in its source)."""
FUSES = {
    "low": (Command.READ_FUSE_ISP, b"\x50\x00\x00\x00"),
    "high": (Command.READ_FUSE_ISP, b"\x58\x08\x00\x00"),
    "extended": (Command.READ_FUSE_ISP, b"\x50\x08\x00\x00"),
    "lock": (Command.READ_LOCK_ISP, b"\x58\x00\x00\x00"),
}
"""ISP instructions that read fuses and lock bits (data sheets, "Serial Programming Instruction Set")."""


class Stk500v2Loader(AvrLoader):
    erases_in_order = True
    tells_memories_apart = True
    numbers_answers = True

    def __init__(self, port: SerialPort, *, answer: float) -> None:
        super().__init__(port, answer=answer)
        self._sequence = 0
        self._name = ""
        self._heard = bytearray()
        self._at: int | None = None
        """The flash address that reading goes on at, in bytes; None: not known."""
        self._erases_next: int | None = None
        """The address of the page that the next PROGRAM_FLASH_ISP erases; None: not known."""

    def sync(self) -> bool:
        self._at = self._erases_next = None
        self.port.drain()
        self._heard.clear()
        for seconds in STARTING_WAITS:
            try:
                body = self._exchange(bytes([Command.SIGN_ON]), min(seconds, self.line.answer))
                answer = codec.result(body, Command.SIGN_ON, 1, "the greeting")
            except (SerialTimeout, PartError):
                continue
            self._name = answer[1 : 1 + answer[0]].decode("ascii", "replace")
            return True
        return False

    def about(self) -> About:
        hardware, major, minor = (self._parameter(which) for which in Parameter)
        return About(self._name, f"{major}.{minor} (hardware {hardware})")

    def signature(self) -> int:
        each = [self._read_byte(Command.READ_SIGNATURE_ISP, bytes([0x30, 0, which, 0])) for which in range(3)]
        return int.from_bytes(bytes(each), "big")

    def fuses(self) -> Fuses:
        try:
            return Fuses(**{name: self._read_byte(*how) for name, how in FUSES.items()})
        except PartRefused:
            return Fuses()

    def prepare(self, part: AvrPart) -> None:
        self._ask(codec.enter_progmode(), 0, "to enter programming mode")

    def read(self, part: AvrPart, memory: MemoryKind, address: int, size: int) -> bytes:
        what = f"to read {size} bytes of {memory.value} at 0x{address:05X}"
        if memory is MemoryKind.EEPROM:
            return self._read_eeprom(address, size, what)
        self._go_to(part, address)
        self._at = None
        # Words are read: an odd byte at the end comes with the next one.
        data = self._ask(codec.read(Command.READ_FLASH_ISP, size + size % 2), size + size % 2, what)[:size]
        self._at = address + size + size % 2
        return data

    def write(self, part: AvrPart, memory: MemoryKind, address: int, data: bytes) -> None:
        what = f"to write {len(data)} bytes of {memory.value} at 0x{address:05X}"
        if memory is MemoryKind.EEPROM:
            self._at = None
            self._ask(codec.load_address(address), 0, f"the address 0x{address:05X}")
            self._ask(codec.program(Command.PROGRAM_EEPROM_ISP, data), 0, what, seconds=len(data) * 0.01)
            return
        self._count_to(part, address)
        self._program(part, address, data, what)

    def leave(self) -> None:
        self._ask(codec.leave_progmode(), 0, "to start the application")

    def read_block(self, part: AvrPart) -> int:
        return BLOCK

    def unerased(self, part: AvrPart) -> int:
        return UNERASED if self._name == WIRING and part.flash > FAR else 0

    # Pages, and the count of those that were erased.

    def _program(self, part: AvrPart, address: int, data: bytes, what: str) -> None:
        """The address is sent each time, though it would follow: a loader that was reset is at 0."""
        self._at = None
        self._go_to(part, address)
        self._at = self._erases_next = None
        self._ask(codec.program(Command.PROGRAM_FLASH_ISP, data), 0, what)
        self._at = self._erases_next = address + len(data)

    def _count_to(self, part: AvrPart, address: int) -> None:
        """Brings the count of erased pages to this one; the pages that it passes keep what they hold."""
        if self._erases_next is None or self._erases_next > address:
            self._erases_next = None
            self._exchange(codec.chip_erase(), self.line.answer)
            self._erases_next = 0
        while self._erases_next < address:
            passed = self._erases_next
            data = self.read(part, MemoryKind.FLASH, passed, part.page)
            self._program(part, passed, data, f"to write the page at 0x{passed:05X} again")

    def _go_to(self, part: AvrPart, address: int) -> None:
        if self._at == address:
            return
        self._at = None
        words = address // 2 | (codec.EXTENDED if part.flash > FAR else 0)
        self._ask(codec.load_address(words), 0, f"the address 0x{address:05X}")
        self._at = address

    def _read_eeprom(self, address: int, size: int, what: str) -> bytes:
        self._at = None
        self._ask(codec.load_address(0), 0, "the address 0")
        data = b""
        while len(data) < address + size:
            step = min(BLOCK, address + size - len(data))
            data += self._ask(codec.read(Command.READ_EEPROM_ISP, step), step, what)[:step]
        return data[address:]

    # Messages.

    def _parameter(self, which: Parameter) -> int:
        return self._ask(bytes([Command.GET_PARAMETER, which]), 1, which.name)[0]

    def _read_byte(self, command: Command, instruction: bytes) -> int:
        return self._ask(codec.read_byte(command, instruction), 1, command.name)[0]

    def _ask(self, body: bytes, size: int, what: str, *, seconds: float = 0.0) -> bytes:
        """An answer has a number, so a late one is waited for as long again."""
        return codec.result(self._exchange(body, 2 * self.line.answer + seconds, size), Command(body[0]), size, what)

    def _exchange(self, body: bytes, seconds: float, size: int = 0) -> bytes:
        """Sends a message, and returns the body of the answer that has its number. Raises SerialTimeout."""
        self._sequence = (self._sequence + 1) & 0xFF
        request = codec.message(self._sequence, body)
        limit = Deadline.after(seconds + self.port.wire_seconds(len(request) + size + 16))
        self.port.write(request, limit)
        while True:
            answer = codec.take(self._heard, self._sequence)
            if answer is not None:
                return answer
            more = self.port.read_some(limit)
            if not more:
                raise SerialTimeout(f"no answer from {self.port.url} to {Command(body[0]).name}")
            self._heard += more


class Stk500v2Flasher(AvrFlasher):
    """One part behind the Mega 2560's loader or another loader of STK500 version 2."""

    protocol = "stk500v2"
    other_names = ("avrispv2", "stk500", "wiring")
    silences = codec.SILENCES

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import Stk500v2Describer

        return Stk500v2Describer(name)

    @classmethod
    def make_loader(cls, port: SerialPort, profile: AvrProfile) -> AvrLoader:
        return Stk500v2Loader(port, answer=profile.answer)
