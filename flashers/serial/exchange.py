"""Requests and their answers on a serial line: how long each may take, and how the line falls silent again."""

from __future__ import annotations

from ...transports.deadline import Deadline
from ...transports.errors import SerialTimeout
from ...transports.serial.port import SerialPort
from ..errors import ProtocolError

LOST = (SerialTimeout, ProtocolError)
"""What a request raises whose answer is lost or garbled. The bootloader may be anywhere in a command then."""
QUIET_SECONDS = 0.05
"""How long the line is silent when nothing more comes: longer than any USB adapter holds a byte back."""
STREAM_SECONDS = 1.0
"""How long a line that never falls silent is listened to."""


class Exchange:
    """The bootloader at the other end of `port`. `answer`: seconds that it has for an answer, its work and the wire's time
    aside. Every method raises SerialTimeout and SerialGone."""

    def __init__(self, port: SerialPort, answer: float) -> None:
        self.port = port
        self.answer = answer

    def within(self, count: int, seconds: float = 0.0) -> Deadline:
        """A deadline with time for `count` bytes on the wire, an answer, and `seconds` of work."""
        return Deadline.after(self.port.wire_seconds(count) + self.answer + seconds)

    def send(self, data: bytes) -> None:
        """One protocol unit, in one write."""
        self.port.write(data, self.within(len(data)))

    def receive(self, size: int, *, seconds: float = 0.0, sent: int = 0) -> bytes:
        """Exactly `size` bytes, once `sent` bytes have left and `seconds` of work are done."""
        return self.port.read_exactly(size, self.within(sent + size, seconds))

    def ask(self, request: bytes, size: int, *, seconds: float = 0.0) -> bytes:
        """Sends a request; the `size` bytes of its answer."""
        self.send(request)
        return self.receive(size, seconds=seconds, sent=len(request))

    def outwait(self) -> bytes:
        """Listens for an answer that was given up, for as long again as it had: answers have no numbers, and it would be
        taken for the next one's. What came; takes that long where nothing comes."""
        late = self.port.read_some(Deadline.after(self.answer))
        return late + self.until_quiet() if late else late

    def until_quiet(self) -> bytes:
        """Listens until the line is silent; what came meanwhile."""
        return self.port.until_quiet(QUIET_SECONDS, Deadline.after(STREAM_SECONDS))
