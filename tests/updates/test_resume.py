"""What else may happen to an update and its folder: full and read-only disks, other engines, clocks, damage, no files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.errors import BenchLocked, StateFolder, StateUnsafe
from proxyflash.flashers.errors import Cancelled
from proxyflash.tests.users import NOBODY, become_nobody, needs_root
from proxyflash.transports import clock
from proxyflash.updates.engine import journal as journals
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.errors import JournalBroken, JournalNotWritten, StagedChanged, UpdateError, UpdateUnknown
from proxyflash.updates.manifests.resolved_update import load

from .lab import Lab, all_new, all_old, cancel, kill


def to_its_end(lab: Lab, update: object) -> None:
    """As somebody does after a cut: what is unfinished goes on, what had not begun begins."""
    with lab.engine() as engine:
        unfinished = engine.unfinished()
    outcome = lab.resume() if unfinished else lab.apply(update)  # type: ignore[arg-type]
    assert outcome.succeeded
    assert lab.holds() == all_new()


def test_nothing_to_resume(lab: Lab) -> None:
    with pytest.raises(UpdateUnknown):
        lab.resume()
    assert lab.apply(lab.bundle()).succeeded
    before = lab.journal().read_bytes()
    with pytest.raises(UpdateUnknown):
        lab.resume()
    # An update that has ended stays ended.
    assert lab.journal().read_bytes() == before


def test_the_update_s_own_files_need_not_be_there_any_more(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("right one", Action.INSTALL, kill)
    assert lab.process(lambda: lab.apply(update)) == -signal.SIGKILL
    for path in (*lab.folder.glob("*.json"), lab.folder / "payload"):
        path.unlink()
    lab.fault("right one", Action.INSTALL, lambda: None)
    assert lab.resume().succeeded
    assert lab.holds() == all_new()


def test_a_file_that_is_swapped_after_the_start_is_not_used(lab: Lab) -> None:
    update = lab.bundle()

    def swap() -> None:
        (lab.folder / "payload").write_bytes(b"swapped")

    lab.fault("left one", Action.DOWNLOAD, swap)
    assert lab.apply(update).succeeded
    assert (lab.folder / "payload").read_bytes() == b"swapped"
    assert (lab.world / "used").read_bytes() == b"what is installed"


def test_one_that_is_swapped_before_the_start_is_told(lab: Lab) -> None:
    update = lab.bundle()
    (lab.folder / "payload").write_bytes(b"what is instalLed")
    with pytest.raises(Exception, match="SHA-256") as caught:
        lab.apply(update)
    assert caught.value.code == "E-FILE-HASH"  # type: ignore[attr-defined]
    assert lab.log == []
    with lab.engine() as engine:
        assert engine.unfinished() is None


def test_nothing_is_begun_that_could_not_be_journalled(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    update = lab.bundle()
    write = journals._write

    def full(descriptor: int, data: bytes) -> None:
        if b'"install"' in data:
            raise OSError(28, "No space left on device")
        write(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(journals, "_write", full)
        with pytest.raises(JournalNotWritten):
            lab.apply(update)
    assert lab.began(Action.INSTALL) == []
    assert lab.resume().succeeded


def test_a_cut_step_that_is_stopped_before_it_did_more_is_not_as_if_it_had_not_begun(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left one", Action.INSTALL, kill)
    assert lab.process(lambda: lab.apply(update)) == -signal.SIGKILL

    def stopped() -> None:
        raise Cancelled("stopped", touched=False)

    lab.fault("left one", Action.INSTALL, stopped)
    outcome = lab.resume()
    assert (outcome.ending, outcome.error and outcome.error.exit_status) == (Ending.UNFINISHED, 10)
    lab.fault("left one", Action.INSTALL, lambda: None)
    assert lab.resume().succeeded


def test_one_that_was_stopped_before_it_changed_anything_is_at_its_end(lab: Lab) -> None:
    update = lab.bundle()

    def stopped() -> None:
        raise Cancelled("stopped", touched=False)

    lab.fault("left one", Action.INSTALL, stopped)
    outcome = lab.apply(update)
    assert (outcome.ending, outcome.error and outcome.error.exit_status) == (Ending.CANCELLED, 130)


class TestTwoEngines:
    def test_the_second_is_told_of_the_first(self, lab: Lab) -> None:
        update = lab.bundle()
        reader, writer = os.pipe()

        def hang() -> None:
            os.write(writer, b"!")
            threading.Event().wait()

        lab.fault("left one", Action.INSTALL, hang)

        def while_it_runs(child: int) -> None:
            os.read(reader, 1)
            begun = list(lab.log)
            calls: list[Callable[[], object]] = [lambda: lab.apply(update), lab.resume, lab.rollback]
            for call in calls:
                with pytest.raises(BenchLocked, match=f"process {child}"):
                    call()
            assert lab.log == begun
            os.kill(child, signal.SIGKILL)

        assert lab.process(lambda: lab.apply(update), until=while_it_runs) == -signal.SIGKILL
        # And the lock keeps nobody out once its holder is gone, however that ended.
        lab.fault("left one", Action.INSTALL, lambda: None)
        assert lab.resume().succeeded

    def test_reading_needs_no_lock(self, lab: Lab) -> None:
        assert lab.apply(lab.bundle()).succeeded
        with lab.engine() as holder:
            holder.bench.lock()
            with Bench.open(lab.folder / "bench.toml", state=lab.state) as bench:
                engine = Engine(bench)
                (entry,) = engine.store.entries()
                assert engine.outcome(entry).ending is Ending.SUCCEEDED


def test_a_clock_that_is_set_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the order of updates nor a resume goes by it, and an old manifest gets no younger."""
    update = lab.bundle()
    assert lab.apply(update).succeeded
    before = datetime.now(UTC)
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) - timedelta(days=365))
    for path in lab.world.glob("*.*"):
        path.write_text("1.0")
    lab.fault("right one", Action.INSTALL, kill)
    assert lab.process(lambda: lab.apply(update)) == -signal.SIGKILL
    lab.fault("right one", Action.INSTALL, lambda: None)
    assert lab.resume().succeeded
    with lab.engine() as engine:
        assert [entry.number for entry in engine.store.entries()] == [1, 2]
        latest = engine.store.latest()
        assert latest is not None
        assert latest.number == 2
        seen = engine.store.seen(max_age_days=36500)
        assert seen is not None
        assert abs(seen.time - before) < timedelta(hours=1)


