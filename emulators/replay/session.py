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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ...transports import clock, plugins
from ...transports.errors import ProxyflashError
from ...transports.plain import plain
from ...transports.recording.formats import BadRecording, Recording, load
from ...transports.recording.records import Answer, Note, Record
from .. import registry as wires
from .track import Course, Track

SHOWN_QUESTION = 200
"""Characters of a question that a message shows."""


class ReplayUnanswered(ProxyflashError):
    """Under replay a command of the bench file, a key or a step was asked for, and the recording has no answer."""

    code = "E-REPLAY-UNANSWERED"
    is_of_a_part = False
    default_remedy = "A replay runs nothing. Record it again, with this in it: proxyflash record FILE -- COMMAND"


class Replay(Course):
    """One run of a recording. `pace`: 0.0 brings answers at once, 1.0 as late as they were recorded."""

    def __init__(self, recording: Recording, *, pace: float = 0.0) -> None:
        """Raises BadRecording for a recording that has lost its beginning."""
        super().__init__(recording, pace=pace)
        self.recording = recording
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
        """The track of a bus, of the class for its kind. The track of a bus that was not recorded is empty.

        Raises BadRecording when it was recorded as a bus of another kind.
        """
        if kind not in plugins.names(plugins.TRACKS):
            raise BadRecording(f"buses of kind {kind!r} can't be replayed", remedy="")
        track_class: type[Track] = plugins.load(plugins.TRACKS, kind)
        with self._opening:
            if bus not in self._tracks:
                records = self._of_bus.get(bus, [])
                seen = [record for record in records if not isinstance(record, Note)]
                if seen and not any(isinstance(record, track_class.record_types) for record in seen):
                    was = ", ".join(sorted({record.kind for record in seen}))
                    raise BadRecording(f"bus {bus!r} was recorded with {was}, not {kind}", remedy="")
                self._tracks[bus] = track_class(self, bus, records)
            track = self._tracks[bus]
        if not isinstance(track, track_class):
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
