"""The time that an action may take: whose limit counts, what ends with it, and what a late end is worth."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import RunContext
from proxyflash.transports import clock
from proxyflash.updates.engine import time_limits as limits
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.engine.time_limits import ActionTimeout
from proxyflash.updates.errors import ManifestField, StepFailed, StepHangs, StepTimeout
from proxyflash.updates.events import Status
from proxyflash.updates.handlers import programs
from proxyflash.updates.manifests.options import StepOptions
from proxyflash.updates.manifests.policy import Policy

from ..processes import until_ended
from .lab import OLD, Lab, all_new, all_old, hang_until_asked, until_asked

pytestmark = pytest.mark.simulated_time

SHORT = 0.3
AMPLE = 5
"""Seconds, within which a busy machine, too, has started a script of a few lines."""
WHERE = "left one"


def test_a_late_success_is_a_success(lab: Lab) -> None:
    update = lab.bundle(one={"timeoutSeconds": SHORT})
    lab.fault(WHERE, Action.INSTALL, until_asked)
    assert lab.apply(update).succeeded
    assert lab.holds() == all_new()


@pytest.mark.parametrize("how", ["result", "error"])
def test_a_late_failure_is_the_limit_s(lab: Lab, how: str) -> None:
    """What an action reports that was made to end says little; what it reported is not lost."""
    update = lab.bundle(one={"timeoutSeconds": SHORT})

    def fail() -> ActionResult:
        until_asked()
        if how == "error":
            raise StepFailed("its program is gone")
        return ActionResult(ResultCode.FAILURE, 7, "its program is gone")

    lab.fault(WHERE, Action.INSTALL, fail)
    outcome = lab.apply(update)
    assert isinstance(outcome.error, StepTimeout)
    assert "install took longer than 0.3 s: its program is gone" in outcome.error.cause
    assert lab.holds() == all_old()


def test_it_is_a_failure_like_any_other(lab: Lab) -> None:
    """The others go on, and it is known from the journal as what it was."""
    lab.policy = {"timeout_seconds": SHORT, "on_failure": "continue"}
    update = lab.bundle()
    lab.fault(WHERE, Action.APPLY, hang_until_asked)
    outcome = lab.apply(update)
    assert outcome.ending is Ending.FAILED
    assert [item.task.status for item in outcome.results] == [Status.FAILED, Status.NOT_RUN, *[Status.DONE] * 4]
    assert lab.holds() == all_new() | {"left.one": OLD, "left.two": OLD}
    with lab.engine() as engine:
        again = engine.outcome(engine.store.entry(1))
    assert again.error is not None
    assert "E-STEP-TIMEOUT step 1.1: apply took longer" in again.error.cause
    assert again.report()["lastInstallResult"]["extendedResultCodes"] == "30000002"


def test_a_rollback_follows_where_it_is_wanted(lab: Lab) -> None:
    update = lab.bundle(two={"timeoutSeconds": SHORT, "onFailure": "rollback"})
    lab.fault("right two", Action.INSTALL, hang_until_asked)
    assert lab.apply(update).ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_a_person_s_stop_is_no_timeout(lab: Lab) -> None:
    update = lab.bundle(one={"timeoutSeconds": SHORT})
    stop = clock.Event()
    lab.cancelled = stop.is_set

    def both() -> None:
        until_asked()
        stop.set()
        hang_until_asked()

    lab.fault(WHERE, Action.INSTALL, both)
    outcome = lab.apply(update)
    assert isinstance(outcome.error, Cancelled)
    assert outcome.ending is Ending.UNFINISHED


def test_beside_others(lab: Lab) -> None:
    update = lab.bundle(one={"timeoutSeconds": SHORT})
    lab.fault(WHERE, Action.INSTALL, hang_until_asked)
    outcome = lab.apply(update, parallel=True, on_failure="continue")
    assert outcome.ending is Ending.FAILED
    assert lab.holds() == all_new() | {"left.one": OLD, "left.two": OLD}


@pytest.mark.parametrize(
    ("policy", "own", "counts"), [(None, None, 0), (60, None, 60), (None, 30, 30), (60, 90, 90), (60, 30, 30)]
)
def test_whose_limit_counts(policy: float | None, own: float | None, counts: float) -> None:
    assert StepOptions(timeout=own).seconds_under(Policy(timeout_seconds=policy)) == counts


@pytest.mark.parametrize("value", [0, -1, 1e9, "60", True])
def test_a_limit_that_is_none(lab: Lab, value: object) -> None:
    with pytest.raises(ManifestField, match=r"handlerProperties\.proxyflash\.timeoutSeconds"):
        lab.apply(lab.bundle(one={"timeoutSeconds": value}))


@pytest.fixture
def timeout(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ActionTimeout:
    monkeypatch.setattr(limits, "GRACE_SECONDS", AMPLE if "real_time" in request.keywords else SHORT)
    told: list[ev.Event] = []
    return ActionTimeout(tmp_path, SHORT, RunContext(told.append))


@pytest.mark.real_time("it runs a program")
def test_the_programs_of_one_that_does_not_stop_are_ended_with_all_that_they_started(
    timeout: ActionTimeout, tmp_path: Path
) -> None:
    """As of SWUpdate and apt, which a cancellation doesn't interrupt."""
    script = tmp_path / "endless"
    script.write_text(
        f"#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $! > {tmp_path}/child\necho $$ > {tmp_path}/own\nwait\n"
    )
    script.chmod(0o755)

    def work() -> ActionResult:
        status, _ = programs.run([str(script)], environment=programs.clean_environment())
        return ActionResult(ResultCode.FAILURE, status & 0xFF)

    timeout.seconds = AMPLE
    assert timeout.call(work).extended == -9 & 0xFF
    assert timeout.expired
    for name in ("child", "own"):
        until_ended(int((tmp_path / name).read_text()))


