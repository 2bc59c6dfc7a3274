"""Ordered execution: plans an update over the components that it selects, and carries it out step by step.

The order is Azure Device Update's: the steps as written; for a reference step, each selected component in turn, and for
each of these the child's steps in order. Per step and component: IsInstalled, then Install and Apply unless it is. All
downloads come before the first install. The first failure ends the update; a step without a component is skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar

from ..enumerators.bench import Bench
from ..enumerators.component import Component, Presence, select
from ..flashers import events as ev
from ..flashers.errors import Cancelled
from ..transports import plugins
from ..transports.errors import PluginUnknown, ProxyflashError
from .errors import ComponentAbsent, HandlerUnknown, StepFailed
from .handler import StepContext, StepHandler
from .manifest import InlineStep, ReferenceStep
from .results import FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code
from .update import Update


class Status(StrEnum):
    """What a task of the plan is in for, or has come to."""

    TODO = "to do"
    INSTALLED = "installed already"
    DONE = "done"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Task:
    """One step on one component, or on the host. `number`: the parent's step, from 0; `child`: the child's, or None."""

    number: int
    child: int | None
    step: InlineStep
    update: Update
    component: Component | None
    handler: type[StepHandler]
    status: Status = Status.TODO

    @property
    def label(self) -> str:
        """The step's number as a person counts: "2", or "2.1" for the first step of a child update."""
        return f"{self.number + 1}" if self.child is None else f"{self.number + 1}.{self.child + 1}"

    @property
    def target(self) -> str:
        return self.component.name if self.component else "host"


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """What an update will do, in order. `empty`: the parent's steps that select no component."""

    update: Update
    tasks: tuple[Task, ...]
    empty: tuple[int, ...]

    @property
    def nothing_to_do(self) -> bool:
        return all(task.status is Status.INSTALLED for task in self.tasks)


@dataclass(frozen=True, slots=True)
class StepStarted(ev.Event):
    """`component` is "host" for a step without one."""

    kind: ClassVar[str] = "step"
    label: str
    description: str
    handler: str


@dataclass(frozen=True, slots=True)
class StepFinished(ev.Event):
    kind: ClassVar[str] = "step-done"
    label: str
    status: Status
    result_code: int
    extended: int
    details: str


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of one task."""

    task: Task
    result: ActionResult
    error: ProxyflashError | None = None


@dataclass
class Outcome:
    """What became of an update: a result for each task, in order, also for those that were not run."""

    plan: UpdatePlan
    results: list[TaskResult] = field(default_factory=list)

    @property
    def error(self) -> ProxyflashError | None:
        return next((item.error for item in self.results if item.error is not None), None)

    @property
    def succeeded(self) -> bool:
        return self.error is None and all(item.result.succeeded for item in self.results)

    @property
    def changed(self) -> bool:
        """Whether any task was carried out."""
        return any(item.task.status is Status.DONE for item in self.results)

    def report(self) -> dict[str, Any]:
        """The report in the agent's shape, with `componentResults` beside its step results."""
        failed = next((item for item in self.results if not item.result.succeeded), None)
        total = failed.result if failed else ActionResult(ResultCode.APPLY_SUCCESS)
        steps = {}
        for number in range(len(self.plan.update.manifest.instructions.steps)):
            steps[f"step_{number}"] = self._step(number).report()
        return {
            "state": 255 if failed else 0,
            "installedUpdateId": "" if failed else str(self.plan.update.manifest.updateId),
            "lastInstallResult": {**total.report(), "stepResults": steps},
            "componentResults": [
                {
                    "component": item.task.target,
                    "step": item.task.label,
                    "status": item.task.status.value,
                    **item.result.report(),
                }
                for item in self.results
            ],
        }

    def _step(self, number: int) -> ActionResult:
        own = [item.result for item in self.results if item.task.number == number]
        if not own:
            return ActionResult(ResultCode.INSTALL_NO_MATCHING_COMPONENTS)
        failed = next((result for result in own if not result.succeeded), None)
        if failed is not None:
            return failed
        if all(result.code == ResultCode.INSTALL_ALREADY_INSTALLED for result in own):
            return own[0]
        return ActionResult(ResultCode.APPLY_SUCCESS)


