"""One node's SDO server, asked by its default channel: reads, writes, and downloads in blocks or in segments.

The client of the PyPI package `canopen` waits by real time on threads of its own, so it can't run on a clock that is given to it.
A request and its answer have one multiplexer, so a late answer is known. A read, and a write that changes nothing when it comes
twice, is sent again; what is lost of a download ends it, for the server may have taken it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from ...transports.can.bus import CanBus, CanId
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged, TransportError
from ..errors import Meaning, NoResponse, OperationFailed, PartError, PartRefused, ProtocolError, silence
from ..retries import retried
from . import codec
from .codec import ABSENT, MEANINGS, MOST_SEGMENTS, SEGMENT, Abort, abort_words

TRIES = 3
FRAME_SECONDS = 0.0011
"""What a frame takes where the bus's bit rate isn't known: at 125 kbit/s."""
SEND_SECONDS = 1.0
"""How long the bus may take for a frame."""
STALLS = 5
"""Sub-blocks in a row of which the node may have got nothing."""
MOST_READ = 150
"""Segments of a value that is read, at most."""
LOST = (NoResponse, ProtocolError, NotAcknowledged)
Fits = Callable[[bytes], bool]


class Aborted(Exception):
    """The server has ended a transfer by an abort code. Never leaves this family: the engine gets `error`."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(code)
        self.code = code
        self.what = what

    @property
    def error(self) -> PartError:
        text = f"the node aborts {self.what}: {abort_words(self.code)}"
        match MEANINGS.get(self.code, Meaning.REFUSED):
            case Meaning.LOST:
                return ProtocolError(text).passing(True)
            case Meaning.FAILED:
                return OperationFailed(text)
        return PartRefused(
            text, remedy="Are program and the other keys of its profile right, by the device's manual?"
        ).passing(False)


