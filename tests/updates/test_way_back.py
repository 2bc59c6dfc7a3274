"""How long what a rollback needs is kept: until another update installs something, whatever was begun in between."""

from __future__ import annotations

import pytest
from proxyflash.flashers.errors import Cancelled
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import UpdateUnknown
from proxyflash.updates.events import Status

from .kills import KILLED
from .lab import NEW, Lab, all_new, all_old, cancel, kill

pytestmark = pytest.mark.simulated_time

FAILURE = ActionResult(ResultCode.FAILURE, 1, "it broke")


def test_one_that_finds_everything_installed_keeps_it(lab: Lab) -> None:
    update = lab.bundle()
    assert lab.apply(update).succeeded
    for _ in range(3):
        outcome = lab.apply(update)
        assert {item.task.status for item in outcome.results} == {Status.INSTALLED}
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()
    # And that is what a rollback after yet another one would be told of.
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

    def stopped() -> None:
        raise Cancelled("stopped", touched=False)

    lab.fault("left one", Action.INSTALL, stopped)
    assert lab.apply(update).ending is Ending.CANCELLED
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_one_that_installs_gives_it_up(lab: Lab) -> None:
    """After its first Install it is the one to be undone, and its own backups alone are there."""
    update = lab.bundle()
    assert lab.apply(update).succeeded
    (lab.world / "camera.two").write_text("lost")
    with lab.engine() as engine:
        first = engine.store.entry(1)
    seen: list[bool] = []
    for action in (Action.BACKUP, Action.INSTALL, Action.APPLY):
        lab.fault("camera two", action, lambda: seen.append(first.backup.is_dir()))
    assert lab.apply(update).succeeded
    assert seen == [True, True, False]
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
