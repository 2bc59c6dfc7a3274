"""A bus or a component that isn't there yet fails no step: the update stays unfinished, and goes on when it is there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.buses import Buses
from proxyflash.flashers.errors import NoResponse
from proxyflash.flashers.events import Event, Phase, PhaseStarted, RunContext
from proxyflash.transports.errors import CanGone, ProxyflashError, SerialAbsent, SerialForbidden
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.attempts import Attempts
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.engine.progress import Ending, Progress
from proxyflash.updates.engine.report import Outcome
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.events import Status
from proxyflash.updates.handlers.flash import FlashHandler
from proxyflash.updates.manifests.resolved_update import load

from .authoring import Publisher
from .lab import Lab, all_new, all_old, kill

pytestmark = pytest.mark.simulated_time
EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors"
RESUMABLE = 10
FAILURE = ActionResult(ResultCode.FAILURE, 1, "it broke")


def absent(error: type[ProxyflashError] = SerialAbsent) -> Callable[[], None]:
    def fault() -> None:
        raise error("it is not there")

    return fault


def unfinished(outcome: Outcome) -> None:
    assert (outcome.ending, outcome.progress.rolling_back) == (Ending.UNFINISHED, False)
    assert outcome.error is not None
    assert outcome.error.exit_status == RESUMABLE
    assert "proxyflash resume" in outcome.error.remedy


@pytest.mark.parametrize("on_failure", ["stop", "rollback", "continue"])
@pytest.mark.parametrize("parallel", [False, True])
def test_an_update_that_was_killed_waits_for_a_component(lab: Lab, on_failure: str, parallel: bool) -> None:
    """What is done stays as it is, whatever is to happen after a failure."""
    update = lab.bundle()
    lab.fault("right one", Action.INSTALL, kill)
    lab.process(lambda: lab.apply(update, on_failure=on_failure, parallel=parallel))
    lab.fault("right one", Action.INSTALL, lambda: None)
    for error in (SerialAbsent, CanGone, SerialForbidden, NoResponse):
        lab.fault("right one", Action.IS_INSTALLED, absent(error))
        unfinished(lab.resume())
    holds = lab.holds()
    assert (holds["left.one"], holds["right.two"]) == ("1.1", "1.0")
    assert Action.RESTORE not in [line.split()[0] for line in lab.log]
    if on_failure == "continue":
        assert (holds["camera.one"], holds["camera.two"]) == ("1.1", "1.1")
    lab.fault("right one", Action.IS_INSTALLED, lambda: None)
    assert lab.resume().succeeded
    assert lab.holds() == all_new()


def test_before_its_first_change_a_component_may_vanish_in_the_first_run_too(lab: Lab) -> None:
    lab.fault("camera one", Action.BACKUP, absent())
    unfinished(lab.apply(lab.bundle(), on_failure="rollback"))
    lab.fault("camera one", Action.BACKUP, lambda: None)
    assert lab.resume().succeeded
    assert lab.holds() == all_new()


def test_one_that_vanishes_while_it_is_changed_has_failed(lab: Lab) -> None:
    lab.fault("left one", Action.INSTALL, absent())
    assert lab.apply(lab.bundle()).ending is Ending.FAILED


def test_a_rollback_that_was_killed_waits_for_one_component_and_brings_back_the_others(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("camera two", Action.INSTALL, FAILURE)
    lab.fault("camera one", Action.RESTORE, kill)
    lab.process(lambda: lab.apply(update, on_failure="rollback"))
    lab.fault("camera one", Action.RESTORE, lambda: None)
    lab.fault("right two", Action.RESTORE, absent())
    outcome = lab.resume()
    assert (outcome.ending, outcome.error.exit_status if outcome.error else 0) == (Ending.UNFINISHED, RESUMABLE)
    assert {name for name, version in lab.holds().items() if version != "1.0"} == {"right.one", "right.two"}
    lab.fault("right two", Action.RESTORE, lambda: None)
    assert lab.resume().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


class Cut(BaseException):
    """Ends an update as a kill does."""


class Desk:
    """The three sensors; an update of two of them, without a step for the host."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(EXAMPLE, folder)
        self.file = folder / "bench.toml"
        text = re.sub("^probe = .*$", "", self.file.read_text(), flags=re.MULTILINE)
        self.file.write_text(re.sub("^emulated = true$", "emulated = true\npace = 0.0", text, flags=re.MULTILINE))
        children = [folder / "update" / f"{name}.importmanifest.json" for name in ("radar", "imu")]
        self.manifest = Publisher(folder / "update").update("Both", "1.5", *children)
        self.away: set[str] = set()
        opened = Buses.transport

        def transport(buses: Buses, bus: str) -> Any:
            if bus in self.away:
                raise SerialAbsent(f"{bus} is not there")
            return opened(buses, bus)

        monkeypatch.setattr(Buses, "transport", transport)

    def cut(self, name: str, phase: Phase, **options: Any) -> None:
        def event(event: Event) -> None:
            if isinstance(event, PhaseStarted) and (event.component, event.phase) == (name, phase):
                raise Cut

        with Bench.open(self.file, state=self.file.parent / "state") as bench:
            engine = Engine(bench, context=RunContext(event))
            made = engine.plan(load(self.manifest), bench.scan().components)
            with pytest.raises(Cut):
                engine.apply(made, **options)

    def resume(self, *, dark: str = "") -> Outcome:
        """`dark`: a part without supply."""
        with Bench.open(self.file, state=self.file.parent / "state") as bench:
            if dark:
                bench.emulated_device(dark).supply.off()
            return Engine(bench).resume()

    def versions(self) -> set[str]:
        with Bench.open(self.file, state=self.file.parent / "state") as bench:
            return {bench.component(name).look().version for name in ("front-radar", "imu")}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path / "desk", monkeypatch)


