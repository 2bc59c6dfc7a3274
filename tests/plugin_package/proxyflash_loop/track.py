"""A recorded ring: the host asks as it did then, and gets the answers of then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from proxyflash.emulators.replay.track import Course, ReplayMismatch, Track
from proxyflash.transports import clock
from proxyflash.transports.recording.records import Record

from .record import LoopFrame


class LoopTrack(Track):
    """Frames of one ring, in their order."""

    kind: ClassVar[str] = "loop"
    record_types: ClassVar[tuple[type[Record], ...]] = (LoopFrame,)

    def __init__(self, replay: Course, bus: str, records: Sequence[Record]) -> None:
        self._frames = [record for record in records if isinstance(record, LoopFrame)]
        super().__init__(replay, bus, self._frames)
        self._position = 0

    @property
    def exchanges(self) -> int:
        return sum(frame.outgoing for frame in self._frames)

    def host_settings(self, channel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"ring": self}

    def send(self, node: int, data: bytes) -> None:
        """Raises ReplayMismatch."""
        with self.changed:
            self.require_match()
            awaited = self._next(outgoing=True)
            if awaited is None or (awaited.node, awaited.data) != (node, data):
                recorded = "nothing more" if awaited is None else awaited.shown()
                raise self.differ(self._number, recorded, LoopFrame(0.0, self.bus, True, node, data).shown())
            self._position = self._frames.index(awaited, self._position) + 1
            self.sent(awaited)

    def receive(self, seconds: float) -> tuple[int, bytes] | None:
        with self.changed:
            frame = self._frames[self._position] if self._position < len(self._frames) else None
            if frame is not None and not frame.outgoing and self.due(frame) <= clock.monotonic() + seconds:
                clock.sleep(max(0.0, self.due(frame) - clock.monotonic()))
                self._position += 1
                return frame.node, frame.data
        clock.sleep(seconds)
        return None

    def leave(self) -> None:
        """A recording stays."""

    def unsent(self) -> ReplayMismatch | None:
        awaited = self._next(outgoing=True)
        if awaited is None:
            return None
        return ReplayMismatch(self.bus, self._number, self.exchanges, awaited.shown(), "the host has ended")

    @property
    def _number(self) -> int:
        return 1 + sum(frame.outgoing for frame in self._frames[: self._position])

    def _next(self, *, outgoing: bool) -> LoopFrame | None:
        return next((frame for frame in self._frames[self._position :] if frame.outgoing is outgoing), None)
