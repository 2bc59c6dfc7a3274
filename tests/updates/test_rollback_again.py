"""What could not be brought back is reported as that, and the next rollback tries it again, until all is as it was."""

from __future__ import annotations

from typing import Any

import pytest
from proxyflash.tools.commands.updates import _row
from proxyflash.transports.errors import ExitStatus, NextAction
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.report import Outcome
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import UpdateUnknown
from proxyflash.updates.events import Status

from .kills import KILLED
from .lab import NEW, OLD, Lab, all_old, cancel, kill

pytestmark = pytest.mark.simulated_time
BROKEN = ActionResult(ResultCode.FAILURE, 1, "the wire is broken")
UNDONE = (Ending.ROLLED_BACK, ExitStatus.DONE, 255, 1100)
IN_PART = (Ending.PARTLY_ROLLED_BACK, ExitStatus.FAILED, 255, 0)


def breaks(lab: Lab, *names: str) -> None:
    """The first fails in Install, half written; none of them can be brought back."""

    def half_written() -> ActionResult:
        (lab.world / names[0].replace(" ", ".")).write_text("half")
        return BROKEN

    lab.fault(names[0], Action.INSTALL, half_written)
    for name in names:
        lab.fault(name, Action.RESTORE, BROKEN)


def mend(lab: Lab, *names: str) -> None:
    for name in names:
        for action in (Action.INSTALL, Action.RESTORE):
            lab.fault(name, action, lambda: None)


def told(outcome: Outcome) -> tuple[Any, ...]:
    """How it ended, the command line's exit status, the report's state and code."""
    status = ExitStatus.DONE if outcome.error is None else outcome.error.exit_status
    report = outcome.report()
    return outcome.ending, status, report["state"], report["lastInstallResult"]["resultCode"]


def of(outcome: Outcome, where: str) -> Status:
    (found,) = (item for item in outcome.results if f"{item.task.target} {item.task.step.description}" == where)
    return found.task.status


def test_what_was_installed_and_has_no_restore_is_whole(lab: Lab) -> None:
    """A later failure rolls the update back. The first component holds the wanted content."""
    breaks(lab, "right one")
    for step in ("one", "two"):
        lab.fault(f"left {step}", Action.RESTORE, ActionResult(ResultCode.RESTORE_UNSUPPORTED))
    assert lab.apply(lab.bundle(), on_failure="rollback").ending is Ending.PARTLY_ROLLED_BACK
    with lab.engine() as engine:
        row = _row(engine, engine.store.entry(1))
    assert (row["not_whole"], row["not_brought_back"]) == (["right"], ["left"])
    assert lab.look("left").version == NEW


def test_what_holds_one_step_of_two_is_not_whole(lab: Lab) -> None:
    """The second step on it was undone, and the first has no restore: it is neither as it was nor as it was to be."""
    breaks(lab, "right one")
    lab.fault("left one", Action.RESTORE, ActionResult(ResultCode.RESTORE_UNSUPPORTED))
    assert lab.apply(lab.bundle(), on_failure="rollback").ending is Ending.PARTLY_ROLLED_BACK
    with lab.engine() as engine:
        row = _row(engine, engine.store.entry(1))
    assert (row["not_whole"], row["not_brought_back"]) == (["left", "right"], [])
    assert (lab.holds()["left.one"], lab.holds()["left.two"]) == (NEW, OLD)


@pytest.mark.parametrize("on_failure", ["stop", "continue", "rollback"])
def test_a_part_that_failed_and_was_not_restored(lab: Lab, on_failure: str) -> None:
    update = lab.bundle()
    breaks(lab, "right one")
    first = lab.apply(update, on_failure=on_failure)
    assert first.ending is (Ending.PARTLY_ROLLED_BACK if on_failure == "rollback" else Ending.FAILED)
    assert first.error is not None
    assert NextAction.ROLLBACK in first.error.advice
    # It is still broken: that is reported, whatever else came back.
    second = lab.rollback()
    assert told(second) == IN_PART
    assert second.error is not None
    assert second.error.cause == "not everything could be brought back: right could not"
    assert NextAction.ROLLBACK in second.error.advice
    assert lab.holds() == all_old() | {"right.one": "half"}
    mend(lab, "right one")
    third = lab.rollback()
    assert told(third) == UNDONE
    assert of(third, "right one") is Status.RESTORED
    assert lab.holds() == all_old()
    with pytest.raises(UpdateUnknown, match="update 3, was rolled back already"):
        lab.rollback()


