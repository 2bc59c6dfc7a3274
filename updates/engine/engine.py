"""The engine: makes plans of updates, carries them out, goes on with what was cut, and undoes.

    engine = Engine(bench)
    outcome = engine.apply(engine.plan(load(path, engine.policy), bench.scan().components))
    ...
    outcome = engine.resume()

An update begins with copies of all its files in the bench's state folder, and a journal. From there on nothing but these
two is needed to go on, whatever happens to the process, the host or the folder that the update came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from ...enumerators.bench import Bench
from ...enumerators.component import Component, Presence
from ...enumerators.errors import StateFolder
from ...flashers.errors import NoResponse
from ...flashers.events import QUIET, RunContext
from ...transports.errors import AdapterAbsent, AdapterGone, ExitStatus, NextAction, ProxyflashError, Remedy
from ..errors import (
    ComponentAbsent,
    ConditionFailed,
    JournalBroken,
    JournalNotWritten,
    KeyFile,
    ManifestExpired,
    ManifestFuture,
    StagedChanged,
    TrustError,
    Unfinished,
    UpdateError,
    UpdateUnknown,
)
from ..events import ComponentFinished, Status
from ..handlers.handler import unchanged
from ..manifests import files
from ..manifests.conditions import BenchConditions
from ..manifests.options import start_conditions
from ..manifests.policy import Policy, policy_of
from ..manifests.resolved_update import Update, read, staged
from . import plan as planning
from . import restarting, room, scheduling, time_limits
from .attempts import Attempts
from .journal import Journal
from .plan import UpdatePlan, flash_again
from .progress import Ending, Kind, Progress, TaskProgress
from .report import Outcome, undoing_by_hand
from .store import Change, Seen, Store, StoredUpdate
from .task_runner import RunSettings
from .update_run import UpdateRun
from .verdict import NOT_SELECTED, PASSED_OVER

CARRIED_OVER = (
    "update",
    "manifest",
    "documents",
    "workflow",
    "digest",
    "created",
    "on_failure",
    "parallel",
    "tasks",
    "components",
)
"""What a rollback's first record has from that of the update which it undoes."""


NOT_GONE_ON_WITH = (
    "Undo it: ",
    NextAction.ROLLBACK,
    ". Or leave the components as they are, and apply another update: ",
    NextAction.ABANDON,
)


