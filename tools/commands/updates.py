"""`plan` and `apply`: updates of many components from one manifest."""

from __future__ import annotations

from pathlib import Path

import click

from ...flashers.errors import Cancelled
from ...updates.engine import Engine, Outcome, Status, TaskResult, UpdatePlan
from ...updates.errors import ComponentAbsent
from ...updates.update import Update, load
from ..output import describe
from .components import look
from .programming import YES, ask
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
    made = _planned(session, Engine(session.bench), update)
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
    engine = Engine(session.bench, on_event=session.event, cancelled=lambda: session.stopping)
    made = _planned(session, engine, update)
    _print_plan(session, made)
    _confirm(session, made, yes)
    outcome = engine.apply(made)
    session.standing.finish()
    return _told(session, outcome)


def _planned(session: Session, engine: Engine, update: Update) -> UpdatePlan:
    """The plan over the components as they are now. A bus that can't be used ends it if the update needs that bus."""
    found = look(session)
    try:
        made = engine.plan(update, found.components)
    except ComponentAbsent as absent:
        buses = {component.name: component.bus for component in found.components}
        for bus, error in found.faults:
            if bus == buses.get(absent.component or ""):
                error.component = error.component or absent.component
                raise error from absent
        raise
    for _, error in found.faults:
        session.output.fault(error)
    return made


def _confirm(session: Session, made: UpdatePlan, yes: bool) -> None:
    names = sorted({task.target for task in made.tasks if task.component and task.status is Status.TODO})
    real = [name for name in names if session.bench.component(name).real]
    if yes or not real:
        return
    ask(session, f"flash {', '.join(real)}?")


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
            now = task.component.version or task.component.presence
            versions = f"  {wanted}" if task.status is Status.INSTALLED else f"  {now} -> {wanted}"
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


def _told(session: Session, outcome: Outcome) -> int | None:
    """One line a component, the worst of its steps; then the error, if there is one."""
    out = session.output
    rows: dict[str, list[TaskResult]] = {}
    for item in outcome.results:
        rows.setdefault(item.task.target, []).append(item)
    error = outcome.error
    if isinstance(error, Cancelled) and error.touched:
        error.remedy = f"What is done is skipped, and the rest goes on, by: {session.command_line}"
    document = {"update": str(outcome.plan.update.manifest.updateId), "report": outcome.report()}
    out.document(document | ({"error": describe(error)} if error else {}))
    for target, items in rows.items():
        out.line(f"{target}  {_verdict(items)}")
    if error is None:
        return None
    out.fault(error)
    return error.exit_status


def _verdict(items: list[TaskResult]) -> str:
    statuses = [item.task.status for item in items]
    done = [item for item in items if item.task.status is Status.DONE]
    if Status.FAILED in statuses:
        failed = items[statuses.index(Status.FAILED)]
        word = "stopped" if isinstance(failed.error, Cancelled) else "FAILED"
        return f"{word} at step {failed.task.label}: {failed.result.details}"
    if Status.NOT_RUN in statuses:
        first = items[statuses.index(Status.NOT_RUN)]
        return f"not run from step {first.task.label} on" if done else "not run"
    if not done:
        return "OK  installed already"
    details = "; ".join(item.result.details for item in done if item.result.details)
    return f"OK  {details}" if details else "OK"
