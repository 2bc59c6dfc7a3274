"""Requests to an XCP slave and their answers, on whatever link.

One request at a time, but for the packets of a block. EV_CMD_PENDING begins the time of an answer again; a slave that is busy is
asked again. Whether a request may be sent again is the caller's knowledge: the address of UPLOAD and PROGRAM moves on with each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged
from ..errors import (
    Meaning,
    NoResponse,
    OperationFailed,
    PartError,
    PartProtected,
    PartRefused,
    ProtocolError,
    SecurityDenied,
    silence,
)
from ..retries import retried
from .codec import ERROR, EVENT, MEANINGS, PENDING, RESPONSE, TERMINATED, Command, Err

T = TypeVar("T")
WANTS_KEY = "The part wants a key: set key in security of the profile, by the part's maker."
TRIES = 3
"""How often a request is sent whose answer is lost (part 2, table of error handling: two repetitions)."""
BUSY_SECONDS = 10.0
"""How long a slave that is busy is asked again."""
BUSY_PAUSE = 0.05
PENDING_SECONDS = 600.0
"""How long EV_CMD_PENDING may put off an answer."""
LOST = (NoResponse, ProtocolError, NotAcknowledged)
"""What a request raises whose answer is lost or garbled."""
SYNCH = bytes((Command.SYNCH,))
SYNCHS = 2
"""How often SYNCH is sent."""
SYNCHED = (bytes((Err.CMD_SYNCH,)), bytes((Err.CMD_UNKNOWN,)))
"""The errors that answer SYNCH."""


class SlaveError(Exception):
    """The slave has answered with an error, which its `number` says; `data`: what follows it. See `as_part_error`."""

    def __init__(self, cause: str, number: int, data: bytes) -> None:
        super().__init__(cause)
        self.cause = cause
        self.number = number
        self.data = data


class Link(ABC):
    """The packets to and from a slave. Each method raises TransportError."""

    name: str

    @abstractmethod
    def seconds(self, count: int) -> float:
        """What a packet of that many bytes takes on the wire, at most."""

    def seconds_of(self, packet: bytes) -> float:
        """What this packet takes on the wire."""
        return self.seconds(len(packet))

    @abstractmethod
    def send(self, packet: bytes, deadline: Deadline) -> None: ...

    @abstractmethod
    def receive(self, deadline: Deadline) -> bytes | None:
        """The next packet; None: none came. Raises ProtocolError for bytes that are none."""

    @abstractmethod
    def drain(self) -> None:
        """Forgets what came."""

    def resync(self) -> None:  # noqa: B027 - a frame of CAN is a packet
        """Has the slave take what comes next for a packet."""

    @abstractmethod
    def close(self) -> None: ...


class Client:
    """`answer`: seconds that the slave has for an answer, the wire's time aside."""

    def __init__(self, link: Link, answer: float) -> None:
        self.link = link
        self.answer = answer

    def ask(self, *packets: bytes, seconds: float | None = None, separation: float = 0.0) -> bytes:
        """The answer to the last of these packets, which are sent `separation` seconds apart. A busy slave is asked again.

        Raises NoResponse, ProtocolError, SlaveError, TransportError.
        """
        until = Deadline.after(BUSY_SECONDS)
        while True:
            try:
                return self._ask(packets, self.answer if seconds is None else seconds, separation)
            except SlaveError as error:
                if MEANINGS.get(error.number) is not Meaning.BUSY or until.expired:
                    raise
                clock.sleep(BUSY_PAUSE)

    def again(self, action: Callable[[], T], tries: int = TRIES) -> T:
        """What an action returns that may be repeated whole; each time the slave is brought into step before."""
        return retried(action, tries, LOST, lambda error: self.synchronise())

    def synchronise(self) -> None:
        """SYNCH, whose answer is an error that nothing else answers with, so that late answers are known (part 2, SYNCH).

        Raises NoResponse where there is no answer: the session is lost.
        """
        link = self.link
        link.resync()
        for _ in range(SYNCHS):
            link.drain()
            link.send(SYNCH, Deadline.after(link.seconds(1) + self.answer))
            deadline = Deadline.after(link.seconds(8) + self.answer)
            try:
                while not deadline.expired and (answer := link.receive(deadline)) is not None:
                    if answer[:1] == bytes((ERROR,)) and answer[1:2] in SYNCHED:
                        return
            except LOST:
                continue
        raise silence(Meaning.LOST, f"no answer on {link.name} to SYNCH")

    def _ask(self, packets: Sequence[bytes], seconds: float, separation: float) -> bytes:
        link, command = self.link, packets[-1][0]
        link.drain()
        for index, packet in enumerate(packets):
            if index and separation:
                # From the end of a packet on; sending returns when the adapter has it.
                clock.sleep(link.seconds_of(packets[index - 1]) + separation)
            link.send(packet, Deadline.after(link.seconds(len(packet)) + self.answer))
        limit = Deadline.after(PENDING_SECONDS)
        patience = seconds + link.seconds(64)
        deadline = Deadline.after(patience)
        while not deadline.expired and (answer := link.receive(deadline)) is not None:
            kind = answer[0] if answer else 0
            if kind == RESPONSE:
                return answer
            if kind == ERROR and len(answer) > 1:
                raise refusal(command, answer)
            if kind == EVENT and len(answer) > 1 and answer[1] == TERMINATED:
                raise NoResponse(f"the part has ended the session instead of answering {name_of(command)}").passing(
                    True
                )
            if kind == EVENT and len(answer) > 1 and answer[1] == PENDING:
                deadline = limit.sooner(patience)
        raise silence(Meaning.LOST, f"no answer on {link.name} to {name_of(command)}")


def refusal(command: int, answer: bytes) -> SlaveError:
    number = answer[1]
    words = f"ERR_{Err(number).name}" if number in list(Err) else f"error 0x{number:02X}"
    return SlaveError(f"the part answers {name_of(command)} with {words} (0x{number:02X})", number, answer[2:])


def as_part_error(error: SlaveError) -> PartError:
    """What an error means that nothing expects."""
    match MEANINGS.get(error.number):
        case Meaning.FAILED:
            return OperationFailed(error.cause)
        case Meaning.LOST:
            return ProtocolError(error.cause).passing(True)
    match error.number:
        case Err.ACCESS_LOCKED:
            return SecurityDenied(error.cause, remedy=WANTS_KEY).passing(False)
        case Err.WRITE_PROTECTED | Err.ACCESS_DENIED:
            return PartProtected(error.cause).passing(False)
    return PartRefused(error.cause).passing(MEANINGS.get(error.number) is Meaning.BUSY)


def name_of(command: int) -> str:
    return Command(command).name if command in list(Command) else f"0x{command:02X}"
