"""What a page shows, as values: a `Story` has all of it, and `page` draws it. Nothing here knows HTML.

Times are seconds since 1970, rates are bytes a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Mood(StrEnum):
    """What a verdict or a piece of a timeline amounts to, for its colour and its sign."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"
    """Neither yet: interrupted, waiting, not run."""
    PLAIN = "plain"


class State(StrEnum):
    """What became of a stretch of a part's memory."""

    UNTOUCHED = "untouched"
    PRESENT = "already there"
    SKIPPED = "skipped"
    """Erased, and not written because the image has the erased value there."""
    PLANNED = "not done"
    """To be erased or written, and that was not reached."""
    ERASED = "erased"
    UNWRITTEN = "not written"
    """Erased, and the image's bytes were not written."""
    WRITTEN = "written"
    VERIFIED = "verified"
    FAILED = "failed"


Facts = tuple[tuple[str, str], ...]
"""Names and values, in order."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one component, or of one test. `link`: of a page that says more."""

    name: str
    text: str
    mood: Mood
    facts: Facts = ()
    link: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a timeline. `kind`: the phase or the action."""

    kind: str
    start: float
    end: float
    text: str = ""
    mood: Mood = Mood.PLAIN


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a timeline: a retry, a failure, an interruption."""

    time: float
    text: str
    mood: Mood = Mood.OPEN


@dataclass(frozen=True, slots=True)
class Lane:
    """The timeline of one component: `steps` of an update above the `spans` of the work."""

    name: str
    spans: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()
    steps: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a bus was: the share of its time in each of as many equal stretches of the timeline. `limit`: in words.

    `unknown`: why nothing can be said of that share, "" where it is known.
    """

    bus: str
    limit: str
    shares: tuple[float, ...]
    records: int
    marks: tuple[Mark, ...] = ()
    unknown: str = ""

    @property
    def peak(self) -> float:
        return max(self.shares, default=0.0)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a memory that came to the same."""

    start: int
    size: int
    state: State

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory of a part, from its start to its end without gaps. A slot begins at 0.

    `flashes`: how many flashes made it so, one after the other; a retry is not one more.
    """

    component: str
    name: str
    start: int
    size: int
    stretches: tuple[Stretch, ...]
    flashes: int = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast bytes went in one phase. `limit`: the most that the wire carries, 0.0: not known; `wire`: that in words."""

    component: str
    phase: str
    size: int
    seconds: float
    limit: float = 0.0
    wire: str = ""

    @property
    def rate(self) -> float:
        return self.size / self.seconds if self.seconds > 0 else 0.0

    @property
    def share(self) -> float:
        return min(1.0, self.rate / self.limit) if self.limit else 0.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an exchange. `time`: relative to what the exchange is shown for. `sent`: to the part; None: neither way."""

    time: float
    bus: str
    sent: bool | None
    words: str
    failed: bool = False

    @property
    def arrow(self) -> str:
        return "·" if self.sent is None else "→" if self.sent else "←"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What passed around a moment. `left_out`: how many messages before those that are shown."""

    title: str
    messages: tuple[Message, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference of two recordings on one bus. `place`: where that is, in words. Each side has its messages."""

    bus: str
    place: str
    sides: tuple[Exchange, Exchange]


@dataclass(frozen=True, slots=True)
class Table:
    """Facts of one thing: a component's identity, the host, the versions."""

    title: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Story:
    """All that a page shows. `summary`: the one sentence at its top; `error`: why it isn't good, and what to do."""

    title: str
    summary: str
    mood: Mood
    began: float
    ended: float
    verdicts: tuple[Verdict, ...] = ()
    error: str = ""
    lanes: tuple[Lane, ...] = ()
    loads: tuple[Load, ...] = ()
    memories: tuple[Memory, ...] = ()
    rates: tuple[Rate, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    differences: tuple[Difference, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What the page does not have, and why."""
