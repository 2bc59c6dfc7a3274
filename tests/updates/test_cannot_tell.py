"""A step that can't tell whether it is installed, at its turn. Azure Device Update's agent goes on with it (release 1.1:
steps_handler.cpp): what is wrong with it is for Install to find.
"""

from __future__ import annotations

import pytest
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import StepFailed

from .kills import KILLED
from .lab import Lab, all_new, all_old, kill

pytestmark = pytest.mark.simulated_time

FAILURE = ActionResult(ResultCode.FAILURE, 0x30500001, "it broke")
HOWS = ["result", "error", "mistake"]


def fails(lab: Lab, how: str) -> None:
    def raised() -> None:
        raise StepFailed("it broke") if how == "error" else KeyError("it broke")

    lab.fault("left one", Action.IS_INSTALLED, FAILURE if how == "result" else raised)


@pytest.mark.parametrize("how", HOWS)
def test_it_is_installed(lab: Lab, how: str) -> None:
    update = lab.bundle()
    fails(lab, how)
    outcome = lab.apply(update)
    assert outcome.succeeded
    assert len(lab.began(Action.INSTALL)) == 6
    assert lab.holds() == all_new()
    told = outcome.results[0]
    assert told.result.code == ResultCode.APPLY_SUCCESS
    # Why it couldn't tell is not lost.
    assert told.actions[Action.IS_INSTALLED].code == ResultCode.NOT_INSTALLED
    assert "it broke" in told.actions[Action.IS_INSTALLED].details


@pytest.mark.parametrize("how", HOWS)
def test_what_install_comes_to_is_what_counts(lab: Lab, how: str) -> None:
    update = lab.bundle()
    fails(lab, how)
    lab.fault("left one", Action.INSTALL, ActionResult(ResultCode.FAILURE, 0x30500002, "no such part"))
    outcome = lab.apply(update)
    assert (outcome.ending, outcome.results[0].result.details) == (Ending.FAILED, "no such part")
    assert lab.holds() == all_old()


@pytest.mark.parametrize("how", HOWS)
def test_after_a_cut_the_action_is_run_again(lab: Lab, how: str) -> None:
    update = lab.bundle()
    lab.fault("left one", Action.INSTALL, kill)
    assert lab.process(lambda: lab.apply(update)) == KILLED
    lab.fault("left one", Action.INSTALL, lambda: None)
    fails(lab, how)
    assert lab.resume().succeeded
    assert lab.began(Action.INSTALL)[:3] == ["left one", "left one", "left two"]
    assert lab.holds() == all_new()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("action", [Action.INSTALL, Action.APPLY])
def test_after_a_restart(lab: Lab, how: str, action: Action) -> None:
    """Apply follows an Install, as where nothing is installed; and an Apply that nothing vouches for has failed."""
    update = lab.bundle()
    code = ResultCode.INSTALL_IMMEDIATE_REBOOT if action is Action.INSTALL else ResultCode.APPLY_IMMEDIATE_REBOOT
    lab.fault("left one", action, ActionResult(code))
    assert lab.apply(update).ending is Ending.AWAITING
    lab.boot = "second"
    lab.fault("left one", action, lambda: None)
    fails(lab, how)
    outcome = lab.resume()
    assert outcome.succeeded == (action is Action.INSTALL)
    assert lab.holds() == (all_new() if outcome.succeeded else all_old())
    assert outcome.error is None or "it broke" in outcome.error.cause
