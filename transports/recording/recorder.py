"""The recorder: a ring that keeps the `records` of what passes on the buses.

The rule that keeps it cheap: while traffic passes, a record is one tuple in a ring; it becomes a `Record` only when
somebody asks. A transport without a recorder pays one attribute test.

An outgoing record is made just before it is handed to the driver, so that no answer can come before its question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import clock
from .formats import save_all
from .records import Answer, CanFrame, Note, Record, SerialBytes, SerialLine, UsbControl, UsbDevices, UsbSeen

if TYPE_CHECKING:
    import can

RECORD_BYTES = 200
"""About what one record costs in memory beside its data."""
KEPT_RECORDS = 500_000
KEPT_BYTES = 64 << 20
"""What a ring holds at most by default, in records and bytes of memory."""
LONGEST_QUESTION = 8192
LONGEST_ANSWER = 1 << 16
"""Characters of an answer from outside of the buses that are kept: of a question the first, of an answer the last."""


class Recorder:
    """A bounded ring of records, for all buses of a bench. Any thread may add to it.

    `dropped`: how many records the ring has lost at its old end.
    """

    def __init__(self, *, limit_records: int = KEPT_RECORDS, limit_bytes: int = KEPT_BYTES) -> None:
        self.dropped = 0
        self._limit_records = limit_records
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._ring: deque[tuple[int, tuple[Any, ...]]] = deque()
        self._lock = clock.Lock()
        self.watcher: Callable[[Record], object] | None = None
        """Is shown each record when it is made, on the thread that makes it."""
        self._monotonic = clock.monotonic
        self._wall_offset = clock.time() - clock.monotonic()

    @property
    def now(self) -> float:
        """Seconds since 1970, as a record that was added now would have them."""
        return self._monotonic() + self._wall_offset

    def add(self, kind: type[Record], bus: str, *values: Any, size: int = 0) -> None:
        """A record of any kind, of now. `values`: its fields behind time and bus; `size`: about the bytes of them."""
        self._keep((kind, self._monotonic(), bus, *values), size)

    def can(self, bus: str, outgoing: bool, message: can.Message) -> None:
        """A CAN frame that goes out or came in."""
        flags = 1 if message.is_extended_id else 0
        if message.is_fd:
            flags |= 8 | (16 if message.bitrate_switch else 0) | (32 if message.error_state_indicator else 0)
        elif message.is_remote_frame:
            flags |= 2
        if message.is_error_frame:
            flags |= 4
        data = bytes(message.dlc) if flags & 2 else bytes(message.data)
        self.add(CanFrame, bus, outgoing, message.arbitration_id, flags, data, size=len(data))

    def serial(self, bus: str, outgoing: bool, data: bytes, *, drained: bool = False) -> None:
        """Bytes of a serial line."""
        self.add(SerialBytes, bus, outgoing, bytes(data), drained, size=len(data))

    def line(self, bus: str, **changes: int | str | None) -> None:
        """What is changed of a serial line; None: unchanged."""
        made = tuple((key, value) for key, value in changes.items() if value is not None)
        if made:
            self.add(SerialLine, bus, made, size=RECORD_BYTES)

    def usb(self, bus: str, root: int, address: int, setup: bytes, data: bytes, status: int, started: float) -> None:
        """A control transfer that has ended. `started`: when it began, on time.monotonic's clock."""
        seconds = round(self._monotonic() - started, 6)
        self._keep((UsbControl, started, bus, root, address, setup, data, status, seconds), len(data) + 40)

    def devices(self, bus: str, devices: tuple[UsbSeen, ...]) -> None:
        """The USB devices that are there."""
        size = sum(RECORD_BYTES + sum(map(len, seen.configurations)) for seen in devices)
        self.add(UsbDevices, bus, devices, size=size)

    def note(self, bus: str, text: str) -> None:
        """A remark."""
        self.add(Note, bus, text, size=len(text))

    def answer(self, question: str, text: str, *, failed: bool = False) -> None:
        """What was asked outside of the buses, and what came of it."""
        question, text = question[:LONGEST_QUESTION], text[-LONGEST_ANSWER:]
        self.add(Answer, "", question, text, failed, size=len(question) + len(text))

    def records(self, since: float = 0.0) -> list[Record]:
        """What the ring holds, in the order of its times. `since`: only what is younger, on time.monotonic's clock."""
        with self._lock:
            kept = [item for _, item in self._ring if item[1] >= since]
        # Transfers are kept at their end under the time of their beginning.
        kept.sort(key=lambda item: item[1])
        return list(map(self._made, kept))

    def taken(self) -> list[Record]:
        """What the ring holds, in the order in which it came; the ring is empty then."""
        with self._lock:
            kept, self._ring, self._bytes = self._ring, deque(), 0
        return [self._made(item) for _, item in kept]

    def save(self, folder: Path, since: float = 0.0) -> list[Path]:
        """Writes what `records` has into a folder, in each of the formats, and returns the files. Raises OSError."""
        with self._lock:
            whole = not self.dropped or (bool(self._ring) and self._ring[0][1][1] < since)
        return save_all(self.records(since), folder, dropped=0 if whole else self.dropped)

    def _made(self, item: tuple[Any, ...]) -> Record:
        record: Record = item[0](round(item[1] + self._wall_offset, 6), *item[2:])
        return record

    def _keep(self, item: tuple[Any, ...], size: int) -> None:
        size += RECORD_BYTES
        with self._lock:
            ring = self._ring
            ring.append((size, item))
            self._bytes += size
            while self._bytes > self._limit_bytes or len(ring) > self._limit_records:
                self._bytes -= ring.popleft()[0]
                self.dropped += 1
        if self.watcher is not None:
            self.watcher(self._made(item))
