"""Room on the state folder's disk: counted for the plan, and used up during an update."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from proxyflash.enumerators.errors import StateFolder
from proxyflash.updates.engine import engine as engine_module
from proxyflash.updates.engine import room
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.attempts import Attempts
from proxyflash.updates.engine.disk import JOURNAL_BYTES
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.report import Outcome
from proxyflash.updates.errors import NoRoom
from proxyflash.updates.handlers.flash import FlashHandler
from proxyflash.updates.manifests.resolved_update import Update

from .lab import COMPONENTS, FileHandler, Lab, all_new
from .steps import inline

pytestmark = pytest.mark.simulated_time
EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors"


def full(number: int = errno.ENOSPC) -> None:
    try:
        raise OSError(number, os.strerror(number))
    except OSError as error:
        raise StateFolder("backup: No space left on device") from error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_pauses_an_update(lab: Lab, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def filled() -> None:
        left = 5_536 if number == errno.ENOSPC else 1 << 40
        monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=left, f_frsize=1))
        full(number)

    missing = ", 5,536 are left, 60,000 are missing" if number == errno.ENOSPC else ""
    lab.fault("right one", Action.BACKUP, filled)
    works: list[Callable[[], Outcome]] = [lambda: lab.apply(lab.bundle(), on_failure="rollback"), lab.resume]
    for work in works:
        outcome = work()
        assert (outcome.ending, outcome.progress.rolling_back) == (Ending.UNFINISHED, False)
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.exit_status) == ("E-STATE", 10)
        said = f"Make room on that disk (65,536 bytes are needed{missing}), then go on: proxyflash resume"
        assert outcome.error.remedy == said
    lab.fault("right one", Action.BACKUP, lambda: None)
    assert lab.resume().succeeded
    assert lab.holds() == all_new()


def test_copies_that_find_no_room_leave_none_behind(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(update: Update, folder: Path) -> NoReturn:
        folder.mkdir()
        (folder / "half").write_bytes(bytes(1_000))
        full()
        raise AssertionError

    with lab.engine() as engine:
        plan = engine.plan(lab.bundle(), lab.components())
        updates = engine.store.folder

        def left(path: object) -> SimpleNamespace:
            taken = sum(path.stat().st_size for path in updates.rglob("half"))
            return SimpleNamespace(f_bavail=1_000 - taken, f_frsize=1)

        monkeypatch.setattr(os, "statvfs", left)
        monkeypatch.setattr(engine_module, "staged", copied)
        with pytest.raises(StateFolder) as caught:
            engine.apply(plan)
    assert ", 1,000 are left, " in caught.value.remedy
    assert list(updates.iterdir()) == []


def test_another_fault_of_the_disk_is_a_failure(lab: Lab) -> None:
    lab.fault("right one", Action.BACKUP, lambda: full(errno.EIO))
    assert lab.apply(lab.bundle()).ending is Ending.FAILED


def test_the_plan_counts_the_room(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    update = lab.bundle()
    documents = sum(len(data) for one in (update, *update.children.values()) for data in one.documents.values())
    needed = documents + 17 + JOURNAL_BYTES
    left = SimpleNamespace(f_bavail=needed // 512, f_frsize=512)
    monkeypatch.setattr(os, "statvfs", lambda path: left)
    with lab.engine() as engine:
        with pytest.raises(NoRoom) as caught:
            engine.plan(update, lab.components())
        assert f"needs {needed:,} bytes" in caught.value.cause
        assert f"its disk has {needed // 512 * 512:,} left" in caught.value.cause
        assert f"and {needed % 512:,} are missing" in caught.value.cause
        assert str(engine.bench.folder) in caught.value.cause
        assert "--state" not in caught.value.remedy
        left.f_bavail += 1
        assert engine.plan(update, lab.components()).tasks
        assert engine.store.entries() == []


def test_a_flash_keeps_about_what_it_writes() -> None:
    """48,416 bytes are what objcopy makes of the file."""
    step = inline("proxyflash/flash:1", "imu-1.5.0.hex", installedCriteria="1.5.0")
    assert FlashHandler.backup_bytes(step, [EXAMPLE / "update" / "imu-1.5.0.hex"]) == 48_416


def test_a_flash_keeps_what_its_format_makes_of_the_file() -> None:
    """An Intel HEX file that is flashed as it is, byte for byte."""
    source = EXAMPLE / "update" / "imu-1.5.0.hex"
    step = inline("proxyflash/flash:1", source.name, installedCriteria="1.5.0", format="bin", address="0x08000000")
    assert FlashHandler.backup_bytes(step, [source]) == source.stat().st_size


def test_what_only_leaves_of_a_file_is_not_counted() -> None:
    step = inline("proxyflash/flash:1", "imu-1.5.0.hex", installedCriteria="1.5.0", only="application")
    assert FlashHandler.backup_bytes(step, [EXAMPLE / "update" / "imu-1.5.0.hex"]) == 0


def _numbers(cause: str) -> list[int]:
    """Those of the message, behind the folder's name."""
    return [int(number.replace(",", "")) for number in re.findall(r"[0-9][0-9,]*", cause.partition(" needs ")[2])]


