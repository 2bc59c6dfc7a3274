"""Commands to an MBoot and their responses, on whatever link.

The bootloader acknowledges a packet once it has done what the packet asks for, be that programming flash or erasing it. It
waits for the acknowledgement of its own packets without limit, and drops a packet that pauses. A ping brings it into step from
wherever it is: in a data phase that ends the data phase, and in the place of an acknowledgement the ping is lost and the next
one is answered. So pings are sent until one is answered and nothing else comes after that.

A command that changes nothing, or the same again, is repeated. A data packet is repeated only where the bootloader asks for
that (NAK): the number of bytes is all that says where they go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged, SerialTimeout
from ..errors import (
    Meaning,
    NoResponse,
    OperationFailed,
    PartProtected,
    PartRefused,
    ProtocolError,
    silence,
)
from ..retries import retried
from .codec import (
    AROUND,
    LEAST_PACKET,
    MEANINGS,
    PING_BYTES,
    Answer,
    Command,
    Frame,
    Property,
    Response,
    Status,
    answer,
    command,
    framed,
    next_frame,
    short,
    size_of_command,
)

T = TypeVar("T")
TRIES = 4
"""How often a command is sent whose answer is lost, and a packet that the bootloader does not get whole."""
PING_SECONDS = 0.05
"""How long a ping's answer may take, the wire's time aside."""
QUIET_SECONDS = 0.03
"""How long nothing comes when nothing more will: a bootloader sends the frames of one answer one after the other."""
SYNC_SECONDS = 1.0
"""How long pings are sent: a bootloader waits up to 0.01 s for each of the bytes of a packet that has begun."""
STREAM_SECONDS = 0.2
"""How long a line that never falls silent is listened to before a response is asked for again."""
MOST_STALE = 16
"""Frames that may come before the awaited one."""
READ_BYTES = 1024
"""Bytes of one READ MEMORY: what is read again where a piece of it is lost."""
UNLOCK_REMEDY = (
    "Lifting it (FLASH ERASE ALL UNSECURE, which NXP's blhost sends and proxyflash does not) erases the part whole."
)
LOST = (NoResponse, ProtocolError, NotAcknowledged, SerialTimeout)
"""What a request raises whose answer is lost or garbled."""


class Ended(Exception):
    """An `.sb` file has reset the part, or jumped."""


class Link(ABC):
    """The bytes to and from one MBoot. `name`: for messages. Every method raises TransportError."""

    name: str

    @abstractmethod
    def seconds(self, count: int) -> float:
        """What this many bytes take on the wire."""

    @abstractmethod
    def send(self, data: bytes, deadline: Deadline) -> None:
        """One frame. The bootloader drops a frame that pauses for 0.01 s."""

    @abstractmethod
    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes; b"" when none come in time."""


