"""The state folder: where it is, and the lock that keeps two processes from one bench."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.errors import BenchLocked, StateFolder, StateUnsafe
from proxyflash.enumerators.state import BenchLock, bench_folder, default_state
from proxyflash.tests.users import as_nobody, needs_root, shared_folder
from proxyflash.tools.commands import run
from proxyflash.transports.errors import ExitStatus

HOLD = """
import sys
from pathlib import Path
from proxyflash.enumerators.state import BenchLock
with BenchLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, until the end of the block."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_told_who_holds_the_bench(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        with pytest.raises(BenchLocked) as caught:
            BenchLock(tmp_path)
        since = r"since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        assert re.fullmatch(rf"this bench is in use by process {process.pid} {since}", caught.value.cause)
        assert caught.value.exit_status is ExitStatus.BUSY
        assert caught.value.remedy


def test_the_lock_goes_with_its_process_however_that_ends(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        process.kill()
        process.wait()
        with BenchLock(tmp_path):
            assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} since ")
    BenchLock(tmp_path).close()


@pytest.mark.parametrize("command", [["scan"], ["info", "imu"]])
def test_the_command_line_says_it_with_status_6(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.toml"
    file.write_text(
        '[bus.b]\nkind = "usb"\nemulated = true\n[[component]]\nname = "imu"\nbus = "b"\nprotocol = "dfu"\n'
        '[bus.c]\nkind = "can"\nemulated = true\n'
    )
    with held(bench_folder(tmp_path / "state", file)) as process:
        assert run(["--bench", str(file), "--state", str(tmp_path / "state"), *command]) == 6
        said = capsys.readouterr().err
        assert said.startswith("E-BENCH-LOCKED ")
        assert re.search(rf"this bench is in use by process {process.pid}\b", said)
        # Reading the file needs no lock.
        assert run(["--bench", str(file), "--state", str(tmp_path / "state"), "bench", "check"]) == 0


@pytest.mark.parametrize(
    "keys",
    [
        'kind = "usb"\nemulated = true',
        pytest.param('kind = "can"\ninterface = "virtual"', marks=pytest.mark.real_time("a bus of python-can's own")),
    ],
)
def test_two_benches_of_one_process_exclude_each_other(keys: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.toml"
    file.write_text(f"[bus.b]\n{keys}\n")
    with Bench.open(file) as one, Bench.open(file) as other:
        one.transport("b")
        with pytest.raises(BenchLocked):
            other.scan()
        with pytest.raises(BenchLocked):
            other.transport("b")
        one.close()
        assert other.scan().faults == ()


def test_other_bench_files_have_locks_of_their_own(tmp_path: Path) -> None:
    state = tmp_path / "state"
    folders = {bench_folder(state, tmp_path / name / "bench.toml") for name in ("a", "b", "a/../a")}
    assert len(folders) == 2
    assert all(folder.parent == state / "benches" for folder in folders)


def test_a_damaged_lock_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"\xff\xfe\x00")
    with BenchLock(tmp_path):
        with pytest.raises(BenchLocked, match=f"process {os.getpid()}"):
            BenchLock(tmp_path)
        (tmp_path / "lock").write_bytes(b"\xff\xfe")
        with pytest.raises(BenchLocked):
            BenchLock(tmp_path)


@pytest.mark.parametrize(
    "said",
    [b"", b"\xff\xfe", b"process 1\x1b[2J", b"process 1\nE-FAKE all is well", b"process 0", b"process " + b"9" * 5000],
)
def test_what_no_lock_writes_is_not_repeated(tmp_path: Path, said: bytes) -> None:
    with BenchLock(tmp_path):
        (tmp_path / "lock").write_bytes(said)
        with pytest.raises(BenchLocked) as caught:
            BenchLock(tmp_path)
        assert caught.value.cause == "this bench is in use by another process"


def test_a_lock_of_an_earlier_version(tmp_path: Path) -> None:
    with BenchLock(tmp_path):
        (tmp_path / "lock").write_bytes(b"process 4711")
        with pytest.raises(BenchLocked) as caught:
            BenchLock(tmp_path)
        assert caught.value.cause == "this bench is in use by process 4711"


def test_a_fifo_in_the_place_of_the_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock", 0o600)
    with pytest.raises(StateUnsafe, match="lock is not a regular file"):
        BenchLock(tmp_path)


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_lock_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(StateFolder, match=f"{tmp_path / 'lock'}: No space left on device"):
            BenchLock(tmp_path)
    # It is let go of.
    BenchLock(tmp_path).close()


# What another user has put into the state folder.

BENCH = """
[bus.usb]
kind = "usb"
emulated = true
[[component]]
name = "camera"
bus = "usb"
protocol = "dfu"
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    with shared_folder() as folder:
        (folder / "bench.toml").write_text(BENCH)
        (folder / "precious").write_bytes(b"precious")
        (folder / "state").mkdir()
        (folder / "state").chmod(0o1777)
        yield folder


def scanned(shared: Path, capsys: pytest.CaptureFixture[str]) -> str:
    status = run(["--bench", str(shared / "bench.toml"), "--state", str(shared / "state"), "scan"])
    told = capsys.readouterr().err
    assert (status, told.split()[0]) == (ExitStatus.PERMISSION, "E-STATE-UNSAFE")
    assert (shared / "precious").read_bytes() == b"precious"
    return told


@needs_root
@pytest.mark.parametrize("target", ["precious", "missing"])
@pytest.mark.parametrize("name", ["lock", "camera.flash"])
def test_a_bench_folder_that_another_user_has_made(
    shared: Path, capsys: pytest.CaptureFixture[str], name: str, target: str
) -> None:
    folder = bench_folder(shared / "state", shared / "bench.toml")

    def plant() -> None:
        folder.mkdir(parents=True)
        (folder / name).symlink_to(shared / target)

    as_nobody(plant)
    told = scanned(shared, capsys)
    assert f"{folder.parent} belongs to user " in told
    assert "Name a state folder elsewhere: --state FOLDER" in told
    assert not (shared / "missing").exists()


@needs_root
@pytest.mark.parametrize("target", ["precious", "missing"])
@pytest.mark.parametrize("name", ["lock", "camera.flash"])
def test_a_link_of_another_user_in_a_folder_that_was_open_to_all(
    shared: Path, capsys: pytest.CaptureFixture[str], name: str, target: str
) -> None:
    """As a version before this one made it under umask 0; then its owner closed it, and looked no further."""
    folder = bench_folder(shared / "state", shared / "bench.toml")
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    as_nobody(lambda: (folder / name).symlink_to(shared / target))
    assert f"{folder} can be written to by others (mode 0777)" in scanned(shared, capsys)
    folder.chmod(0o700)
    assert f"{folder / name} is a link of user " in scanned(shared, capsys)
    assert not (shared / "missing").exists()


def test_everything_that_commands_make_is_its_owner_s_alone(tmp_path: Path) -> None:
    """Under umask 0: the lock, the flash of emulated parts, and the folders around them."""
    (tmp_path / "bench.toml").write_text(BENCH)
    before = os.umask(0)
    try:
        assert run(["--bench", str(tmp_path / "bench.toml"), "--state", str(tmp_path / "state"), "scan"]) == 0
    finally:
        os.umask(before)
    found = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    assert {"lock", "camera.flash"} <= {path.name for path in found}
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_state_folder_of_an_earlier_version_is_tightened(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(BENCH)
    words = ["--bench", str(tmp_path / "bench.toml"), "--state", str(tmp_path / "state"), "scan"]
    assert run(words) == 0
    folder = bench_folder(tmp_path / "state", tmp_path / "bench.toml")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert run(words) == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "state", Path("/proc/nothing")):
        with pytest.raises(StateFolder) as caught:
            BenchLock(folder)
        assert "PROXYFLASH_STATE" in caught.value.remedy
    (tmp_path / "odd" / "lock").mkdir(parents=True)
    with pytest.raises(StateFolder, match="Is a directory"):
        BenchLock(tmp_path / "odd")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StateFolder, match="can't be locked: No locks available"):
        BenchLock(tmp_path)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    monkeypatch.setenv("PROXYFLASH_STATE", "/own")
    assert default_state() == Path("/own")
    monkeypatch.setenv("PROXYFLASH_STATE", "")
    assert default_state() == Path("/xdg/proxyflash")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_state() == tmp_path / ".local/state/proxyflash"