class Sdo:
    """`answer`: seconds that the node has for an answer. Methods raise Aborted, NoResponse, ProtocolError, TransportError."""

    def __init__(self, bus: CanBus, node: int, answer: float) -> None:
        self._where = f"node {node} on {bus.name}"
        self._answer = answer
        self._wire_seconds = MOST_SEGMENTS * (bus.frame_seconds or FRAME_SECONDS)
        self._channel = bus.channel(CanId(codec.SDO_REQUEST + node), CanId(codec.SDO_RESPONSE + node), fd=False)

    def close(self) -> None:
        self._channel.close()

    def is_there(self, seconds: float) -> bool:
        """Whether the server answers the read of its device type within that time, in whatever way."""
        request = codec.upload(codec.Object.DEVICE_TYPE, 0)
        try:
            self._ask(request, _begins(0x40, 0xE0), codec.Object.DEVICE_TYPE, 0, "the read of its type", seconds, 0.0)
        except LOST:
            # A server that waits for the rest of a block takes a request for a piece of it.
            with suppress(NotAcknowledged):
                self.abort(codec.Object.DEVICE_TYPE, 0)
            return False
        except Aborted:
            pass
        return True

    def read(self, index: int, sub: int = 0, *, seconds: float = 0.0, tries: int = TRIES) -> bytes:
        """A value. `seconds`: of work that it costs the node."""
        what = f"the read of 0x{index:04X}:{sub}"

        def once() -> bytes:
            first = self._begin(codec.upload(index, sub), 0x40, index, sub, what, seconds)
            if first[0] & 2:
                return first[4 : 8 - (first[0] >> 2 & 3)] if first[0] & 1 else first[4:]
            found = b""
            for number in range(MOST_READ):
                toggle = number & 1
                request = codec.upload_segment(toggle)
                segment = self._ask(request, _begins(toggle << 4, 0xF0), index, sub, what)
                found += segment[1 : 8 - (segment[0] >> 1 & 7)]
                if segment[0] & 1:
                    return found
            raise ProtocolError(f"{what}: {self._where} sends more than {MOST_READ} segments")

        return retried(once, tries, LOST)

    def find(self, index: int, sub: int = 0, *, seconds: float = 0.0) -> bytes | None:
        """A value; None where the node has none."""
        try:
            return self.read(index, sub, seconds=seconds)
        except Aborted as aborted:
            if aborted.code not in ABSENT:
                raise
            return None

    def write(self, index: int, sub: int, data: bytes, what: str, *, seconds: float = 0.0, tries: int = TRIES) -> None:
        """Writes 1 to 4 bytes. `what`: of an error."""
        retried(lambda: self._begin(codec.expedited(index, sub, data), 0x60, index, sub, what, seconds), tries, LOST)

    def download(self, index: int, sub: int, data: bytes, seconds: float, *, block: bool) -> Iterator[int]:
        """Yields bytes acknowledged: the first 0 once the node has accepted the transfer, all of them at its end."""
        what = f"the download to 0x{index:04X}:{sub}"
        form = self._in_blocks if block else self._in_segments
        try:
            yield from form(index, sub, data, what, seconds)
        except Aborted:
            raise
        except BaseException:
            # The server would wait for the rest.
            with suppress(TransportError):
                self.abort(index, sub)
            raise

    def abort(self, index: int, sub: int) -> None:
        """Ends whatever transfer the server is in."""
        self._channel.send(codec.abort(index, sub, Abort.GENERAL), SEND_SECONDS)

    def _in_segments(self, index: int, sub: int, data: bytes, what: str, seconds: float) -> Iterator[int]:
        self._begin(codec.download(index, sub, len(data)), 0x60, index, sub, what, seconds)
        yield 0
        for number, done in enumerate(range(0, len(data), SEGMENT)):
            toggle, end = number & 1, done + SEGMENT
            request = codec.download_segment(data[done:end], toggle, last=end >= len(data))
            self._ask(request, _begins(0x20 | toggle << 4, 0xFF), index, sub, what, seconds)
            yield min(end, len(data))

    def _in_blocks(self, index: int, sub: int, data: bytes, what: str, seconds: float) -> Iterator[int]:
        first = self._begin(codec.block_download(index, sub, len(data)), 0xA0, index, sub, what, seconds)
        yield 0
        crc = codec.crc16(data) if first[0] & 4 else 0
        done, most, stalls = 0, first[4], 0
        while done < len(data):
            if not 0 < most <= MOST_SEGMENTS:
                raise ProtocolError(f"{what}: {self._where} wants sub-blocks of {most} segments")
            sent, answer = 0, None
            while answer is None and sent < most and done + sent * SEGMENT < len(data):
                start = done + sent * SEGMENT
                sent += 1
                piece = data[start : start + SEGMENT]
                self._channel.send(codec.block_segment(piece, sent, last=start + SEGMENT >= len(data)), SEND_SECONDS)
                # A server that misses a segment may say so at once.
                answer = self._heard(_acknowledges(sent), Deadline.after(0), index, sub, what)
            if answer is None:
                deadline = Deadline.after(self._answer + self._wire_seconds)
                answer = self._heard(_acknowledges(sent), deadline, index, sub, what)
            if answer is None:
                raise silence(Meaning.LOST, f"{self._where} does not acknowledge a sub-block of {what}")
            stalls = 0 if answer[1] else stalls + 1
            if stalls > STALLS:
                raise ProtocolError(f"{what}: {self._where} gets no segment of a sub-block")
            done, most = min(done + answer[1] * SEGMENT, len(data)), answer[2]
            if answer[1] and done < len(data):
                yield done
        self._ask(codec.block_end(len(data), crc), _begins(0xA1, 0xE3), index, sub, what, seconds)
        yield len(data)

    def _begin(self, request: bytes, kind: int, index: int, sub: int, what: str, seconds: float) -> bytes:
        """The answer with the request's multiplexer."""
        place = codec.multiplexer(index, sub)
        return self._ask(request, lambda data: data[0] & 0xE0 == kind and data[1:4] == place, index, sub, what, seconds)

    def _ask(
        self,
        request: bytes,
        fits: Fits,
        index: int,
        sub: int,
        what: str,
        seconds: float = 0.0,
        patience: float | None = None,
    ) -> bytes:
        self._channel.drain()
        self._channel.send(request, SEND_SECONDS)
        patience = self._answer if patience is None else patience
        answer = self._heard(fits, Deadline.after(patience + seconds), index, sub, what)
        if answer is None:
            raise silence(Meaning.LOST, f"no answer from {self._where} to {what}")
        return answer

    def _heard(self, fits: Fits, deadline: Deadline, index: int, sub: int, what: str) -> bytes | None:
        """The answer that fits; None: none came in time. What does not fit is late, or another's."""
        place = codec.multiplexer(index, sub)
        while (frame := self._channel.recv(deadline)) is not None:
            data = bytes(frame.data)
            if len(data) != codec.FRAME:
                continue
            # In a transfer some servers name no object; such an abort may come late, after the transfer has ended.
            is_mine = data[1:4] == place or (index == codec.Object.PROGRAM_DATA and data[1:4] == bytes(3))
            if data[0] == 0x80 and is_mine:
                raise Aborted(int.from_bytes(data[4:], "little"), what)
            if fits(data):
                return data
            if deadline.expired:
                break
        return None


def _begins(value: int, mask: int) -> Fits:
    return lambda data: data[0] & mask == value


def _acknowledges(sent: int) -> Fits:
    """Whether an answer acknowledges some of the segments that were sent; an earlier one's may name more."""
    return lambda data: data[0] & 0xE3 == 0xA2 and data[1] <= sent
