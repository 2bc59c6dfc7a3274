"""Whatever goes wrong while things are brought back: an error, a kill, a hang, a cancellation in the first and in the last
restore, by whichever way the engine came to it: a rollback over an update that was cut in each action, one after each
failure, one of an update that has ended, and the restore of a single step.

The ways come from the engine's own list of actions, as in test_states: a new action needs no change of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from proxyflash.transports import clock
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates.engine import time_limits as limits
from proxyflash.updates.engine.action import CHANGING, Action
from proxyflash.updates.engine.journal import records
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.report import Outcome
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import StepHangs, UpdateUnknown
from proxyflash.updates.events import Status
from proxyflash.updates.manifests.resolved_update import Update

from .kills import KILLED, LEFT
from .lab import NEW, Lab, all_old, cancel, kill
from .test_states import ERRORS, FAILURE, LIMIT, WHERE, after, hang, mended, reached

pytestmark = pytest.mark.simulated_time
DONE = ("left two", "left one")
"""What was done when the engine came to WHERE, the last first."""
NOT_ROLLED_BACK = {
    Action.DOWNLOAD: "nothing has begun",
    Action.IS_INSTALLED: "the step goes on",
    Action.CANCEL: "the step goes on",
    Action.RESTORE: "it is one",
}
"""Actions whose failure doesn't begin a rollback, and why."""


@dataclass(frozen=True)
class Way:
    """What makes the engine bring things back. `begun`: everything up to there; what it returns does it.

    `restores`: what is brought back, in order. `endings`: if all is, and if something is not.
    """

    begun: Callable[[Lab, Update], Callable[[], Outcome]]
    restores: tuple[str, ...]
    endings: tuple[Ending, Ending] = (Ending.ROLLED_BACK, Ending.PARTLY_ROLLED_BACK)
    policy: tuple[tuple[str, object], ...] = ()

    @property
    def holds(self) -> dict[str, str]:
        """By the components, at the end."""
        alone = {"left.one": NEW, "left.two": NEW} if self.endings[0] is Ending.FAILED else {}
        return all_old() | alone


def cut_in(action: Action, lab: Lab, update: Update) -> Callable[[], Outcome]:
    reached(lab, action)
    lab.fault(WHERE, action, kill)
    assert lab.process(lambda: lab.apply(update)) == KILLED
    mended(lab)
    return lab.rollback


def failed_in(action: Action, on_failure: str, lab: Lab, update: Update) -> Callable[[], Outcome]:
    lab.fault(WHERE, action, FAILURE)
    return lambda: lab.apply(update, on_failure=on_failure)


def ended(lab: Lab, update: Update) -> Callable[[], Outcome]:
    assert lab.apply(update).succeeded
    (lab.world / "log").unlink()
    return lab.rollback


def not_installed_after_a_restart(lab: Lab, update: Update) -> Callable[[], Outcome]:
    lab.fault(WHERE, Action.APPLY, ActionResult(ResultCode.APPLY_IMMEDIATE_REBOOT))
    assert lab.apply(update).ending is Ending.AWAITING
    lab.boot = "second"
    mended(lab)
    return lab.resume


def without_an_attempt_left(lab: Lab, update: Update) -> Callable[[], Outcome]:
    cut_in(Action.INSTALL, lab, update)
    return lab.resume


def _cut(action: Action) -> Way:
    if action is Action.DOWNLOAD:
        return Way(partial(cut_in, action), ())
    untouched = (Action.IS_INSTALLED, Action.BACKUP)
    return Way(partial(cut_in, action), DONE if action in untouched else (WHERE, *DONE))


def _failed(action: Action) -> Way:
    return Way(partial(failed_in, action, "rollback"), (WHERE, *DONE) if action in CHANGING else DONE)


ALONE = {"restores": (WHERE,), "endings": (Ending.FAILED, Ending.FAILED)}
WAYS = {
    **{f"cut in {action}": _cut(action) for action in Action},
    **{f"{action} failed": _failed(action) for action in Action if action not in NOT_ROLLED_BACK},
    "ended": Way(ended, ("camera two", "camera one", "right two", "right one", *DONE)),
    **{
        f"{action} failed, alone": Way(partial(failed_in, action, "stop"), **ALONE)  # type: ignore[arg-type]
        for action in sorted(CHANGING - {Action.RESTORE})
    },
    "restarted": Way(not_installed_after_a_restart, **ALONE),  # type: ignore[arg-type]
    "no attempt left": Way(without_an_attempt_left, policy=(("attempts", 1),), **ALONE),  # type: ignore[arg-type]
}
CASES = [
    pytest.param(way, where, id=f"{name}-{where.replace(' ', '-')}")
    for name, way in sorted(WAYS.items())
    for where in sorted({way.restores[0], way.restores[-1]} if way.restores else ())
]


def begun(lab: Lab, way: Way, *, limit: bool = False) -> Callable[[], Outcome]:
    lab.policy = dict(way.policy)
    option = {"timeoutSeconds": LIMIT}
    return way.begun(lab, lab.bundle(one=option, two=option) if limit else lab.bundle())


