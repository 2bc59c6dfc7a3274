"""`verdict`: what became of one component of an update, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..events import Status
from .report import AMID_RESTORE, TaskResult
from .results import ActionResult, ResultCode

PASSED_OVER = "absent, and optional: passed over"
"""Of a component that the update would be for as well."""
NOT_SELECTED = "no step of the update selects it"


def verdict(items: Sequence[TaskResult]) -> str:
    """What became of a component, by the results of its tasks; the worst of them counts."""
    statuses = [item.task.status for item in items]
    for status, said in ((Status.FAILED, "FAILED"), (Status.NOT_RESTORED, "NOT RESTORED"), (Status.STOPPED, "stopped")):
        if status in statuses:
            worst = items[statuses.index(status)]
            if status is Status.STOPPED and worst.result.details.startswith((AMID_RESTORE, Status.NOT_BROUGHT_BACK)):
                return worst.result.details
            return f"{said} at step {worst.task.label}: {_why(worst)}{_restored(worst)}"
    if Status.NOT_BROUGHT_BACK in statuses:
        return Status.NOT_BROUGHT_BACK.value
    if Status.AWAITING in statuses:
        return f"awaits a restart, at step {items[statuses.index(Status.AWAITING)].task.label}"
    if Status.WAITING in statuses:
        return f"waits for a restart, from step {items[statuses.index(Status.WAITING)].task.label} on"
    if Status.RESTORED in statuses:
        return _brought_back(items[statuses.index(Status.RESTORED)].restored)
    done = [item for item in items if item.task.status is Status.DONE]
    if Status.NOT_RUN in statuses:
        first = items[statuses.index(Status.NOT_RUN)]
        return f"not run from step {first.task.label} on" if done else first.result.details
    if not done:
        return "OK  installed already"
    details = "; ".join(item.result.details for item in done if item.result.details)
    return f"OK  {details}" if details else "OK"


def _why(item: TaskResult) -> str:
    if item.result.code == ResultCode.RESTORE_UNSUPPORTED:
        return item.result.details or f"{item.task.step.handler} has nothing to bring back"
    return item.result.details or item.task.status


def _restored(item: TaskResult) -> str:
    """What came of the restore after a failure: nothing where the handler has none."""
    if item.restored is None or item.task.status is not Status.FAILED:
        return ""
    if not item.restored.succeeded:
        return f"; NOT restored: {item.restored.details}"
    return "" if item.restored.code == ResultCode.RESTORE_UNSUPPORTED else f"; {_brought_back(item.restored)}"


def _brought_back(result: ActionResult | None) -> str:
    return f"restored: {result.details}" if result and result.details else "restored"
