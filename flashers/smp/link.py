"""Requests and their replies, over a serial line or by datagrams.

The rule: a reply belongs to a request by its sequence number, group and command, and what belongs to none is passed
over: a reply from before, the echo of a line, log text, garbage. What is asked again is asked under a new number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import SerialGone
from ...transports.serial.port import SerialPort
from ..errors import PartError, Step, silence
from ..serial.usb_return import UsbReturn
from .codec import SILENCES, Framing, Op, Packet, decode, encode, request_name

TRIES = 3
"""How often a request is sent whose reply doesn't come."""
REPLY = 512
"""Bytes that the largest reply has, about."""
LINE_GAP = 0.001
"""Seconds between two lines of a console. A part has buffers for two of them (Zephyr's default), and where there is no
real line (a socket, USB) more come before it has emptied one; on a real one a line takes longer, and nothing waits."""
LOGGED = 0x1000
"""Bytes of a restarting part's log that are kept."""
ENCODED = 1.4
"""Bytes on a console for each of a packet, at most."""
REPLIES = {Op.READ: Op.READ_RSP, Op.WRITE: Op.WRITE_RSP}


class Wire(Protocol):
    """What carries packets."""

    name: str
    overhead: int
    """Bytes of the part's buffer that the wire's framing takes beside the packet."""
    largest: int
    """Bytes of the largest packet that it carries."""

    @property
    def rate(self) -> str:
        """The bit rate of a serial line, such as "115,200 bit/s"; "": it is none."""

    def send(self, packet: bytes, deadline: Deadline) -> None: ...

    def receive(self, deadline: Deadline) -> bytes | None:
        """The next packet; None when the deadline passes first."""

    def drain(self) -> None:
        """Forgets what came in."""

    def await_silence(self, seconds: float, deadline: Deadline) -> None:
        """Listens until nothing has come in for so long, or the deadline passes; forgets what came."""

    @property
    def log(self) -> bytes:
        """The last bytes that came in since the part was asked to restart."""

    def follow(self, until: Deadline | None) -> None:
        """The part restarts, and its port may leave with it and come back, until the deadline; None: no more."""

    def speak_to(self, *, recovery: bool) -> None:
        """From now on serial recovery is spoken to, or the application."""

    def turn(self) -> bool:
        """Speaks to the other of the two from now on, where that makes a difference; False: it makes none."""

    def seconds(self, size: int) -> float:
        """How long a packet of this size takes on the wire."""


class SerialWire:
    """Packets in a serial line's stream of bytes. A part that is its own USB device is found again. `recovery_baudrate`: of
    serial recovery, where that has a bit rate of its own."""

    largest = 0xFFFF

    def __init__(self, port: SerialPort, framing: Framing, recovery_baudrate: int | None = None) -> None:
        self.name = port.name
        self.overhead = framing.overhead
        self._port = port
        self._framing = framing
        self._ready: list[bytes] = []
        self._usb = UsbReturn(port)
        self._until: Deadline | None = None
        self._rates = {False: port.baudrate, True: recovery_baudrate or port.baudrate}
        self._to_recovery = False
        self._heard = b""
        """The last bytes since the part was asked to restart."""

    @property
    def rate(self) -> str:
        return self._port.rate

    def send(self, packet: bytes, deadline: Deadline) -> None:
        pieces = self._framing.wrap(packet)
        limit = Deadline(deadline.at + self._port.wire_seconds(sum(map(len, pieces))))
        try:
            for number, piece in enumerate(pieces):
                if number:
                    clock.sleep(LINE_GAP)
                self._port.write(piece, limit)
        except SerialGone as error:
            self._come_back(error)

    def receive(self, deadline: Deadline) -> bytes | None:
        while not self._ready:
            data = self._read(deadline)
            if not data:
                self._framing.forget()
                return None
            self._ready = self._framing.feed(data)
            if not self._ready and deadline.expired:
                return None
        return self._ready.pop(0)

    def drain(self) -> None:
        self._port.drain()
        self._framing.forget()
        self._ready.clear()

    def await_silence(self, seconds: float, deadline: Deadline) -> None:
        try:
            self._keep(self._port.until_quiet(seconds, deadline))
        except SerialGone as error:
            self._come_back(error)
        self._framing.forget()
        self._ready.clear()

    @property
    def log(self) -> bytes:
        return self._heard

    def _keep(self, data: bytes) -> bytes:
        self._heard = (self._heard + data)[-LOGGED:] if self._until is not None else b""
        return data

    def follow(self, until: Deadline | None) -> None:
        self._heard = b""
        if until is not None:
            self._usb.is_leaving()
        self._until = until

    def speak_to(self, *, recovery: bool) -> None:
        self._to_recovery = recovery
        if self._port.baudrate != self._rates[recovery]:
            self._port.set_line(baudrate=self._rates[recovery])

    def turn(self) -> bool:
        if self._rates[True] == self._rates[False]:
            return False
        self.speak_to(recovery=not self._to_recovery)
        return True

    def seconds(self, size: int) -> float:
        return self._port.wire_seconds(size * ENCODED)

    def _read(self, deadline: Deadline) -> bytes:
        try:
            return self._keep(self._port.read_some(deadline))
        except SerialGone as error:
            self._come_back(error)
            return b""

    def _come_back(self, error: SerialGone) -> None:
        """Opens a port again that left with its part. Raises the error if it wasn't to be expected, else what opening
        raises."""
        if self._until is None:
            raise error
        self._port.close()
        self._usb.come_back(self._until)
        self.speak_to(recovery=self._to_recovery)


