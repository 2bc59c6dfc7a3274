"""The commands of the STM32 system memory bootloader over an open serial port (ST's AN3155, rev 20).

One method is one command: each group of bytes goes out in one write and its answer is waited for. The rule that keeps
a retry safe: after anything unexpected the loader is brought back to where it waits for a command (`resync`)
before anything else is sent.

What carries no checksum on the wire (who the part is, what its memory holds) is the caller's to ask twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ...transports.deadline import Deadline
from ...transports.errors import SerialTimeout
from ...transports.serial.port import SerialPort
from ..errors import Meaning, OperationFailed, PartProtected, PartRefused, ProtocolError
from ..retries import retried
from ..serial.exchange import LOST, QUIET_SECONDS, STREAM_SECONDS, Exchange
from . import codec
from .codec import ACK, BLOCK, NACK, SYNCHRONISE, WORD, Command, MassErase
from .loader import UNLOCK_REMEDY, Stm32Loader

TRIES = 3
"""How often one command is tried, when its answer is lost, garbled or NACK."""
FAILED = (*LOST, PartRefused)
"""What a command raises then."""
RESET_TRIES = 3
"""How often 0x7F is sent to a part that was just reset, and may still be starting."""
PROBE_SECONDS = 0.3
"""How long a loader may take to start, and to answer 0x7F. AN2606 gives up to about 100 ms for the first."""
CHECKSUM_SECONDS = 2e-6
"""How long the part may compute over one byte: dozens of cycles a word at 8 MHz, with a margin."""
PROBE = 0xF5
FILLER_HEAD, FILLER = 0xF6, 0xFA
"""Sent to a loader that may be anywhere in a command: after 0x7F, and to fill up what it waits for. They are no command
and the complement of none. After a byte count or an address they make no group whose XOR is right: with 0x7F, PROBE,
FILLER_HEAD and any number of FILLER the bytes before a FILLER never XOR to it."""
ERASE_FILLER = 0xFF
"""Where Extended Erase waits for its page count: 0xFFFF is a whole one there, and 0xFF its wrong XOR."""


class ChecksumForm(NamedTuple):
    """What AN3155, 3.13, leaves open to readers, and loaders may differ in.

    `unit`: bytes in one of the sizes that the loader takes: 4 (words) or 1. `announced`: whether an ACK of its own comes
    before the checksum, once it is computed.
    """

    unit: int
    announced: bool


class Stm32Commands(Stm32Loader):
    """The loader at the other end of `port`. `answer`: seconds that it has for an answer, its work and the wire's time aside."""

    most_pages = 128

    def __init__(self, port: SerialPort, *, answer: float) -> None:
        self._port = port
        self._line = Exchange(port, answer)
        self._checksum_form = ChecksumForm(WORD, announced=True)

    # Coming into step.

    def sync(self, seconds: float = PROBE_SECONDS) -> bool:
        """Whether a loader answers, within `seconds`, that was just reset, or that is in step already (AN3155, 1).

        A loader that measures its bit rate by 0x7F answers ACK. A loader that has done so takes 0x7F for the first byte of
        a command, and the next byte for its wrong complement: NACK. A loader that waits for the rest of an earlier run's
        command answers neither; it is the caller's choice to fill that up.
        """
        return self._sync_bytes(SYNCHRONISE, PROBE, seconds=seconds)

    def sync_started(self) -> bool:
        """Whether a loader answers that was just reset, and may take a while to start."""
        return self._sync_bytes(*[SYNCHRONISE] * RESET_TRIES)

    def _sync_bytes(self, *each: int, seconds: float = PROBE_SECONDS) -> bool:
        self._port.drain()
        for byte in each:
            with suppress(SerialTimeout):
                return self._sync_byte(byte, min(seconds, self._line.answer))
        return False

    def resync(self, *, erase: bool = False, late: float = 0.0) -> None:
        """Brings a loader that is anywhere in a command to where it waits for the next one.

        It may wait, without limit, for the rest of what was lost or left unfinished: at most a block, or the pages of
        an Erase. So it is given as many bytes as that takes. One time in 256 they complete the XOR of what it has of a
        block or of a list of pages already, and it carries that out: in memory that was being written or erased, where
        comparing and verifying see it.

        `erase`: it may wait for the page count of an Extended Erase. After 0x7F in its place it wants 64 KiB more, and
        is given up. `late`: seconds that an answer which was given up may still take. Raises SerialTimeout, ProtocolError.
        """
        head, filler = (ERASE_FILLER, ERASE_FILLER) if erase else (FILLER_HEAD, FILLER)
        self._line.send(bytes([head]) + bytes([filler]) * (BLOCK + WORD))
        wire = self._port.wire_seconds(BLOCK + WORD)
        # A loader that is slow, or behind an adapter that is, may answer what filled it up only now, and what was given up.
        limit = Deadline.after(2 * wire + STREAM_SECONDS + late)
        left = TRIES
        while True:
            self._port.until_quiet(wire + QUIET_SECONDS, limit)
            left -= 1
            # The last filler may be half a command; the second one is answered at the latest.
            try:
                if self._sync_byte(filler, QUIET_SECONDS):
                    return
            except SerialTimeout:
                if left <= 0 and (not late or limit.expired):
                    raise
            else:
                if left <= 0 and limit.expired:
                    raise ProtocolError("the loader answers more than a NACK to a byte that is not a command")

    def _recover(self, *, erase: bool = False) -> None:
        """As `resync`, where the answer that was given up may still come."""
        self.resync(erase=erase, late=self._line.answer)

    def _sync_byte(self, byte: int, seconds: float) -> bool:
        """Whether ACK or NACK, and nothing with it, answers this one byte. Raises SerialTimeout."""
        self._line.send(bytes([byte]))
        answer = self._port.read_exactly(1, Deadline.after(seconds + self._port.wire_seconds(2)))[0]
        # More than one byte is the tail of something else.
        return answer in (ACK, NACK) and not self._port.drain()

    # Commands.

    def get(self) -> tuple[int, frozenset[int]]:
        """Version of the protocol, and the command codes that there are (AN3155, 3.1)."""
        self._begin(Command.GET)
        data = self._counted("GET", at_most=BLOCK)
        return data[0], frozenset(data[1:])

    def get_version(self) -> tuple[int, bytes]:
        """Version of the protocol, and two option bytes (AN3155, 3.2), which tell something on the first loaders only."""
        self._begin(Command.GET_VERSION)
        data = self._line.receive(3)
        self._expect_ack("GET_VERSION")
        return data[0], data[1:]

    def get_id(self) -> int:
        """Product id (AN3155, 3.3)."""
        self._begin(Command.GET_ID)
        return int.from_bytes(self._counted("GET_ID", at_most=2), "big")

    def read_memory(self, address: int, size: int) -> bytes:
        """1 to 256 bytes (AN3155, 3.4). Raises PartProtected when the loader refuses the command itself."""

        def read() -> bytes:
            self._begin_or_protected(Command.READ_MEMORY, "read")
            self._group(codec.word(address), f"the address 0x{address:08X}")
            self._group(codec.read_length(size), f"to read {size} bytes at 0x{address:08X}")
            return self._line.receive(size)

        return retried(read, TRIES, FAILED, lambda error: self._recover())

    def write_memory(self, address: int, data: bytes, *, blank: int, seconds: float) -> None:
        """1 to 256 bytes, a multiple of 4, within `seconds` of their arrival (AN3155, 3.6).

        After a lost or garbled answer it looks whether the block is there before it writes again. Raises PartProtected
        when the loader refuses the command itself, OperationFailed when the block is neither there nor `blank`.
        """

        def write() -> bool:
            self._begin_or_protected(Command.WRITE_MEMORY, "write")
            self._group(codec.word(address), f"the address 0x{address:08X}")
            self._group(codec.block(data), f"the block at 0x{address:08X}", seconds)
            return True

        def look(error: Exception) -> bool | None:
            self._recover()
            there = self.read_memory(address, len(data))
            if there not in (data, bytes([blank]) * len(data)):
                raise OperationFailed(f"the block at 0x{address:08X} is half written") from error
            return there == data or None

        retried(write, TRIES, FAILED, look)

    def go(self, address: int) -> None:
        """Starts the application at `address` (AN3155, 3.5).

        A lost last answer leaves open whether it runs. It may be late; else the loader is asked whether it is still there:
        only a loader that is there answers, and gets the command again.
        """
        for left in reversed(range(TRIES)):
            self._begin_or_protected(Command.GO, "start an application")
            try:
                self._group(codec.word(address), f"to start at 0x{address:08X}")
                return
            except FAILED as error:
                if isinstance(error, SerialTimeout):
                    with suppress(SerialTimeout, ProtocolError, PartRefused):
                        self._expect_ack("to start the application")
                        return
                if not left:
                    raise
                if not self.sync():
                    return

    def erase_pages(self, numbers: Sequence[int], *, extended: bool, seconds: float) -> None:
        """Pages by their numbers, within `seconds` (AN3155, 3.7 and 3.8)."""
        group = codec.extended_pages(numbers) if extended else codec.pages(numbers)
        self._begin_or_protected(Command.EXTENDED_ERASE if extended else Command.ERASE, "erase")
        try:
            self._group(group, f"to erase {len(numbers)} pages", seconds)
        except PartRefused as error:
            raise OperationFailed(f"{error.cause}: no such page, or it could not be erased") from error

    def mass_erase(self, what: MassErase, *, extended: bool, seconds: float) -> bool:
        """All, or with `extended` a bank, within `seconds` (AN3155, 3.7 and 3.8); False if the loader refuses it."""
        group = codec.mass_erase(what) if extended else codec.GLOBAL_ERASE
        self._begin_or_protected(Command.EXTENDED_ERASE if extended else Command.ERASE, "erase")
        try:
            self._group(group, f"a mass erase ({what.name})", seconds)
        except PartRefused:
            return False
        return True

    # Get Checksum.

    def learn_checksum(self, address: int, content: bytes) -> bool:
        """Whether the loader's Get Checksum gives what it should over `content`, which `address` holds; learns its form.

        `content` is whole words.
        """
        for unit in (WORD, 1):
            with suppress(*FAILED):
                answer = self._checksum(address, len(content) // unit)
                wanted = codec.checked(codec.crc32_mpeg2(content).to_bytes(WORD, "big"))
                announced = answer != wanted
                if announced and answer[:1] == bytes([ACK]):
                    answer = answer[1:] + self._line.receive(1)
                if answer == wanted:
                    self._checksum_form = ChecksumForm(unit, announced)
                    return True
            self._recover()
        return False

    def get_checksum(self, address: int, size: int) -> int | None:
        """The CRC over whole words (AN3155, 3.13), in the form that was learnt; None if the loader doesn't give it."""
        form = self._checksum_form

        def compute() -> int:
            answer = self._checksum(address, size // form.unit)
            if form.announced:
                answer = answer[1:] + self._line.receive(1)
            if not codec.is_checked(answer):
                raise ProtocolError("the checksum came garbled")
            return int.from_bytes(answer[:WORD], "big")

        with suppress(*FAILED):
            return retried(compute, TRIES, FAILED, lambda error: self._recover())
        return None

    def _checksum(self, address: int, count: int) -> bytes:
        """The first 5 bytes of the answer."""
        seconds = CHECKSUM_SECONDS * WORD * count
        self._begin(Command.GET_CHECKSUM)
        self._group(codec.word(address), f"the address 0x{address:08X}")
        self._group(codec.word(count), f"the size {count}")
        self._group(codec.word(codec.CRC_POLYNOMIAL), "the polynomial")
        self._group(codec.word(codec.CRC_INITIAL), "the initial value", seconds)
        return self._line.receive(WORD + 1, seconds=seconds)

    # What commands are made of.

    def _begin_or_protected(self, command: Command, what: str) -> None:
        """Begins a command that readout protection forbids (AN3155, table 2). Raises PartProtected when refused."""
        try:
            self._begin(command)
        except PartRefused as error:
            raise PartProtected(f"the loader refuses to {what} memory", remedy=UNLOCK_REMEDY) from error

    def _begin(self, command: Command) -> None:
        """Sends a command until it is accepted: nothing has happened before that, so trying again is safe.

        Raises PartRefused when it is refused each time: by chance of the wire it would not be.
        """

        def begin() -> None:
            self._port.drain()
            self._group(codec.command(command), command.name)

        retried(begin, TRIES, FAILED, lambda error: self._recover(erase=command is Command.EXTENDED_ERASE))

    def _group(self, group: bytes, what: str, seconds: float = 0.0) -> None:
        """Sends a command or a group of its arguments in one write; its answer may take `seconds` more."""
        self._line.send(group)
        self._expect_ack(what, seconds, sent=len(group))

    def _counted(self, what: str, *, at_most: int) -> bytes:
        """A count, as many bytes and one more, and ACK."""
        count = self._line.receive(1)[0] + 1
        if count > at_most:
            raise ProtocolError(f"the loader announces {count} bytes in its answer to {what}")
        data = self._line.receive(count)
        self._expect_ack(what)
        return data

    def _expect_ack(self, what: str, seconds: float = 0.0, *, sent: int = 0) -> None:
        """Waits for ACK. Raises PartRefused on NACK, ProtocolError on anything else, SerialTimeout."""
        answer = self._line.receive(1, seconds=seconds, sent=sent)[0]
        if answer == ACK:
            return
        if codec.MEANINGS.get(answer, Meaning.LOST) is Meaning.FAILED:
            raise PartRefused(f"the loader refuses {what}")
        raise ProtocolError(f"the loader answered {what} with 0x{answer:02X}")
