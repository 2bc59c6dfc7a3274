"""The vacuum: each of its updates by the command line, in a folder of its own, and what its README.md shows.

A scenario begins with the vacuum as it comes from the factory. Its parts and wires take no time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.benchfile.schema import load as load_bench
from proxyflash.tests.tools.conftest import Desk
from proxyflash.tests.tools.test_interrupts import Running, in_phase
from proxyflash.tools import commands
from proxyflash.tools.commands import demo

pytestmark = pytest.mark.real_time("steps run scripts")

EXAMPLE = Path(__file__).parents[2] / "examples" / "vacuum"
FACTORY = {
    "rootfs": "1.0.0", "planner": "1.0.0", "left-motor": "1.0.0", "right-motor": "1.0.0",
    "front-camera": "1.0.0", "rear-camera": "1.0.0", "steamer": "absent",
}  # fmt: skip


class Vacuum(Desk):
    """`apply` and the others take an update by its folder's name."""

    def pace(self, pace: float) -> None:
        text = re.sub(r"^pace = .*\n", "", self.bench.read_text(), flags=re.MULTILINE)
        self.bench.write_text(re.sub(r"^emulated = true$", rf"\g<0>\npace = {pace}", text, flags=re.MULTILINE))

    def apply(self, update: str, *more: str) -> tuple[int, dict[str, Any]]:
        """Exit status and document."""
        done = self.run("--json", "apply", manifest_of(self.folder, update), *more)
        return done.status, done.document

    def planned(self, update: str) -> dict[str, Any]:
        return self.run("--json", "plan", manifest_of(self.folder, update)).document

    def reported(self) -> dict[str, Any]:
        """The last update's report, which `apply` has shown before."""
        found: dict[str, Any] = self.run("--json", "report").document["report"]
        return found

    def endings(self) -> list[str]:
        return [item["ending"] for item in self.run("--json", "history").document["updates"]]

    def parts(self) -> dict[str, bytes]:
        """All that the vacuum's parts hold, the host's own too."""
        host = sorted(path for path in (self.folder / "host").rglob("*") if path.is_file())
        return self.memory() | {str(path.relative_to(self.folder)): path.read_bytes() for path in host}


def manifest_of(folder: Path, update: str) -> Path:
    return folder / "updates" / update / "update.importmanifest.json"


@pytest.fixture
def vacuum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Vacuum:
    shutil.copytree(EXAMPLE, tmp_path / "vacuum", ignore=shutil.ignore_patterns("__pycache__", "state"))
    found = Vacuum(tmp_path / "vacuum", capsys)
    found.pace(0.0)
    return found


def results(report: Mapping[str, Any]) -> dict[tuple[str, str], tuple[str, int, str]]:
    """Of each component and step its status, result code, and the version that it holds."""
    return {
        (item["component"], item["step"]): (item["status"], item["resultCode"], item["holds"])
        for item in report["componentResults"]
    }


def step_codes(report: Mapping[str, Any]) -> list[int]:
    return [item["resultCode"] for item in report["lastInstallResult"]["stepResults"].values()]


def test_as_it_comes(vacuum: Vacuum) -> None:
    assert vacuum.seen() == FACTORY
    assert vacuum.endings() == []


def test_a_bundle(vacuum: Vacuum) -> None:
    status, document = vacuum.apply("1-bundle")
    assert (status, document["ending"]) == (0, "succeeded")
    assert vacuum.seen() == dict.fromkeys(FACTORY, "2.0.0") | {"steamer": "absent"}
    report = vacuum.reported()
    assert report == document["report"]
    assert (report["state"], report["lastInstallResult"]["resultCode"]) == (0, 700)
    assert json.loads(report["installedUpdateId"]) == {"provider": "Example", "name": "vacuum", "version": "2.0.0"}
    assert results(report) == {
        ("rootfs", "1.1"): ("done", 700, "2.0.0"),
        ("planner", "2.1"): ("done", 700, "2.0.0"),
        ("left-motor", "3.1"): ("done", 700, "2.0.0"),
        ("right-motor", "3.1"): ("done", 700, "2.0.0"),
        ("front-camera", "4.1"): ("done", 700, "2.0.0"),
        ("rear-camera", "4.1"): ("done", 700, "2.0.0"),
    }
    update = vacuum.folder / "updates" / "1-bundle"
    host = vacuum.folder / "host"
    assert (host / "active").read_text() == "b\n"
    assert (host / "slot-b.img").read_bytes() == (update / "rootfs-2.0.0.img").read_bytes()
    assert (host / "slot-a.img").read_bytes() == (EXAMPLE / "host" / "slot-a.img").read_bytes()
    for name in ("planner", "rooms.conf"):
        assert (host / "planner" / name).read_bytes() == (update / name).read_bytes()
    assert os.access(host / "planner" / "planner", os.X_OK)