class Engine:
    """Carries out updates on one bench. `policy`: None: the bench file's."""

    def __init__(
        self,
        bench: Bench,
        *,
        policy: Policy | None = None,
        context: RunContext = QUIET,
    ) -> None:
        self.bench = bench
        self.policy = policy or policy_of(bench.file)
        self.context = context
        self.store = Store(bench.folder)

    def plan(self, update: Update, components: Sequence[Component], *, parallel: bool | None = None) -> UpdatePlan:
        """What will be done with the components as they were seen. Touches nothing.

        `parallel`: whether components will be updated at once, for which their backups need room; None: as the policy has it.
        Raises HandlerUnknown, ManifestField, ComponentAbsent, BelowFloor, DowngradeRefused, NoRoom.
        """
        made = planning.make(self.bench, self.policy, update, components, self._torn)
        at_once = self.policy.parallel if parallel is None else parallel
        limits = scheduling.limits_of(self.bench) if at_once else None
        room.demand(self.bench.folder, update, made.tasks, self.store.to_be_freed(), limits)
        return made

    def unfinished(self) -> StoredUpdate | None:
        """The update that is not at its end; there is one at most. Raises JournalBroken."""
        found = self._open()
        return None if found is None else found[0]

    def _open(self) -> tuple[StoredUpdate, Progress] | None:
        """The unfinished update, and how far it is: its journal is read once."""
        latest = self.store.latest()
        if latest is None or (progress := latest.progress()).over:
            return None
        return latest, progress

    def seen(self) -> Seen | None:
        """The latest time that this host is known to have had, for `load`. None: age doesn't matter here."""
        return self.store.seen(self.policy.max_age_days)

    def is_of(self, entry: StoredUpdate, update: Update) -> bool:
        """Whether an update of the history is this one, to the byte of its manifests."""
        return bool(entry.progress().begin["digest"] == update.digest)

    def apply(
        self,
        plan: UpdatePlan,
        *,
        on_failure: str | None = None,
        parallel: bool | None = None,
        again: bool = False,
        abandon: bool = False,
    ) -> Outcome:
        """Carries out a plan. A failure ends it; it is in the outcome, not raised.

        `on_failure`, `parallel`: None: as the policy has them. `again`: steps that were tried as often as allowed are
        tried again. `abandon`: another update that is unfinished is left as it is. Raises Unfinished,
        ConditionFailed, StateFolder, ComponentAbsent, UpdateError for a file that has changed since; with all of these
        nothing was touched.
        """
        self._take()
        other = self._open()
        if other is not None and not abandon:
            raise _unfinished(*other)
        self._demand()
        components = self._found(plan)
        if other is not None:
            self._give_up(other[0])
        entry = self.store.create()
        try:
            copy = staged(plan.update, entry.files)
        except StateFolder as error:
            # What was copied takes up room, and nobody needs it.
            self.store.take_away(entry)
            raise room.advised(error, entry.files, plan.update) from error.__cause__
        # The same tasks, with the files that nobody else writes.
        own = planning.order(copy, components)
        begin = {
            "update": str(plan.update.manifest.updateId),
            "manifest": copy.path.name,
            "documents": sorted({name for member in (copy, *copy.children.values()) for name in member.documents}),
            "workflow": copy.workflow_id,
            "digest": plan.update.digest,
            "created": plan.update.created.isoformat(),
            "on_failure": on_failure or self.policy.on_failure,
            "parallel": self.policy.parallel if parallel is None else parallel,
            "downgrades": [f"{task.label} {task.target}" for task in plan.tasks if task.downgrade],
            "tasks": len(own.tasks),
            "components": [asdict(component) for component in own.components],
            "boot": restarting.boot_id(),
        }
        names = [component.name for component in components]
        away = [component.name for component in plan.components if component.name not in names]
        absent = [*away, *(component.name for component in plan.unplugged)]
        begin["passed_over"] = dict.fromkeys(absent, PASSED_OVER) | dict.fromkeys(plan.unselected, NOT_SELECTED)
        journal, progress = self._begin(entry, begin)
        # An update that turns out to have nothing to install must not remove the backups of the installed one.
        self.store.forget(entry, *self.store.backed_up())
        for name in away:
            self.context.on_event(ComponentFinished(name, PASSED_OVER))
        return self._run(entry, entry, journal, progress, own, again=again).carry_out()

    def resume(self, *, again: bool = False) -> Outcome:
        """Goes on with the update that is unfinished, if the policy still takes it and its files are still what they were.

        Raises TrustError, KeyFile and StagedChanged, which leave everything as it is and say how it is undone;
        UpdateUnknown when there is none, RestartPending, ConditionFailed, ManifestField or ComponentUnknown for
        components that the bench file has otherwise now, JournalBroken, JournalNotWritten.
        """
        self._take()
        found = self._open()
        if found is None:
            raise UpdateUnknown("no update is unfinished")
        return self._go_on(*found, again=again, demands=True).carry_out()

    def rollback(self, number: int | None = None) -> Outcome:
        """Undoes an update in reverse order, each step as its handler can. `number`: which; None: see `to_undo`.

        What a rollback could not bring back the next one tries again. Of an update that the policy doesn't take any more,
        what was backed up is brought back, and no file of it is used. Raises UpdateUnknown when there is none whose backups
        are kept, or everything was brought back; Unfinished when another one is not at its end.
        """
        self._take()
        found = self._open()
        if found is not None:
            _check_is(number, *found)
            return self._go_on(*found).roll_back()
        change = self._to_undo(number)
        if change.is_undone:
            raise UpdateUnknown(_undone(change), remedy=self._further(change))
        return self._undoing(change).carry_out()

    def _torn(self) -> set[str]:
        """The components that the last update which changed them left neither as they were nor as it wanted them."""
        last: dict[str, bool] = {}
        for entry in reversed(self.store.entries()):
            with suppress(ProxyflashError):
                found: dict[str, bool] = {}
                for item in self.outcome(entry).results:
                    if item.touched:
                        found[item.task.target] = found.get(item.task.target, False) or item.is_torn
                last = found | last
        return {name for name, is_torn in last.items() if is_torn}

    def outcome(self, entry: StoredUpdate) -> Outcome:
        """What an update of the history has come to, from its journal and its manifest's copy."""
        progress = entry.progress()
        kept = self.kept(entry, progress)
        return Outcome(_plan_of(kept, progress, _own(kept, progress, Policy())), progress, entry.number)

    def refuse(self, other: StoredUpdate) -> None:
        """Raises Unfinished: no update begins while another one isn't at its end."""
        raise _unfinished(other, other.progress())

    def to_undo(self, number: int | None = None) -> Change:
        """What a rollback would undo, or has undone already. `number`: that update.

        None: the unfinished update, else the last that changed something. If that one kept nothing because it is an update that
        was applied again, and changed nothing that can be brought back, it is the run of the same update before.
        Raises UpdateUnknown, Unfinished.
        """
        found = self._open()
        if found is None:
            return self._to_undo(number)
        _check_is(number, *found)
        entry, progress = found
        kept = self.kept(entry, progress)
        return Change(entry, progress, kept, progress if kept == entry else kept.progress())

    def _to_undo(self, number: int | None) -> Change:
        changes = self.store.changes()
        if number is not None:
            later: list[Change] = []
            for found in changes:
                if found.kept.number == number:
                    break
                later.append(found)
            else:
                self.store.entry(number)
                raise UpdateUnknown(f"update {number} is a rollback, or has changed nothing")
            if not found.is_for_rollback:
                raise self._nothing_kept(found)
            self._refuse_mixture(found, later)
            return found
        last = next(changes, None)
        if last is None:
            none = self.store.latest() is None
            what = "was made on" if none else "has changed anything of"
            raise UpdateUnknown(f"no update {what} this bench so far, by {self.store.folder}")
        found = last
        while not found.is_for_rollback:
            before = next(changes, None)
            if before is None or not _is_again(found, before):
                raise self._nothing_kept(last)
            found = before
        return found

    def another_way_back(self, change: Change) -> StoredUpdate | None:
        """The last update before this change that can still be undone, by its number; None: there is none."""
        later: list[Change] = []
        with suppress(JournalBroken, UpdateUnknown):
            for other in self.store.changes():
                if other.kept.number < change.kept.number and other.can_be_undone:
                    self._refuse_mixture(other, later)
                    return other.kept
                later.append(other)
        return None

    def _refuse_mixture(self, change: Change, later: Iterable[Change]) -> None:
        """What a change brings back is only what it replaced: over what a later one wrote, that would be a mixture.

        Raises UpdateUnknown.
        """
        own = {target for target, state in self._changed(change) if state.has_kept}
        for other in later:
            if both := sorted(own & {target for target, _ in self._changed(other)}):
                raise UpdateUnknown(
                    f"update {other.kept.number} has changed {', '.join(both)} since, and what update {change.kept.number} "
                    "replaced would leave a mixture of both",
                    remedy="Apply an update, or flash a whole image: proxyflash flash NAME FILE",
                )

    def _changed(self, change: Change) -> list[tuple[str, TaskProgress]]:
        """What a change has left other than it was before: each component, and how the update came to it. Raises UpdateError."""
        plan = _plan_of(change.kept, change.done, _own(change.kept, change.done, Policy()))
        tasks = zip(plan.tasks, change.progress.tasks, change.done.tasks, strict=False)
        return [(task.target, done) for task, state, done in tasks if not state.as_before]

    def _further(self, change: Change) -> Remedy | None:
        """What else can be undone, for a message."""
        other = self.another_way_back(change)
        if other is None:
            return None
        what = f"Update {other.number}, {other.progress().begin['update']}, can still be undone: "
        return (what, NextAction.ROLLBACK, f" {other.number}")

    def _nothing_kept(self, change: Change) -> UpdateUnknown:
        """Why nothing of a change can be brought back, and what can be done: another rollback, or by hand."""
        said = f"of update {change.kept.number}, {change.done.begin['update']}, nothing was kept that could be brought back"
        remedy = self._further(change)
        if any(state.has_kept for state in change.done.tasks):
            return UpdateUnknown(f"{said}; a later update has taken its place", remedy=remedy)
        with suppress(ProxyflashError):
            plan = _plan_of(change.kept, change.done, _own(change.kept, change.done, Policy()))
            left = [
                (task, state) for task, state in zip(plan.tasks, change.done.tasks, strict=True) if not state.as_before
            ]
            reasons = {
                f"step {task.label} on {task.target}: {planning.no_way_back(self.bench, task, state.results)}": None
                for task, state in left
            }
            said = "; ".join((said, *reasons))
            remedy = remedy or undoing_by_hand([task for task, _ in left])
        return UpdateUnknown(said, remedy=remedy)

    def _take(self) -> None:
        """The bench is this engine's alone. Raises BenchLocked, StepHangs."""
        self.bench.lock()
        time_limits.check_none_hangs(self.bench.folder)

    def _demand(self) -> None:
        """Asked once for each start, before anything is written. Raises ConditionFailed, StateFolder."""
        Attempts(self.store.attempts).check()
        BenchConditions(self.bench).demand(start_conditions(self.bench, self.policy))

    def _found(self, plan: UpdatePlan) -> list[Component]:
        """The components of a plan, with those that were silent as they are found in their bootloaders. They stay there.

        An optional component that is not there is left out, for the caller to report. Raises ComponentAbsent, and other reasons
        why a bootloader can't be entered; nothing was changed then.
        """
        found = []
        for component in plan.components:
            if component.name not in plan.silent:
                found.append(component)
                continue
            part = self.bench.component(component.name)
            try:
                with part.programmer(self.context, starts_again=False) as programmer:
                    programmer.find()
            except (AdapterAbsent, AdapterGone, NoResponse) as error:
                if part.entry.spec.optional:
                    continue
                if not isinstance(error, NoResponse):
                    raise
                cause = f"neither {component.name} nor its bootloader answers ({component.where}): {error.cause}"
                task = next(task for task in plan.tasks if task.target == component.name)
                raise ComponentAbsent(cause, remedy=flash_again(task), component=component.name) from error
            found.append(replace(component, presence=Presence.BOOTLOADER))
        return found

    def _give_up(self, other: StoredUpdate) -> None:
        journal = Journal.reopen(other.journal)
        journal.append(Kind.FINISH, {"ending": Ending.ABANDONED})
        journal.close()

    def _go_on(
        self, entry: StoredUpdate, progress: Progress, *, again: bool = False, demands: bool = False
    ) -> UpdateRun:
        """`demands`: whether what the start asks for must hold; to undo, nothing need."""
        restarting.check_restarted(progress.restart)
        kept = self.kept(entry, progress)
        undoes = progress.rolling_back or not demands
        update, refusal = self._again(kept, progress, undoes=undoes)
        plan = _plan_of(kept, progress, update)
        if not undoes:
            _check_files(plan, progress)
            try:
                self._demand()
            except ConditionFailed as error:
                error.exit_status = ExitStatus.RESUMABLE
                raise
        if demands:
            # The bench file may be another one than at the start.
            planning.check_components(self.bench, plan)
        journal = Journal.reopen(entry.journal)
        progress.add(journal.append(Kind.RESUMED, {"boot": restarting.boot_id()}))
        return self._run(entry, kept, journal, progress, plan, refusal=refusal, again=again, resumed=demands)

    def _undoing(self, change: Change) -> UpdateRun:
        """A rollback of a change, as an update of its own: that one's end stays what it was."""
        kept, before = change.kept, change.progress
        update, refusal = self._again(kept, before, undoes=True)
        plan = _plan_of(kept, before, update)
        done = [(state.ended, index) for index, state in enumerate(before.tasks) if state.status is Status.DONE]
        entry = self.store.create()
        carried_over = {key: before.begin[key] for key in CARRIED_OVER if key in before.begin}
        begin = carried_over | {
            "undoes": kept.number,
            "done": [index for _, index in sorted(done)],
            "torn": _to_bring_back(plan, before),
            "boot": restarting.boot_id(),
        }
        journal, progress = self._begin(entry, begin)
        return self._run(entry, kept, journal, progress, plan, refusal=refusal)

    def _begin(self, entry: StoredUpdate, fields: dict[str, Any]) -> tuple[Journal, Progress]:
        """Journals that an update begins. Raises JournalNotWritten: then it has not begun, and there is nothing to resume."""
        progress = Progress()
        try:
            journal = Journal.create(entry.journal)
            progress.add(journal.append(Kind.BEGIN, fields))
        except JournalNotWritten as error:
            self.store.take_away(entry)
            raise room.not_begun(error, entry.folder) from error.__cause__
        return journal, progress

    def kept(self, entry: StoredUpdate, progress: Progress) -> StoredUpdate:
        """Whose files and backups an update uses. Raises UpdateUnknown."""
        return self.store.kept(entry, progress)

    def _again(self, kept: StoredUpdate, progress: Progress, *, undoes: bool) -> tuple[Update, UpdateError | None]:
        """An update that has begun, from its own copies, and why the policy doesn't take it any more.

        `undoes`: it is undone, for which no policy need take it. Raises TrustError, KeyFile, StagedChanged.
        """
        try:
            return _own(kept, progress, self.policy, self.seen()), None
        except (TrustError, KeyFile) as error:
            # A manifest that was changed is another matter: nothing can be undone by it either.
            update = _own(kept, progress, Policy())
            if undoes:
                return update, error
            helps = (*error.advice, " ") if isinstance(error, ManifestExpired | ManifestFuture | KeyFile) else ()
            raise error.advised((*helps, *NOT_GONE_ON_WITH)) from error

    def _run(
        self,
        entry: StoredUpdate,
        kept: StoredUpdate,
        journal: Journal,
        progress: Progress,
        plan: UpdatePlan,
        *,
        refusal: UpdateError | None = None,
        again: bool = False,
        resumed: bool = False,
    ) -> UpdateRun:
        attempts = Attempts(self.store.attempts)
        settings = RunSettings(
            self.bench, self.policy, self.store, kept, attempts, self.context, refusal, again, resumed
        )
        return UpdateRun(entry, journal, progress, plan, settings)


