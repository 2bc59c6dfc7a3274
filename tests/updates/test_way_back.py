"""How long what a rollback needs is kept: until another update has installed something that can be undone, whatever was
begun in between."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from proxyflash.flashers.errors import Cancelled
from proxyflash.updates.engine import store
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import Unfinished, UpdateUnknown
from proxyflash.updates.events import Status
from proxyflash.updates.manifests.resolved_update import Update, load

from .kills import KILLED
from .lab import ASKED, NEW, OLD, FileHandler, Lab, all_new, all_old, cancel, kill, reference, step

pytestmark = pytest.mark.simulated_time

FAILURE = ActionResult(ResultCode.FAILURE, 1, "it broke")


def with_check(lab: Lab, name: str = "checked", *, parts: bool = True) -> Update:
    """An update whose first step is a script: it always runs, says nothing of what it changes, and has no way back."""
    lab.bundle()
    (lab.world / "host.check").write_text(OLD)
    results = {
        ASKED: ResultCode.NOT_INSTALLED,
        Action.IS_INSTALLED: ResultCode.NOT_INSTALLED,
        Action.BACKUP: ResultCode.BACKUP_UNSUPPORTED,
        Action.INSTALL: ResultCode.INSTALL_SUCCESS,
        Action.APPLY: ResultCode.APPLY_SUCCESS,
        Action.RESTORE: ResultCode.RESTORE_UNSUPPORTED,
    }
    for action, code in results.items():
        lab.fault("host check", action, ActionResult(code))
    more = [reference("motors"), reference("cameras")] if parts else []
    return load(lab.write(name, [step("check"), *more]))


def stopped() -> None:
    raise Cancelled("stopped", touched=False)


def of_parts(lab: Lab) -> dict[str, str]:
    return {name: held for name, held in lab.holds().items() if not name.startswith("host")}


@pytest.mark.parametrize("times", [1, 3])
def test_the_same_update_again_whose_script_alone_runs(lab: Lab, times: int) -> None:
    update = with_check(lab)
    assert lab.apply(update).succeeded
    for _ in range(times):
        assert lab.apply(update).succeeded
    assert of_parts(lab) == all_new()
    with lab.engine() as engine:
        assert engine.to_undo().kept.number == 1
    # The script has no way back, which is said each time.
    assert lab.rollback().ending is Ending.PARTLY_ROLLED_BACK
    assert of_parts(lab) == all_old()


def test_it_can_be_applied_and_undone_over_and_over(lab: Lab) -> None:
    update = with_check(lab)
    for _ in range(3):
        assert lab.apply(update).succeeded
        assert lab.apply(update).succeeded
        assert lab.rollback().ending is Ending.PARTLY_ROLLED_BACK
        assert of_parts(lab) == all_old()
        # The second time only what is left is tried, and nothing else is touched.
        assert lab.rollback().ending is Ending.PARTLY_ROLLED_BACK
        assert of_parts(lab) == all_old()


def test_another_update_that_keeps_nothing(lab: Lab) -> None:
    """Whether what its script did is to be undone only a person knows: the command that undoes the update before is named."""
    assert lab.apply(lab.bundle()).succeeded
    scripts = with_check(lab, "scripts", parts=False)
    for part in all_new():
        (lab.world / part).write_text(NEW)
    for _ in range(2):
        assert lab.apply(scripts).succeeded
        with pytest.raises(UpdateUnknown) as caught:
            lab.rollback()
        assert "step 1 on host: test/file:1 has kept nothing to bring back" in caught.value.cause
        assert caught.value.remedy == "Update 1, Contoso/bundle 1.1, can still be undone: proxyflash rollback 1"
    with (
        pytest.raises(UpdateUnknown, match=r"of update 2, Contoso/scripts 1\.1, nothing was kept"),
        lab.engine() as engine,
    ):
        engine.rollback(2)
    with lab.engine() as engine:
        assert engine.rollback(1).ending is Ending.ROLLED_BACK
    assert of_parts(lab) == all_old()
    with pytest.raises(UpdateUnknown, match="update 4, was rolled back already"):
        lab.rollback()


def test_nothing_was_kept_and_no_other_update_can_be_undone(lab: Lab) -> None:
    """The history would show nothing that helps: what is left is said, as after a rollback in part."""
    assert lab.apply(with_check(lab, "scripts", parts=False)).succeeded
    with pytest.raises(UpdateUnknown) as caught:
        lab.rollback()
    assert caught.value.remedy == "host: undo by hand what step 1 (test/file:1) has done"


@pytest.mark.parametrize("number", [3, 4, 9])
def test_a_number_that_can_not_be_undone(lab: Lab, number: int) -> None:
    """A rollback, an update that changed nothing, and none."""
    update = lab.bundle()
    assert lab.apply(update).succeeded
    assert lab.apply(update).succeeded
    assert lab.rollback().succeeded
    lab.fault("left one", Action.DOWNLOAD, FAILURE)
    assert lab.apply(update).ending is Ending.FAILED
    with pytest.raises(UpdateUnknown, match=f"update {number}|no update {number}"), lab.engine() as engine:
        engine.rollback(number)


@pytest.mark.parametrize("action", [Action.INSTALL, Action.APPLY])
@pytest.mark.parametrize("on_failure", ["stop", "continue", "rollback"])
def test_one_that_fails_and_leaves_everything_as_it_was_keeps_it(lab: Lab, action: Action, on_failure: str) -> None:
    update = lab.bundle()
    assert lab.apply(update).succeeded
    (lab.world / "camera.two").write_text("lost")
    (lab.world / "log").unlink()
    lab.fault("camera two", action, FAILURE)
    lab.apply(update, on_failure=on_failure)
    assert lab.holds() == all_new() | {"camera.two": "lost"}
    for _ in range(2):
        with lab.engine() as engine:
            assert engine.to_undo().is_undone
            with pytest.raises(UpdateUnknown) as caught:
                engine.rollback()
        assert caught.value.remedy == "Update 1, Contoso/bundle 1.1, can still be undone: proxyflash rollback 1"
    with lab.engine() as engine:
        assert engine.rollback(1).ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


@pytest.mark.parametrize("fault", [FAILURE, cancel], ids=["fails", "is stopped"])
def test_a_script_that_fails_or_is_stopped_before_the_rest(lab: Lab, fault: object) -> None:
    update = with_check(lab)
    assert lab.apply(update).succeeded
    lab.fault("host check", Action.INSTALL, fault)  # type: ignore[arg-type]
    outcome = lab.apply(update)
    if not outcome.progress.over:
        with pytest.raises(Unfinished), lab.engine() as engine:
            engine.rollback(1)
        assert lab.rollback().ending is Ending.PARTLY_ROLLED_BACK
    assert of_parts(lab) == all_new()
    with lab.engine() as engine:
        assert engine.rollback(1).ending is Ending.PARTLY_ROLLED_BACK
    assert of_parts(lab) == all_old()


def test_one_that_is_gone_on_with_and_changes_nothing_keeps_it(lab: Lab) -> None:
    update = with_check(lab)
    assert lab.apply(update).succeeded
    lab.fault("host check", Action.APPLY, cancel)
    assert lab.apply(update).ending is Ending.UNFINISHED
    lab.fault("host check", Action.APPLY, ActionResult(ResultCode.APPLY_SUCCESS))
    assert lab.resume().succeeded
    assert lab.rollback().ending is Ending.PARTLY_ROLLED_BACK
    assert of_parts(lab) == all_old()


def test_a_script_that_says_that_it_installed_nothing(lab: Lab) -> None:
    """Code 603 of an Install: then it has changed nothing."""
    assert lab.apply(lab.bundle()).succeeded
    scripts = with_check(lab, "scripts", parts=False)
    for part in all_new():
        (lab.world / part).write_text(NEW)
    lab.fault("host check", Action.INSTALL, ActionResult(ResultCode.INSTALL_ALREADY_INSTALLED))
    assert not lab.apply(scripts).changed
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert of_parts(lab) == all_old()


def test_a_step_that_changes_nothing_keeps_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `proxyflash/check:1`, which has a Restore."""
    assert lab.apply(lab.bundle()).succeeded
    checks = with_check(lab, "checks", parts=False)
    for part in all_new():
        (lab.world / part).write_text(NEW)
    with monkeypatch.context() as patched:
        patched.setattr(FileHandler, "changes_nothing", True)
        assert not lab.apply(checks).changed
        lab.fault("host check", Action.INSTALL, FAILURE)
        assert not lab.apply(checks).changed
        lab.fault("host check", Action.INSTALL, stopped)
        assert lab.apply(checks).ending is Ending.CANCELLED
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert of_parts(lab) == all_old()


