"""One task: a step on a component, brought to its end from wherever it is, each action journalled before and after.

IsInstalled; unless it is, Backup, Install, Apply; on a failed Install or Apply, Restore. What the journal has as ended isn't
done again. An action that a cut ended is begun again once the component has been asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...enumerators.bench import Bench
from ...flashers import events as ev
from ...flashers.errors import Cancelled
from ...transports import clock
from ...transports.errors import ProxyflashError
from ..errors import (
    AttemptsExhausted,
    BelowFloor,
    ConditionFailed,
    DowngradeRefused,
    StagedChanged,
    StepFailed,
    StepHangs,
    StepTimeout,
    UpdateError,
)
from ..events import ActionStarted, Status, StepFinished, StepStarted
from ..handlers.handler import StepContext, StepHandler
from ..manifests.conditions import Condition, Version
from ..manifests.options import demand
from ..manifests.policy import Policy
from ..manifests.resolved_update import Update
from .attempts import Attempts
from .journal import Journal
from .plan import Task, is_downgrade
from .progress import ANNOUNCED, RESTARTS, Action, Kind, Progress, TaskProgress, fields_of
from .results import FACILITY_STEP_HANDLERS, ActionResult, ResultCode, asked, extended_code
from .store import Entry, Store
from .time_limits import Watch

SKIPPED = (ResultCode.INSTALL_ALREADY_INSTALLED, ResultCode.INSTALL_NO_MATCHING_COMPONENTS)
"""What Install may come to without having installed anything; Apply then has nothing to do."""
FAILED, LATE = 1, 2
"""Values of extended codes: an error of this program was the reason; the action took longer than it may."""


class Halt(Exception):
    """The update ends here for now, and goes on by a resume."""

    def __init__(self, error: ProxyflashError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run works with. `kept`: whose files and backups are used: for a rollback, those of the update it undoes."""

    bench: Bench
    policy: Policy
    store: Store
    kept: Entry
    attempts: Attempts
    on_event: ev.EventSink
    cancelled: Callable[[], bool]
    refusal: UpdateError | None = None
    """Why the policy doesn't take the update any more: it is rolled back without its files."""
    again: bool = False
    """Whether steps are tried although they were tried as often as allowed."""


