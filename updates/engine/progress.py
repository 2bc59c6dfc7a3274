"""How far an update has come: what its journal's records add up to.

The engine changes this in one way only, by a record that it has just written; so a resume reads back from the
journal everything that the engine knew when it was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ...enumerators.benchfile.validation import first_fault
from ...enumerators.component import Presence
from ...transports.errors import Left, ProxyflashError
from ...transports.plain import quoted
from ..errors import JournalBroken, StepFailed
from ..events import Status
from .action import CHANGING, Action
from .results import ActionResult, ResultCode

_LEFT = TypeAdapter(Left)
LATER = (
    "If a later version of proxyflash wrote it, go on with that version. If not, look at the file and the disk; move the "
    "update's folder away to begin again."
)
MOST_TASKS = 100_000
"""Of one update."""


class Ending(StrEnum):
    """What an update has come to. All but the first two are for ever."""

    UNFINISHED = "unfinished"
    AWAITING = "awaits a restart"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled back"
    PARTLY_ROLLED_BACK = "rolled back in part"
    ABANDONED = "abandoned"


class Kind(StrEnum):
    """The kinds of a journal's records."""

    BEGIN = "begin"
    RESUMED = "resumed"
    DOWNLOADED = "downloaded"
    START = "start"
    END = "end"
    FAILED = "failed"
    """A task failed outside of an action: a condition, too many attempts."""
    DOWNGRADE = "downgrade"
    """A task is about to install an older version than the component has: by request."""
    STOPPED = "stopped"
    ROLLBACK = "rollback"
    HOLDS = "holds"
    """What a component reports once a task has ended: its version."""
    RESTART = "restart"
    FINISH = "finish"


_KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Restart:
    """What a result code asks for. `host`: the whole host, else the agent's service alone."""

    host: bool
    immediate: bool

    @property
    def what(self) -> str:
        return "reboot" if self.host else "restart"


RESTARTS = {
    base + offset: Restart(host=offset in (5, 6), immediate=offset in (5, 7))
    for base in (ResultCode.INSTALL_SUCCESS, ResultCode.APPLY_SUCCESS, ResultCode.RESTORE_SUCCESS)
    for offset in (5, 6, 7, 8)
}


SKIPPED = (ResultCode.INSTALL_ALREADY_INSTALLED, ResultCode.INSTALL_NO_MATCHING_COMPONENTS)
"""What Install may come to without having installed anything; Apply then has nothing to do."""


@dataclass(slots=True)
class TaskProgress:
    """One task. `results`: of the actions that have ended. `started`: the action that has begun and not ended.

    `touched`: an action that changes something has begun; `fresh`: by this start of it, not before. `failing`: it is to be
    restored. `awaits`: a restart that it asked for. `ended`: the number of the record that ended it. `stopped`: why it was
    stopped last, "" when the update goes on.
    """

    status: Status = Status.TODO
    results: dict[Action, ActionResult] = field(default_factory=dict)
    started: Action | None = None
    touched: bool = False
    fresh: bool = False
    failing: bool = False
    awaits: Restart | None = None
    result: ActionResult | None = None
    error: ProxyflashError | None = None
    ended: int = 0
    stopped: str = ""

    @property
    def finished(self) -> bool:
        return self.status not in (Status.TODO, Status.AWAITING)

    @property
    def begun(self) -> bool:
        return self.started is not None or self.touched or Action.BACKUP in self.results

    @property
    def as_before(self) -> bool:
        """Whether the component is as it was before, as far as this task is concerned."""
        restored = self.results.get(Action.RESTORE)
        return not self.touched or (restored is not None and restored.brought_back)

    @property
    def has_kept(self) -> bool:
        """Whether its Backup has kept what there was before."""
        kept = self.results.get(Action.BACKUP)
        return kept is not None and kept.succeeded and kept.code != ResultCode.BACKUP_UNSUPPORTED

    @property
    def torn(self) -> bool:
        """Whether it has ended, and left neither what was wanted nor what was there before."""
        return self.status in (Status.FAILED, Status.NOT_RESTORED) and not self.as_before


def status_after(action: Action, result: ActionResult, state: TaskProgress) -> Status | None:
    """What a task has come to by the result of an action. None: the task is not at its end."""
    match action:
        case Action.RESTORE if state.failing:
            return Status.FAILED
        case Action.RESTORE:
            return Status.RESTORED if result.brought_back else Status.NOT_RESTORED
        case Action.INSTALL | Action.APPLY if not result.succeeded:
            return None  # It is restored first.
        case Action.IS_INSTALLED if not result.succeeded and state.touched:
            return None  # As well.
        case _ if not result.succeeded:
            return Status.FAILED
        case Action.IS_INSTALLED if result.code == ResultCode.INSTALLED:
            return Status.DONE if state.touched else Status.INSTALLED
        case Action.INSTALL if result.code in SKIPPED:
            return Status.INSTALLED
        case Action.INSTALL if (asked := RESTARTS.get(result.code)) and asked.immediate:
            return Status.AWAITING
        case Action.APPLY:
            asked = RESTARTS.get(result.code, state.awaits)
            return Status.AWAITING if asked else Status.DONE
    return None


