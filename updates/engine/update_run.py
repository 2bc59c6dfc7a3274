"""One update under way: its tasks in their order, one after the other or beside each other, to its end or to a halt."""

from __future__ import annotations

import shutil
from itertools import groupby

from ...flashers.errors import NOT_THERE, Cancelled
from ...transports import private_files
from ...transports.errors import ExitStatus, NextAction, ProxyflashError, Remedy
from ..errors import JournalNotWritten
from ..events import ComponentFinished, Status
from ..manifests.options import OnFailure
from . import restarting, room, scheduling
from .action import Action
from .journal import Journal
from .plan import Task, UpdatePlan
from .progress import RESTARTS, Ending, Kind, Progress, TaskProgress
from .report import Outcome, results_of
from .restarting import Restarts
from .store import StoredUpdate
from .task_runner import Halt, RunSettings, TaskRunner
from .verdict import verdict


class UpdateRun:
    """Carries out one update from where its journal ends."""

    def __init__(
        self, entry: StoredUpdate, journal: Journal, progress: Progress, plan: UpdatePlan, settings: RunSettings
    ) -> None:
        self.entry = entry
        self.plan = plan
        self.progress = progress
        self._settings = settings
        self._runner = TaskRunner(journal, progress, settings)
        self._restarts = Restarts(settings.policy, settings.bench.commands)
        pairs = zip(plan.tasks, progress.tasks, strict=True)
        self._given_up = {task.target for task, state in pairs if state.status is Status.FAILED}
        """Components on which a step has failed: their later ones are not run."""
        self._of: dict[str, list[Task]] = {}
        """The tasks of each component."""
        for task in plan.tasks:
            self._of.setdefault(task.target, []).append(task)
        self._restarted_first: set[str] = set()
        """Components on which a step waits for a restart: their later ones are for the next run."""
        self._away: dict[str, Halt] = {}
        """Components that aren't there, while the update goes on with others."""

    def carry_out(self) -> Outcome:
        """Goes on to the end, or to where it must halt. Raises JournalNotWritten; then it can be resumed."""
        halt: ProxyflashError | None = None
        try:
            if self.progress.rolling_back:
                self._roll_back()
            else:
                self._forward()
        except Halt as found:
            halt = found.error
            if isinstance(halt, Cancelled):
                halt = self._stopped(halt)
        except JournalNotWritten as error:
            if not room.is_full(error):
                raise
            raise error.advised(self._make_room()) from error.__cause__
        finally:
            self._runner.close()
        return Outcome(
            self.plan, self.progress, self.entry.number, self._advised(halt), self._restart_for_the_restored()
        )

    def _advised(self, halt: ProxyflashError | None) -> ProxyflashError | None:
        """What keeps the update from its end, with the way to go on."""
        if halt is None or self.progress.over or NextAction.RESUME in halt.advice:
            return halt
        remedy: Remedy = ("What is done is skipped, and the rest goes on, by: ", NextAction.RESUME)
        if isinstance(halt, NOT_THERE):
            remedy = ("When it is there, go on: ", NextAction.RESUME, ". ", *halt.advice)
        elif room.is_full(halt):
            remedy = self._make_room()
        found = halt.advised(remedy)
        if not isinstance(halt, Cancelled):
            found.exit_status = ExitStatus.RESUMABLE
        return found

    def _make_room(self) -> Remedy:
        needed = room.left_over(self.entry.folder, [task for task in self.plan.tasks if self._may_keep(task)])
        return (f"{private_files.MAKE_ROOM} ({needed}), then go on: ", NextAction.RESUME)

    def _may_keep(self, task: Task) -> bool:
        """Whether a task may still make its backup."""
        state = self.progress.tasks[task.index]
        return not self.progress.rolling_back and not state.finished and Action.BACKUP not in state.results

    def _stopped(self, halt: Cancelled) -> Cancelled:
        """If nothing was changed yet, it is the update's end: there is nothing to go on with."""
        touched = halt.touched or self.progress.touched
        if not touched and not self.progress.rolling_back:
            self._finish(Ending.CANCELLED)
        found = Cancelled(halt.cause, touched=touched, remedy=halt.advice, component=halt.component)
        found.left = halt.left
        return found

    def roll_back(self) -> Outcome:
        """Undoes what was done, whatever is left to do; also what a step's own restore could not bring back."""
        if not self.progress.rolling_back:
            torn = [index for index, state in enumerate(self.progress.tasks) if state.torn]
            self._runner.record(Kind.ROLLBACK, asked=True, torn=torn)
        return self.carry_out()

    def _forward(self) -> None:
        if not self.progress.downloaded:
            if not all(self._runner.download(task) for task in self.plan.tasks):
                return self._finish(Ending.FAILED)
            self._runner.record(Kind.DOWNLOADED)
        if self.progress.begin["parallel"]:
            for stage in scheduling.stages(self.plan.tasks):
                if not self._stage(stage):
                    return None
        else:
            for _, tasks in groupby(self.plan.tasks, key=lambda task: task.number):
                if not self._in_turn(list(tasks)):
                    return None
        self._halt_for(self._away)
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
        scheduler = scheduling.Scheduler(left, scheduling.limits_of(self._settings.bench))

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
                self._runner.record(Kind.ROLLBACK)
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
        left = [*reversed(under_way), *(task for _, task in reversed(done))]
        away: dict[str, Halt] = {}
        while left:
            task = left.pop(0)
            if task.target in away:
                continue
            try:
                self._runner.restore(task)
            except Halt as halt:
                if not halt.of_component:
                    raise
                away[task.target] = halt
                continue
            if all(task.target != other.target for other in left):
                self._tell_verdict(task.target)
            restored = self._state(task).results.get(Action.RESTORE)
            asked = RESTARTS.get(restored.code) if restored is not None else None
            if left and asked is not None and asked.immediate:
                # The rest is brought back once the host, or the service, has been restarted.
                self._restart(host=asked.host)
        self._halt_for(away)
        clean = all(state.as_before for state in self.progress.tasks)
        self._finish(Ending.ROLLED_BACK if clean else Ending.PARTLY_ROLLED_BACK)

    def _finish(self, ending: Ending) -> None:
        self._runner.record(Kind.FINISH, ending=ending)
        shutil.rmtree(self._settings.kept.work, ignore_errors=True)

    def _heed_restart(self, task: Task) -> None:
        state = self._state(task)
        if state.status is Status.AWAITING and state.awaits is not None and state.awaits.immediate:
            self._restart(host=state.awaits.host)

    def _restart_if_asked(self, tasks: list[Task]) -> None:
        waiting = [state for state in map(self._state, tasks) if state.status is Status.AWAITING]
        if waiting:
            self._restart(host=any(state.awaits is not None and state.awaits.host for state in waiting))

    def _restart_for_the_restored(self) -> str:
        """What is brought back may ask for a restart as what is installed does: once the update is at its end.

        The policy's command is run; what is left to be said to a person.
        """
        asked = self.progress.restored_restart
        if asked is None or not self.progress.over:
            return ""
        return self._restarts.ask_for_the_restored(host=asked.host)

    def _restart(self, *, host: bool) -> None:
        """Raises Halt: what comes after is for the next run."""
        self._runner.record(Kind.RESTART, host=host, boot=restarting.boot_id())
        raise Halt(self._restarts.ask(host=host))

    def _task(self, task: Task) -> None:
        if self._state(task).finished or task.target in self._given_up | self._restarted_first | self._away.keys():
            return
        try:
            self._runner.carry_out(task)
        except Halt as halt:
            if not halt.of_component or self._on_failure(task) != "continue":
                raise
            self._away[task.target] = halt
            return
        if self._state(task).status is Status.AWAITING:
            self._restarted_first.add(task.target)
        if self._state(task).status is Status.FAILED:
            self._given_up.add(task.target)
        if task is self._of[task.target][-1] or task.target in self._given_up:
            self._tell_verdict(task.target)

    def _tell_verdict(self, target: str) -> None:
        results = results_of(self._of[target], self.progress)
        self._runner.tell(ComponentFinished(target, verdict(results), tuple(item.task.status for item in results)))

    @staticmethod
    def _halt_for(away: dict[str, Halt]) -> None:
        for halt in away.values():
            raise halt

    def _state(self, task: Task) -> TaskProgress:
        return self._runner.state(task)