def test_only_what_is_left_is_restored_again(lab: Lab) -> None:
    update = lab.bundle()
    assert lab.apply(update).succeeded
    lab.fault("left one", Action.RESTORE, BROKEN)
    assert told(lab.rollback()) == IN_PART
    before = len(lab.began(Action.RESTORE))
    mend(lab, "left one")
    assert told(lab.rollback()) == UNDONE
    assert lab.began(Action.RESTORE)[before:] == ["left one"]
    with lab.engine() as engine:
        report = engine.outcome(engine.store.entries()[-1]).report()
    assert {item["resultDetails"] for item in report["componentResults"][2:]} == {"nothing to bring back"}
    assert lab.holds() == all_old()


def test_what_was_installed_before_it_on_the_same_component_follows(lab: Lab) -> None:
    """Its backup is of what the earlier step had installed: that one's own comes back after it."""
    update = lab.bundle()
    assert lab.apply(update).succeeded
    lab.fault("left two", Action.RESTORE, BROKEN)
    assert told(lab.rollback()) == IN_PART
    before = len(lab.began(Action.RESTORE))
    mend(lab, "left two")
    assert told(lab.rollback()) == UNDONE
    assert lab.began(Action.RESTORE)[before:] == ["left two", "left one"]


def test_one_that_is_unfinished_brings_back_what_failed_before(lab: Lab) -> None:
    update = lab.bundle()
    breaks(lab, "left one")
    lab.fault("camera one", Action.INSTALL, cancel)
    assert lab.apply(update, on_failure="continue").ending is Ending.UNFINISHED
    mend(lab, "left one", "camera one")
    outcome = lab.rollback()
    assert told(outcome) == UNDONE
    assert lab.holds() == all_old()


def test_one_that_was_given_up(lab: Lab) -> None:
    """The update that took its place changed nothing: what the first one left half done is brought back."""
    update = lab.bundle()
    lab.fault("left two", Action.INSTALL, kill)
    assert lab.process(lambda: lab.apply(update)) == KILLED
    (lab.world / "left.two").write_text("half")
    mend(lab, "left two")
    lab.fault("left one", Action.DOWNLOAD, BROKEN)
    (lab.world / "log").unlink()
    (lab.world / "left.one").write_text(OLD)
    assert lab.apply(update, abandon=True).ending is Ending.FAILED
    assert told(lab.rollback()) == UNDONE
    assert lab.holds() == all_old()


@pytest.mark.parametrize("left", [0.0, 1.0])
def test_a_kill_amid_the_second_one(lab: Lab, left: float) -> None:
    update = lab.bundle()
    breaks(lab, "right one")
    assert lab.apply(update, on_failure="rollback").ending is Ending.PARTLY_ROLLED_BACK
    mend(lab, "right one")
    lab.fault("right one", Action.RESTORE, kill)
    lab.left = left
    assert lab.process(lab.rollback) == KILLED
    mend(lab, "right one")
    assert told(lab.resume()) == UNDONE
    assert lab.holds() == all_old()


def test_what_has_no_way_back_is_told_each_time(lab: Lab) -> None:
    update = lab.bundle()
    breaks(lab, "left one")
    lab.fault("left one", Action.RESTORE, ActionResult(ResultCode.RESTORE_UNSUPPORTED))
    assert lab.apply(update).ending is Ending.FAILED
    for _ in range(2):
        outcome = lab.rollback()
        assert told(outcome) == IN_PART
        assert outcome.error is not None
        # Another rollback would not help.
        assert outcome.error.remedy == "left: undo by hand what step 1.1 (test/file:1) has done"