class Client:
    """`answer`: seconds that the bootloader has for an answer, the wire's time and its work aside."""

    def __init__(self, link: Link, answer: float) -> None:
        self.link = link
        self.answer = answer
        self.packet = LEAST_PACKET
        """Bytes of a data packet (MAX PACKET SIZE)."""
        self._kept = bytearray()
        self._held: tuple[Frame, bytes] | None = None
        """A frame that has come in the place of another one."""

    # Into step.

    def sync(self, seconds: float = SYNC_SECONDS) -> bool:
        """Whether the bootloader answers, and waits for a command from now on. Raises TransportError."""
        deadline = Deadline.after(seconds)
        self._forget()
        while True:
            with suppress(*LOST):
                self._send(short(Frame.PING))
                if self._quiet_after(PING_SECONDS + self.link.seconds(2 + 2 + PING_BYTES), deadline):
                    return True
            if deadline.expired:
                return False

    def _quiet_after(self, seconds: float, deadline: Deadline) -> bool:
        """Whether a ping's response comes within `seconds`, and is the last frame before the line falls silent; a line that
        talks on is listened to until the deadline, or for `seconds` after it."""
        last, until = Frame.PING, Deadline.after(seconds)
        latest = Deadline.after(seconds + deadline.remaining)
        while data := self.link.receive(until):
            self._kept += data
            with suppress(ProtocolError):
                while (found := next_frame(self._kept)) is not None:
                    last = found[0]
            until = latest.sooner(QUIET_SECONDS + self.link.seconds(LEAST_PACKET))
        self._forget()
        return last is Frame.PING_RESPONSE

    # Commands.

    def properties(self, tag: Property) -> tuple[int, ...]:
        """(): the bootloader does not know this property. Raises NoResponse, ProtocolError, PartRefused, TransportError."""

        def ask() -> Answer:
            return self._asked(Command.GET_PROPERTY, tag, 0, response=Response.GET_PROPERTY)

        found = self._retried(ask)
        if found.status in (Status.UNKNOWN_PROPERTY, Status.INVALID_ARGUMENT):
            return ()
        _check(found, Command.GET_PROPERTY)
        return found.values

    def carry_out(self, tag: Command, *parameters: int, seconds: float = 0.0, tries: int = TRIES) -> None:
        """A command without data, with `seconds` of work. Raises NoResponse, ProtocolError, OperationFailed, PartProtected,
        PartRefused, TransportError."""
        _check(self._retried(lambda: self._asked(tag, *parameters, seconds=seconds), tries), tag)

    def write_memory(self, address: int, data: bytes, memory: int, seconds: float) -> None:
        """`seconds` of work for each packet. Raises as `carry_out`."""
        for _ in self._send_phase(Command.WRITE_MEMORY, (address, len(data), memory), data, seconds):
            pass

    def receive_sb_file(self, data: bytes, seconds: float) -> Iterator[int]:
        """Yields bytes that the bootloader has acknowledged. `seconds` of work for each packet, of erasing say. Raises Ended, and
        as `carry_out`."""
        yield from self._send_phase(Command.RECEIVE_SB_FILE, (len(data),), data, seconds)

    def read_memory(self, start: int, size: int, memory: int) -> Iterator[bytes]:
        """Raises as `carry_out`."""
        for address in range(start, start + size, READ_BYTES):
            count = min(READ_BYTES, start + size - address)
            yield self._retried(lambda address=address, count=count: self._read(address, count, memory))  # type: ignore[misc]

    # One command.

    def _retried(self, ask: Callable[[], T], tries: int = TRIES) -> T:
        return retried(ask, tries, LOST, lambda error: self._in_step(error))

    def _in_step(self, error: Exception) -> None:
        """Raises `error` where the bootloader does not answer a ping."""
        if not self.sync():
            raise error

    def _asked(self, tag: Command, *parameters: int, seconds: float = 0.0, response: int = Response.GENERIC) -> Answer:
        self._forget()
        self._acknowledged(command(tag, *parameters), tag.name, seconds)
        return self._response(tag, response, seconds)

    def _send_phase(self, tag: Command, parameters: tuple[int, ...], data: bytes, seconds: float) -> Iterator[int]:
        """A command with its data; yields bytes that the bootloader has acknowledged. Raises as `write_memory`."""
        self._forget()
        self._acknowledged(command(tag, *parameters, has_data=True), tag.name, 0.0)
        _check(self._response(tag, Response.GENERIC, 0.0), tag)
        for offset in range(0, len(data), self.packet):
            piece = framed(Frame.DATA, data[offset : offset + self.packet])
            if not self._acknowledged(piece, f"the data of {tag.name}", seconds):
                break
            yield min(offset + self.packet, len(data))
        _check(self._response(tag, Response.GENERIC, seconds), tag)

    def _read(self, address: int, size: int, memory: int) -> bytes:
        found = self._asked(Command.READ_MEMORY, address, size, memory, response=Response.READ_MEMORY)
        _check(found, Command.READ_MEMORY)
        data = b""
        while len(data) < size:
            kind, payload = self._next(self._within(AROUND + self.packet), Command.READ_MEMORY.name)
            if kind is Frame.COMMAND:
                self._held = kind, payload
                break
            if kind is Frame.DATA:
                self._send(short(Frame.ACK))
                if not payload:
                    break
                data += payload
        _check(self._response(Command.READ_MEMORY, Response.GENERIC, 0.0), Command.READ_MEMORY)
        if len(data) != size:
            raise ProtocolError(f"READ_MEMORY of {size} bytes at 0x{address:08X} gave {len(data)}")
        return data

    # Frames.

    def _forget(self) -> None:
        self._kept.clear()
        self._held = None

    def _send(self, frame: bytes) -> None:
        self.link.send(frame, self._within(len(frame)))

    def _within(self, count: int, seconds: float = 0.0) -> Deadline:
        return Deadline.after(self.link.seconds(count) + self.answer + seconds)

    def _next(self, deadline: Deadline, what: str) -> tuple[Frame, bytes]:
        """The next frame. Raises NoResponse, ProtocolError."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        while (found := next_frame(self._kept)) is None:
            if not (data := self.link.receive(deadline)):
                raise silence(Meaning.LOST, f"no answer on {self.link.name} to {what}")
            self._kept += data
        return found

    def _acknowledged(self, frame: bytes, what: str, seconds: float) -> bool:
        """Sends a frame until the bootloader has it; False: it has ended the data phase. A response that comes in the place of
        the acknowledgement is kept."""
        for _ in range(TRIES):
            self._send(frame)
            deadline = self._within(len(frame) + len(short(Frame.ACK)), seconds)
            for _ in range(MOST_STALE):
                kind, payload = self._next(deadline, what)
                if kind is Frame.COMMAND:
                    self._held = kind, payload
                    return False
                if kind in (Frame.ACK, Frame.ACK_ABORT):
                    return kind is Frame.ACK
                if kind is Frame.NAK:
                    break
        raise ProtocolError(f"the bootloader does not get {what} whole")

    def _response(self, tag: Command, response: int, seconds: float) -> Answer:
        """The response to a command, which is acknowledged. A response that is garbled, or does not come, is asked for again."""
        for left in reversed(range(TRIES)):
            try:
                kind, payload = self._next(self._within(size_of_command(2), seconds), tag.name)
            except (NoResponse, ProtocolError):
                if not left:
                    raise
                self._quiet_after(QUIET_SECONDS, Deadline.after(STREAM_SECONDS))
                self._send(short(Frame.NAK))
                continue
            if kind is not Frame.COMMAND:
                continue
            found = answer(payload)
            self._send(short(Frame.ACK))
            if found.tag == response and (response != Response.GENERIC or found.values[:1] == (tag,)):
                return found
            if found.tag == Response.GENERIC and found.status and found.values[:1] == (tag,):
                return found
        raise ProtocolError(f"the bootloader answers {tag.name} with something else")


def _check(found: Answer, tag: Command) -> None:
    """Raises OperationFailed, PartProtected, PartRefused, ProtocolError unless it is success."""
    if found.status == Status.SUCCESS:
        return
    if tag is Command.RECEIVE_SB_FILE and found.status == Status.ABORT_DATA_PHASE:
        raise Ended
    try:
        name = f"{Status(found.status).name} ({found.status})"
    except ValueError:
        name = str(found.status)
    cause = f"{tag.name}: the bootloader answers with status {name}"
    if found.status == Status.SECURITY_VIOLATION:
        raise PartProtected(f"{cause}: the part's flash security is on", remedy=UNLOCK_REMEDY)
    match MEANINGS.get(found.status, Meaning.FAILED):
        case Meaning.REFUSED:
            raise PartRefused(cause).passing(False)
        case Meaning.LOST:
            raise ProtocolError(cause).passing(True)
    raise OperationFailed(cause)