class Engine:
    """Carries out updates on one bench. `work`: the folder for the files of scripts, emptied after each update."""

    def __init__(
        self,
        bench: Bench,
        *,
        on_event: ev.EventSink = ev.ignore,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.bench = bench
        self.on_event = on_event
        self.cancelled = cancelled
        # Scripts run in it, and are told of it from there.
        self.work = bench.folder.absolute() / "work"

    def plan(self, update: Update, components: Sequence[Component]) -> UpdatePlan:
        """What will be done with the components as they were seen. Touches nothing.

        Raises HandlerUnknown, ManifestField, ComponentAbsent.
        """
        tasks: list[Task] = []
        empty = []
        for number, step in enumerate(update.manifest.instructions.steps):
            found = list(_tasks(update, number, step, components))
            if not found:
                empty.append(number)
            tasks += found
        for task in tasks:
            _check_present(task)
        return UpdatePlan(update, tuple(_looked_at(task) for task in tasks), tuple(empty))

    def apply(self, plan: UpdatePlan) -> Outcome:
        """Carries out a plan. A failure ends it; it is in the outcome, not raised."""
        outcome = Outcome(plan)
        try:
            if self._download(plan, outcome):
                self._install(plan, outcome)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)
        return outcome

    def _download(self, plan: UpdatePlan, outcome: Outcome) -> bool:
        for index, task in enumerate(plan.tasks):
            result, error = self._guarded(task, lambda handler: handler.download(), outcome)
            if not result.succeeded:
                self._end(plan, outcome, index, task, result, error, all_unrun=True)
                return False
        return True

    def _install(self, plan: UpdatePlan, outcome: Outcome) -> None:
        for index, task in enumerate(plan.tasks):
            self.on_event(StepStarted(task.target, task.label, task.step.description or "", task.step.handler))
            result, error = self._guarded(task, _is_installed_then_install, outcome)
            if not result.succeeded:
                self._end(plan, outcome, index, task, result, error)
                return
            installed = result.code == ResultCode.INSTALL_ALREADY_INSTALLED
            self._finish(outcome, replace(task, status=Status.INSTALLED if installed else Status.DONE), result, None)

    def _end(
        self,
        plan: UpdatePlan,
        outcome: Outcome,
        index: int,
        task: Task,
        result: ActionResult,
        error: ProxyflashError | None,
        *,
        all_unrun: bool = False,
    ) -> None:
        """Accounts for the failed task and for all that were not run because of it."""
        not_run = ActionResult(ResultCode.CANCELLED, details="not run")
        if all_unrun:
            for earlier in plan.tasks[:index]:
                self._finish(outcome, replace(earlier, status=Status.NOT_RUN), not_run, None)
        self._finish(outcome, replace(task, status=Status.FAILED), result, error)
        for later in plan.tasks[index + 1 :]:
            self._finish(outcome, replace(later, status=Status.NOT_RUN), not_run, None)

    def _finish(self, outcome: Outcome, task: Task, result: ActionResult, error: ProxyflashError | None) -> None:
        outcome.results.append(TaskResult(task, result, error))
        self.on_event(StepFinished(task.target, task.label, task.status, result.code, result.extended, result.details))

    def _guarded(
        self, task: Task, action: Callable[[StepHandler], ActionResult], outcome: Outcome
    ) -> tuple[ActionResult, ProxyflashError | None]:
        """An action's result; an error that it raised becomes a failed result beside the error."""
        handler = task.handler(self._context(task))
        try:
            if self.cancelled():
                raise Cancelled("stopped on request between two steps", touched=False)
            result = self._cancellable(handler, action)
        except Cancelled as error:
            touched = error.touched or outcome.changed
            stopped = Cancelled(error.cause, touched=touched, remedy=error.remedy, component=task.target)
            return ActionResult(ResultCode.CANCELLED, details=stopped.cause), stopped
        except ProxyflashError as error:
            error.component = error.component or task.target
            code = extended_code(FACILITY_STEP_HANDLERS, 0, 1)
            return ActionResult(ResultCode.FAILURE, code, f"{error.code} {error.cause}"), error
        if result.succeeded:
            return result, None
        details = result.details or f"result code {result.code}, extended {result.extended:08X}"
        return result, StepFailed(f"step {task.label} ({task.step.handler}) failed: {details}", component=task.target)

    def _cancellable(self, handler: StepHandler, action: Callable[[StepHandler], ActionResult]) -> ActionResult:
        try:
            return action(handler)
        except Cancelled:
            # What its clean-up comes to changes nothing: the update ends here.
            with suppress(ProxyflashError):
                handler.cancel()
            raise

    def _context(self, task: Task) -> StepContext:
        component = self.bench.component(task.component.name) if task.component else None
        return StepContext(
            task.step,
            {name: task.update.files[name] for name in task.step.files},
            self.work / _folder_name(task.update),
            self.work / "backup" / task.label / task.target,
            self.bench,
            component,
            task.component,
            self.on_event,
            self.cancelled,
        )


def _is_installed_then_install(handler: StepHandler) -> ActionResult:
    installed = handler.is_installed()
    if installed.code == ResultCode.INSTALLED:
        return ActionResult(ResultCode.INSTALL_ALREADY_INSTALLED)
    if not installed.succeeded:
        return installed
    result = handler.install()
    if not result.succeeded:
        return result
    applied = handler.apply()
    return replace(applied, details=applied.details or result.details)


def _tasks(
    update: Update, number: int, step: InlineStep | ReferenceStep, components: Sequence[Component]
) -> Iterator[Task]:
    if isinstance(step, InlineStep):
        yield _task(update, number, None, step, None)
        return
    child = update.child(step)
    for component in select(components, child.manifest.compatibility):
        for index, inner in enumerate(child.manifest.instructions.steps):
            if isinstance(inner, InlineStep):
                yield _task(child, number, index, inner, component)


def _task(update: Update, number: int, child: int | None, step: InlineStep, component: Component | None) -> Task:
    place = f"{update.path}: instructions.steps[{number if child is None else child}]"
    try:
        handler = plugins.load(plugins.STEPS, step.handler)
    except PluginUnknown as error:
        raise HandlerUnknown(f"{place}.handler: {error.cause}") from error
    handler.check(step, on_component=component is not None, place=place)
    return Task(number, child, step, update, component, handler)


def _check_present(task: Task) -> None:
    if task.component is not None and task.component.presence is Presence.ABSENT:
        raise ComponentAbsent(
            f"step {task.label} is for {task.component.name}, which does not answer ({task.component.where})",
            component=task.component.name,
        )


def _looked_at(task: Task) -> Task:
    installed = task.component is not None and task.handler.seems_installed(task.step, task.component)
    return replace(task, status=Status.INSTALLED) if installed else task


def _folder_name(update: Update) -> str:
    name = update.manifest.updateId
    return f"{name.provider}-{name.name}-{name.version}"