def _own(kept: StoredUpdate, progress: Progress, policy: Policy, seen: Seen | None = None) -> Update:
    """An update that has begun, by the copies of its manifests. Raises TrustError, KeyFile, StagedChanged."""
    path = kept.files / str(progress.begin["manifest"])
    remedy: Remedy = f"What was backed up lies in {kept.backup}."
    if not progress.over:
        leave = "Leave the components as they are, and apply another update: "
        remedy = (leave, NextAction.ABANDON, f". {remedy}")
    try:
        update = read(path, policy, seen=seen)
    except (TrustError, KeyFile):
        raise
    except UpdateError as error:
        cause = f"changed after it was checked: {error.code} {error.cause}"
        raise StagedChanged(cause, remedy=remedy) from error
    if update.digest != progress.begin["digest"]:
        cause = f"changed after it was checked: {path} is not the manifest that update {kept.number} began with"
        raise StagedChanged(cause, remedy=remedy)
    return update


def _plan_of(kept: StoredUpdate, progress: Progress, update: Update) -> UpdatePlan:
    """The plan of an update that has begun. Raises JournalBroken when it doesn't fit."""
    components = [_component(fields) for fields in progress.begin["components"]]
    plan = planning.order(update, components)
    if len(plan.tasks) != len(progress.tasks):
        raise JournalBroken(
            f"{kept.journal} is of {len(progress.tasks)} tasks, and the files beside it make {len(plan.tasks)}"
        )
    return plan