def test_what_earlier_updates_keep_is_given_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab.apply(lab.bundle()).succeeded
    update = lab.bundle()
    copies = sum(len(data) for one in (update, *update.children.values()) for data in one.documents.values()) + 17
    left = SimpleNamespace(f_bavail=0, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: left)
    monkeypatch.setattr(FileHandler, "backup_bytes", lambda step, files: 10_000)

    def needed(**options: bool) -> int:
        """The least that is enough."""
        with lab.engine() as engine:
            left.f_bavail = 0
            with pytest.raises(NoRoom) as caught:
                engine.plan(update, lab.components(), **options)
            found, *parts, has, missing = _numbers(caught.value.cause)
            # Copies, backups and the journal, less what is given up.
            assert sum(parts[:3]) - sum(parts[3:]) == found
            assert (has, missing) == (0, found)
            left.f_bavail = found - 1
            with pytest.raises(NoRoom):
                engine.plan(update, lab.components(), **options)
            left.f_bavail = found
            assert engine.plan(update, lab.components(), **options).tasks
        return found

    with lab.engine() as engine:
        (entry,) = engine.store.entries()
        _, before = engine.store.to_be_freed()
    tasks = 6
    assert needed() == copies + tasks * 10_000 + JOURNAL_BYTES - before
    (entry.backup / "memory.bin").write_bytes(bytes(range(250)) * 100)
    assert needed() == copies + tasks * 10_000 + JOURNAL_BYTES - before - 25_000
    # The first backup is made before anything is given up; with components at once, that of each of them.
    (entry.backup / "more.bin").write_bytes(bytes(range(250)) * 1000)
    assert needed() == copies + 10_000 + JOURNAL_BYTES
    assert needed(parallel=True) == copies + len(COMPONENTS) * 10_000 + JOURNAL_BYTES
    # A folder of an update that never began is taken away before the copies are made.
    (entry.folder.parent / "000002" / "files").mkdir(parents=True, mode=0o700)
    (entry.folder.parent / "000002" / "files" / "cut").write_bytes(bytes(range(250)) * 20)
    assert needed() == copies + 10_000 + JOURNAL_BYTES - 5_000


def test_what_is_said_to_be_given_up_is(lab: Lab) -> None:
    assert lab.apply(lab.bundle()).succeeded
    with lab.engine() as engine:
        (entry,) = engine.store.entries()
        (entry.backup / "memory.bin").write_bytes(b"held" * 1000)
        assert engine.store.to_be_freed()[1] >= 4000
        engine.store.forget()
        assert engine.store.to_be_freed() == (0, 0)
        assert entry.progress().begin["documents"]


@pytest.mark.parametrize(("limit", "most"), [(None, 3_000), (1, 1_000), (2, 2_000)])
def test_a_bus_bears_so_many_backups_at_once(limit: int | None, most: int) -> None:
    """Three components with two backups each, of which the first Install gives up none."""
    tasks: list[Any] = [
        SimpleNamespace(component=SimpleNamespace(bus="can0"), target=f"motor {n % 3}") for n in range(6)
    ]
    limits = {"can1": 1} | ({} if limit is None else {"can0": limit})
    assert room._before_an_install([(task, 1_000) for task in tasks], limits) == most


def test_the_room_is_that_of_the_folder_that_will_be_made(tmp_path: Path) -> None:
    assert room._free(tmp_path / "not" / "yet") == pytest.approx(room._free(tmp_path), rel=0.2)


def test_a_count_of_attempts_that_can_not_become_less_ends_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full once the last step is applied, and its count is to be cleared."""
    lab.policy = {"attempts": 2}
    lab.fault("camera two", Action.APPLY, lambda: monkeypatch.setattr(Attempts, "_write", lambda _: full()))
    assert lab.apply(lab.bundle()).succeeded
    assert lab.holds() == all_new()


def test_counts_on_a_full_disk(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab.engine() as engine:
        (task, *_) = engine.plan(lab.bundle(), lab.components()).tasks
    path = tmp_path / "attempts.json"
    for less in (Attempts.give_back, Attempts.clear):
        Attempts(path).add(task)
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            counts = Attempts(path)
            with monkeypatch.context() as patch:
                patch.setattr(Attempts, "_write", lambda _, number=number: full(number))
                with pytest.raises(StateFolder) if number == errno.EIO else nullcontext():
                    less(counts, task)
                with pytest.raises(StateFolder):
                    counts.take(task, 2, again=True)
        assert Attempts(path).count(task) == 1
        Attempts(path).clear(task)


def test_counts_that_can_not_be_read_end_an_update_before_it_begins_and_no_rollback(lab: Lab) -> None:
    assert lab.apply(lab.bundle()).succeeded
    with lab.engine() as engine:
        counts = engine.store.attempts
    counts.write_bytes(b"no JSON")
    counts.chmod(0o600)
    with pytest.raises(StateFolder, match="can't be read"):
        lab.apply(lab.bundle())
    with lab.engine() as engine:
        assert engine.unfinished() is None
    assert lab.rollback().ending is Ending.ROLLED_BACK


def test_a_step_that_was_installed_when_it_was_planned_and_is_not_at_its_turn(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier step may have changed it, or a check of its own reads its file: the file is copied all the same."""
    monkeypatch.setattr(FileHandler, "seems_installed", lambda step, component: True)
    update = lab.bundle()
    with lab.engine() as engine:
        assert engine.plan(update, lab.components()).nothing_to_do
        assert engine.apply(engine.plan(update, lab.components())).succeeded
    assert lab.holds() == all_new()