class Begin(dict[str, Any]):
    """An update's first record. Raises JournalBroken where a field that is asked for is missing."""

    def __missing__(self, key: str) -> Any:
        raise JournalBroken(f"the first record of the journal has no {key!r}")


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, defer_build=True)


class _Component(_Record):
    """As `Component` has the fields; all of them, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)
    id: str
    name: str
    group: str
    manufacturer: str
    model: str
    version: str
    presence: Annotated[Presence, Field(strict=False)]
    bus: str
    protocol: str
    where: str
    properties: dict[str, str]


class _First(_Record):
    """What an update's first record holds. Which fields must be there is for those to say who use them."""

    tasks: Annotated[int, Field(ge=0, le=MOST_TASKS)]
    update: str = ""
    manifest: str = Field(default="", pattern=r"^[^/\x00]*$")
    documents: list[str] = Field(default_factory=list)
    workflow: str = ""
    digest: str = ""
    on_failure: Literal["stop", "continue", "rollback"] = "stop"
    parallel: bool = False
    components: list[_Component] = Field(default_factory=list)
    passed_over: dict[str, str] = Field(default_factory=dict)
    undoes: Annotated[int, Field(ge=0)] = 0
    done: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    torn: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)


@dataclass(slots=True)
class Progress:
    """The whole update. `seen`: the latest time in a record."""

    tasks: list[TaskProgress] = field(default_factory=list)
    begin: Mapping[str, Any] = field(default_factory=dict)
    downloaded: bool = False
    rolling_back: bool = False
    undoing: bool = False
    """Whether the rollback was asked for. If not, the failure of a step began it, and stays what the update has come to."""
    restart: Mapping[str, Any] | None = None
    ending: Ending = Ending.UNFINISHED
    restored_restart: Restart | None = None
    """What restored components ask for, of the host if one of them does, and have not got yet."""
    seen: str = ""
    holds: dict[int, str] = field(default_factory=dict)
    """The versions that components reported at the end of tasks, the latest last. "": it reported none."""
    ended: str = ""
    """The time of the last record, once it is at its end."""
    stopped: str = ""
    """Why it was stopped last, "" when it goes on."""

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], source: str) -> Progress:
        """Raises JournalBroken when a record doesn't fit."""
        progress = cls()
        for record in records:
            if str(record.get("kind")) not in _KINDS:
                kind = quoted(str(record.get("kind")))
                raise JournalBroken(
                    f"{source}: record {record.get('seq')} is of kind {kind}, unknown here", remedy=LATER
                )
            try:
                progress.add(record)
            except ValidationError as error:
                fault = first_fault(error)
                raise JournalBroken(f"{source}: record {record.get('seq')}: {fault.at()}: {fault.message}") from error
            except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
                raise JournalBroken(f"{source}: record {record.get('seq')} makes no sense: {error!r}") from error
        return progress

    @property
    def over(self) -> bool:
        return self.ending not in (Ending.UNFINISHED, Ending.AWAITING)

    @property
    def stopped_at_a_task(self) -> bool:
        """Whether a task is named for why it was stopped: then it is not why others have not ended."""
        return any(task.stopped for task in self.tasks)

    @property
    def touched(self) -> bool:
        """Whether anything was changed, or may have been."""
        return any(task.touched for task in self.tasks)

    def add(self, record: Mapping[str, Any]) -> None:
        self.seen = max(self.seen, str(record["time"]))
        kind = Kind(record["kind"])
        if self.over or bool(self.begin) == (kind is Kind.BEGIN):
            raise ValueError(f"{kind} at this place")
        match kind:
            case Kind.BEGIN:
                _First.model_validate(record)
                self.begin = Begin(record)
                self.tasks = [TaskProgress() for _ in range(record["tasks"])]
                if "undoes" in record:
                    self._undo(record["done"], record.get("torn", ()))
            case Kind.DOWNGRADE:
                self._task(record)  # It is one of them; beyond that it is for people.
            case Kind.HOLDS:
                self._task(record)
                self.holds.pop(record["task"], None)
                self.holds[record["task"]] = str(record["version"])
            case Kind.DOWNLOADED:
                self.downloaded = True
            case Kind.RESUMED:
                self.stopped = ""
                for task in self.tasks:
                    task.fresh, task.stopped = False, ""
                if self.restart is not None:
                    self.restored_restart = None
                self.restart, self.ending = None, Ending.UNFINISHED
            case Kind.ROLLBACK:
                self.rolling_back, self.undoing = True, bool(record.get("asked"))
                self._reopen(record.get("torn", ()))
            case Kind.RESTART:
                self.restart, self.ending = dict(record), Ending.AWAITING
            case Kind.FINISH:
                self.ending, self.ended = Ending(record["ending"]), str(record["time"])
            case Kind.STOPPED:
                self.stopped = str(record["cause"])
                # In a journal of an earlier version a task is named only with its action.
                if "task" in record:
                    self._task(record).stopped = self.stopped
                    if "action" in record and not record["touched"]:
                        self._untouched(self._task(record))
            case Kind.START:
                changes = Action(record["action"]) in CHANGING and record.get("changes") is not False
                self._start(self._task(record), Action(record["action"]), changes=changes)
            case Kind.END:
                self._end(self._task(record), Action(record["action"]), record)
            case Kind.FAILED:
                task = self._task(record)
                task.result, task.error = _result(record), _error(record)
                if record["restore"]:
                    task.failing = True
                else:
                    self._finish(task, Status.FAILED, record)

    def _task(self, record: Mapping[str, Any]) -> TaskProgress:
        index = record["task"]
        if type(index) is not int or index < 0:
            raise ValueError(f"task {index!r}")
        return self.tasks[index]

    def _undo(self, done: Iterable[int], torn: Iterable[int]) -> None:
        """A rollback of an earlier update: its tasks as that one left them. `done`: in the order of their ends."""
        self.rolling_back = self.undoing = self.downloaded = True
        for place, index in enumerate(done):
            task = self.tasks[index]
            task.status, task.touched, task.ended = Status.DONE, True, place + 1
        self._reopen(torn)

    def _reopen(self, torn: Iterable[int]) -> None:
        """Tasks that are restored again, whatever the result of their last restore."""
        for index in torn:
            task = self._task({"task": index})
            task.status, task.touched, task.failing, task.started = Status.TODO, True, False, None
            task.results.pop(Action.RESTORE, None)

    def _start(self, task: TaskProgress, action: Action, *, changes: bool) -> None:
        task.started = action
        task.fresh = changes and not task.touched
        task.touched = task.touched or changes

    def _untouched(self, task: TaskProgress) -> None:
        """Stopped before it had changed anything: as if it had not begun, unless it had before."""
        if task.fresh or (task.started in CHANGING and not task.touched):
            task.started, task.touched, task.fresh = None, False, False

    def _end(self, task: TaskProgress, action: Action, record: Mapping[str, Any]) -> None:
        result = _result(record)
        task.results[action] = result
        if task.started is action:
            task.started = None
        if action is Action.INSTALL and result.code in SKIPPED:
            self._untouched(task)
        if action is Action.RESTORE:
            asked = RESTARTS.get(result.code)
            if asked is not None and (asked.host or self.restored_restart is None):
                self.restored_restart = asked
        elif action is not Action.CANCEL:
            task.awaits = RESTARTS.get(result.code, task.awaits)
            if not result.succeeded:
                task.result, task.error = result, _error(record)
                task.failing = action in CHANGING or task.touched
        if "status" in record:
            status = Status(record["status"])
            if action is not Action.RESTORE or status is not Status.FAILED:
                task.result = self._final(task, status, result)
            self._finish(task, status, record)
        elif task.status is Status.AWAITING:
            # It is back, and what it has yet to do is known by what is in `results`.
            task.status, task.awaits = Status.TODO, None

    def _final(self, task: TaskProgress, status: Status, result: ActionResult) -> ActionResult:
        """What a task has come to, by the action that ended it."""
        if result.code == ResultCode.INSTALLED:
            code = ResultCode.INSTALL_ALREADY_INSTALLED if status is Status.INSTALLED else ResultCode.APPLY_SUCCESS
            result = replace(result, code=code)
        installed = task.results.get(Action.INSTALL)
        if status in (Status.DONE, Status.AWAITING) and installed is not None:
            return replace(result, details=result.details or installed.details)
        return result

    def _finish(self, task: TaskProgress, status: Status, record: Mapping[str, Any]) -> None:
        task.status = status
        task.failing = False
        task.ended = int(record["seq"])
        if task.result is None:
            task.result = _result(record)


