"""Sends blocks to an XMODEM or YMODEM receiver over an open serial port, one at a time or as a stream.

After the "X/YMODEM Protocol Reference" (C. Forsberg, 1988-06-18). The receiver leads: it asks for the first block, and
for each one again. Three rules keep the two in step. What came before a block went out can't be an answer to it, and is
forgotten. After a block that went out twice, a second answer is waited for. And text between the answers, as of a loader
that logs, is passed over: what counts is ACK, NAK, two CANs in a row and, until the first ACK, C and G.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ...transports.deadline import Deadline
from ...transports.errors import SerialTimeout
from ...transports.serial.port import SerialPort
from ..errors import Meaning, PartRefused, ProtocolError
from .codec import ABORT, LAST_HEADER, MEANINGS, Control, Piece, Start, block

TRIES = 10
"""How often a block goes out that is refused (7.3.1: "All errors are retried 10 times")."""
SILENT_TRIES = 3
"""How often one goes out that is not answered at all."""
QUIET_SECONDS = 0.05
"""A receiver that asks for a block then waits for it; a letter of a text is followed by the next one sooner."""
PAUSE_SECONDS = 0.005
"""The same for a first byte, which a text seldom begins with."""
LAST_SECONDS = 2.0
"""How long the answer to the end of a batch is waited for. A receiver may leave without it."""
DRIVER_BYTES = 4096
"""What of a stream may still wait in the host's driver when all of it was written."""
TEXT_LIMIT = 16384
"""Bytes of what the loader says that are kept, the latest."""

STARTS = bytes(Start)
LETTERS = frozenset((Control.C, Control.G))
LOST = tuple(code for code, meaning in MEANINGS.items() if meaning is Meaning.LOST)
"""The answers by which a block is wanted again."""
CANCELLED = bytes([Control.CAN, Control.CAN])


