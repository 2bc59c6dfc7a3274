"""Verdicts of components and of updates, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from ..flashers.errors import Cancelled
from ..transports.errors import ProxyflashError
from ..updates.engine.report import Outcome, TaskResult
from ..updates.engine.verdict import verdict
from ..updates.errors import JournalBroken
from ..updates.events import Status
from .story import Mood, Table, Verdict

WORST = (Mood.BAD, Mood.OPEN, Mood.GOOD, Mood.PLAIN)
MOODS = {
    Status.DONE: Mood.GOOD,
    Status.INSTALLED: Mood.GOOD,
    Status.RESTORED: Mood.GOOD,
    Status.FAILED: Mood.BAD,
    Status.NOT_RESTORED: Mood.BAD,
}
"""Of the status of a task; any other is open."""


def mood_of(statuses: Iterable[Status]) -> Mood:
    """The worst of the tasks of a component; open if it has none."""
    moods = {MOODS.get(status, Mood.OPEN) for status in statuses}
    return next((mood for mood in WORST if mood in moods), Mood.OPEN)


def total_mood(error: ProxyflashError | None, verdicts: Iterable[Verdict]) -> Mood:
    """The worst of them."""
    if error is not None:
        return Mood.OPEN if isinstance(error, Cancelled) else Mood.BAD
    moods = {one.mood for one in verdicts}
    return next((mood for mood in (Mood.BAD, Mood.OPEN) if mood in moods), Mood.GOOD)


def worst_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """In their order otherwise."""
    return sorted(verdicts, key=lambda one: WORST.index(one.mood))


def summary_of(error: ProxyflashError | None, verdicts: Sequence[Verdict], noun: str = "component") -> str:
    """One sentence."""
    count = len(verdicts)
    things = verdicts[0].name if count == 1 else f"{noun}s"
    match total_mood(error, verdicts):
        case Mood.GOOD if count == 1:
            return f"{things} OK"
        case Mood.GOOD:
            return f"{count} {things} OK" if count else "Done"
        case Mood.OPEN:
            return "Not finished"
    bad = sum(one.mood is Mood.BAD for one in verdicts)
    if count == 1:
        return f"{things} failed"
    return f"{bad} of {count} {things} failed" if bad else "Failed"


def verdicts_of(outcome: Outcome) -> list[Verdict]:
    """One for each component of an update, with its versions."""
    rows: dict[str, list[TaskResult]] = {}
    for item in outcome.results:
        rows.setdefault(item.task.target, []).append(item)
    found = []
    for target, items in rows.items():
        text, component = verdict(items), items[0].task.component
        wanted = next((item.task.wanted for item in reversed(items) if item.task.wanted), "")
        facts = (
            ("before", component.version if component else ""),
            ("wanted", wanted),
            ("holds now", items[-1].holds),
            ("steps", ", ".join(f"{item.task.label} {item.task.status}" for item in items)),
        )
        mood = mood_of(item.task.status for item in items)
        found.append(Verdict(target, text, mood, tuple((name, value) for name, value in facts if value)))
    return found


def tables_of(outcome: Outcome) -> list[Table]:
    """The update, and the components that it was for as they were found."""
    begin = outcome.progress.begin
    update = outcome.plan.update
    facts = [
        ("name", str(update.manifest.updateId)),
        ("number", str(outcome.number)),
        ("ending", outcome.ending.value),
        ("workflow", update.workflow_id or ""),
    ]
    with suppress(JournalBroken):
        facts.append(("SHA-256 of its manifests", str(begin["digest"])))
    made = [Table("Update", tuple((name, value) for name, value in facts if value))]
    files = (file for task in outcome.plan.tasks for file in task.update.manifest.files)
    listed = ((file.filename, f"{file.sizeInBytes:,} bytes, SHA-256 {file.sha256.hex()}") for file in files)
    made.append(Table("Files of the update", tuple(dict.fromkeys(listed))))
    for component in outcome.plan.components:
        known = (
            ("id", component.id),
            ("group", component.group),
            ("manufacturer", component.manufacturer),
            ("model", component.model),
            ("version before", component.version),
            ("where", component.where),
            *component.properties.items(),
        )
        made.append(Table(component.name, tuple((name, value) for name, value in known if value)))
    return made
