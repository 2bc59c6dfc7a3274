"""Ctrl-C in each phase, as signals to a process of its own: where it stops, what it says, and how it goes on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers import formats
from proxyflash.flashers.events import Phase
from proxyflash.flashers.programmer import Programmer
from proxyflash.tools import commands
from proxyflash.tools.commands import session
from proxyflash.tools.interrupt_status import Standing
from proxyflash.tools.output import Output
from proxyflash.transports import json_text
from proxyflash.transports.deadline import Deadline
from proxyflash.updates.events import ActionStarted, Status, StepFinished, StepStarted

from .conftest import MANIFEST, NEW, Desk

pytestmark = pytest.mark.real_time("child programs and signals")
MakeDesk = Callable[..., Desk]
LONG = 30.0
"""Seconds that no test is meant to wait."""
STOPPING = "stopping at the next safe point; Ctrl-C again stops now"


class Running:
    """A command under way, with its events as they come."""

    def __init__(self, desk: Desk, *arguments: str, shell: str = "") -> None:
        """`shell`: commands that come before it."""
        self.process = desk.start("--jsonl", *arguments, shell=shell)
        self.seen: list[dict[str, Any]] = []

    def events(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            assert event["schema"] == 1
            self.seen.append(event)
            yield event

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        for event in self.events():
            if wanted(event):
                return
        pytest.fail(f"it ended before that: {self.seen[-1]} {self.process.communicate()[1]}")

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def interrupt_twice(self) -> None:
        """The second one once the first has been answered: signals sent at once may be taken for one."""
        self.interrupt()
        assert self.process.stderr is not None
        assert self.process.stderr.readline().strip() == STOPPING
        self.interrupt()

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Exit status, the last document, what was said."""
        list(self.events())
        _, said = self.process.communicate(timeout=600)
        return self.process.returncode, self.seen[-1], said


