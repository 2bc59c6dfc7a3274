"""Whatever goes wrong in whichever state: an error, a kill, a hang, a cancellation in each action, then a resume.

The states come from the engine's own list of actions: a new action needs no change of this file.
"""

from __future__ import annotations

import pytest
from proxyflash.transports import clock
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates.engine import time_limits as limits
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.journal import records
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import StepFailed, StepHangs
from proxyflash.updates.events import Status

from .kills import KILLED, LEFT, is_in_process
from .lab import ASKED, Fault, FileHandler, Lab, all_new, all_old, cancel, hang_until_asked, kill

pytestmark = pytest.mark.simulated_time

FAILURE = ActionResult(ResultCode.FAILURE, 0x30500001, "it broke")
WHERE = "right one"
NEVER_TOUCHED = (Action.DOWNLOAD, Action.IS_INSTALLED, Action.BACKUP)


def raised() -> None:
    raise StepFailed("it broke")


def mistaken() -> None:
    raise ZeroDivisionError


ERRORS: dict[str, Fault | ActionResult] = {
    "result": FAILURE,
    "error": raised,
    "mistake": mistaken,
    "hang": hang_until_asked,
}
LIMIT = 0.3
"""Seconds, for the step that hangs; the others of its name have no fault, and what ends late has ended well."""


def hang() -> None:
    clock.Event().wait()


def reached(lab: Lab, action: Action) -> None:
    """Sees to it that the engine reaches this action: a restore follows a failure, a clean-up a cancellation."""
    if action is Action.RESTORE:
        lab.fault(WHERE, Action.APPLY, FAILURE)
    elif action is Action.CANCEL:
        lab.fault(WHERE, Action.INSTALL, cancel)


def mended(lab: Lab) -> None:
    for action in Action:
        lab.fault(WHERE, action, lambda: None)


@pytest.mark.parametrize("how", ERRORS)
@pytest.mark.parametrize("action", Action)
def test_an_error(lab: Lab, action: Action, how: str) -> None:
    update = lab.bundle(one={"timeoutSeconds": LIMIT} if how == "hang" else {})
    reached(lab, action)
    lab.fault(WHERE, action, ERRORS[how])
    outcome = lab.apply(update)
    assert WHERE in lab.began(action)
    told = outcome.results[2]
    if how == "hang":
        ended = told.actions[action]
        assert ended.code == (ResultCode.CANCEL_UNABLE if action is Action.CANCEL else ResultCode.FAILURE)
    if how == "hang" and action not in (Action.CANCEL, Action.RESTORE):
        assert told.error is not None
        assert (told.error.code, told.result.extended) == ("E-STEP-TIMEOUT", 0x30000002)
        # It is made to clean up, as after a cancellation.
        assert lab.began(Action.CANCEL) == [WHERE]
    # Each task is accounted for, whatever happened to one.
    assert len(outcome.results) == 6
    if action is Action.CANCEL:
        # A clean-up that fails is not a failure of the step: that goes on.
        assert outcome.ending is Ending.UNFINISHED
        mended(lab)
        assert lab.resume().succeeded
        assert lab.holds() == all_new()
        return
    if action is Action.IS_INSTALLED and how != "hang":
        # Who can't tell is taken for not installed, as by the agent.
        assert outcome.succeeded
        assert told.task.status is Status.DONE
        assert told.actions[action].code == ResultCode.NOT_INSTALLED
        assert "it broke" in told.actions[action].details or "ZeroDivisionError" in told.actions[action].details
        assert lab.holds() == all_new()
        return
    assert outcome.ending is Ending.FAILED
    statuses = [item.task.status for item in outcome.results]
    assert statuses[2] is Status.FAILED
    assert statuses[3:] == [Status.NOT_RUN] * 3
    done = [Status.NOT_RUN] * 2 if action is Action.DOWNLOAD else [Status.DONE] * 2
    assert statuses[:2] == done
    # Restored, unless the restore failed.
    if action is not Action.RESTORE:
        assert lab.holds()["right.one"] == "1.0"
    mended(lab)
    assert lab.apply(update).succeeded
    assert lab.holds() == all_new()


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("action", Action)
def test_a_kill(lab: Lab, action: Action, when: str, left: float) -> None:
    """`after`: what the action does is done, and nothing is written of it."""
    lab.left = left
    update = lab.bundle()
    reached(lab, action)
    if when == "before":
        lab.fault(WHERE, action, kill)
    else:
        after(lab, action)
    assert lab.process(lambda: lab.apply(update)) == KILLED
    settled(lab, action)


@pytest.mark.parametrize("action", Action)
def test_a_hang_that_somebody_ends(lab: Lab, action: Action) -> None:
    update = lab.bundle()
    reached(lab, action)
    said = clock.Event()

    def hang() -> None:
        said.set()
        clock.Event().wait()

    lab.fault(WHERE, action, hang)
    assert lab.process(lambda: lab.apply(update), until=said) == KILLED
    settled(lab, action)