@pytest.fixture
def open_to_all() -> object:
    """A folder that any user may go into, which a test's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="proxyflash-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_state_folder_that_may_only_be_read(lab: Lab, open_to_all: Path) -> None:
    """Nothing is begun there, and what is there can be looked at."""
    update = lab.bundle()
    for path in (lab.folder / "bench.toml", lab.folder / "payload"):
        shutil.copy(path, open_to_all)
    for path in lab.folder.glob("*.json"):
        shutil.copy(path, open_to_all)
    shutil.copytree(lab.world, open_to_all / "world")
    lab.folder = open_to_all
    update = load(open_to_all / "bundle.importmanifest.json")
    assert lab.apply(update).succeeded
    for path in (*lab.state.rglob("*"), lab.state):
        path.chmod(0o500 if path.is_dir() else 0o400)
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)

    def look() -> None:
        if os.getuid() == 0:
            become_nobody()
        with lab.engine() as engine:
            (entry,) = engine.store.entries()
            assert engine.outcome(entry).report()["state"] == 0
        with pytest.raises(StateFolder):
            lab.apply(update)

    try:
        assert lab.process(look) == 0
    finally:
        for path in (lab.state, *lab.state.rglob("*")):
            os.chown(path, os.getuid(), os.getgid())
            path.chmod(0o700 if path.is_dir() else 0o600)
    with lab.engine() as engine:
        assert len(engine.store.entries()) == 1


@needs_root
def test_an_update_that_another_user_has_planted_is_not_carried_out(lab: Lab) -> None:
    """It would be resumed as this user's own: its files, its scripts."""
    update = lab.bundle()
    lab.fault("left one", Action.INSTALL, cancel)
    lab.apply(update)
    entry = lab.journal().parent
    for place in (entry, entry.parent):
        os.chown(place, NOBODY, NOBODY)
        for call in (lab.resume, lab.rollback, lambda: lab.apply(update)):
            with pytest.raises(StateUnsafe, match=rf"{place} belongs to user \w+ \({NOBODY}\)"):
                call()
        os.chown(place, 0, 0)
    (entry / "journal.jsonl").rename(entry.parent / "elsewhere")
    (entry / "journal.jsonl").symlink_to(entry.parent / "elsewhere")
    with pytest.raises(StateUnsafe, match=r"journal\.jsonl is a link of user root"):
        lab.resume()