def test_a_group(vacuum: Vacuum) -> None:
    before = dict(vacuum.seen()), vacuum.parts()
    status, document = vacuum.apply("2-group")
    assert (status, document["ending"]) == (0, "succeeded")
    assert vacuum.seen() == before[0] | {"left-motor": "2.1.0", "right-motor": "2.1.0"}
    done = {("left-motor", "1.1"): ("done", 700, "2.1.0"), ("right-motor", "1.1"): ("done", 700, "2.1.0")}
    assert results(vacuum.reported()) == done
    changed = {name for name, held in vacuum.parts().items() if before[1][name] != held}
    assert changed == {"left-motor.flash", "right-motor.flash"}


def test_a_check_stops_it_before_anything_is_touched(vacuum: Vacuum) -> None:
    (vacuum.folder / "host" / "place").write_text("kitchen\n")
    before = vacuum.seen(), vacuum.parts()
    status, document = vacuum.apply("3-check")
    assert (status, document["ending"], document["error"]["code"]) == (1, "failed", "E-CONDITION")
    assert "'kitchen' does not match '^dock'" in document["error"]["cause"]
    assert (vacuum.seen(), vacuum.parts()) == before
    report = vacuum.reported()
    assert (report["state"], report["lastInstallResult"]["resultCode"], report["installedUpdateId"]) == (255, 0, "")
    assert results(report) == {
        ("host", "1"): ("failed", 0, ""),
        ("front-camera", "2.1"): ("not run", -1, "1.0.0"),
        ("rear-camera", "2.1"): ("not run", -1, "1.0.0"),
    }
    (vacuum.folder / "host" / "place").write_text("dock\n")
    status, document = vacuum.apply("3-check")
    assert (status, document["ending"]) == (0, "succeeded")
    assert vacuum.seen() == FACTORY | {"front-camera": "2.1.0", "rear-camera": "2.1.0"}
    assert step_codes(vacuum.reported()) == [700, 700]
    assert vacuum.endings() == ["failed", "succeeded"]


def test_a_motor_fails_and_all_is_rolled_back(vacuum: Vacuum) -> None:
    before = vacuum.seen(), vacuum.parts()
    vacuum.edit(("refuse = 0x00", "refuse = 0x22"))
    status, document = vacuum.apply("4-rollback")
    assert (status, document["ending"], document["error"]["code"]) == (1, "rolled back", "E-PART-REFUSED")
    assert document["error"]["component"] == "right-motor"
    assert vacuum.seen() == before[0]
    assert vacuum.parts() == before[1]
    report = vacuum.reported()
    assert (report["state"], report["lastInstallResult"]["resultCode"], report["installedUpdateId"]) == (255, 0, "")
    assert results(report) == {
        ("planner", "1.1"): ("restored", 1100, "1.0.0"),
        ("left-motor", "2.1"): ("restored", 1100, "1.0.0"),
        ("right-motor", "2.1"): ("failed", 0, "1.0.0"),
    }
    # It did try: the planner and the left motor had been updated.
    tried = {item["component"]: item["actions"] for item in report["componentResults"]}
    assert [tried[name].get("apply") for name in ("planner", "left-motor", "right-motor")] == [700, 700, None]
    vacuum.edit(("refuse = 0x22", "refuse = 0x00"))
    assert vacuum.apply("4-rollback")[0] == 0
    assert vacuum.seen() == FACTORY | {"planner": "3.0.0", "left-motor": "3.0.0", "right-motor": "3.0.0"}
    assert vacuum.endings() == ["rolled back", "succeeded"]