@pytest.mark.parametrize("name", WAYS)
def test_nothing_goes_wrong(lab: Lab, name: str) -> None:
    """Or else what follows would show nothing."""
    way = WAYS[name]
    bring_back = begun(lab, way)
    before = len(lab.began(Action.RESTORE))
    outcome = bring_back()
    assert tuple(lab.began(Action.RESTORE)[before:]) == way.restores
    assert (outcome.ending, lab.holds()) == (way.endings[0], way.holds)


@pytest.mark.parametrize("how", ERRORS)
@pytest.mark.parametrize(("way", "where"), CASES)
def test_an_error(lab: Lab, way: Way, where: str, how: str) -> None:
    """What can't be brought back keeps nothing else from it, and is reported as such; it is not tried again."""
    bring_back = begun(lab, way, limit=how == "hang")
    before = len(lab.began(Action.RESTORE))
    lab.fault(where, Action.RESTORE, ERRORS[how])
    outcome = bring_back()
    assert outcome.ending is way.endings[1]
    assert len(outcome.results) == 6
    assert tuple(lab.began(Action.RESTORE)[before:]) == way.restores
    (told,) = (item for item in outcome.results if f"{item.task.target} {item.task.step.description}" == where)
    assert told.task.status in (Status.NOT_RESTORED, Status.FAILED)
    assert told.restored is not None
    assert not told.restored.succeeded
    if how == "hang":
        assert "E-STEP-TIMEOUT" in told.restored.details
    file = where.replace(" ", ".")
    assert {name: held for name, held in lab.holds().items() if name != file} == {
        name: held for name, held in way.holds.items() if name != file
    }
    over(lab)


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("way", "where"), CASES)
def test_a_kill(lab: Lab, way: Way, where: str, when: str, left: float) -> None:
    """`after`: it is brought back, and nothing is written of it."""
    lab.left = left
    bring_back = begun(lab, way)
    if when == "before":
        lab.fault(where, Action.RESTORE, kill)
    else:
        after(lab, Action.RESTORE, where)
    assert lab.process(bring_back) == KILLED
    gone_on_with(lab, way, where)


@pytest.mark.parametrize(("way", "where"), CASES)
def test_a_hang_that_somebody_ends(lab: Lab, way: Way, where: str) -> None:
    bring_back = begun(lab, way)
    said = clock.Event()

    def hang() -> None:
        said.set()
        clock.Event().wait()

    lab.fault(where, Action.RESTORE, hang)
    assert lab.process(bring_back, until=said) == KILLED
    gone_on_with(lab, way, where)


@pytest.mark.parametrize(("way", "where"), CASES)
def test_a_hang_that_its_limit_ends(lab: Lab, way: Way, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE_SECONDS", 4 * LIMIT)
    bring_back = begun(lab, way, limit=True)
    lab.fault(where, Action.RESTORE, hang)

    def work() -> None:
        outcome = bring_back()
        assert isinstance(outcome.error, StepHangs)
        assert "restore has not returned within 0.3 s" in outcome.error.cause
        assert outcome.error.component == where.split()[0]
        assert outcome.error.exit_status is ExitStatus.RESUMABLE
        assert outcome.ending is Ending.UNFINISHED
        assert len(outcome.results) == 6
        for call in (lab.resume, lab.rollback):
            with pytest.raises(StepHangs):
                call()

    assert lab.process(work) == 0
    with lab.engine() as engine:
        latest = engine.store.latest()
    assert latest is not None
    last = list(records(latest.journal))[-1]
    assert (last["kind"], last["action"]) == ("stopped", Action.RESTORE)
    gone_on_with(lab, way, where)


@pytest.mark.parametrize(("way", "where"), CASES)
def test_a_cancellation(lab: Lab, way: Way, where: str) -> None:
    bring_back = begun(lab, way)
    lab.fault(where, Action.RESTORE, cancel)
    outcome = bring_back()
    assert outcome.ending is Ending.UNFINISHED
    assert outcome.error is not None
    assert outcome.error.exit_status is ExitStatus.RESUMABLE
    gone_on_with(lab, way, where)


def gone_on_with(lab: Lab, way: Way, where: str) -> None:
    """A resume brings back the rest, from the one on that had not ended, and leaves what was."""
    before = len(lab.began(Action.RESTORE))
    mended(lab)
    lab.fault(where, Action.RESTORE, lambda: None)
    outcome = lab.resume()
    left = way.restores[way.restores.index(where) :]
    assert tuple(lab.began(Action.RESTORE)[before:]) == left
    assert (outcome.ending, lab.holds()) == (way.endings[0], way.holds)
    assert len(outcome.results) == 6
    over(lab)


def over(lab: Lab) -> None:
    """It is at its end, for ever."""
    with lab.engine() as engine:
        assert engine.unfinished() is None
    with pytest.raises(UpdateUnknown):
        lab.resume()
