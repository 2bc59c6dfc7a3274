"""`Collector`: takes the events of the engine with their times, and makes a story of them and of what passed on the buses.

While the work is under way an event costs one entry of a list; all else is worked out at the end. Of the progress of one
phase only the last event is kept. Events have the time of the recorder's clock, in a replay that of the recording, so that
events and records fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..enumerators.bench import Bench
from ..flashers import events as ev
from ..flashers.errors import Cancelled
from ..flashers.flasher import Identity
from ..transports import clock
from ..transports.errors import ProxyflashError
from ..transports.recording.records import Record
from ..updates.engine.report import Outcome
from ..updates.events import ActionStarted, ComponentFinished, Status, StepFinished, StepStarted
from . import traffic
from .facts import host_tables, identity_of_entry, known_buses
from .memory import MemoryPicture
from .story import Exchange, Facts, Lane, Mark, Mood, Rate, Span, Story, Table, Verdict
from .verdicts import MOODS, mood_of, summary_of, tables_of, total_mood, verdicts_of, worst_first

MOST_EVENTS = 100_000
MOST_EXCHANGES = 20
TIMED = (ev.Phase.ERASE, ev.Phase.WRITE, ev.Phase.VERIFY, ev.Phase.READ)
"""Phases whose bytes have a rate."""
SHORTEST = 0.05
"""Seconds of a phase that has a rate to speak of."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One event and its time. `began`: for the progress of a phase, the time of its first event."""

    time: float
    event: ev.Event


