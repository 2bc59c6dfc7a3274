"""`plan` and `apply`: updates of many components from one manifest."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ...enumerators.component import Component
from ...flashers import events as ev
from ...flashers.errors import Cancelled
from ...transports.errors import ExitStatus
from ...updates.engine import Engine, Outcome, Status, TaskResult, UpdatePlan
from ...updates.update import Update, load
from ..output import Mode
from .programming import YES, NotConfirmed
from .session import Session, command

MANIFEST = click.argument("manifest", type=click.Path(path_type=Path))


@command("plan")
@MANIFEST
def plan(session: Session, manifest: Path) -> int | None:
    """What an update would do: each step, on which component, in which order, and what is skipped.

    Checks the manifest and every file of it first. Sends nothing that writes.

    \b
    proxyflash plan update.importmanifest.json
    """
    update = load(manifest)
    made = Engine(session.bench).plan(update, _components(session))
    session.output.document(_plan_document(made))
    _print_plan(session, made)
    return None


@command("apply")
@MANIFEST
@YES
def apply(session: Session, manifest: Path, yes: bool) -> int | None:
    """Carries out an update: makes the same plan as `plan`, then does it.

    The first failure ends it. Every component that the update selects gets its own verdict.

    \b
    proxyflash apply update.importmanifest.json
    """
    update = load(manifest)
    session.catch_interrupts()

    def watch(event: ev.Event) -> None:
        if isinstance(event, ev.PhaseStarted) and event.phase in (ev.Phase.ERASE, ev.Phase.WRITE, ev.Phase.VERIFY):
            session.doing = f"{event.component} was in its {event.phase} phase"
        session.output.event(event)

    engine = Engine(session.bench, on_event=watch, cancelled=lambda: session.stopping)
    made = engine.plan(update, _components(session))
    _print_plan(session, made)
    _confirm(session, made, yes)
    outcome = engine.apply(made)
    session.doing = ""
    session.output.document({"update": str(update.manifest.updateId), "report": outcome.report()})
    return _verdicts(session, outcome)


def _components(session: Session) -> list[Component]:
    found = session.bench.scan()
    if found.faults:
        raise found.faults[0][1]
    return list(found.components)


def _confirm(session: Session, made: UpdatePlan, yes: bool) -> None:
    names = sorted({task.target for task in made.tasks if task.component and task.status is Status.TODO})
    real = [name for name in names if not session.bench.component(name).emulated]
    if yes or not real:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed(f"this would flash {', '.join(real)}, and nobody is there to say yes")
    if not click.confirm(f"update {', '.join(real)}?", err=True):
        raise click.Abort


def _title(update: Update) -> str:
    manifest = update.manifest
    about = f"  {manifest.description}" if manifest.description else ""
    return f"{manifest.updateId}{about}"


def _print_plan(session: Session, made: UpdatePlan) -> None:
    out = session.output
    out.line(_title(made.update))
    targets = max((len(task.target) for task in made.tasks), default=0)
    labels = max((len(task.label) for task in made.tasks), default=0)
    for task in made.tasks:
        versions = ""
        if task.component and (wanted := task.step.handlerProperties.get("installedCriteria")):
            versions = f"  {task.component.version or task.component.presence} -> {wanted}"
        state = "" if task.status is Status.TODO else f"  ({task.status})"
        about = task.step.description or ", ".join(task.step.files)
        out.line(f"  {task.label:<{labels}}  {task.target:<{targets}}  {task.step.handler}  {about}{versions}{state}")
    for number in made.empty:
        out.line(f"  {number + 1:<{labels}}  no component matches: skipped")


def _plan_document(made: UpdatePlan) -> dict[str, object]:
    return {
        "update": str(made.update.manifest.updateId),
        "tasks": [
            {
                "step": task.label,
                "component": task.component.name if task.component else None,
                "handler": task.step.handler,
                "description": task.step.description,
                "files": list(task.step.files),
                "status": task.status.value,
            }
            for task in made.tasks
        ],
        "skipped_steps": [number + 1 for number in made.empty],
    }


def _verdicts(session: Session, outcome: Outcome) -> int | None:
    """One line a component, the worst of its steps; then the error, if there is one."""
    rows: dict[str, list[TaskResult]] = {}
    for item in outcome.results:
        rows.setdefault(item.task.target, []).append(item)
    error = outcome.error
    for target, items in rows.items():
        session.output.line(f"{target}  {_verdict(items)}")
    if error is None:
        return None
    if isinstance(error, Cancelled):
        error.remedy = f"Steps that are done are skipped by: {session.command_line}"
    if session.output.mode is Mode.TEXT:
        session.output.error(error)
    interrupted = isinstance(error, Cancelled) and any(item.task.status is Status.DONE for item in outcome.results)
    return ExitStatus.RESUMABLE if interrupted else error.exit_status


def _verdict(items: list[TaskResult]) -> str:
    statuses = [item.task.status for item in items]
    if Status.FAILED in statuses:
        failed = items[statuses.index(Status.FAILED)]
        return f"FAILED at step {failed.task.label}: {failed.result.details}"
    if Status.NOT_RUN in statuses:
        return "not run"
    if all(status is Status.INSTALLED for status in statuses):
        return "OK  installed already"
    details = "; ".join(item.result.details for item in items if item.result.details)
    return f"OK  {details}" if details else "OK"