def in_phase(component: str, phase: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event.get("phase") == phase and event["component"] == component


def again(desk: Desk, command: str) -> int:
    """Runs the command that a message names, to its end."""
    words = shlex.split(command)
    assert words[0] == "proxyflash"
    return subprocess.run([desk.command()[0], *words[1:]], cwd=desk.folder, capture_output=True, timeout=600).returncode


@pytest.mark.parametrize(
    ("component", "phase"),
    [
        *(("imu", phase) for phase in ("connect", "compare", "erase", "write", "verify")),
        *(("camera", phase) for phase in ("compare", "erase", "write")),
        *(("front-radar", phase) for phase in ("connect", "write")),
    ],
)
def test_the_first_stops_at_a_safe_point(make_desk: MakeDesk, component: str, phase: str) -> None:
    # What comes before the erase is short: at its true pace it lasts until the signal has come.
    desk = make_desk(pace=1.0 if phase in ("connect", "compare") else 0.1)
    running = Running(desk, "flash", component, NEW[component])
    running.until(in_phase(component, phase))
    running.interrupt()
    status, last, said = running.end()
    assert said.strip() == STOPPING
    error = last["error"]
    assert (error["code"], error["component"], error["exit_status"]) == ("E-CANCELLED", component, status)
    if phase in ("connect", "compare"):
        assert status == 130
        assert desk.seen()[component] == "1.4.2"
        return
    assert status == 10
    before, _, command = error["remedy"].partition(": ")
    assert before == "It goes on with what is missing"
    assert phase == "verify" or desk.seen()[component] in ("bootloader", "1.4.2")
    assert again(desk, command) == 0
    assert desk.seen()[component] == "1.5.0"


def test_a_ctrl_c_that_a_shell_s_background_job_ignores_is_ignored(make_desk: MakeDesk) -> None:
    """A script's `proxyflash flash ... &`: the Ctrl-C is for the script."""
    running = Running(make_desk(pace=0.1), "flash", "imu", NEW["imu"], shell="trap '' INT")
    running.until(in_phase("imu", "write"))
    running.interrupt()
    status, last, said = running.end()
    assert (status, said) == (0, "")
    assert "error" not in last


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed(make_desk: MakeDesk, ignored: bool) -> None:
    """The kernel sends a SIGHUP, and so does the shell; nohup has it ignored."""
    desk = make_desk(pace=0.1)
    running = Running(desk, "flash", "imu", NEW["imu"], shell="trap '' HUP" if ignored else "")
    running.until(in_phase("imu", "write"))
    running.interrupt(signal.SIGHUP)
    if ignored:
        assert running.end()[0] == 0
        return
    assert running.process.stderr is not None
    assert running.process.stderr.readline().strip() == STOPPING
    running.interrupt(signal.SIGHUP)
    status, last, _ = running.end()
    assert (status, last["error"]["code"]) == (10, "E-CANCELLED")
    assert "stopped at once" not in last["error"]["cause"]
    assert again(desk, last["error"]["remedy"].partition(": ")[2]) == 0


def test_one_that_comes_when_all_is_said_changes_nothing(make_desk: MakeDesk) -> None:
    running = Running(make_desk(pace=0.1), "flash", "imu", NEW["imu"])
    running.until(in_phase("imu", "write"))
    running.interrupt()
    running.until(lambda event: event["kind"] == "result")
    running.interrupt()
    assert running.end()[0] == 10


@pytest.mark.parametrize("phase", ["connect", "erase"])
def test_the_second_stops_at_once_and_tells_the_state(make_desk: MakeDesk, phase: str) -> None:
    # So slow that the part's next answer, and with it the next safe point, is seconds away.
    desk = make_desk(pace=20.0)
    running = Running(desk, "flash", "imu", NEW["imu"])
    running.until(in_phase("imu", phase))
    running.interrupt_twice()
    status, last, _ = running.end()
    desk.edit_all("pace = 20.0", "pace = 0.0")
    cause = last["error"]["cause"]
    if phase == "connect":
        assert (status, cause) == (130, "stopped at once; nothing was changed")
        assert desk.seen()["imu"] == "1.4.2"
        return
    assert status == 10
    assert cause == "stopped at once; imu was being erased; it stays in its bootloader until its image is whole"
    assert again(desk, last["error"]["remedy"].partition(": ")[2]) == 0
    assert desk.seen()["imu"] == "1.5.0"


def started(component: str, phase: Phase) -> ev.PhaseStarted:
    return ev.PhaseStarted(component, phase, 100)


SCRIPT = StepStarted("host", "1", "", "microsoft/script:1")
APP = StepStarted("host", "1", "", "proxyflash/app:1")
CHECK = StepStarted("imu", "1", "", "proxyflash/check:1")
FLASH = StepStarted("imu", "1", "", "proxyflash/flash:1")


def acts(component: str, action: str) -> ActionStarted:
    return ActionStarted(component, "1", action)


def ended(component: str, status: Status) -> StepFinished:
    return StepFinished(component, "1", status, 0, 0, "")


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([], "stopped at once; nothing was changed"),
        ([started("imu", Phase.COMPARE), started("imu", Phase.VERIFY)], "stopped at once; nothing was changed"),
        ([started("imu", Phase.ERASE), started("imu", Phase.WRITE)], "imu was being written; it stays in its bootl"),
        ([started("imu", Phase.WRITE), started("imu", Phase.VERIFY)], "imu was written and not compared to the end"),
        ([started("imu", Phase.WRITE), started("imu", Phase.BOOT)], "imu holds its whole image and was being start"),
        ([started("imu", Phase.WRITE), started("imu", Phase.COMPARE)], "imu was asked what it holds"),
        ([SCRIPT], "the script of step 1 was running for host, and was ended"),
        ([SCRIPT, StepFinished("host", "1", Status.DONE, 700, 0, "")], "stopped at once; done before: host"),
        ([SCRIPT, ended("host", Status.FAILED)], "stopped at once; nothing was changed"),
        ([SCRIPT, acts("host", "install"), ended("host", Status.FAILED)], "stopped at once; failed before: host"),
        ([APP, acts("host", "backup")], "stopped at once; nothing was changed"),
        ([APP, acts("host", "install")], "stopped at once; step 1 was under way for host"),
        ([APP, acts("host", "install"), ended("host", Status.FAILED)], "stopped at once; failed before: host"),
        ([CHECK, acts("imu", "install")], "stopped at once; nothing was changed"),
        ([FLASH, acts("imu", "install"), ended("imu", Status.FAILED)], "stopped at once; nothing was changed"),
        ([FLASH, started("imu", Phase.ERASE), ended("imu", Status.FAILED)], "stopped at once; failed before: imu"),
        ([FLASH, acts("imu", "restore"), ended("imu", Status.RESTORED)], "stopped at once; restored before: imu"),
        ([FLASH, ended("imu", Status.DONE), ended("imu", Status.RESTORED)], "stopped at once; restored before: imu"),
        ([started("imu", Phase.ERASE), ended("camera", Status.FAILED)], "imu was being erased; it stays in its boot"),
    ],
)
def test_what_is_said_of_the_state(events: list[ev.Event], words: str) -> None:
    standing = Standing()
    for event in events:
        standing.see(event)
    assert words in standing.sentence()
    assert standing.touched == ("nothing was changed" not in words)


@pytest.mark.parametrize("status", [Status.DONE, Status.FAILED])
def test_a_part_whose_old_image_is_brought_back_is_told_once(status: Status) -> None:
    standing = Standing()
    erased = started("imu", Phase.ERASE)
    for event in (FLASH, erased, ended("imu", status), FLASH, acts("imu", "restore"), erased):
        standing.see(event)
    left = "imu was being erased; it stays in its bootloader until its image is whole"
    assert standing.sentence() == f"stopped at once; {left}"


