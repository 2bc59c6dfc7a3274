"""The sweep: an update of three components in six steps, killed at every point there is, and resumed.

Each case runs on a simulated clock of its own, so that the points of an update are the same each time; the emulated parts
are not of the process that is killed: they live on, as real ones do. The points are every operation on the state folder's
disk, every boundary of a handler's action, and everything that a flash reports on its way. What the disk holds
then is all that was written, or what a host that loses its supply leaves of it. After each: the wanted end state, nothing
done twice that the journal had as done, every component accounted for.

The same again for components beside each other, in the order of some seeds; with a second kill while the first one is
resumed; and at a few points with real processes, over a Unix socket to the parts in this one. Without --every-cut each
test tries some of its points.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can.server import serve_can
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.testing.thinning import Thinning
from proxyflash.tests.explore.disk import Disk
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock
from proxyflash.updates.engine import journal as journals
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.action_caller import ActionCaller
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.engine.progress import Ending, Progress
from proxyflash.updates.events import Status
from proxyflash.updates.manifests.policy import Policy
from proxyflash.updates.manifests.resolved_update import Update, load

from .kills import KILLED, LEFT, Process, forked, is_in_process, kill, passed
from .lab import COMPONENTS, FileHandler, reference, serve, step

pytestmark = pytest.mark.simulated_time

OLD, NEW = "1.4.2", "1.5.0"
START = 0x10000
PART = """
[[component]]
name = "{name}"
group = "{group}"
bus = "b"
protocol = "uds"
address = {{request = {request}, response = {response}}}
boot_timeout = 3
{emulated}
[component.profile]
memory = [{{start = 0x10000, size = 0x2000, erase_unit = 4096}}]
security = {{key = "xor", secret = "5a5a5a5a"}}
timings = {{p2 = 0.05, latency = 0.2, reset_gap = 2.0, retries = 1}}
"""
PARTS = 4
"""So that processes of the test run can share the work."""
SEEDS = (None, 1, 2, 3)
"""Schedules of threads, for components beside each other."""
TWICE = 8
"""Of the points of an update, each eighth again with a kill of the resume."""
REAL = 8
"""Kills of real processes."""


def bench_text(bus: str, *, emulated: bool) -> str:
    parts = [
        PART.format(
            name=name,
            group=group,
            request=0x7E0 + index,
            response=0x7E8 + index,
            emulated='emulated = {part = "acme-r77", firmware = "old.bin"}' if emulated else "",
        )
        for index, (name, group) in enumerate(COMPONENTS.items())
    ]
    return bus + "".join(parts)


@dataclass
class Rig:
    """`folder`: the update and the bench files; `socket`: where the parts are served to real processes."""

    folder: Path
    socket: Path
    update: Update
    new: bytes

    @contextmanager
    def parts(self) -> Iterator[Bench]:
        """Three parts with the old firmware, on their wire; the handler has forgotten everything."""
        with Bench.open(self.folder / "parts.toml", state=self.fresh()) as bench:
            wire = bench.emulated_wire("b")
            for name in COMPONENTS:
                (self.folder / f"{name}.mark").write_text("1.0")
                bench.emulated_device(name).settle()
                assert bench.emulated_device(name).application_version == OLD
            (self.folder / "log").write_text("")
            FileHandler.asking = clock.local()
            channel = wire.channel if clock.current().is_simulated else f"unix:{self.socket}"
            bus = f'[bus.b]\nkind = "can"\ninterface = "proxyflash"\nchannel = "{channel}"\nat_once = 3\n'
            (self.folder / "engine.toml").write_text(bench_text(bus, emulated=False))
            yield bench

    def fresh(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def work(self, state: Path, points: Points, *, at_once: bool = False) -> None:
        """One engine, from beginning to end or to the point at which it is killed.

        `at_once`: the components beside each other, where the update begins with this engine.
        """
        with Bench.open(self.folder / "engine.toml", state=state) as bench, points.hooked():
            engine = Engine(bench, policy=Policy(on_failure="stop"), context=RunContext(points.event))
            if engine.unfinished() is not None:
                outcome = engine.resume()
            else:
                outcome = engine.apply(engine.plan(self.update, bench.scan().components), parallel=at_once)
            assert outcome.error is None, outcome.error
            assert outcome.ending is Ending.SUCCEEDED
            assert {item.task.status for item in outcome.results} <= {Status.DONE, Status.INSTALLED}
            assert len(outcome.results) == 6


class Points:
    """Counts the points at which an engine can be killed, and kills it at one of them. 0: at none.

    `marks`: gets the name of each point of a real process.
    """

    def __init__(self, at: int = 0, marks: Path | None = None) -> None:
        self.at = at
        self.seen: list[tuple[str, str]] = []
        """The thread and the name of each."""
        self._marks = marks
        self._lock = threading.Lock()
        self._is_real = not clock.current().is_simulated

    def point(self, name: str) -> bool:
        """Whether this is the one."""
        with self._lock:
            self.seen.append((clock.current_thread().name, name))
            if self._marks is not None:
                with self._marks.open("a") as stream:
                    stream.write(f"{name}\n")
            return len(self.seen) == self.at

    def pass_by(self, name: str) -> None:
        if name.startswith("fsynced"):
            return  # What a kill leaves there it leaves at the next point, too.
        if (self._is_real or is_in_process()) and self.point(name):
            kill()

    def event(self, event: ev.Event) -> None:
        if isinstance(event, ev.Progress | ev.PhaseStarted | ev.PhaseFinished):
            self.pass_by(f"flash {event.component} {event.kind}")

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Of a real process the writes of the journal are points, of a simulated one everything that its disk does."""
        write, called = journals._write, ActionCaller.call

        def written(descriptor: int, data: bytes) -> None:
            self.pass_by("before a record")
            if self.point("within a record"):
                write(descriptor, data[: len(data) // 2])
                kill()
            write(descriptor, data)

        def call(caller: ActionCaller, action: Action, **more: Any) -> Any:
            self.pass_by(f"before {action}")
            result = called(caller, action, **more)
            self.pass_by(f"after {action}")
            return result

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ActionCaller, "call", call)
            if self._is_real:
                patched.setattr(journals, "_write", written)
            yield


@dataclass
class Case:
    """One update from its beginning on, on parts of its own and a disk of its own.

    `left`: how much of what was not synced a kill leaves.
    """

    rig: Rig
    bench: Bench
    disk: Disk | None
    state: Path
    left: float = 1.0
    at_once: bool = False

    @classmethod
    @contextmanager
    def begun(cls, rig: Rig, *, seed: int | None = None, left: float = 1.0, at_once: bool = False) -> Iterator[Case]:
        """On a simulated clock of its own; in real time where there is no other."""
        state = rig.fresh()
        with ExitStack() as stack:
            if not clock.current().is_simulated:
                bench = stack.enter_context(rig.parts())
                stack.callback(serve_can(bench.emulated_wire("b"), rig.socket))
                yield cls(rig, bench, None, state, at_once=at_once)
                return
            own = SimulatedClock(seed)
            # So that the time that is counted for all tests has this test's in it, too.
            outer = clock.current()
            stack.callback(lambda: outer.sleep(own.elapsed))
            stack.enter_context(clock.use(own))
            bench = stack.enter_context(rig.parts())
            disk = stack.enter_context(Disk(state, passed))
            yield cls(rig, bench, disk, state, left, at_once)

    def run(self, at: int = 0, marks: Path | None = None) -> tuple[int, Points]:
        """An engine, killed at a point. How it ended, and its points."""
        points = Points(at, marks)

        def work() -> None:
            self.rig.work(self.state, points, at_once=self.at_once)

        if self.disk is None:
            return forked(work), points
        wires = (self.bench.emulated_wire("b"),)
        return Process(self.disk, left=self.left, point=points.pass_by, wires=wires).run(work), points

    def journal(self) -> list[dict[str, Any]]:
        """What is in the journal of the one update; nothing when it had not begun."""
        paths = sorted(self.state.glob("benches/*/updates/*/journal.jsonl"))
        return list(journals.records(paths[-1])) if paths else []

    def cut_supply(self) -> None:
        """The parts lose their supply, too."""
        for name in COMPONENTS:
            self.bench.emulated_device(name).supply.off()
            self.bench.emulated_device(name).supply.on()

    def check_whole(self, where: str = "") -> None:
        """The wanted end state."""
        for name in COMPONENTS:
            device = self.bench.emulated_device(name)
            assert device.application_version == NEW, where
            assert device.flash.read(START, len(self.rig.new)) == self.rig.new, where
            assert (self.rig.folder / f"{name}.mark").read_text() == "1.1", where


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The state folders lie in memory where there is a file system for that: a kill takes nothing of what was written."""
    serve(monkeypatch, FileHandler)
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where, prefix="proxyflash-sweep-") as made:
        folder = Path(made)
        FileHandler.world, FileHandler.faults = folder, {}
        old = application.make(OLD, "part", "Acme", 400, start=START)
        new = application.make(NEW, "part", "Acme", 1100, start=START)
        (folder / "old.bin").write_bytes(old)
        socket = folder / "b.sock"
        emulated = '[bus.b]\nkind = "can"\nemulated = true\npace = 0\n'
        (folder / "parts.toml").write_text(bench_text(emulated, emulated=True))
        yield Rig(folder, socket, bundle(folder, new), new)


def bundle(folder: Path, new: bytes) -> Update:
    """For each component a flash, then a step that marks a file."""
    (folder / "new.bin").write_bytes(new)
    (folder / "payload").write_bytes(b"mark")
    properties = {"installedCriteria": NEW, "address": START}
    flash = {"handler": "proxyflash/flash:1", "files": ["new.bin"], "handlerProperties": properties}
    for group in ("motors", "cameras"):
        _manifest(folder, group, [flash, step("mark")], [{"group": group}])
    return load(_manifest(folder, "bundle", [reference("motors"), reference("cameras")], []))


def _manifest(folder: Path, name: str, steps: list[dict[str, Any]], selectors: list[dict[str, str]]) -> Path:
    files = []
    for file in [file for item in steps for file in item.get("files", [])]:
        data = (folder / file).read_bytes()
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        files.append({"filename": file, "sizeInBytes": len(data), "hashes": {"sha256": digest}})
    document = {
        "updateId": {"provider": "Contoso", "name": name, "version": "1.1"},
        "isDeployable": not selectors,
        "compatibility": selectors or [{"model": "host"}],
        "instructions": {"steps": steps},
        "files": files,
        "createdDateTime": "2026-01-01T00:00:00Z",
        "manifestVersion": "4.0",
    }
    path = folder / f"{name}.importmanifest.json"
    path.write_text(json.dumps(document))
    return path


def points_of(rig: Rig, *, seed: int | None = None, at_once: bool = False) -> list[tuple[str, str]]:
    """The points of an update that nothing happens to: the thread, and what it was at."""
    with Case.begun(rig, seed=seed, at_once=at_once) as case:
        status, points = case.run()
        assert status == 0
        case.check_whole()
    return points.seen


def killed_and_resumed(case: Case, number: int, where: str, *, again_at: int = 0) -> None:
    """`again_at`: the point of the resume at which that is killed, if it comes so far."""
    status, _ = case.run(number)
    assert status == KILLED, where
    if number % 5 == 0:
        case.cut_supply()
    rig = case.rig
    known = case.journal()
    progress = Progress.of(known, where)
    if progress.over:
        # Nothing is left to be gone on with.
        case.check_whole(where)
        return
    done = {index for index, task in enumerate(progress.tasks) if task.finished}
    marked = (rig.folder / "log").read_text()
    status, _ = case.run(again_at)
    if again_at and status == KILLED and not Progress.of(case.journal(), where).over:
        status, _ = case.run()
    elif again_at:
        status = 0
    assert status == 0, where
    case.check_whole(where)
    later = case.journal()[len(known) :]
    assert done.isdisjoint(record["task"] for record in later if "task" in record), where
    again = (rig.folder / "log").read_text().removeprefix(marked)
    assert not any(f" {name} mark" in again for at, name in enumerate(COMPONENTS) if 2 * at + 1 in done), where


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_sweep(rig: Rig, part: int, thinned: Thinning) -> None:
    names = [name for _, name in points_of(rig)]
    # So that a sweep which finds nothing to kill at is seen.
    asked = {Action.DOWNLOAD, Action.IS_INSTALLED, Action.BACKUP, Action.INSTALL, Action.APPLY}
    assert {f"{when} {action}" for when in ("before", "after") for action in asked} <= set(names)
    assert sum(name.startswith("flash") for name in names) >= 3 * 13
    journal = [name for name in names if name.endswith("journal.jsonl")]
    assert {name.split(" benches")[0] for name in journal} == {"open", "write", "written half of", "fsync"}
    assert len(names) > 250
    for number in thinned(range(1 + part, len(names) + 1, PARTS), 12):
        with Case.begun(rig, left=LEFT[number // PARTS % len(LEFT)]) as case:
            killed_and_resumed(case, number, f"point {number} of {len(names)}: {names[number - 1]}, {case.left} left")


def test_a_flash_of_which_no_end_is_known_is_compared_and_verified_again(rig: Rig) -> None:
    """The part reports the new version already; whether all of the image is there, that does not say."""
    names = [name for _, name in points_of(rig)]
    with Case.begun(rig, left=0.0) as case:
        status, _ = case.run(names.index("after install") + 1)
        assert status == KILLED
        assert case.bench.emulated_device("left").application_version == NEW
        status, _ = case.run()
        assert status == 0
        case.check_whole()
        starts = [record for record in case.journal() if record["kind"] == "start" and record["task"] == 0]
    assert [record["action"] for record in starts] == ["backup", "install", "install", "apply"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_sweep_of_components_at_once(rig: Rig, seed: int | None, thinned: Thinning) -> None:
    """Up to three steps are under way when it is killed; the resume works on them beside each other, too.

    Each point is tried in the order of one of the seeds.
    """
    points = points_of(rig, seed=seed, at_once=True)
    flashing = [(thread, name.split()[1]) for thread, name in points if name.startswith("flash")]
    # They did run beside each other: the events of one come between those of the others.
    assert len(set(flashing)) == 3
    assert sum(one != other for one, other in itertools.pairwise(flashing)) > 10
    chosen = range(1 + SEEDS.index(seed), len(points) + 1, len(SEEDS))
    assert len(chosen) > 60
    for number in thinned(chosen, 12):
        where = f"seed {seed}, point {number} of {len(points)}: {points[number - 1][1]}"
        with Case.begun(rig, seed=seed, left=LEFT[number % len(LEFT)], at_once=True) as case:
            killed_and_resumed(case, number, where)


@pytest.mark.timeout(600)
def test_the_resume_is_killed_as_well(rig: Rig, thinned: Thinning) -> None:
    """At points of which the second ones move through all of a resume while the first ones move through the update."""
    names = [name for _, name in points_of(rig)]
    for number in thinned(range(3, len(names) + 1, TWICE), 12):
        again_at = 1 + number * 7 % 60
        with Case.begun(rig, left=LEFT[number // TWICE % len(LEFT)]) as case:
            killed_and_resumed(case, number, f"points {number} ({names[number - 1]}) and {again_at}", again_at=again_at)


@pytest.mark.real_time("real processes are killed")
@pytest.mark.timeout(600)
def test_some_kills_of_real_processes(rig: Rig) -> None:
    """As a check of the simulation: SIGKILL, and the parts in another process than the engine."""
    marks = rig.folder / "marks"
    with Case.begun(rig) as case:
        status, _ = case.run(marks=marks)
        assert status == 0
        case.check_whole()
    names = marks.read_text().splitlines()
    assert {"before a record", "within a record"} <= set(names)
    for number in range(5, len(names) - 10, len(names) // REAL):
        with Case.begun(rig, at_once=number % 2 == 0) as case:
            killed_and_resumed(case, number, f"point {number} of some {len(names)}")
