"""One task: a step on a component, brought to its end from wherever it is, each action journalled before and after.

IsInstalled; unless it is, Backup, Install, Apply; on a failed Install or Apply, Restore. What the journal has as ended isn't
done again. An action that a cut ended is begun again once the component has been asked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ...enumerators.bench import Bench
from ...enumerators.component import Presence
from ...enumerators.errors import StateFolder
from ...flashers.errors import NOT_THERE, Cancelled, PartError
from ...flashers.events import Event, Phase, PhaseStarted, RunContext
from ...transports import clock
from ...transports.errors import ProxyflashError, TransportError, naming
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
from ..handlers.handler import StepContext
from ..manifests.conditions import BenchConditions, Version
from ..manifests.policy import Policy
from ..manifests.resolved_update import Update
from . import plan as planning
from . import room
from .action import ANNOUNCED, Action
from .action_caller import ActionCaller, Ended, failure
from .attempts import Attempts
from .journal import Journal
from .plan import Task, is_downgrade
from .progress import Kind, Progress, TaskProgress, fields_of, status_after
from .results import ActionResult, ResultCode
from .store import Store, StoredUpdate
from .time_limits import ActionTimeout


class Halt(Exception):
    """The update ends here for now, and goes on by a resume."""

    def __init__(self, error: ProxyflashError) -> None:
        super().__init__(str(error))
        self.error = error

    @property
    def of_component(self) -> bool:
        """Whether it is one component that isn't there: others may be."""
        return isinstance(self.error, NOT_THERE)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What an update is carried out with.

    `kept`: whose files and backups are used: for a rollback, those of the update it undoes.
    """

    bench: Bench
    policy: Policy
    store: Store
    kept: StoredUpdate
    attempts: Attempts
    context: RunContext
    refusal: UpdateError | None = None
    """Why the policy doesn't take the update any more: it is rolled back without its files."""
    again: bool = False
    """Whether steps are tried although they were tried as often as allowed."""
    resumed: bool = False
    """Whether the update goes on after it was interrupted: then what isn't there yet is waited for by a resume."""


