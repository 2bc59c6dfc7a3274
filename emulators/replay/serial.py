"""A recorded serial line: a track that `protocol_replay` opens for pyserial.

Bytes are matched as a stream: a write may be cut in other pieces than when it was recorded. What the host read then it
reads again, in the same pieces. A change of the line that was recorded holds back what came in after it until the host
makes that change, or writes on. What the host never changed of its line it can't change here either.

A read that doesn't wait (time-out 0) gets only what was read and forgotten when it was recorded (`drained`), which
other reads don't get: so nothing that was read for its sake is lost to the clearing of a buffer that was empty then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import serial

from ...transports import clock
from ...transports.recording.records import Record, SerialBytes, SerialLine
from .track import LONGEST_WAIT, Course, ReplayMismatch, Track, both


def make_known() -> None:
    """pyserial finds `protocol_replay` by its name, in its list of packages."""
    package = __name__.rpartition(".")[0]
    if package not in serial.protocol_handler_packages:
        serial.protocol_handler_packages.append(package)


class SerialTrack(Track):
    """Bytes and line changes of one bus."""

    kind = "serial"
    record_types = (SerialBytes, SerialLine)

    def __init__(self, replay: Course, bus: str, records: Sequence[Record]) -> None:
        kept = [record for record in records if isinstance(record, (SerialBytes, SerialLine))]
        super().__init__(replay, bus, kept)
        self._ahead = deque(kept)
        self._arrived: deque[SerialBytes] = deque()
        """Came in, and wait to be read."""
        self._offset = 0
        """How much of the outgoing record that is awaited went out already."""
        self._number = 1
        self._count = sum(isinstance(record, SerialBytes) and record.outgoing for record in kept)
        self._line: dict[str, int | str] = {}
        self._changeable = {key for record in kept if isinstance(record, SerialLine) for key, _ in record.changes}

    @property
    def exchanges(self) -> int:
        return self._count

    def host_settings(self, channel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        make_known()
        return {**settings, "url": f"replay://{channel}"}

    def write(self, data: bytes) -> None:
        """Raises ReplayMismatch."""
        with self.changed:
            self.require_match()
            while data:
                awaited = self._awaited()
                if awaited is None:
                    raise self.differ(self._number, "nothing more", both(b"", data)[1])
                rest = awaited.data[self._offset :]
                count = min(len(rest), len(data))
                if rest[:count] != data[:count]:
                    raise self.differ(self._number, *both(rest, data))
                data = data[count:]
                self._offset += count
                if self._offset == len(awaited.data):
                    self._ahead.popleft()
                    self._offset = 0
                    self._number += 1
                self.sent(awaited)

    def read(self, size: int, timeout: float | None) -> bytes:
        """Up to `size` bytes: fewer when the time is up."""
        until = None if timeout is None else clock.monotonic() + timeout
        data = b""
        with self.changed:
            while len(data) < size:
                now = clock.monotonic()
                piece = self._front(drained=timeout == 0)
                due = None if piece is None else self.due(piece)
                if piece is not None and due is not None and due <= now:
                    data += self._take(size - len(data))
                elif until is not None and now >= until:
                    break
                else:
                    times = [at for at in (until, due) if at is not None]
                    self.changed.wait(min(min(times) - now, LONGEST_WAIT) if times else None)
        return data

    def waiting(self) -> int:
        """Bytes that can be read without waiting."""
        with self.changed:
            self._arrive()
            front = self._arrived[0] if self._arrived else None
            return len(front.data) if front is not None and self.due(front) <= clock.monotonic() else 0

    def forget(self) -> None:
        """The host forgets what came in: what it forgot when it was recorded."""
        with self.changed:
            while self._front(drained=True) is not None:
                self._arrived.popleft()

    def opened(self, **settings: int | str) -> None:
        """The line as it is at first."""
        with self.changed:
            self._line.update(settings)

    def set_line(self, **settings: int | str) -> bool:
        """The host changes its line; False for what it never changed when it was recorded: the port couldn't."""
        with self.changed:
            for key, value in settings.items():
                if key not in self._changeable and (key in ("dtr", "rts") or self._line.get(key) != value):
                    return False
            self._line.update(settings)
            self._arrive()
            while self._ahead and isinstance(record := self._ahead[0], SerialLine):
                if any(self._line.get(key) != value for key, value in record.changes):
                    break
                self._ahead.popleft()
                self.sent(record)
                self._arrive()
            return True

    def unsent(self) -> ReplayMismatch | None:
        with self.changed:
            awaited = self._awaited()
            if awaited is None:
                return None
            recorded, _ = both(awaited.data[self._offset :], b"")
            return ReplayMismatch(self.bus, self._number, self._count, recorded, "the host has ended")

    def _arrive(self) -> None:
        """Brings in what came before anything else went out or was changed."""
        while self._ahead and isinstance(record := self._ahead[0], SerialBytes) and not record.outgoing:
            self._arrived.append(record)
            self._ahead.popleft()

    def _awaited(self) -> SerialBytes | None:
        """The outgoing record that is next. What came in before it has arrived, changes of the line are passed over."""
        while self._ahead:
            record = self._ahead[0]
            if isinstance(record, SerialBytes):
                if record.outgoing:
                    return record
                self._arrived.append(record)
            self._ahead.popleft()
        return None

    def _front(self, *, drained: bool) -> SerialBytes | None:
        """What a read gets next."""
        self._arrive()
        while not drained and self._arrived and self._arrived[0].drained:
            self._arrived.popleft()
        front = self._arrived[0] if self._arrived else None
        return front if front is not None and front.drained == drained else None

    def _take(self, size: int) -> bytes:
        """From the piece in front."""
        front = self._arrived.popleft()
        self.replay.passed(front)
        if len(front.data) > size:
            self._arrived.appendleft(SerialBytes(front.time, front.bus, False, front.data[size:], front.drained))
        return front.data[:size]
