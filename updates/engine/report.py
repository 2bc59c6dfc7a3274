"""What became of an update: a result for each task, and the report in the shape of Azure Device Update's agent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ...transports.errors import ExitStatus, NextAction, ProxyflashError
from ..errors import StepFailed
from ..events import Status
from .action import Action
from .plan import Task, UpdatePlan
from .progress import Ending, Progress, TaskProgress
from .results import ActionResult, ResultCode

IDLE = 0
IN_PROGRESS = 6
FAILED = 255
"""The agent's states of an update: the ones that it reports."""
PROCESS_DEPLOYMENT = 3
"""The agent's action of a workflow."""
AMID_RESTORE = "stopped while being brought back"
WHOLE = (Status.DONE, Status.INSTALLED, Status.RESTORED, Status.NOT_BROUGHT_BACK)
"""What a task has come to whose component holds what was wanted, or what it had before."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of one task. `actions`: what was tried, and what each came to."""

    task: Task
    result: ActionResult
    error: ProxyflashError | None = None
    actions: Mapping[Action, ActionResult] = field(default_factory=dict)
    touched: bool = False
    told: str | None = None
    """The version that the component reported last, "": none, or none since it was torn; None: not asked since the plan."""

    @property
    def restored(self) -> ActionResult | None:
        """What its restore came to; None: there was none."""
        return self.actions.get(Action.RESTORE)

    @property
    def as_before(self) -> bool:
        """Whether its component is as it was before, as far as this task is concerned."""
        return not self.touched or (self.restored is not None and self.restored.brought_back)

    @property
    def is_torn(self) -> bool:
        """Whether its component was changed, and holds neither what was wanted nor what it had before."""
        return not self.as_before and self.task.status not in WHOLE

    @property
    def is_as_wanted(self) -> bool:
        """Whether it was installed, and a rollback had nothing to bring back with: its component holds what was wanted."""
        applied = self.actions.get(Action.APPLY)
        untouched = self.restored is not None and self.restored.code == ResultCode.RESTORE_UNSUPPORTED
        return self.task.status is Status.NOT_RESTORED and untouched and applied is not None and applied.succeeded

    @property
    def can_be_brought_back(self) -> bool:
        """Whether another rollback may do what the last restore could not."""
        return self.is_torn and (self.restored is None or self.restored.code != ResultCode.RESTORE_UNSUPPORTED)

    @property
    def holds(self) -> str:
        """The version that the component has now, as the component reported it last; "": that isn't known."""
        if self.task.component is None or self.is_torn:
            return ""
        if self.told is None:
            return self.task.component.version if not self.touched else ""
        return self.told


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an update so far. `number`: its place in the history. `halt`: why it isn't at its end.

    `restart`: what is to be said of a restart that what was brought back needs.
    """

    plan: UpdatePlan
    progress: Progress
    number: int
    halt: ProxyflashError | None = None
    restart: str = ""

    @property
    def ending(self) -> Ending:
        return self.progress.ending

    @property
    def results(self) -> list[TaskResult]:
        """One for each task, in order, also for those that were not run."""
        return results_of(self.plan.tasks, self.progress)

    @property
    def ended(self) -> dict[str, list[TaskResult]]:
        """The components of which the update has nothing more to do or to undo, as far as is known, with their results."""
        rows: dict[str, list[TaskResult]] = {}
        for item in self.results:
            rows.setdefault(item.task.target, []).append(item)
        return {target: items for target, items in rows.items() if self._is_ended({item.task.status for item in items})}

    def _is_ended(self, statuses: set[Status]) -> bool:
        if self.progress.rolling_back:
            undone = {Status.RESTORED, Status.NOT_RESTORED, Status.FAILED}
            return bool(statuses & undone) and not statuses & {Status.DONE, Status.STOPPED, Status.NOT_BROUGHT_BACK}
        return Status.FAILED in statuses or statuses <= {Status.DONE, Status.INSTALLED}

    @property
    def error(self) -> ProxyflashError | None:
        """What keeps it from its end, else what made it fail."""
        if self.halt is not None:
            return self.halt
        found = self._failure
        if found is not None and self.progress.over and found.exit_status is ExitStatus.RESUMABLE:
            # A component can be flashed again; the update doesn't go on.
            found = found.advised(found.advice)
            found.exit_status = ExitStatus.FAILED
        return found

    @property
    def _failure(self) -> ProxyflashError | None:
        # What was undone on request is judged by what came back, not by why it was undone.
        undoing = self.progress.undoing and self.progress.over
        failed = None if undoing else next((item.error for item in self.results if item.error is not None), None)
        left = ", ".join(dict.fromkeys(item.task.target for item in self.results if item.is_torn))
        if not left or not self.progress.over or self.ending is Ending.ABANDONED:
            return failed
        again: tuple[str | NextAction, ...] = ()
        if any(item.can_be_brought_back for item in self.results):
            again = ("Once the cause is mended, bring back what is left: ", NextAction.ROLLBACK)
        if failed is None:
            by_hand = [item for item in self.results if item.is_torn and not item.can_be_brought_back]
            again = (
                *again,
                *undoing_by_hand([item.task for item in by_hand], follows=bool(again)),
            )
            return StepFailed(f"not everything could be brought back: {left} could not", remedy=again)
        return failed.advised((*failed.advice, " ", *again)) if again else failed

    @property
    def succeeded(self) -> bool:
        return self.error is None and self.ending in (Ending.SUCCEEDED, Ending.ROLLED_BACK)

    @property
    def changed(self) -> bool:
        """Whether any task was carried out."""
        return self.progress.touched

    def report(self) -> dict[str, Any]:
        """The report in the agent's shape, with `componentResults` and `passedOver` beside its step results."""
        results = self.results
        manifest = self.plan.update.manifest
        steps = {
            f"step_{number}": _step([item for item in results if item.task.number == number]).report()
            for number in range(len(manifest.instructions.steps))
        }
        identity = {"provider": manifest.updateId.provider, "name": manifest.updateId.name}
        installed = json.dumps({**identity, "version": manifest.updateId.version}, separators=(",", ":"))
        return {
            "state": self._state(),
            "workflow": {"action": PROCESS_DEPLOYMENT, "id": self.plan.update.workflow_id},
            "installedUpdateId": installed if self.ending is Ending.SUCCEEDED else "",
            "lastInstallResult": {**self._total(results).report(), "stepResults": steps},
            "componentResults": [_component(item) for item in results],
            "passedOver": [
                {"component": name, "reason": reason}
                for name, reason in self.progress.begin.get("passed_over", {}).items()
            ],
        }

    def _state(self) -> int:
        match self.ending:
            case Ending.UNFINISHED | Ending.AWAITING:
                return IN_PROGRESS
            case Ending.SUCCEEDED | Ending.CANCELLED | Ending.ABANDONED:
                # The agent is idle after a cancelled deployment too, with a result that says so.
                return IDLE
        # Also when all was brought back: what was deployed is not there.
        return FAILED

    def _total(self, results: list[TaskResult]) -> ActionResult:
        match self.ending:
            case Ending.SUCCEEDED:
                return ActionResult(ResultCode.APPLY_SUCCESS)
            case Ending.ROLLED_BACK if self.error is None:
                return ActionResult(ResultCode.RESTORE_SUCCESS)
            case Ending.CANCELLED | Ending.ABANDONED:
                return ActionResult(ResultCode.CANCELLED, details=self.progress.stopped or self.ending.value)
        if self.ending is Ending.PARTLY_ROLLED_BACK and self.progress.undoing and self.error is not None:
            return ActionResult(ResultCode.FAILURE, details=self.error.cause)
        failed = next((item for item in results if item.error is not None), None)
        if failed is not None:
            return failed.result
        if self.ending is Ending.AWAITING:
            return next(
                (item.result for item in results if item.task.status is Status.AWAITING),
                ActionResult(ResultCode.INSTALL_REBOOT),
            )
        return ActionResult(ResultCode.CANCELLED, details=self.progress.stopped or self.ending.value)