def fields_of(result: ActionResult, error: ProxyflashError | None) -> dict[str, Any]:
    """A result, and the error behind it, as a record has them."""
    fields: dict[str, Any] = {"code": int(result.code), "extended": result.extended, "details": result.details}
    if error is not None:
        told: dict[str, Any] = {
            "code": error.code,
            "cause": error.cause,
            "remedy": error.remedy,
            "component": error.component,
        }
        if error.left is not None:
            told["left"] = asdict(error.left)
        fields["error"] = told
    return fields


def _result(record: Mapping[str, Any]) -> ActionResult:
    return ActionResult(int(record["code"]), int(record["extended"]), str(record["details"]))


def _error(record: Mapping[str, Any]) -> ProxyflashError:
    """The failure again, as far as a record keeps it."""
    kept = record.get("error")
    if kept is None:
        return StepFailed(str(record["details"]))
    cause = str(kept["cause"]) if kept["code"] == StepFailed.code else f"{kept['code']} {kept['cause']}"
    component, remedy = kept["component"], kept.get("remedy")
    # A journal of an earlier version has no remedy.
    error = StepFailed(
        cause,
        remedy=str(remedy) if remedy else None,
        component=None if component is None else str(component),
    )
    if kept.get("left") is not None:
        error.left = _LEFT.validate_python(kept["left"])
    return error
