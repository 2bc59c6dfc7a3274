"""The ECU's end of ISO-TP (ISO 15765-2:2016), written from the standard; shares nothing with the host's end.

Reception runs on the wire's thread, frame by frame, and puts whole messages into the board's inbox. Sending runs on the
firmware's thread, which waits for flow control as for any other input. What the standard has ignored is ignored.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import can

from ...transports import clock
from ..board import Board
from .wire import CanNode, CanWire

SINGLE, FIRST, CONSECUTIVE, FLOW_CONTROL = 0, 1, 2, 3
"""N_PCI types (table 9)."""
CONTINUE, WAIT, OVERFLOW = 0, 1, 2
"""Flow status (table 18)."""
DATA_LENGTHS = (8, 12, 16, 20, 24, 32, 48, 64)
N_BS_SECONDS = N_CR_SECONDS = 1.0
INBOX = 8
"""Messages that wait to be served; a further one displaces the oldest."""


@dataclass(frozen=True, slots=True)
class EcuAddress:
    """`request`: the id that the tester sends under, `functional`: that of requests to all, `response`: ours.

    `own`, `tester`: address bytes ahead of the PCI with extended addressing, None without.
    """

    request: int
    functional: int
    response: int
    extended_ids: bool
    own: int | None = None
    tester: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One message from a tester."""

    data: bytes
    functional: bool
    at: float = 0.0
    """When its last frame ended, on `time.monotonic`'s clock."""