def results_of(tasks: Sequence[Task], progress: Progress) -> list[TaskResult]:
    """What became of some tasks: all of the components that they are for."""
    pairs = [(task, progress.tasks[task.index]) for task in tasks]
    targets = {task.index: task.target for task in tasks}
    told = {targets[index]: (version, index) for index, version in list(progress.holds.items()) if index in targets}
    failed = {task.target for task, state in pairs if state.status is Status.FAILED}
    found = [_result(task, state, progress, may_wait=task.target not in failed) for task, state in pairs]
    torn: dict[str, float] = {}
    for item in found:
        if item.is_torn:
            state = progress.tasks[item.task.index]
            torn[item.task.target] = max(torn.get(item.task.target, 0), state.ended if state.finished else math.inf)

    def last_told(target: str) -> str | None:
        """What a component reported before it was torn doesn't hold any more."""
        version, index = told.get(target, (None, None))
        since = 0 if index is None else progress.tasks[index].ended
        return "" if torn.get(target, 0) > since else version

    return [replace(item, told=last_told(item.task.target)) for item in found]


def _result(task: Task, state: TaskProgress, progress: Progress, *, may_wait: bool) -> TaskResult:
    status = state.status
    if status is Status.TODO:
        status = Status.STOPPED if state.begun or state.failing else Status.NOT_RUN
    if status is Status.NOT_RUN and progress.ending is Ending.AWAITING and may_wait:
        status = Status.WAITING
    code = ResultCode.INSTALL_IN_PROGRESS if status is Status.WAITING else ResultCode.CANCELLED
    result = state.result or ActionResult(code, details=_why_not(status, state, progress))
    if progress.rolling_back and not progress.over and state.touched and status in (Status.DONE, Status.STOPPED):
        status, details = _to_bring_back(status, state)
        result = ActionResult(ResultCode.CANCELLED, details=details)
    error = state.error
    return TaskResult(replace(task, status=status), result, error, state.results, state.touched)