class TaskRunner:
    """Carries out tasks, for any thread. Each method that works raises Halt, and JournalNotWritten."""

    def __init__(self, journal: Journal, progress: Progress, settings: RunSettings) -> None:
        self.progress = progress
        self.settings = settings
        self._journal = journal
        self._lock = clock.RLock()
        self._gave_up = False
        self._changed: set[str] = set()
        """Components that this run has changed, or may have."""
        self._changed_before = {index for index, state in enumerate(progress.tasks) if state.touched}
        """Tasks that an earlier run has changed something with, or may have."""

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
        caller = self._caller(task)
        ready = caller is not None and (self._is_there(task, caller) or self._act(task, caller, Action.DOWNLOAD))
        if not ready:
            self._told(task)
        return ready

    def _is_there(self, task: Task, caller: ActionCaller) -> bool:
        """Whether there is nothing to download for: it is installed. As the agent does, which downloads if in doubt."""
        if self.settings.context.cancelled():
            raise self._stopped_between(task, Action.DOWNLOAD)
        result, _ = self._called(task, caller, Action.IS_INSTALLED)
        if result.code != ResultCode.INSTALLED:
            return False
        return self._ended(task, Action.DOWNLOAD, ActionResult(ResultCode.DOWNLOAD_SKIPPED_ALREADY_INSTALLED), None)

    def restore(self, task: Task) -> None:
        """Brings back what was before it."""
        self._started(task)
        caller = self._caller(task)
        if caller is not None:
            self._act(task, caller, Action.RESTORE)
        self._ask_what_it_holds(task)
        self._told(task)

    def carry_out(self, task: Task) -> None:
        """Brings a task to its end, which it is not at."""
        state = self.state(task)
        self._started(task)
        caller = self._caller(task)
        if caller is not None:
            if state.failing:
                self._act(task, caller, Action.RESTORE)
            elif state.status is Status.AWAITING:
                self._after_restart(task, caller)
            else:
                self._install(task, caller)
        if state.status is Status.DONE and state.has_kept:
            self._give_up_older()
        if state.status is Status.DONE and task.options.attempts_under(self.settings.policy):
            self.settings.attempts.clear(task)
        self._ask_what_it_holds(task)
        self._told(task)

    def _ask_what_it_holds(self, task: Task) -> None:
        """Journals the version that the component reports once the task has changed it, or found it installed."""
        state = self.state(task)
        ended = state.status in (Status.DONE, Status.INSTALLED) or (
            state.finished and state.touched and state.as_before
        )
        if task.component is None or not ended:
            return
        version = ""
        with suppress(ProxyflashError):
            seen = self.settings.bench.find(task.component.name).look()
            version = seen.version if seen.presence is Presence.OK else ""
        self.record(Kind.HOLDS, sync=False, task=task.index, version=version)

    def _install(self, task: Task, caller: ActionCaller) -> None:
        """Asks, then carries out the actions that have not ended yet; on a failure restores."""
        state = self.state(task)
        allowed = self._holds(task, lambda: caller.context.conditions.demand(task.options.conditions))
        if allowed and self._wanted(task, caller):
            for action in (Action.BACKUP, Action.INSTALL, Action.APPLY):
                if action in state.results:
                    continue
                if action is Action.INSTALL and not self._may_install(task, caller):
                    break
                if not self._act(task, caller, action):
                    break
        if state.failing:
            self._act(task, caller, Action.RESTORE)

    def _wanted(self, task: Task, caller: ActionCaller) -> bool:
        """Whether there is something to install, by the component's word."""
        state = self.state(task)
        if state.started in (Action.INSTALL, Action.APPLY):
            # A cut ended it. The component knows how far it came.
            return self._act(task, caller, Action.IS_INSTALLED, after_cut=True)
        return state.begun or self._act(task, caller, Action.IS_INSTALLED)

    def _after_restart(self, task: Task, caller: ActionCaller) -> None:
        """The component says whether it is installed now. An Install goes on with Apply, an Apply has failed."""
        if Action.APPLY not in self.state(task).results:
            if self._act(task, caller, Action.IS_INSTALLED):
                self._install(task, caller)
            return
        result, error = self._called(task, caller, Action.IS_INSTALLED)
        self._check_there(task, None, error)
        if result.code == ResultCode.INSTALLED:
            self._ended(task, Action.IS_INSTALLED, result, None)
            return
        error = error or StepFailed(f"step {task.label} is not installed after the restart", component=task.target)
        self._failed(task, error, restore=True)
        self._act(task, caller, Action.RESTORE)

    def _check_versions(self, task: Task, caller: ActionCaller) -> None:
        """What was known when it was planned, asked again: another hand may have changed the part.

        The floor, downgrades, and the versions of other components. Raises BelowFloor, DowngradeRefused, ConditionFailed.
        """
        settings = self.settings
        if task.component is not None and task.wanted:
            # Without anything that would refuse it the part needn't be asked.
            ask = settings.policy.downgrade == "on-request"
            seen = settings.bench.find(task.component.name).look() if ask else task.component
            if is_downgrade(settings.policy, task, seen):
                self.record(Kind.DOWNGRADE, task=task.index, version=seen.version)
        caller.context.conditions.demand(one for one in task.options.conditions if isinstance(one, Version))

    def _holds(self, task: Task, check: Callable[[], None]) -> bool:
        """Whether a condition holds; if not, the task has failed. Raises Halt if the task was under way."""
        try:
            with naming(task.target):
                check()
        except (ConditionFailed, BelowFloor, DowngradeRefused) as error:
            if self.state(task).touched or (self.settings.resumed and isinstance(error.__cause__, NOT_THERE)):
                raise Halt(error) from error
            self._failed(task, error)
            return False
        return True

    def _may_install(self, task: Task, caller: ActionCaller) -> bool:
        """Whether the files are still those that were checked, and an attempt is left; if not, the task has failed."""
        limit = task.options.attempts_under(self.settings.policy)
        try:
            with naming(task.target):
                for name in task.step.files:
                    caller.context.check(name)
                if not self._holds(task, lambda: self._check_versions(task, caller)):
                    return False
                if limit:
                    self.settings.attempts.take(task, limit, again=self.settings.again)
        except StateFolder as error:
            raise self._stopped(task, None, error) from error
        except (TransportError, PartError) as error:
            self._check_there(task, None, error)
            self._failed(task, error, restore=self.state(task).touched)
            return False
        except (UpdateError, AttemptsExhausted) as error:
            self._failed(task, error, restore=self.state(task).touched)
            return False
        return True

    # One action.

    def _act(self, task: Task, caller: ActionCaller, action: Action, *, after_cut: bool = False) -> bool:
        """Carries out one action; whether the task goes on to the next one. Raises Halt."""
        if self.settings.context.cancelled():
            raise self._stopped_between(task, action)
        if action in ANNOUNCED:
            changes: dict[str, Any] = {"changes": False} if task.handler.changes_nothing else {}
            self.record(Kind.START, task=task.index, action=action, **changes)
            self.tell(ActionStarted(task.target, task.label, action))
            if action in (Action.INSTALL, Action.APPLY) and not task.handler.tells_changes:
                self._changed.add(task.target)
        result, error = self._called(task, caller, action, after_cut=after_cut)
        if action is Action.RESTORE and result.code == ResultCode.RESTORE_UNSUPPORTED and not result.details:
            result = replace(result, details=self._no_way_back(task))
        self._check_there(task, action, error)
        if action is Action.IS_INSTALLED and error is not None and not isinstance(error, StepTimeout | StagedChanged):
            # As with the agent: a step that can't determine it counts as not installed, and Install shows what is wrong with it.
            result, error = ActionResult(ResultCode.NOT_INSTALLED, result.extended, result.details), None
        return self._ended(task, action, result, error)

    def _check_there(self, task: Task, action: Action | None, error: ProxyflashError | None) -> None:
        """A bus or a component that isn't there, and that this run has not changed, fails no step: it may be there later.

        Neither does a disk that is full before anything was changed. Raises Halt.
        """
        if error is not None and action is Action.BACKUP and room.is_full(error):
            raise self._stopped(task, action, error) from error
        if isinstance(error, ConditionFailed):
            missing = self.settings.resumed and isinstance(error.__cause__, NOT_THERE)
        else:
            missing = isinstance(error, NOT_THERE) and (self.settings.resumed or action is not Action.RESTORE)
        if error is None or not missing or task.target in self._changed:
            return
        if action is Action.INSTALL and task.options.attempts_under(self.settings.policy):
            self.settings.attempts.give_back(task)
        raise self._stopped(task, action if action in ANNOUNCED else None, error) from error

    def _no_way_back(self, task: Task) -> str:
        kept = self.settings.kept
        # A rollback has no backups of its own: what those came to is in the journal of what it undoes.
        done = self.progress if "undoes" not in self.progress.begin else kept.progress()
        return planning.no_way_back(self.settings.bench, task, done.tasks[task.index].results)

    def _give_up_older(self) -> None:
        """Once a step that can be undone is done, a rollback undoes this update, and those before need keep nothing."""
        with self._lock:
            if not self._gave_up:
                self._gave_up = True
                self.settings.store.forget(self.settings.kept)

    def _called(self, task: Task, caller: ActionCaller, action: Action, *, after_cut: bool = False) -> Ended:
        """An action's result, and the error behind it. Raises Halt."""
        try:
            return caller.call(action, after_cut=after_cut)
        except StepHangs as error:
            raise self._stopped(task, action, error) from error
        except Cancelled as error:
            late = caller.is_late
            # The handler gets it once, while it was under way.
            self._cancel(task, caller)
            if late:
                return caller.late(action, error)
            raise self._stopped(task, action, error) from error

    def _cancel(self, task: Task, caller: ActionCaller) -> None:
        """The result of a handler's clean-up is journalled, and changes nothing. Raises Halt when it doesn't return."""
        try:
            result = caller.cancel()
        except StepHangs as error:
            raise self._stopped(task, Action.CANCEL, error) from error
        self.record(Kind.END, sync=False, task=task.index, action=Action.CANCEL, **fields_of(result, None))

    def _ended(self, task: Task, action: Action, result: ActionResult, error: ProxyflashError | None) -> bool:
        """Journals an action's end, and with it the task's if it is; whether the task goes on."""
        status = status_after(action, result, self.state(task))
        fields = fields_of(result, error) | ({"status": status} if status else {})
        # What only asked is not waited for: it can be asked again.
        waited = action in ANNOUNCED or status is not None
        self.record(Kind.END, sync=waited, task=task.index, action=action, **fields)
        if error is not None and action is not Action.RESTORE:
            self.state(task).error = error
        return result.succeeded and status is None

    def _failed(self, task: Task, error: ProxyflashError, *, restore: bool = False) -> None:
        fields = fields_of(failure(error.named(task.target)), error)
        self.record(Kind.FAILED, task=task.index, restore=restore, **fields)
        self.state(task).error = error

    def _stopped_between(self, task: Task, action: Action) -> Halt:
        """Journals that it was stopped on request while no action was under way. `action`: which would have been next."""
        looks = {Action.DOWNLOAD, Action.IS_INSTALLED}
        if any(state.begun or state.results.keys() - looks for state in self.progress.tasks):
            where = f"before step {task.label}"
            if action is Action.RESTORE:
                where += " was undone"
            elif self.state(task).begun:
                where = f"in step {task.label}, before its {action}"
            return self._stopped(task, None, Cancelled(f"stopped on request {where}", touched=False))
        error = Cancelled("stopped on request before the first step", touched=False)
        self.record(Kind.STOPPED, cause=error.cause)
        return Halt(error)

    def _stopped(self, task: Task, action: Action | None, error: ProxyflashError) -> Halt:
        """Journals that it was stopped on request, that a component isn't there, or that an action hangs: then it may
        have touched anything."""
        touched = error.touched if isinstance(error, Cancelled) else isinstance(error, StepHangs)
        if error.left is not None and task.index in self._changed_before:
            error.left = replace(error.left, before=True)
        under_way: dict[str, Any] = {} if action is None else {"action": action, "touched": touched}
        cause = f"{error.cause} ({error.left.text})" if error.left is not None else error.cause
        self.record(Kind.STOPPED, cause=cause, task=task.index, **under_way)
        return Halt(error.named(task.target))

    def _caller(self, task: Task) -> ActionCaller | None:
        """None: its handler can't be made, and the task has failed."""
        settings = self.settings
        seconds = task.options.seconds_under(settings.policy)
        timeout = ActionTimeout(settings.bench.folder, seconds, RunContext(self.tell, settings.context.cancelled))
        try:
            handler = task.handler(self._context(task, timeout.context))
        except ProxyflashError as error:
            self._failed(task, error)
            return None
        return ActionCaller(task, handler, timeout, settings.bench.outside)

    def _context(self, task: Task, context: RunContext) -> StepContext:
        settings, kept = self.settings, self.settings.kept
        return StepContext(
            step=task.step,
            files={name: task.update.files[name] for name in task.step.files},
            work_folder=kept.work / _folder_name(task.update),
            backup_folder=kept.backup / task.label / task.target,
            component=settings.bench.find(task.component.name) if task.component else None,
            record=task.component,
            conditions=BenchConditions(settings.bench, task.component.name if task.component else None),
            run=context,
            payloads={file.filename: file for file in task.update.manifest.files if file.filename in task.step.files},
            refusal=settings.refusal,
            changed=self.state(task).touched and not self.state(task).fresh,
        )

    def _started(self, task: Task) -> None:
        self.tell(StepStarted(task.target, task.label, task.step.description or "", task.step.handler))

    def _told(self, task: Task) -> None:
        state = self.state(task)
        if state.result is not None:
            result = state.result
            finished = StepFinished(task.target, task.label, state.status, result.code, result.extended, result.details)
            self.tell(finished)

    def tell(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, PhaseStarted) and event.phase in (Phase.ERASE, Phase.WRITE):
                self._changed.add(event.component)
            self.settings.context.on_event(event)


def _folder_name(update: Update) -> str:
    name = update.manifest.updateId
    return f"{name.provider}-{name.name}-{name.version}"