@pytest.mark.parametrize("action", Action)
def test_a_hang_that_its_limit_ends(lab: Lab, action: Action, monkeypatch: pytest.MonkeyPatch) -> None:
    """It doesn't return, whatever it is asked: the engine leaves it behind, and goes on in another process."""
    update = lab.bundle(one={"timeoutSeconds": LIMIT})
    reached(lab, action)
    lab.fault(WHERE, action, hang)
    monkeypatch.setattr(limits, "GRACE_SECONDS", 4 * LIMIT)

    def work() -> None:
        with lab.engine() as engine:
            outcome = engine.apply(engine.plan(update, lab.components()))
            assert isinstance(outcome.error, StepHangs)
            assert f"step 1.1: {action} has not returned within 0.3 s" in outcome.error.cause
            assert outcome.error.component == "right"
            assert outcome.error.exit_status is ExitStatus.RESUMABLE
            assert outcome.ending is Ending.UNFINISHED
            assert len(outcome.results) == 6
            with pytest.raises(StepHangs):
                engine.resume()
            with pytest.raises(StepHangs):
                engine.rollback()

    assert lab.process(work) == 0
    last = list(records(lab.journal()))[-1]
    assert (last["kind"], last["task"], last["action"]) == ("stopped", 2, action)
    settled(lab, action)


@pytest.mark.parametrize("action", Action)
def test_a_cancellation(lab: Lab, action: Action) -> None:
    update = lab.bundle()
    reached(lab, action)
    if action is not Action.CANCEL:
        lab.fault(WHERE, action, cancel)
    assert lab.apply(update).ending is Ending.UNFINISHED
    settled(lab, action)


# The same of IsInstalled where it is asked before a download: the engine goes on without an answer.


@pytest.mark.parametrize("how", ERRORS)
def test_an_error_before_the_download(lab: Lab, how: str) -> None:
    update = lab.bundle(one={"timeoutSeconds": LIMIT} if how == "hang" else {})
    lab.fault(WHERE, ASKED, ERRORS[how])
    assert lab.apply(update).succeeded
    assert WHERE in lab.began(Action.DOWNLOAD)
    assert lab.holds() == all_new()


@pytest.mark.parametrize("how", ["kill", "cancellation", "hang"])
def test_an_end_before_the_download(lab: Lab, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    update = lab.bundle(one={"timeoutSeconds": LIMIT})
    monkeypatch.setattr(limits, "GRACE_SECONDS", 4 * LIMIT)
    lab.fault(WHERE, ASKED, {"kill": kill, "cancellation": cancel, "hang": hang}[how])

    def work() -> None:
        assert lab.apply(update).ending is Ending.UNFINISHED

    assert lab.process(work) == (KILLED if how == "kill" else 0)
    lab.fault(WHERE, ASKED, lambda: None)
    settled(lab, Action.DOWNLOAD)


def after(lab: Lab, action: Action, where: str = WHERE) -> None:
    """The process is killed when the action has done its work."""
    done = FileHandler._do

    def work(self: FileHandler, asked: Action, call: object) -> ActionResult:
        result = done(self, asked, call)  # type: ignore[arg-type]
        if asked is action and f"{self.target} {self.context.step.description}" == where and is_in_process():
            kill()
        return result

    FileHandler._do = work  # type: ignore[method-assign, assignment]
    lab.undo.append(lambda: setattr(FileHandler, "_do", done))


def settled(lab: Lab, action: Action) -> None:
    """A resume ends well, with nothing done twice that had ended."""
    before = list(lab.log)
    mended(lab)
    outcome = lab.resume()
    new = lab.log[len(before) :]
    assert [item.task.component.name for item in outcome.results if item.task.component] == [
        "left", "left", "right", "right", "camera", "camera",
    ]  # fmt: skip
    for where in ("left one", "left two") if action is not Action.DOWNLOAD else ():
        assert not any(where in line for line in new)
    if action is Action.RESTORE:
        # The failure is known from the journal, and stays the outcome.
        assert outcome.ending is Ending.FAILED
        assert lab.holds() == all_old() | {"left.one": "1.1", "left.two": "1.1"}
        assert "it broke" in str(outcome.error)
        return
    assert outcome.succeeded, outcome.error
    assert lab.holds() == all_new()
    with lab.engine() as engine:
        assert engine.unfinished() is None


def test_the_folder_of_a_kill_before_the_first_record_is_taken_away(lab: Lab) -> None:
    update = lab.bundle()
    with lab.engine() as engine:
        entry = engine.store.create()
        entry.files.mkdir()
        (entry.files / "payload").write_bytes(b"half")
    assert lab.apply(update).succeeded
    assert not entry.folder.exists()
    with lab.engine() as engine:
        assert [item.number for item in engine.store.entries()] == [2]
