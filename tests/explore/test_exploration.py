"""Exploration itself: what stands for seeds, that a seed means the same each time, and the disk that it simulates."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock

from .__main__ import main
from .disk import Disk

ROOT = Path(__file__).parents[2]
SEEDS = (20, 22, 24, 26, 65, 66, 157, 233)
"""Flashes and updates, with kills, power cuts and faults of wires."""

pytestmark = pytest.mark.real_time("each seed has a simulated clock of its own, and programs are run")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("twelve", "names no seeds: write a number (5), or the first and the last one (5..9)"),
        ("5..1", "is empty: the last seed is smaller than the first. Write 1..5"),
        ("1..x", "names no seeds"),
        ("..", "names no seeds"),
        ("", "names no seeds"),
        ("-4", "expected"),
        ("1..9999999999999999", "is too large for a seed"),
        ("1" * 5000, "is too large for a seed"),
        ("1.." + "1" * 5000, "is too large for a seed"),
        ("x" * 5000, "names no seeds"),
    ],
    ids=lambda text: text[:20],
)
def test_what_names_no_seeds(text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([text])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said or told == "expected"
    assert len(said.splitlines()[-1]) < 200


@pytest.mark.parametrize("variable", ["SEEDS", "FOR"])
@pytest.mark.parametrize("value", ["'", '"', "`id`", "1;2"])
def test_make_hands_on_what_names_no_seeds(variable: str, value: str) -> None:
    """The virtual environment is that of these tests."""
    done = subprocess.run(
        ["make", "-s", "-o", "none/.stamp", "explore", "VENV=none", f"BIN={Path(sys.executable).parent}",
         f"{variable}={value}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    said = "names no seeds" if variable == "SEEDS" else "is not a time"
    assert f"{value!r} {said}: write a number" in done.stderr
    assert "Syntax error" not in done.stderr


@pytest.mark.parametrize("text", ["0", "-5", "nan", "inf", "1e1000", "soon", ""])
def test_what_is_no_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of no seeds would pass for a run that found nothing."""
    with pytest.raises(SystemExit) as ended:
        main([f"--seconds={text}"])
    assert ended.value.code == 2
    assert "is not a time: write a number of seconds above 0" in capsys.readouterr().err


def test_a_seed_that_holds_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["22..23"]) == 0
    assert "2 seeds from 22 on: 0 failed" in capsys.readouterr().out


def digests(hash_seed: str) -> str:
    """Of some seeds, in a process of their own: the logs, journals and recordings, to the byte."""
    code = f"from tests.explore.run import explore\nprint([explore(s, recorded=True).digest for s in {SEEDS}])"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.timeout(600)
def test_the_same_seed_gives_the_same_to_the_last_byte() -> None:
    first = digests("0")
    assert first.count("'") == 2 * len(SEEDS)
    assert len(set(first.strip("[]\n").split(", "))) == len(SEEDS)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert digests("4711") == first
    finally:
        for process in busy:
            process.kill()
            process.wait()


# The disk.


def no_point(what: str) -> None:
    """Nothing happens."""


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path, no_point)


def cuts(disk: Disk) -> list[dict[str, bytes]]:
    """What many cuts at this moment leave."""
    return [disk.after_a_cut(random.Random(seed)).files for seed in range(60)]


def written(path: Path, data: bytes, *, sync: bool, flags: int = os.O_APPEND) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    os.write(number, data)
    if sync:
        os.fsync(number)
    os.close(number)


def synced(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def test_a_cut_takes_the_name_of_a_file_whose_folder_was_not_synced(disk: Disk) -> None:
    with disk:
        written(disk.folder / "a", b"whole", sync=True)
        assert {tuple(files) for files in cuts(disk)} == {(), ("a",)}
        synced(disk.folder)
        assert cuts(disk) == [{"a": b"whole"}] * 60


def test_a_cut_leaves_any_beginning_of_what_was_not_synced(disk: Disk) -> None:
    with disk:
        written(disk.folder / "a", b"sure", sync=True)
        synced(disk.folder)
        written(disk.folder / "a", b" or not", sync=False)
        left = {files["a"] for files in cuts(disk)}
    assert {b"sure", b"sure or not"} < left
    assert all(b"sure or not".startswith(data) and data.startswith(b"sure") for data in left)


def test_a_file_that_replaces_another_is_one_of_the_two(disk: Disk) -> None:
    with disk:
        written(disk.folder / "a", b"old", sync=True)
        synced(disk.folder)
        written(disk.folder / "b", b"new", sync=True)
        (disk.folder / "b").rename(disk.folder / "a")
        assert {files["a"] for files in cuts(disk)} == {b"old", b"new"}
        synced(disk.folder)
        assert {files["a"] for files in cuts(disk)} == {b"new"}


def test_what_a_cut_left_is_what_programs_see_afterwards(disk: Disk) -> None:
    with disk:
        (disk.folder / "below").mkdir()
        written(disk.folder / "below" / "a", b"lost", sync=True)
        image = next(image for seed in range(60) if not (image := disk.after_a_cut(random.Random(seed))).folders)
        disk.put(image)
        assert list(disk.folder.iterdir()) == []


def test_a_disk_that_fills(disk: Disk) -> None:
    with disk:
        disk.left = 3
        number = os.open(disk.folder / "a", os.O_WRONLY | os.O_CREAT)
        assert os.write(number, b"four") == 3
        with pytest.raises(OSError, match="No space left") as full:
            os.write(number, b"r")
        os.close(number)
        assert full.value.errno == errno.ENOSPC
        assert (disk.folder / "a").read_bytes() == b"fou"


# Threads that are killed.


def test_killed_threads_give_back_what_they_hold_and_do_nothing_more() -> None:
    done: list[str] = []
    with clock.use(SimulatedClock(1)) as simulated:
        assert isinstance(simulated, SimulatedClock)
        lock, condition = clock.Lock(), clock.Condition()

        def holds() -> None:
            with lock:
                try:
                    clock.sleep(100)
                    done.append("slept")
                finally:
                    clock.sleep(1)
                    done.append("went on")

        def waits() -> None:
            with condition:
                condition.wait()
            done.append("woke")

        threads = [clock.Thread(holds), clock.Thread(waits)]
        for thread in threads:
            thread.start()
        clock.sleep(1)
        simulated.kill(threads)  # type: ignore[arg-type]
        for thread in threads:
            thread.join()
        assert lock.acquire(timeout=0)
        lock.release()
        with condition:
            condition.notify_all()
        assert simulated.elapsed < 2
    assert done == []
    assert simulated.left == []