def test_a_part_is_plugged_in_later(vacuum: Vacuum) -> None:
    plan = vacuum.planned("5-later")
    assert (plan["skipped_steps"], plan["unplugged"], plan["silent"]) == ([], [], ["steamer"])
    status, document = vacuum.apply("5-later")
    assert (status, document["ending"]) == (0, "succeeded")
    assert vacuum.seen() == FACTORY | {"planner": "3.1.0"}
    assert step_codes(vacuum.reported()) == [700, 604]
    vacuum.edit(("powered = false}", "powered = true}"))
    assert vacuum.seen()["steamer"] == "1.0.0"
    status, document = vacuum.apply("5-later")
    assert (status, document["ending"]) == (0, "succeeded")
    assert vacuum.seen() == FACTORY | {"planner": "3.1.0", "steamer": "2.0.0"}
    report = vacuum.reported()
    assert step_codes(report) == [603, 700]
    assert results(report) == {
        ("planner", "1.1"): ("installed already", 603, "3.1.0"),
        ("steamer", "2.1"): ("done", 700, "2.0.0"),
    }


def cut(vacuum: Vacuum) -> None:
    """Ends an apply of the last update as a power cut ends it, while the front camera is erased, and in part is."""
    vacuum.pace(5.0)  # so that the erase of its second sector lasts until the signal has come
    running = Running(vacuum, "apply", str(manifest_of(vacuum.folder, "6-resume")))
    erasing = in_phase("front-camera", "erase")
    running.until(lambda event: erasing(event) and event["kind"] == "progress" and event["done"] > 0)
    running.process.send_signal(signal.SIGKILL)
    running.process.communicate()
    vacuum.pace(0.0)


def test_a_resume_after_a_cut(vacuum: Vacuum) -> None:
    cut(vacuum)
    assert vacuum.endings() == ["unfinished"]
    # The camera's old firmware is gone, the new one is not there: it sits in its bootloader.
    assert vacuum.seen() == FACTORY | {"rootfs": "3.0.0", "front-camera": "bootloader"}
    assert vacuum.reported()["state"] == 6
    done = vacuum.run("resume", "--jsonl")
    assert (done.status, done.lines[-1]["ending"]) == (0, "succeeded")
    # What had ended before the cut is not begun again.
    assert [line["component"] for line in done.lines if line["kind"] == "step"] == ["front-camera", "rear-camera"]
    assert vacuum.seen() == FACTORY | {"rootfs": "3.0.0", "front-camera": "3.0.0", "rear-camera": "3.0.0"}
    report = vacuum.reported()
    assert report["state"] == 0
    assert set(results(report).values()) == {("done", 700, "3.0.0")}
    assert vacuum.endings() == ["succeeded"]
    assert vacuum.run("--json", "resume").document["verdict"] == "nothing to resume"


def test_the_demo_carries_out_the_first_one(vacuum: Vacuum, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "FOLDER", vacuum.folder.parent)
    done = vacuum.run("demo", "--example", "vacuum", tmp_path / "mine")
    assert (done.status, done.out.splitlines()[-1]) == (0, f"{tmp_path / 'mine' / 'README.md'} goes on from here")
    typed = [line.rpartition(" ")[2] for line in done.out.splitlines() if line.startswith("$ proxyflash")]
    bundle = "updates/1-bundle/update.importmanifest.json"
    assert typed == ["scan", bundle, bundle, "scan"]
    assert done.out.partition(f"apply {bundle}")[2].count("  OK  ") == 6


# What is in the folder.


def test_each_kind_of_bus_and_of_component_is_there() -> None:
    file = load_bench(EXAMPLE / "bench.toml")
    assert file.names == tuple(FACTORY)
    assert {file.spec.bus[entry.spec.bus].kind for entry in file.entries.values()} == {"can", "usb", "serial"}
    assert all(bus.emulated for bus in file.spec.bus.values())


