"""The commands of the STM32 system memory bootloader on CAN (ST's AN3154) and on CAN FD (AN5405).

Loaders differ in how many ACKs they send where the notes leave that open (ST's ROMs and ST's own sources, OpenBL, do), so what
comes beyond the ACKs that are due is thrown away before the next command. Answers come under the command's id.

The rule that keeps a retry safe: after anything unexpected, and when a connection begins, the loader is brought back to where it
waits for a command (`sync`) before anything else is sent. It may wait for data, or for the numbers of erase units, and takes
whatever frame comes next for these. So the frame that asks whether it is there is filled with bytes that do no harm there:
numbers of units that are being erased anyway, or 0xFF.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from ...transports.can.bus import CanBus, CanId
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged
from ..errors import Meaning, NoResponse, OperationFailed, PartProtected, PartRefused, ProtocolError, silence
from ..retries import retried
from . import codec
from .codec import ACK, DATA, FD_FRAME, FRAME, INITIALISE, MEANINGS, NACK, OPENER, OPENER_ID, Command, MassErase
from .loader import UNLOCK_REMEDY, Stm32Loader

TRIES = 3
"""How often one command is tried, when its answer is lost or NACK."""
LOST = (NoResponse, ProtocolError, NotAcknowledged)
FAILED = (*LOST, PartRefused)
QUIET_SECONDS = 0.02
"""How long nothing comes when nothing more will: a loader sends its answer's frames one after the other."""
STREAM_SECONDS = 1.0
SPEED_SECONDS = 0.6
"""How long a loader takes at most to change its bit rate: OpenBL waits for 303 ms."""
SEND_SECONDS = 1.0
"""How long the bus may take for a frame."""
FRAME_SECONDS = 0.0011
"""What a frame takes where the bus's bit rate isn't known: at 125 kbit/s."""
FILLERS = 40
"""Frames that a loader may take for what it waits for: at most the 32 of a block."""
FILL = b"\xff"
Answer = tuple[int, bytes]


