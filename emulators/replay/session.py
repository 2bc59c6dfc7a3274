"""`Replay`: a recording in the place of the hardware. What the host sends must be what was sent when it was recorded;
then what came back then comes again.

    replay = Replay.open("session.jsonl")
    with Bench.open("bench.toml", replay=replay) as bench:
        bench.component("imu").flash("imu-1.5.0.hex")
    replay.finish()                                     # raises ReplayMismatch if something was not sent

The rule that keeps it simple: each bus is a track of its own, and its exchanges are what went out on it, counted from 1.
A track hands out what came in once everything that had gone out before it went out again. Two parts that are served at
once on one bus may be served in another order than when they were recorded: frames are matched in order for each
arbitration id, transfers for each device.

What may differ: TesterPresent without an answer (3E 80), which a clock sends and not the course of things; modem lines
and line settings; how often the USB devices are listed; requests for descriptors.
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ...transports import clock
from ...transports.errors import ProxyflashError
from ...transports.plain import plain
from ...transports.recording_formats import BadRecording, Recording, load
from ...transports.records import Answer, Record
from .. import wires

SHOWN = 24
"""Bytes around the first difference that a message shows of each side."""
SHOWN_QUESTION = 200
"""Characters of a question that a message shows."""
LONGEST_WAIT = 3600.0
"""Seconds of one wait for what comes in; a recording may have far times, and a wait has a limit of its own."""
KINDS = {"can": {"can"}, "serial": {"serial", "line"}, "usb": {"usb", "devices"}}
"""Kinds of records of each kind of bus; any has notes."""


class ReplayMismatch(ProxyflashError):
    """What the host does is not what was recorded. `exchange`: its number on its bus, from 1. Both sides are text."""

    code = "E-REPLAY-MISMATCH"
    default_remedy = "If the new behaviour is meant, record it again: proxyflash record FILE -- COMMAND"

    def __init__(self, bus: str, exchange: int, count: int, recorded: str, sent: str) -> None:
        super().__init__(f"exchange {exchange} on {bus} (of {count} recorded) differs: recorded {recorded}; now {sent}")
        self.bus = bus
        self.exchange = exchange
        self.recorded = recorded
        self.sent = sent


class ReplayUnanswered(ProxyflashError):
    """A command, a key or a step's action was asked for outside of the buses, and the recording has no answer."""

    code = "E-REPLAY-UNANSWERED"
    default_remedy = "A replay runs nothing. Record it again, with this in it: proxyflash record FILE -- COMMAND"


class Track:
    """One bus under replay. `changed` guards it, and is told when there may be more to read."""

    def __init__(self, replay: Replay, bus: str, records: Sequence[Record]) -> None:
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


class Replay:
    """One run of a recording. `pace`: 0.0 brings answers at once, 1.0 as late as they were recorded."""

    def __init__(self, recording: Recording, *, pace: float = 0.0) -> None:
        """Raises BadRecording for one that has lost its beginning."""
        if recording.dropped:
            raise BadRecording(
                f"the recording has lost its first {recording.dropped:,} records, so it can't be replayed",
                remedy="Record it again, with a larger ring.",
            )
        self.pace = pace
        self.mismatch: ReplayMismatch | None = None
        self.unanswered: ReplayUnanswered | None = None
        """What was asked first of what the recording has no answer to."""
        self._name = f"replay-{uuid.uuid4().hex[:8]}"
        self._tracks: dict[str, Track] = {}
        self._opening = clock.Lock()
        self._answers: dict[str, deque[Answer]] = {}
        self._of_bus: dict[str, list[Record]] = {}
        for record in recording.records:
            self._of_bus.setdefault(record.bus, []).append(record)
            if isinstance(record, Answer):
                self._answers.setdefault(record.question, deque()).append(record)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, pace: float = 0.0) -> Self:
        """Raises BadRecording."""
        return cls(load(Path(path)), pace=pace)

    @property
    def exchanges(self) -> dict[str, int]:
        """How many each bus has, of those that were used."""
        return {bus: track.exchanges for bus, track in self._tracks.items()}

    def track(self, bus: str, kind: str) -> Any:
        """The track of a bus: a CanTrack, SerialTrack or UsbTrack. One that was not recorded is empty.

        Raises BadRecording when it was recorded as a bus of another kind.
        """
        from .can import CanTrack
        from .serial import SerialTrack
        from .usb import UsbTrack

        kinds: dict[str, type[Track]] = {"can": CanTrack, "serial": SerialTrack, "usb": UsbTrack}
        if kind not in kinds:
            raise BadRecording(f"buses of kind {kind!r} are not recorded", remedy="")
        with self._opening:
            if bus not in self._tracks:
                records = self._of_bus.get(bus, [])
                seen = {record.kind for record in records} - {"note"}
                if seen and not seen.intersection(KINDS[kind]):
                    was = ", ".join(sorted(seen))
                    raise BadRecording(f"bus {bus!r} was recorded with {was}, not {kind}", remedy="")
                self._tracks[bus] = kinds[kind](self, bus, records)
            track = self._tracks[bus]
        if not isinstance(track, kinds[kind]):
            raise BadRecording(f"bus {bus!r} is replayed as a bus of another kind, not {kind}", remedy="")
        return track

    def answer(self, question: str) -> tuple[str, bool]:
        """What was answered outside of the buses, and whether it is the reason of a failure. The last answer comes again.

        Raises ReplayUnanswered.
        """
        with self._opening:
            answers = self._answers.get(question)
            if answers is None:
                error = ReplayUnanswered(f"the recording has no answer to this: {plain(question[:SHOWN_QUESTION])}")
                self.unanswered = self.unanswered or error
                raise error
            found = answers.popleft() if len(answers) > 1 else answers[0]
        return found.text, found.failed

    def host_settings(self, bus: str, kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What opens a bus on this replay instead of its hardware; `settings` are those of the bench file."""
        track: Track = self.track(bus, kind)
        channel = f"{self._name}-{bus}"
        if wires.find(channel) is None:
            wires.register(channel, track)
        return track.host_settings(channel, settings)

    def finish(self) -> None:
        """Raises ReplayMismatch if anything differed, or if something recorded was not sent on a bus that was used.

        Raises ReplayUnanswered if something was asked that the recording has no answer to.
        """
        if self.unanswered is not None:
            raise self.unanswered
        if self.mismatch is None:
            for track in self._tracks.values():
                self.mismatch = self.mismatch or track.unsent()
        if self.mismatch is not None:
            raise self.mismatch

    def close(self) -> None:
        for bus in self._tracks:
            wires.forget(f"{self._name}-{bus}")


def find_track(place: str, bus: str, kind: str) -> Any:
    """The track registered as `place`; else that of a recording's file. `bus` "": the only one of that kind.

    Raises BadRecording.
    """
    track = wires.find(place)
    if isinstance(track, Track):
        return track
    recording = load(Path(place))
    buses = sorted({record.bus for record in recording.records if record.kind in KINDS[kind]})
    if not bus and len(buses) != 1:
        raise BadRecording(f"{place} has the {kind} buses {', '.join(buses) or 'none'}", remedy="Name one of them.")
    if bus and bus not in buses:
        raise BadRecording(f"{place} has no {kind} bus {bus!r}; it has: {', '.join(buses) or 'none'}", remedy="")
    return Replay(recording).track(bus or buses[0], kind)


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
