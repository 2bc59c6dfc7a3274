"""The engine's events while it works: typed values, to one callback. The library prints nothing.

Each carries `component`, the component's name. `--jsonl` prints their `kind`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Phase(StrEnum):
    """The phases of programming one component, in order. The first that changes the part is `ERASE`."""

    CONNECT = "connect"
    COMPARE = "compare"
    PLAN = "plan"
    ERASE = "erase"
    WRITE = "write"
    VERIFY = "verify"
    BOOT = "boot"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str] = "event"
    component: str


Run = tuple[int, int]
"""An address, and how many bytes from there on."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in the part's memory a plan does what. Neighbours are joined into one run.

    `regions`: each memory's name, address and size. `erase` and `writes`: in the order in which they are done. `rewritten`:
    what writing erases. `present`: what holds the image already.
    """

    regions: tuple[tuple[str, int, int], ...] = ()
    image: tuple[Run, ...] = ()
    present: tuple[Run, ...] = ()
    erase: tuple[Run, ...] = ()
    rewritten: tuple[Run, ...] = ()
    writes: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """What will be done; sizes in bytes, `seconds` None where nothing is known of the part's pace. What is erased counts
    whether a command erases it or writing does; `replaces`: the slot whose contents go, "" where there is none;
    `left_out`: what of the file is not written, and why; `rate`: of the part's serial line, "" where it is on none;
    `default_rate`: that nobody gave this rate, and how to give one; `unchecked`: what of the image is not held against the part.
    `layout`: at which addresses."""

    kind: ClassVar[str] = "planned"
    image_bytes: int
    memory_bytes: int
    erase_units: int
    erase_bytes: int
    write_bytes: int
    blank_bytes: int
    present_bytes: int
    seconds: float | None
    replaces: str = ""
    left_out: tuple[str, ...] = ()
    rate: str = ""
    default_rate: str = ""
    unchecked: str = ""
    layout: Layout = Layout()


@dataclass(frozen=True, slots=True)
class PhaseStarted(Event):
    """`total` is in bytes; 0 where there is nothing to count."""

    kind: ClassVar[str] = "phase"
    phase: Phase
    total: int = 0


@dataclass(frozen=True, slots=True)
class Preparing(Event):
    """What is done to the part before an upload, such as "erases slot 1"."""

    kind: ClassVar[str] = "preparing"
    what: str


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """`done` of `total` bytes, acknowledged by the part."""

    kind: ClassVar[str] = "progress"
    phase: Phase
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class PhaseFinished(Event):
    """`seconds` that the phase took; `detail` in words, such as how it was verified."""

    kind: ClassVar[str] = "phase-done"
    phase: Phase
    total: int
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """An attempt failed; another one follows. `cause` is the error's text, `code` its code."""

    kind: ClassVar[str] = "retry"
    phase: Phase
    attempt: int
    attempts: int
    code: str
    cause: str


EventSink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The sink of those who don't listen."""


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class RunContext:
    """Who gets the events, and who says when to stop.

    `cancelled`: asked between two units of work; true stops there, with Cancelled.
    """

    on_event: EventSink = ignore
    cancelled: Callable[[], bool] = never

    def watched(self, sink: EventSink) -> RunContext:
        """The same, with one more sink, which gets each event first."""

        def both(event: Event) -> None:
            sink(event)
            self.on_event(event)

        return RunContext(both, self.cancelled)


QUIET = RunContext()
"""Nobody listens, and nobody stops it."""