def test_the_manifests_are_those_that_the_script_writes(vacuum: Vacuum) -> None:
    before = manifests(vacuum.folder)
    assert len(before) == 18
    for path in vacuum.folder.rglob("*.importmanifest.json"):
        path.unlink()
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "manifests.sh"], cwd=vacuum.folder, env=os.environ | {"PATH": search}, check=True)
    assert manifests(vacuum.folder) == before


def manifests(folder: Path) -> dict[str, Any]:
    """All of them, without the time at which each was made."""
    found = {}
    for path in folder.rglob("*.importmanifest.json"):
        document = json.loads(path.read_text())
        document.pop("createdDateTime")
        found[str(path.relative_to(folder))] = document
    return found


def test_the_files_are_those_that_the_script_makes(vacuum: Vacuum) -> None:
    before = files(vacuum.folder)
    for path in vacuum.folder.rglob("*-[0-9].[0-9].[0-9].*"):
        path.unlink()
    subprocess.run([sys.executable, "firmware/make.py"], cwd=vacuum.folder, check=True)
    assert files(vacuum.folder) == before


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Its README.md.

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def shown() -> list[tuple[str, str]]:
    """The commands of README.md, in order, each with what it prints."""
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    found = []
    for block in blocks:
        lines = "".join(line.removeprefix("    ") for line in block.splitlines(keepends=True))
        for part in re.split(r"^\$ ", lines, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed.strip("\n")))
    return found


class Reader:
    """Types the commands of the README, one after the other."""

    def __init__(self, vacuum: Vacuum) -> None:
        self.vacuum = vacuum
        self.status = 0

    def types(self, command: str) -> str:
        """What is then seen: stdout and stderr together."""
        words = shlex.split(command)
        if words[0] == "timeout":
            cut(self.vacuum)
            self.status = 137
            return ""
        if command == "echo $?":
            return str(int(self.status))
        if words[0] != "proxyflash":
            done = subprocess.run(command, shell=True, cwd=self.vacuum.folder, capture_output=True, text=True)
            self.status = done.returncode
            return done.stdout + done.stderr
        seen = io.StringIO()
        with contextlib.redirect_stdout(seen), contextlib.redirect_stderr(seen):
            self.status = commands.run(words[1:])
        return seen.getvalue()


def fits(printed: str, wanted: str) -> bool:
    """`...` in the README stands for anything."""
    pattern = re.escape(TIME.sub("TIME", wanted)).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, TIME.sub("TIME", printed.strip("\n")), re.DOTALL) is not None


def test_the_readme_shows_what_one_sees(vacuum: Vacuum, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown()
    assert lines[0] == ("proxyflash demo --example vacuum vacuum", "...")
    assert lines[1] == ("cd vacuum", "")
    monkeypatch.chdir(vacuum.folder)
    monkeypatch.delenv("PROXYFLASH_STATE")
    reader = Reader(vacuum)
    reader.types("proxyflash --state state apply updates/1-bundle/update.importmanifest.json")
    for command, wanted in lines[2:]:
        printed = reader.types(command)
        assert fits(printed, wanted), f"$ {command}\n{printed}"
    # Every update is shown, and the last state is that after all of them.
    typed = "\n".join(command for command, _ in lines)
    for folder in sorted((EXAMPLE / "updates").iterdir()):
        assert folder.name in typed or folder.name == "1-bundle"
    assert vacuum.seen() == {
        "rootfs": "3.0.0", "planner": "3.1.0", "left-motor": "3.0.0", "right-motor": "3.0.0",
        "front-camera": "3.0.0", "rear-camera": "3.0.0", "steamer": "2.0.0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("printed", "wanted", "same"),
    [
        ("a  OK\n", "a  OK", True),
        ("a  FAILED\n", "a  OK", False),
        ("1  2026-01-02 03:04:05  done", "1  2025-09-09 00:00:00  done", True),
        ("a\nb\nc\n", "a\n...\nc", True),
        ("a\nb\nd\n", "a\n...\nc", False),
    ],
)
def test_what_does_not_fit_is_seen(printed: str, wanted: str, same: bool) -> None:
    assert fits(printed, wanted) is same
