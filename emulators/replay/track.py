"""A track: one recorded bus under replay. There is a class for each kind of bus; `session` makes the tracks.

Registered under the entry-point group `proxyflash.tracks` by the kind of bus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ...transports import clock
from ...transports.errors import ProxyflashError
from ...transports.recording.formats import BadRecording, Recording, load
from ...transports.recording.records import Record
from .. import registry as wires

SHOWN = 24
"""Bytes around the first difference that a message shows of each side."""
LONGEST_WAIT = 3600.0
"""Seconds of one wait for what comes in; a recording may have far times, and a wait has a limit of its own."""


class ReplayMismatch(ProxyflashError):
    """Under replay the host's traffic differs from the recording. The message has the exchange and both sides.

    `exchange`: its number on its bus, from 1. Both sides are text.
    """

    code = "E-REPLAY-MISMATCH"
    is_of_a_part = False
    default_remedy = "If the new behaviour is meant, record it again: proxyflash record FILE -- COMMAND"

    def __init__(self, bus: str, exchange: int, count: int, recorded: str, sent: str) -> None:
        super().__init__(f"exchange {exchange} on {bus} (of {count} recorded) differs: recorded {recorded}; now {sent}")
        self.bus = bus
        self.exchange = exchange
        self.recorded = recorded
        self.sent = sent


class Course:
    """What the tracks of one replay share: the pace, and the first difference. `Replay` is one."""

    def __init__(self, recording: Recording, *, pace: float = 0.0) -> None:
        """Raises BadRecording for a recording that has lost its beginning."""
        if recording.dropped:
            raise BadRecording(
                f"the recording has lost its first {recording.dropped:,} records, so it can't be replayed",
                remedy="Record it again, with a larger ring.",
            )
        self.pace = pace
        self.mismatch: ReplayMismatch | None = None
        self.time = recording.records[0].time if recording.records else 0.0
        """How far the replay has come: the time of the latest record that went out or came in again."""

    def passed(self, record: Record) -> None:
        """A record went out or came in again."""
        self.time = max(self.time, record.time)


class Track:
    """One bus under replay. `changed` guards it, and is notified when there may be more to read."""

    kind: ClassVar[str]
    """Of its bus."""
    record_types: ClassVar[tuple[type[Record], ...]]
    """What is recorded of such a bus, beside notes."""

    def __init__(self, replay: Course, bus: str, records: Sequence[Record]) -> None:
        self.replay = replay
        self.bus = bus
        self.records = records
        self.changed = clock.Condition()
        self._anchor = (records[0].time if records else 0.0, clock.monotonic())
        """When something went out last: then, and now."""

    @property
    def exchanges(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def unsent(self) -> ReplayMismatch | None:
        """What was recorded and not sent, if anything."""
        raise NotImplementedError

    def host_settings(self, channel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """How the bus's transport opens this track, which is registered as `channel`."""
        raise NotImplementedError

    def due(self, record: Record) -> float:
        """When something that came in comes again, on time.monotonic's clock."""
        then, now = self._anchor
        return now + (record.time - then) * self.replay.pace

    def sent(self, record: Record) -> None:
        """A recorded outgoing record went out again, now."""
        self._anchor = (record.time, clock.monotonic())
        self.replay.passed(record)
        self.changed.notify_all()

    def differ(self, exchange: int, recorded: str, sent: str) -> ReplayMismatch:
        """Keeps the first difference of the whole replay, and returns it to be raised."""
        if self.replay.mismatch is None:
            self.replay.mismatch = ReplayMismatch(self.bus, exchange, self.exchanges, recorded, sent)
        return self.replay.mismatch

    def require_match(self) -> None:
        """Raises the first difference again: after it nothing that is sent has an answer."""
        if self.replay.mismatch is not None:
            raise self.replay.mismatch


AnyTrack = TypeVar("AnyTrack", bound=Track)


def find_track(place: str, bus: str, track_class: type[AnyTrack]) -> AnyTrack:
    """The track registered as `place`; else that of a recording's file. `bus` "": the only one of that kind.

    Raises BadRecording.
    """
    track = wires.find(place)
    if isinstance(track, track_class):
        return track
    kind = track_class.kind
    recording = load(Path(place))
    buses = sorted({record.bus for record in recording.records if isinstance(record, track_class.record_types)})
    if not bus and len(buses) != 1:
        raise BadRecording(f"{place} has the {kind} buses {', '.join(buses) or 'none'}", remedy="Name one of them.")
    if bus and bus not in buses:
        raise BadRecording(f"{place} has no {kind} bus {bus!r}; it has: {', '.join(buses) or 'none'}", remedy="")
    bus = bus or buses[0]
    return track_class(Course(recording), bus, [record for record in recording.records if record.bus == bus])


def both(recorded: bytes, sent: bytes) -> tuple[str, str]:
    """Both sides as text, around their first difference."""
    same = next(
        (index for index, (one, other) in enumerate(zip(recorded, sent, strict=False)) if one != other),
        min(len(recorded), len(sent)),
    )
    start = max(0, same - SHOWN // 2) if max(len(recorded), len(sent)) > SHOWN else 0

    def shown(data: bytes) -> str:
        part = data[start : start + SHOWN].hex(" ").upper() or "nothing"
        place = f" (from byte {start} of {len(data)})" if len(data) > SHOWN else ""
        return part + place

    return shown(recorded), shown(sent)
