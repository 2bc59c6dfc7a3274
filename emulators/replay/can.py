"""A recorded CAN bus, and python-can's interface "proxyflash-replay".

    can.Bus(interface="proxyflash-replay", channel="session.jsonl:powertrain")

`channel`: the recording's file, and the bus if it has several. A frame that was not recorded raises ReplayMismatch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import can

from ...transports import clock
from ...transports.recording.formats import frame_text
from ...transports.recording.records import CanFlag, CanFrame, Record
from ..can.clocked import ClockedCanBus
from .track import LONGEST_WAIT, Course, ReplayMismatch, Track, find_track

_KEEP_ALIVE = b"\x02\x3e\x80"
"""A single frame with TesterPresent and suppressPosRspMsgIndicationBit (ISO 15765-2, 9.6.1; ISO 14229-1, 9.7)."""


def is_keep_alive(data: bytes) -> bool:
    """Whether a frame is only to keep a UDS session: 3E 80 in a single frame, with extended addressing too."""
    if data.startswith(_KEEP_ALIVE):
        rest = data[3:]
    elif data[1:].startswith(_KEEP_ALIVE) and data[0] >> 4 not in (1, 2):
        rest = data[4:]  # Behind the target address. A first or consecutive frame may have these bytes by chance.
    else:
        return False
    return not rest.strip(rest[:1])


class CanTrack(Track):
    """Frames of one bus."""

    kind = "can"
    record_types = (CanFrame,)

    def __init__(self, replay: Course, bus: str, records: Sequence[Record]) -> None:
        frames = [
            record
            for record in records
            if isinstance(record, CanFrame) and not (record.outgoing and is_keep_alive(record.data))
        ]
        super().__init__(replay, bus, frames)
        self._frames = frames
        self._numbers = {
            index: number for number, index in enumerate((i for i, frame in enumerate(frames) if frame.outgoing), 1)
        }
        self._awaited: dict[tuple[int, int], deque[int]] = {}
        for index in self._numbers:
            frame = frames[index]
            self._awaited.setdefault(_key(frame), deque()).append(index)
        self._position = 0
        """All before it came or went."""
        self._gone: set[int] = set()
        """What went out beyond it."""

    @property
    def exchanges(self) -> int:
        return len(self._numbers)

    def host_settings(self, channel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        rates = {key: settings[key] for key in ("bitrate", "data_bitrate") if key in settings}
        return {"interface": "proxyflash-replay", "channel": channel, "fd": bool(settings.get("fd", False)), **rates}

    def send(self, frame: CanFrame) -> None:
        """Raises ReplayMismatch."""
        if is_keep_alive(frame.data):
            return
        with self.changed:
            self.require_match()
            awaited = self._awaited.get(_key(frame))
            index = awaited[0] if awaited else self._next()
            recorded = self._frames[index] if index is not None else None
            if awaited and recorded is not None and (recorded.flags, recorded.data) == (frame.flags, frame.data):
                self._gone.add(awaited.popleft())
                self.sent(recorded)
                return
            number = self._numbers[index] if index is not None else self.exchanges + 1
            raise self.differ(number, _shown(recorded), _shown(frame))

    def receive(self, timeout: float | None, stops: Callable[[], bool] = lambda: False) -> CanFrame | None:
        """The next frame that comes in; None when there is none in time, or `stops` says so (asked at each change)."""
        until = None if timeout is None else clock.monotonic() + timeout
        with self.changed:
            while True:
                now = clock.monotonic()
                frame = self._incoming()
                due = self.due(frame) if frame is not None else None
                if frame is not None and due is not None and due <= now:
                    self._position += 1
                    self.replay.passed(frame)
                    return frame
                if stops() or (until is not None and now >= until):
                    return None
                times = [at for at in (until, due) if at is not None]
                self.changed.wait(min(min(times) - now, LONGEST_WAIT) if times else None)

    def unsent(self) -> ReplayMismatch | None:
        index = self._next()
        if index is None:
            return None
        recorded = _shown(self._frames[index])
        return ReplayMismatch(self.bus, self._numbers[index], self.exchanges, recorded, "the host has ended")

    def _incoming(self) -> CanFrame | None:
        """The frame that may come next: all that went out before it went out again."""
        while self._position in self._gone:
            self._gone.discard(self._position)
            self._position += 1
        if self._position < len(self._frames) and not self._frames[self._position].outgoing:
            return self._frames[self._position]
        return None

    def _next(self) -> int | None:
        """The first outgoing frame that did not go out yet."""
        return min((awaited[0] for awaited in self._awaited.values() if awaited), default=None)


def _key(frame: CanFrame) -> tuple[int, int]:
    return frame.can_id, frame.flags & CanFlag.EXTENDED


def _shown(frame: CanFrame | None) -> str:
    return "nothing more" if frame is None else frame_text(frame)


class ReplayCanBus(ClockedCanBus):
    """A recorded bus as an adapter. Raises CanInitializationError for a file that is not a recording with that bus."""

    def __init__(self, channel: str, can_filters: Any = None, fd: bool = False, **kwargs: Any) -> None:
        place, _, bus = channel.rpartition(":")
        if not place or Path(channel).is_file():
            place, bus = channel, ""
        try:
            self._track = find_track(place, bus, CanTrack)
        except Exception as error:
            raise can.CanInitializationError(str(error)) from error
        self.channel_info = f"replay of {channel}"
        self._woken = False
        self._channel = channel
        self._can_protocol = can.CanProtocol.CAN_FD if fd else can.CanProtocol.CAN_20
        super().__init__(channel=channel, can_filters=can_filters)

    def change_bit_rate(self, bitrate: int) -> None:
        """The recording has what came at each bit rate."""

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Raises ReplayMismatch."""
        if self._is_shutdown:
            raise can.CanOperationError("the bus has been shut down")
        flags = CanFlag.EXTENDED if msg.is_extended_id else CanFlag(0)
        if msg.is_fd:
            flags |= CanFlag.FD
            flags |= CanFlag.BIT_RATE_SWITCH if msg.bitrate_switch else CanFlag(0)
            flags |= CanFlag.ERROR_STATE if msg.error_state_indicator else CanFlag(0)
        elif msg.is_remote_frame:
            flags |= CanFlag.REMOTE
        data = bytes(msg.dlc) if msg.is_remote_frame else bytes(msg.data)
        self._track.send(CanFrame(0.0, self._track.bus, True, msg.arbitration_id, int(flags), data))

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        if self._is_shutdown:
            raise can.CanOperationError("the bus has been shut down")
        frame = self._track.receive(timeout, self._stops)
        return (None if frame is None else _message(frame, self._channel)), False

    def wake(self) -> None:
        with self._track.changed:
            self._woken = True
            self._track.changed.notify_all()

    def _stops(self) -> bool:
        """Whether it was woken since it was last asked."""
        woken, self._woken = self._woken, False
        return woken or self._is_shutdown

    def shutdown(self) -> None:
        super().shutdown()
        with self._track.changed:
            self._track.changed.notify_all()


def _message(frame: CanFrame, channel: str) -> can.Message:
    remote = bool(frame.flags & CanFlag.REMOTE)
    return can.Message(
        timestamp=frame.time,
        arbitration_id=frame.can_id,
        is_extended_id=bool(frame.flags & CanFlag.EXTENDED),
        is_remote_frame=remote,
        is_error_frame=bool(frame.flags & CanFlag.ERROR),
        is_fd=bool(frame.flags & CanFlag.FD),
        bitrate_switch=bool(frame.flags & CanFlag.BIT_RATE_SWITCH),
        error_state_indicator=bool(frame.flags & CanFlag.ERROR_STATE),
        channel=channel,
        dlc=len(frame.data),
        data=None if remote else frame.data,
        is_rx=not frame.outgoing,
    )
