"""A component's outcome is reported when it is known, and once; progress is reported while there is no terminal."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
from proxyflash.flashers.events import Event, Phase, PhaseStarted, Progress, RunContext
from proxyflash.tests.explore.families import BY_NAME
from proxyflash.tools.commands import run
from proxyflash.tools.output import Output, open_log
from proxyflash.transports import clock
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.results import ActionResult
from proxyflash.updates.events import ComponentFinished, StepStarted

from .lab import Lab
from .one_part import OnePart

pytestmark = pytest.mark.simulated_time


def applied(lab: Lab, **options: str) -> list[Event]:
    told: list[Event] = []
    update = lab.bundle()
    with lab.engine() as engine:
        engine.context = RunContext(told.append)
        engine.apply(engine.plan(update, lab.components()), on_failure=options.get("on_failure"))
    return told


def verdicts(told: list[Event]) -> list[tuple[str, str]]:
    return [(event.component, event.verdict) for event in told if isinstance(event, ComponentFinished)]


def test_each_is_told_before_the_next_component_begins(lab: Lab) -> None:
    told = applied(lab)
    assert verdicts(told) == [("left", "OK"), ("right", "OK"), ("camera", "OK")]
    names = [event.component for event in told if isinstance(event, ComponentFinished | StepStarted)]
    assert names == ["left"] * 3 + ["right"] * 3 + ["camera"] * 3


def test_a_failure_is_told_at_once_and_what_was_undone_again(lab: Lab) -> None:
    lab.fault("right two", Action.APPLY, ActionResult(0, 1, "it broke"))
    found = verdicts(applied(lab, on_failure="rollback"))
    assert [name for name, _ in found] == ["left", "right", "right", "left"]
    assert found[1] == ("right", "FAILED at step 1.2: it broke; restored")
    assert found[3] == ("left", "restored")


def test_the_command_prints_each_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        part = OnePart(tmp_path, BY_NAME["uds"], stack)
        path = part.update.path
        part.bench.close()
        where = ["--bench", str(tmp_path / "bench.toml"), "--state", str(tmp_path / "state")]
        assert run([*where, "apply", str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if line.startswith("part  OK  -> 1.1.0, verified")] == lines[-1:]
        # Once for each command of those that run one after the other.
        out = Output()
        assert [run([*where, "apply", str(path)], out) for _ in range(2)] == [0, 0]
        assert capsys.readouterr().out.count("part  OK  installed already") == 2


@pytest.mark.parametrize("name", ["xmodem", "ymodem"])
def test_what_is_not_started_is_not_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with ExitStack() as stack:
        part = OnePart(tmp_path, BY_NAME[name], stack, profile='boot = "none"\n')
        part.bench.close()
    where = ["--bench", str(tmp_path / "bench.toml"), "--state", str(tmp_path / "state")]
    assert run([*where, "flash", "part", str(part.new)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(", not booted")
    assert run([*where, "flash", "part", str(part.new), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["booted"] is False


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.event(PhaseStarted("imu", Phase.WRITE, 61_440))
    for second in range(1, 26):
        clock.sleep(1)
        out.event(Progress("imu", Phase.WRITE, second * 1024, 61_440))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["imu  write   16%  10,240 of 61,440 B", "imu  write   33%  20,480 of 61,440 B"]
    quiet = Output(quiet=True)
    quiet.event(PhaseStarted("imu", Phase.WRITE, 100))
    clock.sleep(60)
    quiet.event(Progress("imu", Phase.WRITE, 50, 100))
    assert capsys.readouterr().err == ""


def test_a_log_has_the_zone_and_no_python(tmp_path: Path) -> None:
    out = Output(log=open_log(tmp_path / "log"))
    out.event(PhaseStarted("imu", Phase.CONNECT))
    out.close()
    found = re.fullmatch(r"(\S+) phase (\{.*\})\n", (tmp_path / "log").read_text())
    assert found
    assert datetime.fromisoformat(found[1]).utcoffset() is not None
    assert re.search(r"\.\d{3}[+-]", found[1])
    assert json.loads(found[2]) == {"component": "imu", "phase": "connect", "total": 0}