def test_what_keeps_nothing_in_a_file_can_be_undone(lab: Lab) -> None:
    """A Backup that has nothing to copy, as that of microsoft/swupdate: the other slot stays as it is."""
    update = lab.bundle()

    def back(part: Path) -> ActionResult:
        part.write_text(OLD)
        return ActionResult(ResultCode.RESTORE_SUCCESS)

    for name in all_new():
        where = name.replace(".", " ")
        lab.fault(where, Action.BACKUP, ActionResult(ResultCode.BACKUP_SUCCESS))
        lab.fault(where, Action.RESTORE, partial(back, lab.world / name))
    assert lab.apply(update).succeeded
    assert lab.apply(update).succeeded
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_a_script_that_runs_every_night_outlasts_no_way_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many updates are in the history."""
    monkeypatch.setattr(store, "MOST_KEPT", 3)
    update = with_check(lab)
    for _ in range(7):
        assert lab.apply(update).succeeded
    with lab.engine() as engine:
        assert [entry.number for entry in engine.store.entries()] == [1, 4, 5, 6, 7]
    assert lab.rollback().ending is Ending.PARTLY_ROLLED_BACK
    assert of_parts(lab) == all_old()


def test_one_that_finds_everything_installed_keeps_it(lab: Lab) -> None:
    update = lab.bundle()
    assert lab.apply(update).succeeded
    for _ in range(3):
        outcome = lab.apply(update)
        assert {item.task.status for item in outcome.results} == {Status.INSTALLED}
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()
    # And a rollback after yet another one would report that.
    with pytest.raises(UpdateUnknown, match="update 5, was rolled back already"):
        lab.rollback()


@pytest.mark.parametrize("action", [Action.DOWNLOAD, Action.BACKUP])
@pytest.mark.parametrize("how", [FAILURE, cancel], ids=["fails", "is cancelled"])
def test_one_that_ends_before_it_installs_keeps_it(lab: Lab, action: Action, how: object) -> None:
    update = lab.bundle()
    assert lab.apply(update).succeeded
    (lab.world / "left.one").write_text("lost")
    (lab.world / "log").unlink()
    lab.fault("left one", action, how)  # type: ignore[arg-type]
    outcome = lab.apply(update)
    if not outcome.progress.over:
        assert outcome.ending is Ending.UNFINISHED
        assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_new() | {"left.one": "lost"}
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_one_whose_install_is_stopped_before_it_changed_anything_keeps_it(lab: Lab) -> None:
    update = lab.bundle()
    assert lab.apply(update).succeeded
    (lab.world / "left.one").write_text("lost")

    lab.fault("left one", Action.INSTALL, stopped)
    assert lab.apply(update).ending is Ending.CANCELLED
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_one_that_installs_gives_it_up(lab: Lab) -> None:
    """After its first step is done it is the one to be undone, and its own backups alone are there."""
    update = lab.bundle()
    assert lab.apply(update).succeeded
    (lab.world / "camera.two").write_text("lost")
    with lab.engine() as engine:
        first = engine.store.entry(1)
    seen: list[bool] = []
    for action in (Action.BACKUP, Action.INSTALL, Action.APPLY):
        lab.fault("camera two", action, lambda: seen.append(first.backup.is_dir()))
    assert lab.apply(update).succeeded
    assert seen == [True, True, True]
    assert not first.backup.is_dir()
    assert not (first.files / "payload").exists()
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_new() | {"camera.two": "lost"}
    with pytest.raises(UpdateUnknown):
        lab.rollback()


def test_after_a_kill_at_its_install(lab: Lab) -> None:
    update = lab.bundle()
    assert lab.apply(update).succeeded
    (lab.world / "left.one").write_text("lost")
    lab.fault("left one", Action.INSTALL, kill)
    assert lab.process(lambda: lab.apply(update)) == KILLED
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_new() | {"left.one": "lost"}


def test_a_damaged_journal_keeps_no_update_from_beginning(lab: Lab) -> None:
    update = lab.bundle()
    assert lab.apply(update).succeeded
    assert lab.apply(update).succeeded
    path = lab.journal(1)
    path.write_bytes(path.read_bytes().replace(b'"install"', b'"instalL"', 1))
    (lab.world / "left.one").write_text("1.0")
    assert lab.apply(update).succeeded
    assert (lab.world / "left.one").read_text() == NEW


def test_over_what_a_later_update_wrote_nothing_is_brought_back(lab: Lab) -> None:
    """A backup has only what its update replaced: with what the later one wrote beside it the part would hold a mixture."""
    assert lab.apply(lab.bundle()).succeeded
    (lab.world / "left.one").write_text(OLD)
    lab.fault("left one", Action.BACKUP, ActionResult(ResultCode.BACKUP_UNSUPPORTED))
    assert lab.apply(load(lab.write("other", [reference("motors"), reference("cameras")]))).succeeded
    with (
        pytest.raises(UpdateUnknown, match="update 2 has changed left since") as caught,
        lab.engine() as engine,
    ):
        engine.rollback(1)
    assert "flash a whole image" in caught.value.remedy
    with pytest.raises(UpdateUnknown) as caught:
        lab.rollback()
    assert "rollback 1" not in caught.value.remedy
    assert of_parts(lab) == all_new()