class TestDamage:
    def broken(self, lab: Lab) -> Path:
        """A journal one of whose lines was changed."""
        update = lab.bundle()
        lab.fault("right one", Action.INSTALL, cancel)
        lab.apply(update)
        path = lab.journal()
        lines = path.read_bytes().splitlines(keepends=True)
        lines[3] = lines[3].replace(b"left", b"lent").replace(b"end", b"enb")
        path.write_bytes(b"".join(lines))
        return path

    def test_nothing_goes_on_from_it(self, lab: Lab) -> None:
        self.broken(lab)
        begun = list(lab.log)
        for call in (lab.resume, lab.rollback, lambda: lab.apply(lab.bundle())):
            with pytest.raises(JournalBroken, match="line 4"):
                call()
        assert lab.log == begun

    def test_moving_it_away_is_the_way_out(self, lab: Lab) -> None:
        shutil.rmtree(self.broken(lab).parent)
        lab.fault("right one", Action.INSTALL, lambda: None)
        assert lab.apply(lab.bundle()).succeeded

    def test_files_that_make_another_plan(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.fault("right one", Action.INSTALL, cancel)
        lab.apply(update)
        path = lab.journal().parent / "files" / "motors.importmanifest.json"
        whole = path.read_text()
        document = json.loads(whole)
        del document["instructions"]["steps"][1]
        path.write_text(json.dumps(document))
        with pytest.raises(StagedChanged, match="is not the manifest"):
            lab.resume()
        path.write_text(whole)
        lines = lab.journal().read_bytes().splitlines(keepends=True)
        record = journals.decoded(lines[0])
        assert record is not None
        lab.journal().write_bytes(journals.encoded(record | {"tasks": 8}) + b"".join(lines[1:]))
        with pytest.raises(JournalBroken, match=r"8 tasks.* make 6"):
            lab.resume()


def test_a_rollback_that_is_cut_goes_on(lab: Lab) -> None:
    """At each of its restores: with those that are left, the last first."""
    for where in ("right one", "left two", "left one"):
        shutil.rmtree(lab.state, ignore_errors=True)
        update = lab.bundle()
        lab.fault("right two", Action.APPLY, lambda: cancel())
        lab.apply(update)
        lab.fault(where, Action.RESTORE, kill)
        assert lab.process(lab.rollback) == -signal.SIGKILL
        lab.fault(where, Action.RESTORE, lambda: None)
        (lab.world / "log").unlink()
        outcome = lab.resume()
        assert outcome.ending is Ending.ROLLED_BACK
        assert lab.holds() == all_old()
        order = ["right two", "right one", "left two", "left one"]
        assert lab.began(Action.RESTORE) == order[order.index(where) :]


def test_a_rollback_of_an_ended_update_that_is_cut_goes_on(lab: Lab) -> None:
    assert lab.apply(lab.bundle()).succeeded
    lab.fault("left two", Action.RESTORE, kill)
    assert lab.process(lab.rollback) == -signal.SIGKILL
    lab.fault("left two", Action.RESTORE, lambda: None)
    assert lab.resume().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_the_history_keeps_what_its_reports_need_and_no_more(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyflash.updates.engine.store.MOST_KEPT", 3)
    for _ in range(5):
        assert lab.apply(lab.bundle()).succeeded
    with lab.engine() as engine:
        entries = engine.store.entries()
        assert [entry.number for entry in entries] == [2, 3, 4, 5]
        for entry in entries:
            kept = {path.name for path in entry.folder.rglob("*") if path.is_file()}
            needed = {"bundle.importmanifest.json", "cameras.importmanifest.json", "motors.importmanifest.json"}
            assert needed < kept
            assert (kept == needed | {"journal.jsonl"}) == (entry is not entries[-1])
            assert engine.outcome(entry).report()["state"] == 0


def test_an_update_that_does_not_begin_takes_nothing_from_the_one_before(lab: Lab) -> None:
    assert lab.apply(lab.bundle()).succeeded
    for path in lab.world.glob("*.*"):
        path.write_text("1.1")
    update = load(lab.folder / "bundle.importmanifest.json")
    (lab.folder / "payload").write_bytes(b"what is instalLed")
    with pytest.raises(UpdateError):
        lab.apply(update)
    assert lab.rollback().succeeded
    assert lab.holds() == all_old()