def test_an_update_that_is_stopped_tells_of_each_component_and_goes_on(make_desk: MakeDesk) -> None:
    desk = make_desk(pace=0.1)
    running = Running(desk, "apply", MANIFEST)
    running.until(in_phase("imu", "write"))
    running.interrupt()
    status, last, _ = running.end()
    assert status == 10
    results = {item["component"]: item["status"] for item in last["report"]["componentResults"]}
    assert results == {"host": "done", "front-radar": "done", "imu": "stopped", "camera": "not run"}
    assert last["report"]["lastInstallResult"]["resultCode"] == -1
    assert last["error"]["component"] == "imu"
    seen = desk.seen()
    assert (seen["front-radar"], seen["camera"]) == ("1.5.0", "1.4.2")
    assert again(desk, last["error"]["remedy"].partition(": ")[2]) == 0
    assert set(desk.seen().values()) == {"1.5.0"}


LASTING = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in --action) action=$2 ;; --result-file) result=$2 ;; esac
  shift
done
[ "$action" != {action} ] || {{ : > "$result.started"; sleep 600; }}
printf '{{"resultCode": 901}}' > "$result"
"""


def with_script(desk: Desk, text: str) -> None:
    """Replaces the example's script."""
    path = desk.folder / "update" / "check-supply.sh"
    path.write_text(text)
    document = json.loads(desk.manifest.read_text())
    digest = base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
    document["files"][0] |= {"sizeInBytes": path.stat().st_size, "hashes": {"sha256": digest}}
    desk.manifest.write_text(json.dumps(document))


@pytest.mark.parametrize(("action", "status"), [("is-installed", 130), ("install", 10)])
def test_a_script_that_lasts_is_ended(make_desk: MakeDesk, action: str, status: int) -> None:
    desk = make_desk()
    with_script(desk, LASTING.format(action=action))
    running = Running(desk, "apply", MANIFEST)
    until = Deadline.after(300)
    while not list(desk.state.rglob("*.started")):
        assert not until.expired
        time.sleep(0.01)
    running.interrupt()
    ended, last, _ = running.end()
    assert (ended, last["error"]["code"]) == (status, "E-CANCELLED")
    assert f"--action {action} was ended on request" in last["error"]["cause"]
    assert set(desk.seen().values()) == {"1.4.2"}