class Worker:
    """Carries out tasks, for any thread. Each method that works raises Halt, and JournalNotWritten."""

    def __init__(self, journal: Journal, progress: Progress, setting: Setting) -> None:
        self.progress = progress
        self.setting = setting
        self._journal = journal
        self._lock = clock.RLock()
        self._watches: dict[int, Watch] = {}
        """By task."""
        self._installs = False

    def state(self, task: Task) -> TaskProgress:
        return self.progress.tasks[task.index]

    def record(self, kind: Kind, *, sync: bool = True, **fields: Any) -> None:
        """Journals what happened, which changes the progress."""
        with self._lock:
            self.progress.add(self._journal.append(kind, fields, sync=sync))

    def close(self) -> None:
        self._journal.close()

    def download(self, task: Task) -> bool:
        """Whether what it needs is there."""
        if Action.DOWNLOAD in self.state(task).results:
            return True
        handler = self._handler(task)
        ready = handler is not None and (self._is_there(task, handler) or self._act(task, handler, Action.DOWNLOAD))
        if not ready:
            self._told(task)
        return ready

    def _is_there(self, task: Task, handler: StepHandler) -> bool:
        """Whether there is nothing to download for: it is installed. As the agent does, which downloads if in doubt."""
        if self.setting.cancelled():
            raise self._stopped(task, None, Cancelled("stopped on request between two steps", touched=False))
        result, _ = self._called(task, handler, Action.IS_INSTALLED)
        if result.code != ResultCode.INSTALLED:
            return False
        return self._ended(task, Action.DOWNLOAD, ActionResult(ResultCode.DOWNLOAD_SKIPPED_ALREADY_INSTALLED), None)

    def restore(self, task: Task) -> None:
        """Brings back what was before it."""
        self._started(task)
        handler = self._handler(task)
        if handler is not None:
            self._act(task, handler, Action.RESTORE)
        self._told(task)

    def carry_out(self, task: Task) -> None:
        """Brings a task to its end, which it is not at."""
        state = self.state(task)
        self._started(task)
        handler = self._handler(task)
        if handler is not None:
            if state.failing:
                self._act(task, handler, Action.RESTORE)
            elif state.status is Status.AWAITING:
                self._after_restart(task, handler)
            else:
                self._install(task, handler)
        if state.status is Status.DONE and task.options.attempts_under(self.setting.policy):
            self.setting.attempts.clear(task)
        self._told(task)

    def _install(self, task: Task, handler: StepHandler) -> None:
        """Asks, then carries out the actions that have not ended yet; on a failure restores."""
        state = self.state(task)
        if self._allowed(task) and self._wanted(task, handler):
            for action in (Action.BACKUP, Action.INSTALL, Action.APPLY):
                if action in state.results:
                    continue
                if action is Action.INSTALL and not (
                    self._unchanged(task, handler) and self._still_allowed(task) and self._may_try(task)
                ):
                    break
                if not self._act(task, handler, action):
                    break
        if state.failing:
            self._act(task, handler, Action.RESTORE)

    def _wanted(self, task: Task, handler: StepHandler) -> bool:
        """Whether there is something to install, by the component's word."""
        state = self.state(task)
        if state.started in (Action.INSTALL, Action.APPLY):
            # A cut ended it. The component knows how far it came.
            return self._act(task, handler, Action.IS_INSTALLED, after_cut=True)
        return state.begun or self._act(task, handler, Action.IS_INSTALLED)

    def _after_restart(self, task: Task, handler: StepHandler) -> None:
        """The component says whether it is installed now. An Install goes on with Apply, an Apply has failed."""
        if Action.APPLY not in self.state(task).results:
            if self._act(task, handler, Action.IS_INSTALLED):
                self._install(task, handler)
            return
        result, error = self._called(task, handler, Action.IS_INSTALLED)
        if result.code == ResultCode.INSTALLED:
            self._ended(task, Action.IS_INSTALLED, result, None)
            return
        error = error or StepFailed(f"step {task.label} is not installed after the restart", component=task.target)
        self._failed(task, error, restore=True)
        self._act(task, handler, Action.RESTORE)

    def _allowed(self, task: Task) -> bool:
        """Whether the step's conditions hold; if not, it has failed. Raises Halt if it was under way."""
        return self._holds(task, lambda: self._demand(task, task.options.conditions))

    def _still_allowed(self, task: Task) -> bool:
        """The same right before Install for what was known when it was planned: another hand may have changed the part.

        The floor, downgrades, and the versions of other components.
        """
        return self._holds(task, lambda: self._check_versions(task))

    def _check_versions(self, task: Task) -> None:
        """Raises BelowFloor, DowngradeRefused, ConditionFailed."""
        setting = self.setting
        if task.component is not None and task.wanted:
            # Without anything that would refuse it the part needn't be asked.
            ask = setting.policy.downgrade == "on-request"
            seen = setting.bench.find(task.component.name).look() if ask else task.component
            if is_downgrade(setting.policy, task, seen):
                self.record(Kind.DOWNGRADE, task=task.index, version=seen.version)
        self._demand(task, [one for one in task.options.conditions if isinstance(one, Version)])

    def _demand(self, task: Task, conditions: Sequence[Condition]) -> None:
        demand(conditions, self.setting.bench, task.component.name if task.component else None)

    def _holds(self, task: Task, check: Callable[[], None]) -> bool:
        try:
            check()
        except (ConditionFailed, BelowFloor, DowngradeRefused) as error:
            error.component = error.component or task.target
            if self.state(task).touched:
                raise Halt(error) from error
            self._failed(task, error)
            return False
        return True

    def _unchanged(self, task: Task, handler: StepHandler) -> bool:
        """Whether the step's files are still those that were checked; if not, it has failed."""
        try:
            for name in task.step.files:
                handler.context.check(name)
        except UpdateError as error:
            error.component = error.component or task.target
            self._failed(task, error, restore=self.state(task).touched)
            return False
        return True

    def _may_try(self, task: Task) -> bool:
        """Counts an attempt; whether there was one left. If not, the task has failed."""
        limit = task.options.attempts_under(self.setting.policy)
        if not limit:
            return True
        attempts = self.setting.attempts
        if self.setting.again:
            attempts.clear(task)
        if (tried := attempts.count(task)) >= limit:
            times = "once" if tried == 1 else f"{tried} times"
            error = AttemptsExhausted(
                f"step {task.label} was tried {times}, and is not tried again", component=task.target
            )
            self._failed(task, error, restore=self.state(task).touched)
            return False
        attempts.add(task)
        return True

    # One action.

    def _act(self, task: Task, handler: StepHandler, action: Action, *, after_cut: bool = False) -> bool:
        """Carries out one action; whether the task goes on to the next one. Raises Halt."""
        if self.setting.cancelled():
            raise self._stopped(task, None, Cancelled("stopped on request between two steps", touched=False))
        if action in ANNOUNCED:
            self.record(Kind.START, task=task.index, action=action)
            self._tell(ActionStarted(task.target, task.label, action))
        result, error = self._called(task, handler, action, after_cut=after_cut)
        if action is Action.INSTALL:
            self._give_up_older()
        if action is Action.IS_INSTALLED and error is not None and not isinstance(error, StepTimeout | StagedChanged):
            # As the agent does: one that can't tell is taken for not installed, and Install shows what is wrong with it.
            result, error = ActionResult(ResultCode.NOT_INSTALLED, result.extended, result.details), None
        return self._ended(task, action, result, error)

    def _give_up_older(self) -> None:
        """After the first Install, what the updates before kept for a rollback is of no use any more."""
        with self._lock:
            if not self._installs:
                self._installs = True
                self.setting.store.forget(self.setting.kept)

    def _called(
        self, task: Task, handler: StepHandler, action: Action, *, after_cut: bool = False
    ) -> tuple[ActionResult, ProxyflashError | None]:
        """An action's result; an error that it raised becomes a failed result beside the error. Raises Halt."""
        call: Callable[[], ActionResult] = getattr(handler, action.replace("-", "_"))
        if after_cut:
            call = handler.is_complete
        call = self._outside(task, handler, action, call)
        watch = self._watches[task.index]
        try:
            result = watch.call(call, f"step {task.label}: {action}")
        except StepHangs as error:
            raise self._stopped(task, action, error) from error
        except Cancelled as error:
            late = watch.expired and not self.setting.cancelled()
            # Told of it once, while it was under way.
            self._cancel(task, handler)
            if late:
                return self._late(task, action, error)
            raise self._stopped(task, action, error) from error
        except ProxyflashError as error:
            if watch.expired:
                return self._late(task, action, error)
            return _failure(task, error), error
        except Exception as error:
            wrong = StepFailed(f"step {task.label} ({task.step.handler}): {type(error).__name__}: {error}")
            wrong.__cause__ = error
            return _failure(task, wrong), wrong
        if result.succeeded:
            return result, None
        if watch.expired:
            return self._late(task, action, StepFailed(result.details or f"result code {result.code}"))
        details = result.details or f"result code {result.code}, extended {result.extended:08X}"
        return result, StepFailed(f"step {task.label} ({task.step.handler}) failed: {details}", component=task.target)

    def _outside(
        self, task: Task, handler: StepHandler, action: Action, call: Callable[[], ActionResult]
    ) -> Callable[[], ActionResult]:
        """The action, which is recorded and replayed as a whole where it reaches more than the bench's buses."""
        if handler.buses_only:
            return call
        question = f"step {task.label} on {task.target}: {action}"
        return lambda: asked(self.setting.bench.outside, question, call)

    def _late(self, task: Task, action: Action, error: ProxyflashError) -> tuple[ActionResult, ProxyflashError]:
        """Of an action that ended with a failure once its time was over, which is why it did."""
        seconds = self._watches[task.index].seconds
        late = StepTimeout(f"step {task.label}: {action} took longer than {seconds:g} s: {error.cause}")
        late.__cause__ = error
        return _failure(task, late, LATE), late

    def _cancel(self, task: Task, handler: StepHandler) -> None:
        """What a handler's clean-up comes to is journalled, and changes nothing. Raises Halt when it doesn't return."""
        try:
            call = self._outside(task, handler, Action.CANCEL, handler.cancel)
            result = self._watches[task.index].call(call, f"step {task.label}: cancel")
        except StepHangs as error:
            raise self._stopped(task, Action.CANCEL, error) from error
        except Exception as error:
            result = ActionResult(ResultCode.CANCEL_UNABLE, details=f"{type(error).__name__}: {error}")
        self.record(Kind.END, sync=False, task=task.index, action=Action.CANCEL, **fields_of(result, None))

    def _ended(self, task: Task, action: Action, result: ActionResult, error: ProxyflashError | None) -> bool:
        """Journals an action's end, and with it the task's if it is; whether the task goes on."""
        status = self._status(task, action, result)
        fields = fields_of(result, error) | ({"status": status} if status else {})
        # What only asked is not waited for: it can be asked again.
        waited = action in ANNOUNCED or status is not None
        self.record(Kind.END, sync=waited, task=task.index, action=action, **fields)
        if error is not None and action is not Action.RESTORE:
            self.state(task).error = error
        return result.succeeded and status is None

    def _status(self, task: Task, action: Action, result: ActionResult) -> Status | None:
        """What the task has come to by this action's result; None: it isn't at its end."""
        match action:
            case Action.RESTORE if self.state(task).failing:
                return Status.FAILED
            case Action.RESTORE:
                return Status.RESTORED if result.brought_back else Status.NOT_RESTORED
            case Action.INSTALL | Action.APPLY if not result.succeeded:
                return None  # It is restored first.
            case Action.IS_INSTALLED if not result.succeeded and self.state(task).touched:
                return None  # As well.
            case _ if not result.succeeded:
                return Status.FAILED
            case Action.IS_INSTALLED if result.code == ResultCode.INSTALLED:
                return Status.DONE if self.state(task).touched else Status.INSTALLED
            case Action.INSTALL if result.code in SKIPPED:
                return Status.INSTALLED
            case Action.INSTALL if (asked := RESTARTS.get(result.code)) and asked.immediate:
                return Status.AWAITING
            case Action.APPLY:
                asked = RESTARTS.get(result.code, self.state(task).awaits)
                return Status.AWAITING if asked else Status.DONE
        return None

    def _failed(self, task: Task, error: ProxyflashError, *, restore: bool = False) -> None:
        fields = fields_of(_failure(task, error), error)
        self.record(Kind.FAILED, task=task.index, restore=restore, **fields)
        self.state(task).error = error

    def _stopped(self, task: Task, action: Action | None, error: Cancelled | StepHangs) -> Halt:
        """Journals that it was stopped on request, or hangs: then it may have touched anything."""
        touched = not isinstance(error, Cancelled) or error.touched
        under_way: dict[str, Any] = {} if action is None else {"task": task.index, "action": action, "touched": touched}
        self.record(Kind.STOPPED, cause=error.cause, **under_way)
        error.component = error.component or task.target
        return Halt(error)

    def _handler(self, task: Task) -> StepHandler | None:
        """None: it can't be made, and the task has failed."""
        try:
            return task.handler(self._context(task))
        except ProxyflashError as error:
            error.component = error.component or task.target
            self._failed(task, error)
            return None

    def _context(self, task: Task) -> StepContext:
        kept, setting = self.setting.kept, self.setting
        seconds = task.options.seconds_under(setting.policy)
        watch = Watch(setting.bench.folder, seconds, setting.cancelled, self._tell)
        self._watches[task.index] = watch
        return StepContext(
            task.step,
            {name: task.update.files[name] for name in task.step.files},
            kept.work / _folder_name(task.update),
            kept.backup / task.label / task.target,
            self.setting.bench,
            self.setting.bench.find(task.component.name) if task.component else None,
            task.component,
            watch.tell,
            watch.cancelled,
            {file.filename: file for file in task.update.manifest.files if file.filename in task.step.files},
            setting.refusal,
        )

    def _started(self, task: Task) -> None:
        self._tell(StepStarted(task.target, task.label, task.step.description or "", task.step.handler))

    def _told(self, task: Task) -> None:
        state = self.state(task)
        if state.result is not None:
            result = state.result
            finished = StepFinished(task.target, task.label, state.status, result.code, result.extended, result.details)
            self._tell(finished)

    def _tell(self, event: ev.Event) -> None:
        with self._lock:
            self.setting.on_event(event)


def _failure(task: Task, error: ProxyflashError, value: int = FAILED) -> ActionResult:
    error.component = error.component or task.target
    code = extended_code(FACILITY_STEP_HANDLERS, 0, value)
    return ActionResult(ResultCode.FAILURE, code, f"{error.code} {error.cause}")


def _folder_name(update: Update) -> str:
    name = update.manifest.updateId
    return f"{name.provider}-{name.name}-{name.version}"