class CanCommands(Stm32Loader):
    """The loader on `bus`. `answer`: seconds that it has for an answer, its work and the wire's time aside."""

    most_pages = FRAME - 1
    """A frame that is not full gets no ACK of its own from OpenBL, so that all loaders send three in all."""
    fd: ClassVar[bool] = False
    query: ClassVar[int] = INITIALISE
    """The id that asks whether the loader is there."""
    silent_tries: ClassVar[int] = 3
    """How often it is asked in vain."""
    probe_seconds: ClassVar[float] = 0.1
    """How long it has to answer each time."""

    def __init__(self, bus: CanBus, *, answer: float) -> None:
        self.name = bus.name
        self._answer = answer
        self._frame_seconds = bus.frame_seconds or FRAME_SECONDS
        heard = [*Command, INITIALISE, DATA]
        self._channel = bus.channel(CanId(self.query), tuple(CanId(number) for number in heard), fd=self.fd)
        self._commands: frozenset[int] = frozenset()
        self._has_read = False
        self.alone: NotAcknowledged | None = None
        """Why nothing answered last: nobody is on the bus. What is sent then stays in the adapter, for the part to get later."""

    def close(self) -> None:
        self._channel.close()

    def wire_seconds(self, size: int) -> float:
        """What writing that many bytes and reading them back takes on the wire: an ACK, about half a frame, for each frame."""
        return 2.5 * size / FRAME * self._frame_seconds

    # Coming into step.

    def sync(self, *, fill: bytes = FILL, late: float = 0.0, tries: int = 0) -> bool:
        """Whether a loader answers, that was just started or waits for a command or the rest of one; it waits for a command then.

        `fill`: what it may take for the numbers of erase units, over and over. `late`: seconds that work which was given up may
        still take. `tries`: how often it is asked in vain, if not `silent_tries` times. Raises TransportError.
        """
        return self._sync(fill, late, tries or self.silent_tries) is not None

    def _sync(self, fill: bytes, late: float, tries: int) -> int | None:
        """How many frames it took for something else; None: nothing answers."""
        limit = Deadline.after(late)
        taken = silent = 0
        while taken <= FILLERS:
            answer = self.alone = None
            try:
                self._quiet()
                self._ask(fill, silent, tries)
                answer = self._any(self.probe_seconds)
            except NotAcknowledged as error:
                self.alone = error
            if answer is None:
                silent += 1
                if silent >= tries and limit.expired:
                    return None
            elif answer[0] == self.query and answer[1] in (bytes([ACK]), bytes([NACK])):
                self._quiet()
                return taken
            else:
                taken += 1
        return None

    def _ask(self, fill: bytes, silent: int, tries: int) -> None:
        """The last form is the usual one of other hosts: it comes once it is known that the loader waits for nothing."""
        is_last = silent + 1 >= tries
        self._send(self.query, b"" if is_last else fill * (FRAME // len(fill)))

    def _recover(self, fill: bytes = FILL, late: float = 0.0) -> int:
        """As `sync`, where the answer that was given up may still come. Returns how many frames were taken for something else.

        Raises NoResponse.
        """
        taken = self._sync(fill, self._answer + late, self.silent_tries)
        if taken is None:
            raise silence(Meaning.LOST, f"the bootloader on {self.name} no longer answers")
        return taken

    def _quiet(self) -> None:
        """Throws away what comes until nothing does."""
        until = Deadline.after(STREAM_SECONDS)
        self._channel.drain()
        with suppress(NotAcknowledged):
            while self._any(until.sooner(QUIET_SECONDS).remaining) is not None and not until.expired:
                pass

    # Commands.

    def get(self) -> tuple[int, frozenset[int]]:
        def ask() -> tuple[int, frozenset[int]]:
            self._command(Command.GET)
            count = self._data(Command.GET, 1)[0]
            version, *codes = self._data(Command.GET, count + 1)
            self._ack(Command.GET)
            return version, frozenset(codes) - self._unknown_here

        version, self._commands = retried(ask, TRIES, FAILED, lambda error: self._again())
        return version, self._commands

    @property
    def _unknown_here(self) -> frozenset[int]:
        """AN3154 has no Extended Erase, and says of no form that it would have."""
        return frozenset({Command.EXTENDED_ERASE})

    def get_version(self) -> tuple[int, bytes]:
        def ask() -> tuple[int, bytes]:
            self._command(Command.GET_VERSION)
            data = self._data(Command.GET_VERSION, 3)
            self._ack(Command.GET_VERSION)
            return data[0], data[1:]

        return retried(ask, TRIES, FAILED, lambda error: self._again())

    def get_id(self) -> int:
        def ask() -> int:
            self._command(Command.GET_ID)
            data = self._data(Command.GET_ID, 2)
            self._ack(Command.GET_ID)
            return int.from_bytes(data, "big")

        return retried(ask, TRIES, FAILED, lambda error: self._again())

    def read_memory(self, address: int, size: int) -> bytes:
        def read() -> bytes:
            self._command(Command.READ_MEMORY, codec.place(address, size))
            data = self._data(Command.READ_MEMORY, size)
            self._ack(Command.READ_MEMORY)
            return data

        try:
            data = retried(read, TRIES, FAILED, lambda error: self._again())
        except PartRefused as error:
            raise self._protected_or(error, "read") from error
        self._has_read = True
        return data

    def write_memory(self, address: int, data: bytes, *, blank: int, seconds: float) -> None:
        """After a lost or unexpected answer it looks whether the block is there before it writes again."""

        def write() -> bool:
            self._command(Command.WRITE_MEMORY, codec.place(address, len(data)))
            self._send_block(data)
            self._ack(Command.WRITE_MEMORY, seconds)
            return True

        def look(error: Exception) -> bool | None:
            self._recover(late=seconds)
            there = self.read_memory(address, len(data))
            if there not in (data, bytes([blank]) * len(data)):
                raise OperationFailed(f"the block at 0x{address:08X} is half written") from error
            return there == data or None

        try:
            retried(write, TRIES, FAILED, look)
        except PartRefused as error:
            raise self._protected_or(error, "write") from error

    def _send_block(self, data: bytes) -> None:
        """Each frame of data is acknowledged."""
        for frame in codec.data_frames(data):
            self._channel.drain()
            self._send(DATA, frame)
            self._ack(Command.WRITE_MEMORY)

    def speed(self, bitrate: int) -> None:
        """Has the loader change to another bit rate, in bit/s, of codec.SPEEDS. Its second answer comes at that one."""
        self._command(Command.SPEED, bytes([codec.SPEEDS[bitrate]]))

    def await_speed(self) -> bool:
        """Whether the loader answers at the new bit rate, about 0.3 s after `speed` (OpenBL).

        AN2662 has the second ACK under the id of Get ID, others under that of Speed.
        """
        until = Deadline.after(SPEED_SECONDS)
        with suppress(NotAcknowledged):
            while (answer := self._any(until.remaining)) is not None:
                if answer[0] in (Command.SPEED, Command.GET_ID):
                    break
        return self.sync()

    def go(self, address: int) -> None:
        """A lost answer leaves open whether the application runs. A loader that is still there gets the command again.

        Nothing is sent to a loader that is not there: the adapter would keep the frame, and the part get it once it is back.
        """
        self._recover()
        for left in reversed(range(TRIES)):
            try:
                self._command(Command.GO, address.to_bytes(codec.WORD, "big"))
                self._started()
                return
            except PartRefused as error:
                raise self._protected_or(error, "start an application") from error
            except LOST:
                if not self.sync():
                    return
                if not left:
                    raise

    def _started(self) -> None:
        """The loader has acknowledged Go."""

    def erase_pages(self, numbers: Sequence[int], *, extended: bool, seconds: float) -> None:
        fill = self._fill(numbers)

        def recover(error: Exception) -> bool | None:
            taken = self._recover(fill, late=seconds)
            # It waits for a command, after an answer to the numbers: the erase is over, and only its ACK was lost.
            return True if self._answered and not taken and not isinstance(error, PartRefused) else None

        def erase() -> bool:
            self._answered = False
            self._command(self._erase, self._count(len(numbers)))
            self._erase_listed(numbers, seconds)
            return True

        try:
            retried(erase, TRIES, FAILED, recover)
        except PartRefused as error:
            raise OperationFailed(f"{error.cause}: no such page, or it could not be erased") from error

    _erase: ClassVar[Command] = Command.ERASE
    _answered = False
    """Whether an ACK has come since the numbers of the erase units went out."""

    def _count(self, pages: int) -> bytes:
        return bytes([pages - 1])

    def _fill(self, numbers: Sequence[int]) -> bytes:
        return bytes(numbers[:1])

    def _erase_listed(self, numbers: Sequence[int], seconds: float) -> None:
        """Three ACKs in all. OpenBL sends the second before the numbers, ROMs after them."""
        self._send(self._erase, bytes(numbers))
        for _ in range(2):
            self._ack(self._erase, seconds)
            self._answered = True

    def mass_erase(self, what: MassErase, *, extended: bool, seconds: float) -> bool:
        try:
            self._command(self._erase, self._mass(what))
            self._ack(self._erase, seconds)
        except PartRefused:
            return False
        return True

    def _mass(self, what: MassErase) -> bytes:
        return codec.GLOBAL_ERASE[:1]

    # What commands are made of.

    def _again(self) -> None:
        self._recover()

    def _protected_or(self, error: PartRefused, what: str) -> PartProtected | PartRefused:
        """The loader refuses an address as it refuses everything under readout protection: by NACK to the command."""
        if self._has_read:
            return error
        return PartProtected(f"the loader refuses to {what} memory", remedy=UNLOCK_REMEDY)

    def _command(self, command: Command, data: bytes = b"") -> None:
        """Sends a command, which is acknowledged. Raises NoResponse, ProtocolError, PartRefused, TransportError."""
        self._channel.drain()
        self._send(command, data)
        self._ack(command)

    def _send(self, identifier: int, data: bytes) -> None:
        self._channel.send(data, SEND_SECONDS, under=CanId(identifier))

    def _ack(self, command: Command, seconds: float = 0.0) -> None:
        """Waits for ACK, which may take `seconds` of work. Raises as `_command`."""
        data = self._frame(command, seconds)
        if data == bytes([ACK]):
            return
        if len(data) == 1 and MEANINGS.get(data[0], Meaning.LOST) is Meaning.FAILED:
            raise PartRefused(f"the loader on {self.name} refuses {command.name}")
        raise ProtocolError(
            f"the loader on {self.name} answered {command.name} with {data.hex(' ') or 'an empty frame'}"
        )

    def _data(self, command: Command, size: int) -> bytes:
        """That many bytes, in frames of any length: ROMs fill them, OpenBL sends the rest in single bytes."""
        data = b""
        while len(data) < size:
            frame = self._frame(command)
            if not frame:
                raise ProtocolError(f"the loader on {self.name} sent an empty frame of {command.name}")
            data += frame
        if len(data) > size:
            raise ProtocolError(f"the loader on {self.name} sent {len(data)} bytes for {size} to {command.name}")
        return data

    def _frame(self, command: Command, seconds: float = 0.0) -> bytes:
        """The next frame under this id. Raises NoResponse; ProtocolError when the loader refuses data: it waits for a command."""
        deadline = Deadline.after(seconds + self._answer + self._frame_seconds)
        while not deadline.expired:
            answer = self._any(deadline.remaining)
            if answer is None:
                break
            if answer[0] == command:
                return answer[1]
            if answer == (DATA, bytes([NACK])):
                raise ProtocolError(f"the loader on {self.name} takes the data of {command.name} for a command")
        raise silence(Meaning.LOST, f"no answer on {self.name} to {command.name}")

    def _any(self, seconds: float) -> Answer | None:
        frame = self._channel.recv(seconds)
        return None if frame is None else (frame.arbitration_id, bytes(frame.data))


class FdcanCommands(CanCommands):
    """The loader on CAN FD: frames of 64 bytes, which are not acknowledged one by one, and Extended Erase."""

    most_pages = codec.FD_PAGES
    fd = True
    query = Command.GET
    silent_tries = 7
    """A block is four frames, which go without an answer; the opener comes behind five."""
    probe_seconds = 0.05
    _erase = Command.EXTENDED_ERASE

    def wire_seconds(self, size: int) -> float:
        return 2.2 * size / FD_FRAME * self._frame_seconds

    def _ask(self, fill: bytes, silent: int, tries: int) -> None:
        if silent == max(1, tries - 2):
            self._send(OPENER_ID, OPENER)
        self._send(self.query, fill * (FD_FRAME // len(fill)))

    @property
    def _unknown_here(self) -> frozenset[int]:
        return frozenset()

    def read_memory(self, address: int, size: int) -> bytes:
        """Under readout protection some loaders do not answer this command at all, and all others (STM32H7)."""
        try:
            return super().read_memory(address, size)
        except NoResponse as error:
            if self._has_read or not self.sync():
                raise
            raise PartProtected(
                f"the loader on {self.name} answers, but not when memory is read", remedy=UNLOCK_REMEDY
            ) from error

    def _data(self, command: Command, size: int) -> bytes:
        """The last frame of memory is filled up."""
        if command is not Command.READ_MEMORY:
            return super()._data(command, size)
        data = b"".join(self._frame(command) for _ in range(-(-size // FD_FRAME)))
        if len(data) < size:
            raise ProtocolError(f"the loader on {self.name} sent {len(data)} bytes for {size} to {command.name}")
        return data[:size]

    def _send_block(self, data: bytes) -> None:
        for frame in codec.fd_data_frames(data):
            self._send(Command.WRITE_MEMORY, frame)

    def _started(self) -> None:
        """A second answer says whether the address is one. It may be lost to the start."""
        with suppress(NoResponse, NotAcknowledged):
            self._ack(Command.GO)

    def _count(self, pages: int) -> bytes:
        return pages.to_bytes(2, "big")

    def _fill(self, numbers: Sequence[int]) -> bytes:
        return numbers[0].to_bytes(2, "big")

    def _erase_listed(self, numbers: Sequence[int], seconds: float) -> None:
        """ACK, ACK, the numbers, ACK."""
        self._ack(self._erase)
        self._channel.drain()
        self._send(self._erase, codec.fd_pages(numbers))
        self._ack(self._erase, seconds)

    def _mass(self, what: MassErase) -> bytes:
        return what.to_bytes(2, "big")
