"""`demo`: the main job from nothing, as a person sees it, and as a program does."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from proxyflash.tools.commands import demo

from .conftest import PROGRAM, Desk

pytestmark = pytest.mark.real_time("child programs")


@pytest.fixture
def quick(make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The demo, of parts and wires that take no time."""
    desk = make_desk(name="three_sensors")
    monkeypatch.setattr(demo, "FOLDER", desk.folder.parent)
    return desk


@pytest.mark.timeout(300)
def test_the_demo_as_it_comes(tmp_path: Path) -> None:
    """From a folder with nothing in it, at the true pace; and its commands, typed by hand, afterwards."""
    done = subprocess.run([PROGRAM, "demo", "first-try"], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done
    sections = re.split(r"^\$ ", done.stdout, flags=re.MULTILINE)[1:]
    commands = [section.splitlines()[0] for section in sections]
    assert commands == [
        "cd first-try",
        "proxyflash --state state scan",
        "proxyflash --state state plan update/update.importmanifest.json",
        "proxyflash --state state apply update/update.importmanifest.json",
        "proxyflash --state state scan",
    ]
    before, plan, applied, after = sections[1:]
    assert (before.count("1.4.2"), before.count("1.5.0")) == (3, 0)
    assert plan.count("1.4.2 -> 1.5.0") == 3
    assert [line.split()[:2] for line in applied.strip().splitlines()[-7:]] == [
        ["host", "OK"],
        *([name, word] for name in ("front-radar", "imu", "camera") for word in ("plan", "OK")),
    ]
    assert (after.count("1.4.2"), after.count("1.5.0")) == (0, 3)
    assert "\x1b" not in done.stdout + done.stderr
    words = commands[-1].split()[1:]
    again = subprocess.run([PROGRAM, *words], cwd=tmp_path / "first-try", capture_output=True, text=True, timeout=600)
    assert again.stdout.strip() == after.partition("\n")[2].strip()


def test_the_modes_of_the_example_are_not_copied(quick: Desk, tmp_path: Path) -> None:
    """A clone made with umask 002 lets its group write, and the state folder's check refuses that."""
    for path in (quick.folder, *quick.folder.rglob("*")):
        path.chmod(0o775 if path.is_dir() or path.suffix == ".sh" else 0o464)
    first_try = tmp_path / "first-try"
    done = quick.run("demo", first_try)
    assert done.status == 0, done.err
    script = first_try / "update" / "check-supply.sh"
    for path in (first_try, *first_try.rglob("*")):
        mode = path.stat().st_mode
        assert not mode & 0o022, path
        if not path.is_dir() and not path.is_relative_to(first_try / "state"):
            assert (mode & 0o700) == (0o700 if path == script else 0o600), path


def test_a_program_gets_one_document(quick: Desk, tmp_path: Path) -> None:
    done = quick.run("--json", "demo", tmp_path / "first-try")
    assert (done.status, done.err) == (0, "")
    document = done.document
    assert document["folder"] == str(tmp_path / "first-try")
    scan, plan, applied, after = document["runs"]
    assert {item["version"] for item in scan["components"]} == {"1.4.2"}
    assert len(plan["tasks"]) == 4
    assert applied["report"]["state"] == 0
    assert {item["version"] for item in after["components"]} == {"1.5.0"}


def test_a_program_gets_the_events(quick: Desk, tmp_path: Path) -> None:
    done = quick.run("--jsonl", "demo", tmp_path / "first-try")
    assert (done.status, done.err) == (0, "")
    assert [line["kind"] for line in done.lines].count("result") == 5


def test_quiet_and_the_log_hold_for_all_of_it(quick: Desk, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = quick.run("--quiet", "--log-file", log, "demo", tmp_path / "first-try")
    assert (done.status, done.err) == (0, "")
    assert "camera  OK" in done.out
    assert "plan    " not in done.out
    assert log.read_text().count("camera  OK") == 1


def test_a_failure_ends_it_with_its_status(quick: Desk, tmp_path: Path) -> None:
    quick.edit(('part = "acme-r77", ', 'part = "acme-r77", mute = true, '))
    done = quick.run("demo", tmp_path / "first-try")
    assert done.status == 4
    assert "apply" not in done.out
    assert done.err.startswith("E-COMPONENT-ABSENT front-radar: ")
    document = quick.run("--json", "demo", tmp_path / "second-try").document
    assert document["runs"][-1]["error"]["code"] == "E-COMPONENT-ABSENT"


def test_without_a_folder_it_makes_one(quick: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = quick.run("--json", "demo")
    folder = Path(done.document["folder"])
    assert (folder / "bench.toml").is_file()
    assert {path.name for path in folder.iterdir()} >= {"bench.toml", "firmware", "update", "state"}
    assert not list(folder.rglob("__pycache__"))


def test_a_folder_that_can_not_be_made(quick: Desk) -> None:
    done = quick.run("demo", "/proc/none")
    assert (done.status, done.err.split()[0]) == (2, "E-DEMO-FOLDER")


MOTORS = 2 * 8192
"""Bytes that the vacuum's update writes to parts on one CAN bus of 500 kbit/s."""


def test_simulated_time_tells_what_real_wires_take(tmp_path: Path, make_desk: Callable[..., Desk]) -> None:
    """At the true pace; the scripts of the example run beside it."""
    done = make_desk(name="three_sensors").run(
        "--json", "demo", "--simulated-time", "--example", "vacuum", tmp_path / "first-try"
    )
    assert done.status == 0, done.err
    document = done.document
    assert document["runs"][2]["report"]["state"] == 0
    seconds = {item["command"]: item["seconds"] for item in document["simulated"]}
    assert [item["command"] for item in document["simulated"]] == ["scan", "plan", "apply", "scan"]
    assert seconds["apply"] > MOTORS * 8 / 500_000
    assert document["simulated_seconds"] == pytest.approx(
        sum(item["seconds"] for item in document["simulated"]), abs=0.01
    )
    assert document["real_seconds"] > 0


def test_simulated_time_is_shown_at_the_end(quick: Desk, tmp_path: Path) -> None:
    done = quick.run("demo", "--simulated-time", tmp_path / "first-try")
    assert done.status == 0, done.err
    told = done.out.partition("simulated time, as long as real wires take:\n")[2]
    assert re.findall(r"^  (\S.*?)  +[0-9.]+ s$", told, re.MULTILINE) == [
        "scan", "plan", "apply", "scan", "total", "real time",
    ]  # fmt: skip


def test_simulated_time_ends_with_a_failure_s_status(quick: Desk, tmp_path: Path) -> None:
    quick.edit(('part = "acme-r77", ', 'part = "acme-r77", mute = true, '))
    done = quick.run("--json", "demo", "--simulated-time", tmp_path / "first-try")
    assert done.status == 4
    assert [item["command"] for item in done.document["simulated"]] == ["scan", "plan"]
    assert done.document["runs"][-1]["error"]["code"] == "E-COMPONENT-ABSENT"