@pytest.mark.parametrize("phase", [Phase.READ, Phase.WRITE, Phase.BOOT])
def test_real_parts_and_buses(desk: Desk, phase: Phase) -> None:
    """Cut in its backup, in its install, and when all was written; then the port comes late, then the part."""
    desk.file.write_text(desk.file.read_text() + "\n[updates]\nattempts = 2\n")
    desk.cut("imu", phase, on_failure="rollback")
    desk.away = {"imu-uart"}
    unfinished(desk.resume())
    desk.away = set()
    outcome = desk.resume(dark="imu")
    unfinished(outcome)
    assert outcome.results[0].task.status is Status.DONE
    assert desk.resume().succeeded
    assert desk.versions() == {"1.5.0"}


def test_one_that_is_late_after_its_install_is_not_restored(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: FlashHandler) -> ActionResult:
        raise Cut

    with monkeypatch.context() as patch, Bench.open(desk.file, state=desk.file.parent / "state") as bench:
        patch.setattr(FlashHandler, "apply", cut)
        engine = Engine(bench)
        made = engine.plan(load(desk.manifest), bench.scan().components)
        with pytest.raises(Cut):
            engine.apply(made)
    unfinished(desk.resume(dark="front-radar"))
    assert desk.resume().succeeded


def test_an_attempt_that_came_to_nothing_is_given_back(tmp_path: Path, lab: Lab) -> None:
    with lab.engine() as engine:
        (task, *_) = engine.plan(lab.bundle(), lab.components()).tasks
    counts = Attempts(tmp_path / "attempts.json")
    counts.take(task, 1)
    counts.give_back(task)
    counts.take(task, 1)
    assert Attempts(tmp_path / "attempts.json").count(task) == 1


def test_each_component_that_is_stopped_tells_its_own_cause(lab: Lab) -> None:
    for name in ("left", "camera"):

        def fault(name: str = name) -> None:
            raise SerialAbsent(f"no port for {name}")

        lab.fault(f"{name} one", Action.BACKUP, fault)
    outcome = lab.apply(lab.bundle(), on_failure="continue")
    unfinished(outcome)
    with lab.engine() as engine:
        again = engine.outcome(engine.store.entry(1))
    for found in (outcome, again):
        causes = {item.task.target: item.result.details for item in found.results if item.task.status is Status.STOPPED}
        assert causes == {"left": "no port for left", "camera": "no port for camera"}


def test_a_journal_that_names_no_task_for_a_stop_is_read() -> None:
    started = {"task": 1, "action": "backup"}
    kinds: list[dict[str, Any]] = [
        {"kind": "begin", "tasks": 2},
        {"kind": "start"} | started,
        {"kind": "stopped", "cause": "gone"},
    ]
    progress = Progress.of(
        ({"time": "2026-01-01", "seq": seq} | fields for seq, fields in enumerate(kinds, 1)), "journal"
    )
    assert (progress.stopped, progress.stopped_at_a_task) == ("gone", False)
