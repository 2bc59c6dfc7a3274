"""The ECU's end of ISO-TP (ISO 15765-2:2016), written from the standard; shares nothing with the host's end.

Reception runs on the wire's thread, frame by frame, and puts whole messages into the board's inbox. Sending runs on the
firmware's thread, which waits for flow control as for any other input.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import can

from .board import Board
from .can_wire import CanNode, CanWire

SINGLE, FIRST, CONSECUTIVE, FLOW_CONTROL = 0, 1, 2, 3
"""N_PCI types (table 9)."""
CONTINUE, WAIT, OVERFLOW = 0, 1, 2
"""Flow status (table 18)."""
DATA_LENGTHS = (8, 12, 16, 20, 24, 32, 48, 64)
N_BS_SECONDS = 1.0


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
        self.inbox: deque[Request] = deque()
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
        self._flow: deque[bytes] = deque()
        self._prefix = b"" if address.tester is None else bytes([address.tester])
        self.node: CanNode = wire.attach(board.name, self._received)

    def forget(self) -> None:
        """Loses what was under way, as a reset does."""
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
                self._flow.append(data)
                self._board.changed.notify_all()

    def _single(self, data: bytes, functional: bool) -> None:
        length, start = data[0] & 0x0F, 1
        if length == 0 and self._fd and len(data) > 1:
            length, start = data[1], 2
        if 0 < length <= len(data) - start:
            self._expected = 0
            self._deliver(data[start : start + length], functional)

    def _first(self, data: bytes) -> None:
        if len(data) < 3:
            return
        length, start = (data[0] & 0x0F) << 8 | data[1], 2
        if length == 0 and len(data) >= 7:
            length, start = int.from_bytes(data[2:6], "big"), 6
        shortest = (7 if not self._fd else 62) if self._address.own is None else 6
        if length < min(8, shortest):
            return
        if length > self._max_length:
            self._send_frame(bytes([FLOW_CONTROL << 4 | OVERFLOW, 0, 0]))
            return
        self._buffer = bytearray(data[start:])
        self._expected = length
        self._sequence = 1
        self._in_block = 0
        self._send_frame(bytes([FLOW_CONTROL << 4 | CONTINUE, self._block_size, self._st_min]))

    def _consecutive(self, data: bytes) -> None:
        if not self._expected:
            return
        if data[0] & 0x0F != self._sequence:
            self._expected = 0
            return
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
            self._send_frame(bytes([FLOW_CONTROL << 4 | CONTINUE, self._block_size, self._st_min]))

    def _deliver(self, data: bytes, functional: bool) -> None:
        with self._board.changed:
            self.inbox.append(Request(data, functional))
            self._board.changed.notify_all()

    # On the firmware's thread.

    def receive(self, seconds: float | None) -> Request | None:
        """The next message; None after `seconds`. Raises PowerLost, ResetPulled."""
        if not self._board.wait(lambda: bool(self.inbox), seconds):
            return None
        return self.inbox.popleft()

    def send(self, data: bytes) -> None:
        """Sends one message; one that gets no flow control is given up."""
        room = self._frame - len(self._prefix) - 1
        if len(data) <= (room if not self._fd else min(room, 7 - len(self._prefix))):
            self._send_frame(bytes([len(data)]) + data)
            return
        if self._fd and len(data) < room:
            self._send_frame(bytes([0, len(data)]) + data)
            return
        self._flow.clear()
        self._send_frame(bytes([FIRST << 4 | len(data) >> 8, len(data) & 0xFF]) + data[: room - 1])
        position, sequence = room - 1, 1
        while position < len(data):
            if not self._board.wait(lambda: bool(self._flow), N_BS_SECONDS):
                return
            flow = self._flow.popleft()
            status = flow[0] & 0x0F
            if status == WAIT:
                continue
            if status != CONTINUE or len(flow) < 3:
                return
            left = flow[1] or len(data)
            while left and position < len(data):
                self._board.busy_real(_separation(flow[2]))
                self._send_frame(bytes([CONSECUTIVE << 4 | sequence]) + data[position : position + room])
                position += room
                sequence = (sequence + 1) & 0x0F
                left -= 1

    def _send_frame(self, data: bytes) -> None:
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
            5.0,
        )


def _separation(st_min: int) -> float:
    """Seconds of an STmin byte (table 20); reserved values are the longest, 127 ms."""
    if st_min <= 0x7F:
        return st_min / 1000
    if 0xF1 <= st_min <= 0xF9:
        return (st_min - 0xF0) / 10_000
    return 0.127
