"""One update under way: its tasks carried out, each action journalled before it begins and after it ends.

For each step and component: IsInstalled; unless it is, Backup, Install, Apply; on a failed Install or Apply, Restore. What
is in the journal as ended isn't done again. An action that a cut ended is begun again once the component has been asked.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..enumerators.bench import Bench
from ..flashers import events as ev
from ..flashers.errors import Cancelled
from ..transports.errors import ProxyflashError
from . import restarting, scheduling
from .attempts import Attempts
from .errors import AttemptsExhausted, ConditionFailed, StepFailed
from .events import ActionStarted, Status, StepFinished, StepStarted
from .handler import StepContext, StepHandler
from .journal import Journal
from .options import OnFailure, demand, start_conditions
from .plan import Task, UpdatePlan
from .policy import Policy
from .progress import ANNOUNCED, RESTARTS, Action, Ending, Kind, Progress, TaskProgress, fields_of
from .report import Outcome
from .results import FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code
from .store import Entry
from .update import Update

SKIPPED = (ResultCode.INSTALL_ALREADY_INSTALLED, ResultCode.INSTALL_NO_MATCHING_COMPONENTS)
"""What Install may come to without having installed anything; Apply then has nothing to do."""


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
    kept: Entry
    attempts: Attempts
    on_event: ev.EventSink
    cancelled: Callable[[], bool]
    again: bool = False
    """Whether steps are tried although they were tried as often as allowed."""


class Run:
    """Carries out one update from where its journal ends."""

    def __init__(self, entry: Entry, journal: Journal, progress: Progress, plan: UpdatePlan, setting: Setting) -> None:
        self.entry = entry
        self.plan = plan
        self.progress = progress
        self.bench = setting.bench
        self._setting = setting
        self._journal = journal
        self._lock = threading.RLock()
        pairs = zip(plan.tasks, progress.tasks, strict=True)
        self._given_up = {task.target for task, state in pairs if state.status is Status.FAILED}
        """Components on which a step has failed: their later ones are not run."""

    def carry_out(self) -> Outcome:
        """Goes on to the end, or to where it must halt. Raises JournalNotWritten, BenchError; then it can be resumed."""
        halt = None
        try:
            if self.progress.rolling_back:
                self._roll_back()
            else:
                demand(start_conditions(self.bench, self._setting.policy), self.bench, None)
                self._forward()
        except Halt as found:
            halt = found.error
        finally:
            self._journal.close()
        return Outcome(self.plan, self.progress, self.entry.number, halt)

    def roll_back(self) -> Outcome:
        """Undoes what was done, whatever is left to do."""
        if not self.progress.rolling_back:
            self._record(Kind.ROLLBACK)
        return self.carry_out()

    # The order of tasks.

    def _forward(self) -> None:
        if not self.progress.downloaded and not self._download():
            return self._finish(Ending.FAILED)
        if self.progress.begin["parallel"]:
            for stage in scheduling.stages(self.plan.tasks):
                if not self._stage(stage):
                    return None
        else:
            for _, tasks in groupby(self.plan.tasks, key=lambda task: task.number):
                if not self._in_turn(list(tasks)):
                    return None
        failed = any(state.status is Status.FAILED for state in self.progress.tasks)
        return self._finish(Ending.FAILED if failed else Ending.SUCCEEDED)

    def _in_turn(self, tasks: list[Task]) -> bool:
        """The tasks of one of the parent's steps; whether the update goes on. Raises Halt."""
        for task in tasks:
            self._task(task)
            if self._state(task).status is Status.FAILED and self._ends_with(task):
                return False
            self._heed_restart(task)
        self._restart_if_asked(tasks)
        return True

    def _stage(self, tasks: list[Task]) -> bool:
        """Tasks that may run beside each other; whether the update goes on. Raises Halt."""
        left = [task for task in tasks if not self._state(task).finished]
        limits = {
            name: spec.at_once or 1
            for name, spec in self.bench.file.spec.bus.items()
            if spec.at_once is not None or spec.kind != "usb"
        }
        scheduler = scheduling.Scheduler(left, limits)

        def work(task: Task) -> None:
            self._task(task)
            state = self._state(task)
            if state.status is Status.FAILED and self._on_failure(task) != "continue":
                scheduler.stop()
            elif state.status is Status.AWAITING:
                scheduler.end_with(task.number)
                self._heed_restart(task)

        scheduling.carry_out(scheduler, work)
        for task in tasks:
            if self._state(task).status is Status.FAILED and self._ends_with(task):
                return False
        self._restart_if_asked(tasks)
        return True

    def _ends_with(self, task: Task) -> bool:
        """Whether a failed task is the end of the update, which then has been brought to it."""
        match self._on_failure(task):
            case "continue":
                return False
            case "rollback":
                self._record(Kind.ROLLBACK)
                self._roll_back()
            case _:
                self._finish(Ending.FAILED)
        return True

    def _on_failure(self, task: Task) -> OnFailure:
        chosen: OnFailure = task.options.on_failure or self.progress.begin["on_failure"]
        return chosen

    def _roll_back(self) -> None:
        """Restores what was changed, the last first."""
        pairs = [(self._state(task), task) for task in self.plan.tasks]
        under_way = [task for state, task in pairs if not state.finished and (state.touched or state.failing)]
        done = sorted(((state, task) for state, task in pairs if state.status is Status.DONE), key=lambda p: p[0].ended)
        for task in (*reversed(under_way), *(task for _, task in reversed(done))):
            self._started(task)
            handler = self._handler(task)
            if handler is not None:
                self._act(task, handler, Action.RESTORE)
            self._told(task)
        clean = all(_as_before(state) for state in self.progress.tasks)
        self._finish(Ending.ROLLED_BACK if clean else Ending.PARTLY_ROLLED_BACK)

    def _finish(self, ending: Ending) -> None:
        self._record(Kind.FINISH, ending=ending)
        shutil.rmtree(self._setting.kept.work, ignore_errors=True)

    # One task.

    def _download(self) -> bool:
        for task in self.plan.tasks:
            if Action.DOWNLOAD in self._state(task).results:
                continue
            handler = self._handler(task)
            if handler is None or not self._act(task, handler, Action.DOWNLOAD):
                self._told(task)
                return False
        self._record(Kind.DOWNLOADED)
        return True

    def _task(self, task: Task) -> None:
        """Brings one task to its end, from wherever it is. Raises Halt."""
        state = self._state(task)
        if state.finished or task.target in self._given_up:
            return
        self._started(task)
        handler = self._handler(task)
        if handler is not None:
            if state.failing:
                self._act(task, handler, Action.RESTORE)
            elif state.status is Status.AWAITING:
                self._after_restart(task, handler)
            else:
                self._install(task, handler)
        if state.status is Status.DONE and task.options.attempts_under(self._setting.policy):
            self._setting.attempts.clear(task)
        self._told(task)

    def _install(self, task: Task, handler: StepHandler) -> None:
        """Asks, then carries out the actions that have not ended yet; on a failure restores."""
        state = self._state(task)
        if self._allowed(task) and self._wanted(task, handler):
            for action in (Action.BACKUP, Action.INSTALL, Action.APPLY):
                if action in state.results:
                    continue
                if action is Action.INSTALL and not self._may_try(task):
                    break
                if not self._act(task, handler, action):
                    break
        if state.failing:
            self._act(task, handler, Action.RESTORE)

    def _wanted(self, task: Task, handler: StepHandler) -> bool:
        """Whether there is something to install, by the component's word."""
        state = self._state(task)
        if state.started in (Action.INSTALL, Action.APPLY):
            # A cut ended it. The component knows how far it came.
            return self._act(task, handler, Action.IS_INSTALLED, after_cut=True)
        return state.begun or self._act(task, handler, Action.IS_INSTALLED)

    def _after_restart(self, task: Task, handler: StepHandler) -> None:
        """The component says whether it is installed now. An Install goes on with Apply, an Apply has failed."""
        if Action.APPLY not in self._state(task).results:
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
        try:
            demand(task.options.conditions, self.bench, task.component.name if task.component else None)
        except ConditionFailed as error:
            error.component = error.component or task.target
            if self._state(task).touched:
                raise Halt(error) from error
            self._failed(task, error)
            return False
        return True

    def _may_try(self, task: Task) -> bool:
        """Counts an attempt; whether there was one left. If not, the task has failed."""
        limit = task.options.attempts_under(self._setting.policy)
        if not limit:
            return True
        attempts = self._setting.attempts
        if self._setting.again:
            attempts.clear(task)
        if (tried := attempts.count(task)) >= limit:
            times = "once" if tried == 1 else f"{tried} times"
            error = AttemptsExhausted(
                f"step {task.label} was tried {times}, and is not tried again", component=task.target
            )
            self._failed(task, error, restore=self._state(task).touched)
            return False
        attempts.add(task)
        return True

    # One action.

    def _act(self, task: Task, handler: StepHandler, action: Action, *, after_cut: bool = False) -> bool:
        """Carries out one action; whether the task goes on to the next one. Raises Halt."""
        if self._setting.cancelled():
            raise self._stopped(task, None, Cancelled("stopped on request between two steps", touched=False))
        if action in ANNOUNCED:
            self._record(Kind.START, task=task.index, action=action)
            self._tell(ActionStarted(task.target, task.label, action))
        result, error = self._called(task, handler, action, after_cut=after_cut)
        return self._ended(task, action, result, error)

    def _called(
        self, task: Task, handler: StepHandler, action: Action, *, after_cut: bool = False
    ) -> tuple[ActionResult, ProxyflashError | None]:
        """An action's result; an error that it raised becomes a failed result beside the error. Raises Halt."""
        call: Callable[[], ActionResult] = getattr(handler, action.replace("-", "_"))
        if after_cut:
            call = handler.is_complete
        try:
            result = call()
        except Cancelled as error:
            # Told of it once, while it was under way.
            self._cancel(task, handler)
            raise self._stopped(task, action, error) from error
        except ProxyflashError as error:
            return _failure(task, error), error
        except Exception as error:
            wrong = StepFailed(f"step {task.label} ({task.step.handler}): {type(error).__name__}: {error}")
            wrong.__cause__ = error
            return _failure(task, wrong), wrong
        if result.succeeded:
            return result, None
        details = result.details or f"result code {result.code}, extended {result.extended:08X}"
        return result, StepFailed(f"step {task.label} ({task.step.handler}) failed: {details}", component=task.target)

    def _cancel(self, task: Task, handler: StepHandler) -> None:
        """What a handler's clean-up comes to is journalled, and changes nothing: the update halts here."""
        try:
            result = handler.cancel()
        except Exception as error:
            result = ActionResult(ResultCode.CANCEL_UNABLE, details=f"{type(error).__name__}: {error}")
        self._record(Kind.END, sync=False, task=task.index, action=Action.CANCEL, **fields_of(result, None))

    def _ended(self, task: Task, action: Action, result: ActionResult, error: ProxyflashError | None) -> bool:
        """Journals an action's end, and with it the task's if it is; whether the task goes on."""
        status = self._status(task, action, result)
        fields = fields_of(result, error) | ({"status": status} if status else {})
        # What only asked is not waited for: it can be asked again.
        waited = action in ANNOUNCED or status is not None
        self._record(Kind.END, sync=waited, task=task.index, action=action, **fields)
        if error is not None and action is not Action.RESTORE:
            self._state(task).error = error
        return result.succeeded and status is None

    def _status(self, task: Task, action: Action, result: ActionResult) -> Status | None:
        """What the task has come to by this action's result; None: it isn't at its end."""
        match action:
            case Action.RESTORE if self._state(task).failing:
                return Status.FAILED
            case Action.RESTORE:
                restored = result.succeeded and result.code != ResultCode.RESTORE_UNSUPPORTED
                return Status.RESTORED if restored else Status.NOT_RESTORED
            case Action.INSTALL | Action.APPLY if not result.succeeded:
                return None  # It is restored first.
            case Action.IS_INSTALLED if not result.succeeded and self._state(task).touched:
                return None  # As well.
            case _ if not result.succeeded:
                return Status.FAILED
            case Action.IS_INSTALLED if result.code == ResultCode.INSTALLED:
                return Status.DONE if self._state(task).touched else Status.INSTALLED
            case Action.INSTALL if result.code in SKIPPED:
                return Status.INSTALLED
            case Action.INSTALL if (asked := RESTARTS.get(result.code)) and asked.immediate:
                return Status.AWAITING
            case Action.APPLY:
                asked = RESTARTS.get(result.code, self._state(task).awaits)
                return Status.AWAITING if asked else Status.DONE
        return None

    def _failed(self, task: Task, error: ProxyflashError, *, restore: bool = False) -> None:
        fields = fields_of(_failure(task, error), error)
        self._record(Kind.FAILED, task=task.index, restore=restore, **fields)
        self._state(task).error = error

    def _stopped(self, task: Task, action: Action | None, error: Cancelled) -> Halt:
        """Journals that it was stopped on request; if nothing was changed yet, that is the end of it."""
        under_way: dict[str, Any] = (
            {} if action is None else {"task": task.index, "action": action, "touched": error.touched}
        )
        self._record(Kind.STOPPED, cause=error.cause, **under_way)
        touched = error.touched or self.progress.touched
        if not touched and not self.progress.rolling_back:
            self._finish(Ending.CANCELLED)
        return Halt(Cancelled(error.cause, touched=touched, remedy=error.remedy, component=task.target))

    # Restarts.

    def _heed_restart(self, task: Task) -> None:
        state = self._state(task)
        if state.status is Status.AWAITING and state.awaits is not None and state.awaits.immediate:
            self._restart([state])

    def _restart_if_asked(self, tasks: list[Task]) -> None:
        waiting = [state for state in map(self._state, tasks) if state.status is Status.AWAITING]
        if waiting:
            self._restart(waiting)

    def _restart(self, waiting: list[TaskProgress]) -> None:
        """Raises Halt: what comes after is for the next run."""
        host = any(state.awaits is not None and state.awaits.host for state in waiting)
        self._record(Kind.RESTART, host=host, boot=restarting.boot_id())
        policy = self._setting.policy
        folder = self.bench.file.path.absolute().parent
        raise Halt(restarting.asked_for(host, policy.reboot if host else policy.restart, folder))

    # What all of it shares.

    def _state(self, task: Task) -> TaskProgress:
        return self.progress.tasks[task.index]

    def _handler(self, task: Task) -> StepHandler | None:
        """None: it can't be made, and the task has failed."""
        try:
            return task.handler(self._context(task))
        except ProxyflashError as error:
            error.component = error.component or task.target
            self._failed(task, error)
            return None

    def _context(self, task: Task) -> StepContext:
        kept = self._setting.kept
        return StepContext(
            task.step,
            {name: task.update.files[name] for name in task.step.files},
            kept.work / _folder_name(task.update),
            kept.backup / task.label / task.target,
            self.bench,
            self.bench.find(task.component.name) if task.component else None,
            task.component,
            self._tell,
            self._setting.cancelled,
        )

    def _record(self, kind: Kind, *, sync: bool = True, **fields: Any) -> None:
        with self._lock:
            self.progress.add(self._journal.append(kind, fields, sync=sync))

    def _started(self, task: Task) -> None:
        self._tell(StepStarted(task.target, task.label, task.step.description or "", task.step.handler))

    def _told(self, task: Task) -> None:
        state = self._state(task)
        if state.status is Status.FAILED:
            self._given_up.add(task.target)
        if state.result is not None:
            result = state.result
            finished = StepFinished(task.target, task.label, state.status, result.code, result.extended, result.details)
            self._tell(finished)

    def _tell(self, event: ev.Event) -> None:
        with self._lock:
            self._setting.on_event(event)


def _failure(task: Task, error: ProxyflashError) -> ActionResult:
    error.component = error.component or task.target
    code = extended_code(FACILITY_STEP_HANDLERS, 0, 1)
    return ActionResult(ResultCode.FAILURE, code, f"{error.code} {error.cause}")


def _as_before(state: TaskProgress) -> bool:
    """Whether a rolled back update has left the component as it was, as far as this task is concerned."""
    if not state.touched:
        return True
    restored = state.results.get(Action.RESTORE)
    return restored is not None and restored.succeeded and restored.code != ResultCode.RESTORE_UNSUPPORTED


def _folder_name(update: Update) -> str:
    name = update.manifest.updateId
    return f"{name.provider}-{name.name}-{name.version}"