@dataclass
class Collector:
    """`title`: the command, as it was typed. `error`: what it came to, if it failed."""

    title: str
    error: ProxyflashError | None = None
    identities: dict[str, Identity] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    """What is known of a component's image before the work begins; shown with its verdict, whatever that is."""
    tables: list[Table] = field(default_factory=list)
    moments: list[tuple[float, str, str]] = field(default_factory=list)
    """Around which what passed is shown: the time, the component or "", the title."""
    _bench: Bench | None = field(default=None, init=False)
    _verdicts: dict[str, Verdict] = field(default_factory=dict, init=False)
    _events: dict[str, list[Seen]] = field(default_factory=dict, init=False)
    """Of each component, which has its events in one thread."""
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.began = self.now()

    def open(self, bench: Bench) -> None:
        """From now on keeps what passes on the buses of a bench; a replay has that already, and its own time."""
        self._bench = bench
        if bench.replay is None:
            bench.recorder  # noqa: B018 - records from the first time that it is asked for
        else:
            self.began = self.now()

    def now(self) -> float:
        """Seconds since 1970, of the same clock as the records."""
        if self._bench is None:
            return clock.time()
        return self._bench.recorder.now if self._bench.replay is None else self._bench.replay.time

    def tell(self, component: str, text: str, facts: Iterable[tuple[str, str]] = ()) -> None:
        """What became of a component on which the work ended well."""
        self._verdicts[component] = Verdict(component, text, Mood.GOOD, (*self.facts.get(component, ()), *facts))

    def take(self, outcome: Outcome) -> None:
        """What became of an update."""
        for one in verdicts_of(outcome):
            self._verdicts[one.name] = one
        self.tables = tables_of(outcome)

    def see(self, event: ev.Event) -> None:
        """An event, now. Any thread may call this; each component has its events in one thread."""
        seen = Seen(self.now(), event)
        own = self._events.setdefault(event.component, [])
        before = own[-1].event if own else None
        if isinstance(event, ev.Progress) and isinstance(before, ev.Progress) and before.phase is event.phase:
            own[-1] = seen
        elif self._count < MOST_EVENTS:
            self._count += 1
            own.append(seen)

    def story(self, verdict: Verdict | None = None) -> Story:
        """All events so far. `verdict`: of all of it, in the place of those of the components."""
        ended, bench = self.now(), self._bench
        records = self._records()
        of = {name: list(events) for name, events in list(self._events.items())}
        first = [seen.time for events in of.values() for seen in events[:1]]
        began = min([*first, *(record.time for record in records[:1])], default=self.began)
        if self.error is not None and self.error.component is not None:
            of.setdefault(self.error.component, [])
        known = {} if bench is None else known_buses(bench.file)
        wires = traffic.wires(records, known)
        buses = {} if bench is None else {name: entry.spec.bus for name, entry in bench.file.entries.items()}
        pictures = {name: self._picture(name, events) for name, events in of.items()}
        verdicts = worst_first(
            self._verdict(name, of.get(name, ())) for name in dict.fromkeys([*self._verdicts, *self.facts, *of])
        )
        if verdict is not None:
            verdicts = [verdict]
        return Story(
            title=self.title,
            summary=summary_of(self.error, verdicts),
            mood=total_mood(self.error, verdicts),
            began=began,
            ended=ended,
            verdicts=tuple(verdicts),
            error="" if self.error is None else f"{self.error.code} {self.error}",
            lanes=tuple(self._lane(name, events, ended) for name, events in of.items()),
            loads=tuple(traffic.loads(records, wires, began, ended)),
            memories=tuple(memory for name, picture in pictures.items() for memory in picture.memories(name)),
            rates=tuple(
                rate for name, events in of.items() for rate in _rates(name, events, wires.get(buses.get(name, "")))
            ),
            exchanges=tuple(self._exchanges(of, buses, records, ended)),
            tables=(*self._identities(bench, of), *self.tables, *host_tables()),
            notes=("More happened than the page has room for: its end is missing.",) * (self._count >= MOST_EVENTS),
        )

    def _records(self) -> Sequence[Record]:
        if self._bench is None:
            return ()
        if self._bench.replay is not None:
            return self._bench.replay.recording.records
        return self._bench.recorder.records(clock.monotonic() - (self.now() - self.began))

    def _verdict(self, name: str, events: Sequence[Seen]) -> Verdict:
        """The last verdict on a component. If there was none, its events give one."""
        if name in self._verdicts:
            return self._verdicts[name]
        for seen in reversed(events):
            if isinstance(seen.event, ComponentFinished):
                return Verdict(name, seen.event.verdict, mood_of(seen.event.statuses))
        if self.error is not None and self.error.component in (name, None):
            mood = Mood.OPEN if isinstance(self.error, Cancelled) else Mood.BAD
            return Verdict(name, f"{self.error.code}: {self.error.cause}", mood, self.facts.get(name, ()))
        return Verdict(name, "no verdict", Mood.OPEN, self.facts.get(name, ()))

    def _picture(self, name: str, events: Iterable[Seen]) -> MemoryPicture:
        picture = MemoryPicture()
        for seen in events:
            picture.take(seen.event)
        if self.error is not None and self.error.component in (name, None) and not isinstance(self.error, Cancelled):
            picture.fail()
        return picture

    def _lane(self, name: str, events: Sequence[Seen], ended: float) -> Lane:
        spans: list[Span] = []
        steps: list[Span] = []
        marks: list[Mark] = []
        running: list[tuple[ev.Phase, float]] = []
        step: tuple[str, float] | None = None
        failed = self.error is not None and self.error.component in (name, None)

        def stop(time: float, mood: Mood) -> None:
            while running:
                phase, since = running.pop()
                spans.append(Span(phase.value, since, time, "", mood))

        for seen in events:
            match seen.event:
                case ev.PhaseStarted(phase=phase):
                    running.append((phase, seen.time))
                case ev.PhaseFinished() as done:
                    for place in range(len(running) - 1, -1, -1):
                        if running[place][0] is done.phase:
                            since = running.pop(place)[1]
                            spans.append(Span(done.phase.value, since, seen.time, _of(done), Mood.GOOD))
                            break
                case ev.Retrying() as again:
                    stop(seen.time, Mood.BAD)
                    marks.append(
                        Mark(
                            seen.time,
                            f"{again.phase}: {again.code} {again.cause}; attempt {again.attempt} of {again.attempts}",
                        )
                    )
                case StepStarted() as begun:
                    step = f"step {begun.label} {begun.description}".rstrip(), seen.time
                case ActionStarted(action="restore"):
                    stop(seen.time, Mood.BAD)
                    marks.append(Mark(seen.time, "restore"))
                case StepFinished() as over:
                    stop(seen.time, MOODS.get(over.status, Mood.OPEN))
                    if step is not None:
                        steps.append(Span("step", step[1], seen.time, step[0], MOODS.get(over.status, Mood.OPEN)))
                    step = None
                case _:
                    pass
        mood = Mood.OPEN if isinstance(self.error, Cancelled) else Mood.BAD
        stop(ended, mood if failed else Mood.PLAIN)
        if step is not None:
            steps.append(Span("step", step[1], ended, step[0], mood if failed else Mood.OPEN))
        if failed and self.error is not None:
            marks.append(Mark(ended, f"{self.error.code} {self.error.cause}", mood))
        spans.sort(key=lambda span: span.start)
        return Lane(name, tuple(spans), tuple(marks), tuple(steps))

    def _exchanges(
        self,
        of: Mapping[str, Sequence[Seen]],
        buses: Mapping[str, str],
        records: Sequence[Record],
        ended: float,
    ) -> Iterator[Exchange]:
        moments = list(self.moments)
        for name, events in of.items():
            for seen in events:
                if isinstance(seen.event, ev.Retrying):
                    moments.append((seen.time, name, f"{name}: {seen.event.code}, before attempt {seen.event.attempt}"))
                elif isinstance(seen.event, StepFinished) and seen.event.status is Status.FAILED:
                    moments.append((seen.time, name, f"{name}: step {seen.event.label} failed"))
        place = getattr(self.error, "bus", "")
        """A replay says on which bus it differs."""
        if self.error is not None and (self.error.is_of_a_part or place):
            where = self.error.component or ""
            moments.append((ended, where, f"{where}: {self.error.code}" if where else self.error.code))
        file = None if self._bench is None else self._bench.file
        messages = traffic.messages(records, file) if moments else []
        for time, name, title in sorted(moments)[-MOST_EXCHANGES:]:
            found = traffic.around(title, messages, time, buses.get(name, ""))
            if found is not None:
                yield found

    def _identities(self, bench: Bench | None, names: Iterable[str]) -> Iterator[Table]:
        for name in names:
            facts: list[tuple[str, str]] = []
            entry = None if bench is None else bench.file.entries.get(name)
            if entry is not None:
                facts += identity_of_entry(entry)
            identity = self.identities.get(name)
            if identity is not None:
                facts += [
                    ("part", identity.part),
                    ("serial number", identity.serial),
                    ("application", identity.version),
                    ("bootloader", identity.bootloader),
                    *identity.details.items(),
                ]
            kept = tuple((key, value) for key, value in facts if value)
            if kept:
                yield Table(name, kept)


def _of(done: ev.PhaseFinished) -> str:
    size = f"{done.total:,} bytes" if done.total else ""
    return ", ".join(filter(None, (size, done.detail)))


def _rates(name: str, events: Iterable[Seen], wire: traffic.Wire | None) -> Iterator[Rate]:
    since: dict[ev.Phase, float] = {}
    sums: dict[ev.Phase, tuple[int, float]] = {}
    for seen in events:
        match seen.event:
            case ev.PhaseStarted(phase=phase):
                since[phase] = seen.time
            case ev.PhaseFinished(phase=phase, total=total) if phase in since and phase in TIMED:
                size, seconds = sums.get(phase, (0, 0.0))
                sums[phase] = size + total, seconds + seen.time - since.pop(phase)
    for phase, (size, seconds) in sums.items():
        if size and seconds > SHORTEST:
            has_limit = wire is not None and phase in (ev.Phase.WRITE, ev.Phase.READ)
            limit = (wire.carries, wire.text) if wire is not None and has_limit else ()
            yield Rate(name, phase.value, size, seconds, *limit)
