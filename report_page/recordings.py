"""The stories of recordings: of one alone, as far as its traffic shows, and of two side by side."""

from __future__ import annotations

from collections.abc import Iterable

from ..enumerators.benchfile.schema import BenchFile
from ..transports.recording.formats import Recording
from ..transports.recording.records import Record
from . import traffic
from .facts import host_tables, known_buses
from .story import Difference, Exchange, Facts, Mood, Story, Table


def story(recording: Recording, title: str, why: str, file: BenchFile | None) -> Story:
    """Of a recording whose command isn't run again: what passed on its buses. `why`: why not; `file`: the recorded bench."""
    began, ended = _times(recording)
    wires = traffic.wires(recording.records, known_buses(file) if file else {})
    buses = len({record.bus for record in recording.records if record.bus})
    return Story(
        title=title,
        summary=f"{len(recording.records):,} records of {buses} {'bus' if buses == 1 else 'buses'}",
        mood=Mood.PLAIN,
        began=began,
        ended=ended,
        loads=tuple(traffic.loads(recording.records, wires, began, ended)),
        tables=(Table("Recording", _facts(recording)), *host_tables()),
        notes=(f"Components and phases are not shown: {why}.",),
    )


def compared(
    names: tuple[str, str],
    recordings: tuple[Recording, Recording],
    files: tuple[BenchFile | None, BenchFile | None],
    found: Iterable[tuple[str, str, tuple[Record | None, Record | None]]],
    *,
    is_empty: bool,
) -> Story:
    """Of two recordings. `files`: their bench files. `found`: where they differ first on each bus: the bus, the place in words,
    and the record of each recording. `is_empty`: nothing passed in either.
    """
    messages = [traffic.messages(one.records, file) for one, file in zip(recordings, files, strict=True)]
    differences = []
    for bus, place, records in found:
        sides = []
        for name, own, record in zip(names, messages, records, strict=True):
            # A recording that has ended is shown to its end.
            time = max((one.time for one in own if one.bus == bus), default=0.0) if record is None else record.time
            sides.append(traffic.around(name, own, time, bus) or Exchange(name, ()))
        differences.append(Difference(bus, place, (sides[0], sides[1])))
    began, ended = _times(recordings[0])
    count = len(differences)
    same = "Nothing passed in either: nothing was compared" if is_empty else "The same passed on all buses"
    return Story(
        title=f"{names[0]} against {names[1]}",
        summary=f"{count} {'bus differs' if count == 1 else 'buses differ'}" if count else same,
        mood=Mood.BAD if count else Mood.OPEN if is_empty else Mood.GOOD,
        began=began,
        ended=ended,
        differences=tuple(differences),
        tables=tuple(Table(name, _facts(one)) for name, one in zip(names, recordings, strict=True)),
    )


def _times(recording: Recording) -> tuple[float, float]:
    records = recording.records
    return (records[0].time, records[-1].time) if records else (0.0, 0.0)


def _facts(recording: Recording) -> Facts:
    began, ended = _times(recording)
    facts = (
        ("recorded", str(recording.head.get("began", ""))),
        ("command", " ".join(recording.head.get("arguments", ()))),
        ("ended with status", str(recording.head.get("status", ""))),
        ("records", f"{len(recording.records):,}"),
        ("lost at its start", f"{recording.dropped:,}" if recording.dropped else ""),
        ("seconds", f"{ended - began:.3f}"),
    )
    return tuple((name, value) for name, value in facts if value)