@pytest.mark.real_time("it runs a program")
def test_another_thread_s_programs_are_let_be(timeout: ActionTimeout, tmp_path: Path) -> None:
    with programs.started(["sleep", "1000"], programs.clean_environment(), None) as mine:
        timeout.call(lambda: ActionResult(programs.run(["sleep", "1000"], environment=programs.clean_environment())[0]))
        assert mine.poll() is None
        mine.kill()


def test_what_was_left_behind_is_heard_no_more(timeout: ActionTimeout, tmp_path: Path) -> None:
    go_on, said = clock.Event(), clock.Event()
    found: list[object] = []

    def work() -> ActionResult:
        go_on.wait()
        found.append(timeout.context.cancelled())
        try:
            timeout.context.on_event(ev.Event("left"))
        except Cancelled as error:
            found.append(error.touched)
        said.set()
        return ActionResult(ResultCode.SUCCESS)

    with pytest.raises(StepHangs):
        timeout.call(work)
    with pytest.raises(StepHangs):
        limits.check_none_hangs(tmp_path)
    limits.check_none_hangs(tmp_path / "another")
    go_on.set()
    assert said.wait(30)
    assert found == [True, True]


def test_each_action_has_its_own_time(timeout: ActionTimeout) -> None:
    def late() -> ActionResult:
        while not timeout.context.cancelled():
            clock.sleep(0.01)
        return ActionResult(ResultCode.SUCCESS)

    assert timeout.call(late).succeeded
    assert timeout.expired
    assert timeout.call(lambda: ActionResult(int(not timeout.context.cancelled()))).succeeded


def test_without_a_limit_it_runs_where_it_is_called(tmp_path: Path) -> None:
    timeout = ActionTimeout(tmp_path, 0, RunContext())
    assert timeout.call(lambda: ActionResult(threading.get_ident())).code == threading.get_ident()
    assert not timeout.expired