class ReceiverCancelled(Exception):
    """The receiver has ended the transfer by CAN CAN (4.1). `what`: what had been sent."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Sender:
    """`answer`: seconds that the receiver has for an answer, its work included and the wire's time not."""

    def __init__(self, port: SerialPort, *, answer: float) -> None:
        self._port = port
        self._answer_seconds = answer
        self.heard = b""
        """What came in since the transfer began, or since its end was sent; to be read for what the loader says."""
        self._received = 0
        self._acknowledged = False
        self._mode = Start.CRC

    def await_start(self, deadline: Deadline, heard: bytes = b"") -> Start:
        """Waits for the receiver to ask for the first block. `heard`: what it said since it was asked to receive.

        Raises PartRefused when the deadline passes, ReceiverCancelled, SerialGone.
        """
        data = heard or self._port.read_some(deadline)
        while data and not deadline.expired:
            self._hear(data)
            if CANCELLED in self.heard:
                raise ReceiverCancelled("its command")
            asks = self.heard[-1] in STARTS
            data = self._port.read_some(deadline.sooner(QUIET_SECONDS) if asks else deadline)
            if asks and not data and not deadline.expired:
                self._mode = Start(self.heard[-1])
                self._acknowledged = False
                return self._mode
        raise PartRefused(f"the loader did not ask for the file{said(self.heard)}")

    def send_header(self, data: bytes, start_seconds: float) -> None:
        """Block 0 of a batch, after which the receiver asks for the file's first block (5, and 6 for a stream)."""
        if self._mode is not Start.STREAM:
            after = self._exchange(block(0, data, self._mode), "the file's name and size")
            self._acknowledged = False
            if after and after[-1] in STARTS:
                self._mode = Start(after[-1])
            else:
                self._await_contents(Deadline.after(start_seconds))
            return
        for _ in range(TRIES):
            self._put(block(0, data, self._mode))
            answer = self._await((Control.G, Control.NAK), Deadline.after(start_seconds), "the file's name and size")
            if answer == Control.G:
                return
            if answer is None:
                break
        raise PartRefused(f"the loader did not ask for the file after its name and size{said(self.heard)}")

    def _await_contents(self, deadline: Deadline) -> None:
        answer = self._await(tuple(Start), deadline, "the file's name and size")
        if answer is None:
            raise PartRefused(f"the loader did not ask for the file after its name and size{said(self.heard)}")
        self._mode = Start(answer)

    def send(self, pieces: Iterable[Piece]) -> Iterator[int]:
        """Blocks from number 1 on; yields bytes of the file that are acknowledged. Of a stream nothing is until its end.

        Raises PartRefused for a block that is refused TRIES times, SerialTimeout, ProtocolError, ReceiverCancelled.
        """
        for number, piece in enumerate(pieces, 1):
            data = block(number, piece.data, self._mode)
            what = f"block {number}"
            if self._mode is Start.STREAM:
                self._stream(data, what)
                yield 0
            else:
                self._exchange(data, what)
                yield piece.end

    def end(self, is_over: Callable[[bytes], bool], *, batch: bool = False) -> bool:
        """Sends the end of the file until the receiver acknowledges it, or has said what comes after (`is_over`).

        A YMODEM receiver refuses the first one, to be sure (figure 3). Whether it has asked for another file already:
        that is an answer too, to an end whose acknowledgement was lost.
        """
        self.heard = b""
        self._acknowledged = not batch
        self._exchange(bytes([Control.EOT]), "the end of the file", is_over)
        return self._mode is not Start.CHECKSUM and self.heard[-1:] == bytes([self._mode])

    def end_batch(self, is_over: Callable[[bytes], bool], deadline: Deadline, *, asked: bool = False) -> None:
        """Answers the receiver's question for another file by none; it may be over without asking."""
        answer = self._mode if asked else self._await(tuple(Start), deadline, "", is_over)
        for _ in range(TRIES):
            if answer in (None, Control.ACK):
                return
            self._put(block(0, LAST_HEADER, self._mode))
            # Figure 3 has an answer to it, figure 8 has none.
            answer = self._await((Control.ACK, *Start), deadline.sooner(LAST_SECONDS), "", is_over)

    def abort(self) -> None:
        """Ends the transfer, or whatever the loader is in (4.1). Raises TransportError."""
        self._write(ABORT)

    def _exchange(self, data: bytes, what: str, is_over: Callable[[bytes], bool] = lambda heard: False) -> bytes:
        """Sends a block, or EOT, until it is acknowledged; what came after that, if it went out more than once."""
        refused = silent = 0
        while True:
            self._put(data)
            before = self._received
            wanted = (Control.ACK, *LOST, *(() if self._acknowledged else (self._mode,)))
            ahead = DRIVER_BYTES if self._mode is Start.STREAM else 0
            deadline = Deadline.after(self._answer_seconds + self._port.wire_seconds(ahead + len(data) + 1))
            answer = self._await(wanted, deadline, what, is_over)
            if answer == Control.ACK:
                self._acknowledged = True
                return self._quiet(len(data)) if refused + silent and data[0] != Control.EOT else b""
            if is_over(self.heard) or (data[0] == Control.EOT and answer in LETTERS):
                return b""
            if answer is None:
                silent += 1
                if silent == SILENT_TRIES:
                    if self._received > before:
                        raise ProtocolError(
                            f"the loader answered {what} with bytes that are not an answer{said(self.heard)}"
                        )
                    raise SerialTimeout(f"the loader does not answer {what}")
            else:
                refused += 1
                if refused == TRIES:
                    raise PartRefused(f"the loader refused {what} {TRIES} times")

    def _stream(self, data: bytes, what: str) -> None:
        """Without waiting for an answer; the only possible answer is CAN CAN (6)."""
        self._write(data)
        now = self._port.drain()
        self._hear(now)
        if CANCELLED in now:
            raise ReceiverCancelled(what)

    def _put(self, data: bytes) -> None:
        """Forgets what came before, but for a cancellation."""
        before = self._port.drain()
        self._hear(before)
        if CANCELLED in before:
            raise ReceiverCancelled("the block before")
        self._write(data)

    def _await(
        self,
        wanted: tuple[int, ...],
        deadline: Deadline,
        what: str,
        is_over: Callable[[bytes], bool] = lambda heard: False,
    ) -> int | None:
        """The first of the wanted characters that comes; None when the deadline passes, or what was said `is_over`."""
        last = 0
        ahead = b""
        while not (is_over(self.heard) or deadline.expired):
            byte = ahead or self._port.read_some(deadline, 1)
            if not byte:
                return None
            ahead = b""
            self._hear(byte)
            if byte[0] in LETTERS & {*wanted}:
                pause = QUIET_SECONDS if last else max(PAUSE_SECONDS, self._port.wire_seconds(4))
                ahead = self._port.read_some(Deadline.after(pause), 1)
                if not ahead:
                    return byte[0]
            elif byte[0] in wanted:
                return byte[0]
            if what and last == byte[0] and MEANINGS.get(last) is Meaning.REFUSED:
                raise ReceiverCancelled(what)
            last = byte[0]
        return None

    def _quiet(self, size: int) -> bytes:
        """What still comes until nothing does. A block of this size went out last, and may still be on the wire when an answer
        to the one before comes late."""
        seconds = QUIET_SECONDS + self._port.wire_seconds(size)
        heard = self._port.until_quiet(seconds, Deadline.after(seconds + self._answer_seconds))
        self._hear(heard)
        return heard

    def _hear(self, data: bytes) -> None:
        self._received += len(data)
        self.heard = (self.heard + data)[-TEXT_LIMIT:]

    def _write(self, data: bytes) -> None:
        self._port.write(data, Deadline.after(self._answer_seconds + self._port.wire_seconds(len(data))))


def said(heard: bytes) -> str:
    """What the loader said, for the end of a message; "" if that is nothing that can be read."""
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else " " for byte in heard)
    words = " ".join(text.split())
    return f"; it said: {words[-160:]!r}" if words else ""
