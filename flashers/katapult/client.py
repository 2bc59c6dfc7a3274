"""Requests to a Katapult and their answers, on whatever link.

One request at a time: the bootloader keeps few bytes, and is deaf while its flash works. An answer says which command it
answers, and that to a block has its address, so that late answers are known. Each request may be sent again: a block
that is there already is acknowledged, and changes nothing, unless later blocks of its page are there, so a block is sent
again only before the next one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged
from ..errors import Meaning, NoResponse, OperationFailed, PartRefused, ProtocolError, Step, silence
from ..retries import retried
from .codec import MEANINGS, SILENCES, WORD, About, Command, Result, about, message, messages_in, size_with, word

TRIES = 5
"""How often a request is sent. A request that lost a piece on its way may spoil the next request, too."""
BUSY_SECONDS = 10.0
"""How long a bootloader that is busy, with its SD card say, is asked again."""
BUSY_PAUSE = 0.1
MOST = 1024
"""Bytes of an answer, at most."""
LOST = (NoResponse, ProtocolError, NotAcknowledged)
"""What a request raises whose answer is lost or garbled."""


class Link(ABC):
    """The bytes to and from one Katapult. `name`: for messages. Every method raises TransportError."""

    name: str

    @abstractmethod
    def seconds(self, count: int) -> float:
        """What this many bytes take on the wire."""

    @abstractmethod
    def send(self, data: bytes, deadline: Deadline) -> None: ...

    @abstractmethod
    def receive(self, deadline: Deadline) -> bytes:
        """Some bytes; b"" when none come in time."""

    @abstractmethod
    def resync(self) -> None:
        """Waits until nothing more comes, and has the bootloader listen again."""


class Client:
    """`answer`: seconds that the bootloader has for an answer, the wire's time and its work aside."""

    def __init__(self, link: Link, answer: float) -> None:
        self.link = link
        self.answer = answer
        self._kept = bytearray()

    def connect(self, seconds: float | None = None, tries: int = TRIES) -> About:
        """Raises NoResponse, ProtocolError, PartRefused, TransportError. `seconds`: the time for an answer, if not `answer`."""
        return about(self.request(Command.CONNECT, answer=seconds, tries=tries, size=128))

    def send_block(self, address: int, data: bytes, seconds: float) -> None:
        """`seconds` of work: of erasing its page where it is the page's first block."""
        self.request(Command.SEND_BLOCK, word(address) + data, echo=WORD, seconds=seconds)

    def request_block(self, address: int, size: int) -> bytes:
        data = self.request(Command.REQUEST_BLOCK, word(address), echo=WORD, size=size)[WORD:]
        if len(data) != size:
            raise ProtocolError(f"the bootloader was asked for {size} bytes at 0x{address:08X}, and sent {len(data)}")
        return data

    def request(
        self,
        command: Command,
        payload: bytes = b"",
        *,
        echo: int = 0,
        size: int = 0,
        seconds: float = 0.0,
        answer: float | None = None,
        tries: int = TRIES,
    ) -> bytes:
        """The payload of the acknowledgement, behind the command. `echo`: bytes of `payload` that it begins with; `size`: about
        how many follow them. Raises NoResponse, ProtocolError, OperationFailed, PartRefused, TransportError."""
        request = message(command, payload)
        wanted = word(command) + payload[:echo]
        patience = seconds + (self.answer if answer is None else answer)

        def ask() -> bytes:
            self._kept.clear()
            sending = self.link.seconds(len(request))
            self.link.send(request, Deadline.after(sending + patience))
            deadline = Deadline.after(sending + self.link.seconds(size_with(echo + size)) + patience)
            while data := self.link.receive(deadline):
                self._kept += data
                for result, found in messages_in(self._kept):
                    if result != Result.ACKNOWLEDGED:
                        raise _refused(result, command)
                    # An answer to what was given up is late.
                    if found.startswith(wanted):
                        return found[WORD:]
            raise silence(Meaning.LOST, f"no answer on {self.link.name} to {command.name}")

        def recover(error: Exception) -> None:
            self.link.resync()

        until = Deadline.after(BUSY_SECONDS)
        while True:
            try:
                return retried(ask, tries, (*LOST, OperationFailed), recover)
            except PartRefused:
                # It is busy: nothing else is refused.
                if until.expired:
                    raise
                clock.sleep(BUSY_PAUSE)


def _refused(result: int, command: Command) -> Exception:
    match MEANINGS.get(result, Meaning.LOST):
        case Meaning.BUSY:
            return PartRefused(f"the bootloader is busy, and does not take {command.name}").passing(True)
        case Meaning.FAILED:
            return OperationFailed(f"the bootloader reports an error: {command.name} failed")
    said = "did not get it whole" if result == Result.NACK else f"answers with 0x{result:02X}"
    return ProtocolError(f"{command.name}: the bootloader {said}")


def is_done(step: Step) -> bool:
    """Whether no answer in this step means that the bootloader did what it was asked for."""
    return SILENCES[step] is Meaning.DONE