class SmpLink:
    """`answer`: seconds that the part has for an answer, the wire's time aside."""

    def __init__(self, wire: Wire, answer: float) -> None:
        self.wire = wire
        self.answer = answer
        self._sequence = 0
        self._has_answered = False

    def ask(
        self,
        op: Op,
        group: int,
        command: int,
        body: Mapping[str, Any],
        *,
        seconds: float | None = None,
        tries: int = TRIES,
    ) -> Packet:
        """A request and its reply, which may be a late one to a try before. `seconds`: that the part has for each try.

        Raises NoResponse, TransportError.
        """
        sequences: set[int] = set()
        for _ in range(tries):
            request = self.send(op, group, command, body)
            sequences.add(request.sequence)
            reply = self.await_any(request, sequences, self.answer if seconds is None else seconds)
            if reply is not None:
                return reply
        raise self.silence(request_name(group, command))

    def silence(self, asked: str, step: Step = Step.QUESTION) -> PartError:
        """The error when nothing answers what was asked."""
        at = f" at {self.wire.rate}" if self.wire.rate else ""
        meaning = SILENCES[step if self._has_answered else Step.CONNECT]
        return silence(meaning, f"no answer on {self.wire.name} to {asked}{at}")

    def send(self, op: Op, group: int, command: int, body: Mapping[str, Any]) -> Packet:
        """Sends a request under a number of its own, and waits for nothing."""
        self._sequence = (self._sequence + 1) & 0xFF
        request = Packet(op, group, self._sequence, command, body)
        data = encode(request)
        self.wire.send(data, Deadline.after(self.answer))
        return request

    def await_reply(self, request: Packet, seconds: float) -> Packet | None:
        """The reply to this very request; None when it doesn't come within `seconds` and the wire's time."""
        return self.await_any(request, {request.sequence}, seconds)

    def await_any(self, request: Packet, sequences: Collection[int], seconds: float) -> Packet | None:
        """The next reply to a request of this kind under one of these numbers; None likewise."""
        deadline = Deadline.after(seconds + self.wire.seconds(REPLY))
        while (reply := self.receive(deadline)) is not None:
            if reply.sequence in sequences and belongs(reply, request):
                self._has_answered = True
                return reply
            if deadline.expired:
                break
        return None

    def receive(self, deadline: Deadline) -> Packet | None:
        """The next packet of whatever kind; None when the deadline passes first."""
        while (data := self.wire.receive(deadline)) is not None:
            packet = decode(data)
            if packet is not None:
                return packet
            if deadline.expired:
                break
        return None


def belongs(reply: Packet, request: Packet) -> bool:
    """Whether it is a reply to that kind of request."""
    return (reply.op, reply.group, reply.command) == (REPLIES[Op(request.op)], request.group, request.command)