def _undone(change: Change) -> str:
    """What is said of a change of which nothing is left to be brought back."""
    number = change.entry.number
    if change.progress.rolling_back:
        return f"the last one, update {number}, was rolled back already"
    return f"the last one, update {number}, left everything as it was before"


def _is_again(later: Change, before: Change) -> bool:
    """Whether the later change is the same update, which was applied again and went well."""
    again = later.kept == later.entry and later.progress.ending is Ending.SUCCEEDED
    return again and bool(later.done.begin["digest"] == before.done.begin["digest"])


def _check_is(number: int | None, unfinished: StoredUpdate, progress: Progress) -> None:
    """Raises Unfinished where `number` is neither the unfinished update nor the update that it undoes."""
    if number not in (None, unfinished.number, progress.begin.get("undoes")):
        raise _unfinished(unfinished, progress)


def _to_bring_back(plan: UpdatePlan, before: Progress) -> list[int]:
    """The tasks of an update at its end that changed something, are not done, and have not been brought back.

    With the earlier ones of the same component, which are brought back after it: each has kept what there was before it.
    """
    pairs = list(zip(plan.tasks, before.tasks, strict=True))
    last = {task.target: task.index for task, state in pairs if not state.as_before and state.status is not Status.DONE}
    return [
        task.index
        for task, state in pairs
        if state.touched and state.status is not Status.DONE and task.index <= last.get(task.target, -1)
    ]


def _check_files(plan: UpdatePlan, progress: Progress) -> None:
    """Those of the tasks that are left, before anything more is done. Raises StagedChanged."""
    left = [task for task, state in zip(plan.tasks, progress.tasks, strict=True) if not state.finished]
    wanted = {task.update.files[name]: (task.update, name) for task in left for name in task.step.files}
    with unchanged(NOT_GONE_ON_WITH):
        for path, (update, name) in wanted.items():
            files.check(path, next(file for file in update.manifest.files if file.filename == name))


def _unfinished(other: StoredUpdate, progress: Progress) -> Unfinished:
    return Unfinished(f"update {other.number}, {progress.begin['update']}, is not at its end ({progress.ending})")


def _component(fields: dict[str, Any]) -> Component:
    return Component(**fields | {"presence": Presence(fields["presence"])})
