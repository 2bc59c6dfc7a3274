"""The story of an update that was made before: of its journal and of its report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..updates.engine import journal
from ..updates.engine.plan import Task
from ..updates.engine.progress import Kind
from ..updates.engine.report import Outcome
from ..updates.engine.store import StoredUpdate
from .facts import host_tables
from .story import Lane, Mark, Mood, Span, Story
from .verdicts import summary_of, tables_of, total_mood, verdicts_of, worst_first

OF_A_JOURNAL = (
    "This page is made of the update's journal. The journal has the actions of each step, with their times and results. It has "
    "no phases, no memory maps, no throughput and no traffic, so this page can't show them. To have them next time, give "
    "--report to the command that carries out the update. Host and versions are those of now."
)


@dataclass
class _Row:
    """The timeline of one component as it grows."""

    spans: list[Span] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    running: tuple[str, str, float] | None = None


def story(outcome: Outcome, entry: StoredUpdate) -> Story:
    """Raises JournalBroken."""
    records = list(journal.timed(journal.records(entry.journal)))
    verdicts = worst_first(verdicts_of(outcome))
    error = outcome.error
    return Story(
        title=str(outcome.plan.update.manifest.updateId),
        summary=f"{outcome.ending.value.capitalize()}: {summary_of(error, verdicts)}",
        mood=total_mood(error, verdicts),
        began=records[0][0],
        ended=records[-1][0],
        verdicts=tuple(verdicts),
        error="" if error is None else f"{error.code} {error}",
        lanes=tuple(_lanes(outcome, records)),
        tables=(*tables_of(outcome), *host_tables()),
        notes=(OF_A_JOURNAL,),
    )


def _lanes(outcome: Outcome, records: list[tuple[float, journal.Record]]) -> Iterator[Lane]:
    rows: dict[str, _Row] = {}
    tasks: dict[int, Task] = {item.task.index: item.task for item in outcome.results}
    for task in tasks.values():
        rows.setdefault(task.target, _Row())
    for time, record in records:
        kind = Kind(record["kind"])
        index = record.get("task", -1)
        if index in tasks:
            _add(rows[tasks[index].target], time, kind, record, tasks[index])
        elif kind in (Kind.RESUMED, Kind.ROLLBACK, Kind.STOPPED, Kind.RESTART):
            for row in rows.values():
                _end(row, time, Mood.OPEN)
                row.marks.append(Mark(time, kind.value))
    last = records[-1][0]
    for name, row in rows.items():
        _end(row, last, Mood.OPEN)
        yield Lane(name, tuple(row.spans), tuple(row.marks))


def _add(row: _Row, time: float, kind: Kind, record: journal.Record, task: Task) -> None:
    mood = Mood.BAD if kind is Kind.FAILED or "error" in record else Mood.OPEN if kind is Kind.STOPPED else Mood.GOOD
    if kind is Kind.START:
        _end(row, time, Mood.OPEN)
        row.running = str(record["action"]), f"step {task.label}", time
    elif kind in (Kind.END, Kind.FAILED, Kind.STOPPED):
        result = str(record.get("details") or "")
        _end(row, time, mood, result)
        if mood is not Mood.GOOD:
            row.marks.append(Mark(time, f"step {task.label}: {result or record.get('cause', kind)}", mood))


def _end(row: _Row, time: float, mood: Mood, result: str = "") -> None:
    """Ends the action that is under way. `result`: what the handler says of it."""
    if row.running is not None:
        action, step, since = row.running
        row.spans.append(Span(action, since, time, f"{step}: {result}" if result else step, mood))
        row.running = None