def undoing_by_hand(tasks: Sequence[Task], *, follows: bool = False) -> tuple[str | NextAction, ...]:
    """What a person does about tasks of which nothing was kept. `follows`: another advice stands before."""
    found: list[str | NextAction] = []
    for task in tasks:
        begin = ". " if follows or found else ""
        if not (task.handler.enters_bootloader and task.component):
            found.append(f"{begin}{task.target}: undo by hand what step {task.label} ({task.step.handler}) has done")
            continue
        had = f" with {task.component.version}, which it had" if task.component.version else " with what it had"
        found += (f"{begin}{task.target}: flash it{had}: ", NextAction.FLASH, f" {task.target} FILE")
    return tuple(found)


def _to_bring_back(status: Status, state: TaskProgress) -> tuple[Status, str]:
    """What is said of a task that a rollback, which isn't at its end, has yet to undo."""
    if state.started is Action.RESTORE:
        return Status.STOPPED, f"{AMID_RESTORE}: {state.stopped}" if state.stopped else AMID_RESTORE
    return Status.NOT_BROUGHT_BACK if status is Status.DONE else status, Status.NOT_BROUGHT_BACK.value


def _why_not(status: Status, state: TaskProgress, progress: Progress) -> str:
    if status is Status.NOT_RUN and progress.undoing:
        return "nothing to bring back"
    if status is not Status.STOPPED:
        return status.value
    return state.stopped or (progress.stopped if not progress.stopped_at_a_task else "") or status.value


def _step(own: list[TaskResult]) -> ActionResult:
    """The result of one of the parent's steps, over its components."""
    if not own:
        return ActionResult(ResultCode.INSTALL_NO_MATCHING_COMPONENTS)
    failed = next((item.result for item in own if item.error is not None), None)
    waiting = {item.task.target: item.result for item in own if item.task.status is Status.AWAITING}
    # What a component has yet to do after its restart is not a failure of the step.
    others = [item.result for item in own if item.task.target not in waiting]
    failed = failed or next((result for result in others if not result.succeeded), None)
    if failed is not None:
        return failed
    if waiting:
        return next(iter(waiting.values()))
    behind = next((item.result for item in own if item.task.status is Status.WAITING), None)
    if behind is not None:
        return behind
    for code in (ResultCode.INSTALL_ALREADY_INSTALLED, ResultCode.INSTALL_NO_MATCHING_COMPONENTS):
        if all(item.result.code == code for item in own):
            return own[0].result
    return ActionResult(ResultCode.APPLY_SUCCESS)


def _component(item: TaskResult) -> dict[str, Any]:
    found: dict[str, Any] = {
        "component": item.task.target,
        "step": item.task.label,
        "status": item.task.status.value,
        **item.result.report(),
        "before": item.task.component.version if item.task.component else "",
        "wanted": item.task.wanted,
        "holds": item.holds,
        "actions": {action.value: result.code for action, result in item.actions.items()},
    }
    if item.restored is not None:
        found["restore"] = item.restored.report()
    if item.is_torn and item.error is not None and item.error.left is not None:
        found["left"] = asdict(item.error.left)
    return found