def test_a_service_manager_s_stop_is_a_first_ctrl_c(make_desk: MakeDesk) -> None:
    desk = make_desk(pace=0.2)
    running = Running(desk, "flash", "imu", NEW["imu"])
    running.until(in_phase("imu", "write"))
    running.interrupt(signal.SIGTERM)
    assert running.end()[0] == 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize(
    "arguments", [["scan"], ["plan", MANIFEST], ["info", "imu"], ["apply", MANIFEST]], ids=lambda words: words[0]
)
def test_what_changes_nothing_ends_at_once(make_desk: MakeDesk, arguments: list[str], number: signal.Signals) -> None:
    desk = make_desk(pace=50.0)
    process = desk.start(*arguments)
    until = Deadline.after(300)
    while not list(desk.state.rglob("*.flash")):
        assert not until.expired
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=600)
    assert (process.returncode, said.strip()) == (130, "E-CANCELLED stopped at once; nothing was changed.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("command", ["plan", "apply", "manifest", "flash", "verify"])
def test_what_still_reads_its_files_ends_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, command: str, number: signal.Signals
) -> None:
    # In this process, with the reader in the midst of its work.
    def interrupted(*words: Any, **more: Any) -> Any:
        signal.raise_signal(number)
        pytest.fail("it went on")

    monkeypatch.setattr(json_text, "parse", interrupted)
    monkeypatch.setattr(formats, "_read", interrupted)
    given: dict[str, list[str | Path]] = {
        "manifest": ["manifest", "check", desk.manifest],
        "plan": ["plan", desk.manifest],
        "apply": ["apply", desk.manifest],
    }
    arguments = given.get(command, [command, "imu", desk.image("imu")])
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    done = desk.run(*arguments)
    assert (done.status, done.err.strip()) == (130, "E-CANCELLED stopped at once; nothing was changed.")
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_terminal_that_is_closed_while_it_shows_bars(make_desk: MakeDesk) -> None:
    desk = make_desk(pace=0.1)
    ours, its = pty.openpty()
    command = [*desk.command(), "flash", "imu", NEW["imu"], "--yes"]
    with subprocess.Popen(command, cwd=desk.folder, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        try:
            shown = b""
            while b"imu  write" not in shown:
                shown += os.read(ours, 4096)
        finally:
            os.close(ours)
            process.send_signal(signal.SIGHUP)
    assert process.returncode == 10
    assert again(desk, f"proxyflash flash imu {NEW['imu']} --yes") == 0


def test_a_second_sighup_while_the_first_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    told = session.Session(("flash",), Output())
    told.begun = True
    told.stop_safely()
    monkeypatch.setattr(session.Session, "_once_more", lambda *arguments: signal.raise_signal(signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        told.catch_interrupts()
        signal.raise_signal(signal.SIGHUP)
        assert told.stopping
    finally:
        told.close()
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_finaliser_swallows_comes_once_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def goes_on(bench: Bench) -> Any:
        Finalised()
        threading.Event().wait(LONG)
        pytest.fail("it went on")

    monkeypatch.setattr(session, "RELEASE_SECONDS", 2 * LONG)
    monkeypatch.setattr(Bench, "scan", goes_on)
    before = sys.unraisablehook
    done = desk.run("scan")
    assert (done.status, done.err.strip()) == (130, "E-CANCELLED stopped at once; nothing was changed.")
    assert sys.unraisablehook is before


def test_what_else_a_finaliser_raises_is_reported_as_before(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finalised:
        def __del__(self) -> None:
            raise RuntimeError("of a finaliser")

    told: list[str] = []
    scan = Bench.scan

    def noted(bench: Bench) -> Any:
        Finalised()
        return scan(bench)

    monkeypatch.setattr(sys, "unraisablehook", lambda error: told.append(str(error.exc_value)))
    monkeypatch.setattr(Bench, "scan", noted)
    assert desk.run("scan").status == 0
    assert told == ["of a finaliser"]


def test_a_replay_that_is_stopped_reports_no_other_outcome(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "rec.jsonl"
    assert desk.run("record", str(file), "--", "scan").status == 0
    monkeypatch.setattr(Bench, "scan", lambda bench: signal.raise_signal(signal.SIGTERM))
    done = desk.run("replay", str(file))
    assert (done.status, done.err.strip()) == (130, "E-CANCELLED stopped at once; nothing was changed.")
    assert done.out == ""


def test_one_signal_is_enough_where_no_safe_point_comes(make_desk: MakeDesk) -> None:
    # A service manager sends one SIGTERM, and then kills. The part's next answer is minutes away.
    desk = make_desk(pace=100.0)
    running = Running(desk, "flash", "imu", NEW["imu"])
    running.until(in_phase("imu", "connect"))
    running.interrupt(signal.SIGTERM)
    status, last, _ = running.end()
    assert (status, last["error"]["code"]) == (130, "E-CANCELLED")
    desk.edit_all("pace = 100.0", "pace = 0.0")
    assert desk.seen()["imu"] == "1.4.2"


def test_a_part_that_was_only_looked_at_is_released_by_a_first_signal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = []
    release = Programmer.release

    def noted(programmer: Programmer, **keys: bool) -> None:
        release(programmer, **keys)
        released.append(programmer.connected)

    def interrupted(programmer: Programmer) -> Any:
        assert programmer.connected
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr(Programmer, "release", noted)
    monkeypatch.setattr(Programmer, "memory_map", interrupted)
    assert desk.run("info", "imu").status == 130
    assert released == [False]
    monkeypatch.undo()
    assert desk.seen()["imu"] == "1.4.2"


def test_a_demo_that_is_stopped(make_desk: MakeDesk, tmp_path: Path) -> None:
    desk = make_desk()
    running = Running(desk, "demo", str(tmp_path / "first-try"))
    running.until(in_phase("imu", "erase"))
    running.interrupt()
    status, last, _ = running.end()
    assert status == 10
    error = next(item for item in running.seen if "error" in item)["error"]
    assert error["remedy"].endswith(f"--state {tmp_path / 'first-try' / 'state'} resume")
    assert last == {"schema": 1, "kind": "result", "folder": str(tmp_path / "first-try")}


def test_a_second_process_is_told_who_holds_the_bench(make_desk: MakeDesk) -> None:
    desk = make_desk(pace=1.0)
    running = Running(desk, "flash", "imu", NEW["imu"])
    running.until(in_phase("imu", "write"))
    for arguments in (["scan"], ["flash", "camera", str(desk.image("camera"))], ["apply", str(desk.manifest)]):
        done = desk.run(*arguments)
        assert done.status == 6
        assert done.err.startswith("E-BENCH-LOCKED")
        assert f"process {running.process.pid}" in done.err
        assert done.out == ""
    running.interrupt()
    assert running.end()[0] == 10


def test_a_lock_that_an_interrupt_left_held_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CLOSE_SECONDS", 0.1)
    left = threading.Lock()
    left.acquire()

    class Interrupted:
        def scan(self) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            with left:
                pass

    assert commands.run(["scan"], opener=lambda path, state: Interrupted()) == 130  # type: ignore[arg-type,return-value]
    left.release()