class IsoTpNode:
    """One ECU on a CAN wire. `max_length`: longer messages are answered by an overflow."""

    def __init__(
        self,
        board: Board,
        wire: CanWire,
        address: EcuAddress,
        *,
        fd: bool = False,
        block_size: int = 0,
        st_min: int = 0,
        padding: int = 0xCC,
        max_length: int = 0xFFF,
    ) -> None:
        self.inbox: deque[Request] = deque(maxlen=INBOX)
        self._board = board
        self._address = address
        self._fd = fd
        self._frame = 64 if fd else 8
        self._block_size = block_size
        self._st_min = st_min
        self._padding = padding
        self._max_length = max_length
        self._buffer = bytearray()
        self._expected = 0
        self._sequence = 0
        self._in_block = 0
        self._frame_length = 0
        self._began = 0.0
        self._flow: deque[tuple[float, bytes]] = deque(maxlen=INBOX)
        self._clock = 0.0
        """The firmware's own time: when what it works on came in, and its work since then."""
        self._prefix = b"" if address.tester is None else bytes([address.tester])
        self._wire = wire
        self.node: CanNode = wire.attach(board.name, self._received)

    def move(self, address: EcuAddress) -> None:
        """Listens and answers elsewhere from now on."""
        self._address = address

    def forget(self, *, frames: bool = True) -> None:
        """Loses what was under way, as a reset does. `frames`: also frames that have arrived since."""
        if frames:
            self.inbox.clear()
        self._flow.clear()
        self._expected = 0

    # On the wire's thread.

    def _received(self, message: can.Message) -> None:
        address = self._address
        if message.is_error_frame or message.is_remote_frame or message.is_extended_id != address.extended_ids:
            return
        functional = message.arbitration_id == address.functional
        if message.arbitration_id != address.request and not functional:
            return
        data = bytes(message.data)
        if address.own is not None:
            if not data or data[0] != address.own:
                return
            data = data[1:]
        if not data:
            return
        kind = data[0] >> 4
        if kind == SINGLE:
            self._single(data, functional)
        elif functional:
            return
        elif kind == FIRST:
            self._first(data)
        elif kind == CONSECUTIVE:
            self._consecutive(data)
        elif kind == FLOW_CONTROL:
            with self._board.changed:
                self._flow.append((self._wire.ended_at, data))
                self._board.changed.notify_all()

    def _single(self, data: bytes, functional: bool) -> None:
        """9.6.2: up to 8 bytes of frame have the length in the PCI's low nibble, longer frames in the byte after it."""
        whole = len(self._prefix) + len(data)
        length, start = data[0] & 0x0F, 1
        if whole > 8:
            if length or data[1] < 8 - len(self._prefix):
                return
            length, start = data[1], 2
        if not 0 < length <= len(data) - start:
            return
        if not functional:
            self._expected = 0  # 9.8.3: it ends what was being received from the same sender under the same address.
        self._deliver(data[start : start + length], functional)

    def _first(self, data: bytes) -> None:
        """9.6.3: 12 bits of length, or 32 where those are 0. What would have fitted a single frame is ignored."""
        whole = len(self._prefix) + len(data)
        if whole < 8:
            return
        length, start = (data[0] & 0x0F) << 8 | data[1], 2
        if length == 0:
            length, start = int.from_bytes(data[2:6], "big"), 6
            if length <= 0xFFF:
                return
        if length < len(data) - (whole > 8):
            return
        if length > self._max_length:
            self._answer_flow(OVERFLOW)
            return
        self._buffer = bytearray(data[start:])
        self._expected = length
        self._sequence = 1
        self._in_block = 0
        self._frame_length = len(data)
        self._began = clock.monotonic()
        self._answer_flow(CONTINUE)

    def _consecutive(self, data: bytes) -> None:
        now = clock.monotonic()
        if not self._expected or now - self._began > N_CR_SECONDS or data[0] & 0x0F != self._sequence:
            self._expected = 0
            return
        if len(data) < min(self._frame_length, 1 + self._expected - len(self._buffer)):
            return
        self._began = now
        self._sequence = (self._sequence + 1) & 0x0F
        self._buffer += data[1:]
        if len(self._buffer) >= self._expected:
            whole = bytes(self._buffer[: self._expected])
            self._expected = 0
            self._deliver(whole, False)
            return
        self._in_block += 1
        if self._block_size and self._in_block == self._block_size:
            self._in_block = 0
            self._answer_flow(CONTINUE)

    def _answer_flow(self, status: int) -> None:
        # This is the wire's own thread, which must not wait for room in a queue that it empties itself.
        flow = bytes([FLOW_CONTROL << 4 | status, self._block_size, self._st_min])
        self._send_frame(flow, self._wire.ended_at, timeout=0)

    def _deliver(self, data: bytes, functional: bool) -> None:
        with self._board.changed:
            self.inbox.append(Request(data, functional, self._wire.ended_at))
            self._board.changed.notify_all()

    # On the firmware's thread.

    def receive(self, seconds: float | None) -> Request | None:
        """The next message; None after `seconds` in which none began. Raises PowerLost, ResetPulled.

        ISO 14229-2:2013, S3: the first frame of a request stops that timer, and a request that breaks off starts it again.
        """
        while not self._board.wait(lambda: bool(self.inbox), seconds):
            if not self._expected or clock.monotonic() - self._began > N_CR_SECONDS:
                self._clock = clock.monotonic()
                return None
        request = self.inbox.popleft()
        self._clock = max(self._clock, request.at)
        return request

    def busy(self, seconds: float) -> None:
        """The firmware works for that long, from its own time on. Raises PowerLost, ResetPulled."""
        self._clock += seconds
        self._board.busy_real(self._clock - clock.monotonic())

    def send(self, data: bytes) -> None:
        """Sends one message, and gives it up if no flow control comes. Raises PowerLost, ResetPulled."""
        self._board.tick()
        room = self._frame - len(self._prefix) - 1
        if len(data) <= (room if not self._fd else min(room, 7 - len(self._prefix))):
            self._send_frame(bytes([len(data)]) + data, self._clock)
            return
        if self._fd and len(data) < room:
            self._send_frame(bytes([0, len(data)]) + data, self._clock)
            return
        self._flow.clear()
        length = len(data)
        head = (
            [FIRST << 4 | length >> 8, length & 0xFF]
            if length <= 0xFFF
            else [FIRST << 4, 0, *length.to_bytes(4, "big")]
        )
        position, sequence = room + 1 - len(head), 1
        self._send_frame(bytes(head) + data[:position], self._clock)
        while position < len(data):
            if not self._board.wait(lambda: bool(self._flow), N_BS_SECONDS):
                return
            at, flow = self._flow.popleft()
            self._clock = max(self._clock, at)
            status = flow[0] & 0x0F
            if status == WAIT:
                continue
            if status != CONTINUE or len(flow) < 3:
                return
            left = flow[1] or len(data)
            while left and position < len(data):
                self.busy(_separation(flow[2]))
                self._send_frame(bytes([CONSECUTIVE << 4 | sequence]) + data[position : position + room], self._clock)
                position += room
                sequence = (sequence + 1) & 0x0F
                left -= 1

    def _send_frame(self, data: bytes, at: float, timeout: float = 5.0) -> None:
        frame = self._prefix + data
        length = 8
        if self._fd:
            length = next(size for size in DATA_LENGTHS if size >= len(frame))
        self.node.send(
            can.Message(
                arbitration_id=self._address.response,
                is_extended_id=self._address.extended_ids,
                data=frame.ljust(length, bytes([self._padding])),
                is_fd=self._fd,
                bitrate_switch=self._fd,
            ),
            timeout,
            at=at,
        )


def _separation(st_min: int) -> float:
    """Seconds of an STmin byte (table 20); reserved values are the longest, 127 ms."""
    if st_min <= 0x7F:
        return st_min / 1000
    if 0xF1 <= st_min <= 0xF9:
        return (st_min - 0xF0) / 10_000
    return 0.127
