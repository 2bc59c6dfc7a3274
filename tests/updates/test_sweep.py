"""The sweep: an update of three components in six steps, killed at every point there is, and resumed.

The engine is in a process of its own, over a Unix socket on a CAN bus whose three emulated parts are in this one: they
live on when the engine is killed, as real ones do. The points are every write of the journal (before it, and in the midst
of its line), every boundary of a handler's action, and each second thing that a flash tells while it is under way; once more, at
fewer points, with the components beside each other. After each: the wanted end state, nothing done twice that the journal had
as done, every component accounted for.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can_server import serve_can
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.updates import journal as journals
from proxyflash.updates.engine import Engine
from proxyflash.updates.events import Status
from proxyflash.updates.policy import Policy
from proxyflash.updates.progress import Action, Ending, Progress
from proxyflash.updates.update import Update, load
from proxyflash.updates.working import Worker

from .lab import COMPONENTS, FileHandler, in_process, reference, serve, step

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
"""So that processes can share the work."""
EACH = 2
"""Of what a flash tells, each second thing."""
AT_ONCE = 3
"""Of all the points of an update of three components at once, each third: which they are, the threads decide."""


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
    """`folder`: the update and the bench files; `socket`: where the parts are served."""

    folder: Path
    socket: Path
    update: Update
    new: bytes

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @contextmanager
    def parts(self) -> Iterator[Bench]:
        """Three parts with the old firmware, on their wire; everything that an engine remembers is forgotten."""
        with ExitStack() as stack:
            bench = stack.enter_context(Bench.open(self.folder / "parts.toml", state=Path(self.fresh())))
            stack.callback(serve_can(bench.emulated_wire("b"), self.socket))
            for name in COMPONENTS:
                (self.folder / f"{name}.mark").write_text("1.0")
                assert bench.emulated_device(name).application_version == OLD
            (self.folder / "log").write_text("")
            yield bench

    def fresh(self) -> str:
        return tempfile.mkdtemp(dir=self.folder)

    def work(self, state: Path, point: int, *, marks: Path | None = None, at_once: bool = False) -> None:
        """One engine, from beginning to end or to the given point; `marks`: gets the name of each point.

        `at_once`: the components beside each other, where the update begins with this engine.
        """
        with Bench.open(self.folder / "engine.toml", state=state) as bench:
            points = Points(point, marks)
            engine = Engine(bench, policy=Policy(on_failure="stop"), on_event=points.event)
            points.hook()
            if engine.unfinished() is not None:
                outcome = engine.resume()
            else:
                outcome = engine.apply(engine.plan(self.update, bench.scan().components), parallel=at_once)
            points.release()
            assert outcome.error is None, outcome.error
            assert outcome.ending is Ending.SUCCEEDED
            assert {item.task.status for item in outcome.results} <= {Status.DONE, Status.INSTALLED}
            assert len(outcome.results) == 6


class Points:
    """Counts the points at which an engine can be killed, and kills it at one of them. 0: at none."""

    def __init__(self, at: int, marks: Path | None) -> None:
        self.at = at
        self.seen = 0
        self.marks = marks
        self._undo: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def point(self, name: str) -> bool:
        """Whether this is the one."""
        with self._lock:
            self.seen += 1
            if self.marks is not None:
                with self.marks.open("a") as stream:
                    stream.write(f"{threading.get_ident()} {name}\n")
            return self.seen == self.at

    def pass_by(self, name: str) -> None:
        if self.point(name):
            os.kill(os.getpid(), signal.SIGKILL)

    def event(self, event: ev.Event) -> None:
        if isinstance(event, ev.Progress | ev.PhaseStarted | ev.PhaseFinished):
            self.pass_by(f"flash {event.component} {event.kind}")

    def hook(self) -> None:
        write, called = journals._write, Worker._called

        def written(descriptor: int, data: bytes) -> None:
            self.pass_by("before a record")
            if self.point("within a record"):
                write(descriptor, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            write(descriptor, data)

        def call(run: Worker, task: Any, handler: Any, action: Action, **more: Any) -> Any:
            self.pass_by(f"before {action}")
            result = called(run, task, handler, action, **more)
            self.pass_by(f"after {action}")
            return result

        journals._write = written
        Worker._called = call  # type: ignore[method-assign, assignment]
        self._undo = [lambda: setattr(journals, "_write", write), lambda: setattr(Worker, "_called", called)]

    def release(self) -> None:
        for undo in self._undo:
            undo()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The state folders lie in memory where there is a file system for that: a kill takes nothing of what was written."""
    serve(monkeypatch, FileHandler)
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where, prefix="proxyflash-sweep-") as made:
        folder = Path(made)
        FileHandler.world, FileHandler.faults = folder, {}
        old = application.make(OLD, "part", "Acme", 400, start=START)
        new = application.make(NEW, "part", "Acme", 2500, start=START)
        (folder / "old.bin").write_bytes(old)
        socket = folder / "b.sock"
        emulated = '[bus.b]\nkind = "can"\nemulated = true\npace = 0\n'
        served = f'[bus.b]\nkind = "can"\ninterface = "proxyflash"\nchannel = "unix:{socket}"\nat_once = 3\n'
        (folder / "parts.toml").write_text(bench_text(emulated, emulated=True))
        (folder / "engine.toml").write_text(bench_text(served, emulated=False))
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


def marked(rig: Rig, *, at_once: bool = False) -> list[tuple[str, str]]:
    """The points of an update that nothing happens to: the thread, and what it was at."""
    marks = rig.folder / "marks"
    with rig.parts() as bench:
        assert in_process(lambda: rig.work(rig.state, 0, marks=marks, at_once=at_once)) == 0
        whole(rig, bench)
    pairs = (line.split(" ", 1) for line in marks.read_text().splitlines())
    return [(thread, name) for thread, name in pairs]


def points_of(rig: Rig) -> list[str]:
    return [name for _, name in marked(rig)]


def whole(rig: Rig, bench: Bench) -> None:
    """The wanted end state."""
    for name in COMPONENTS:
        device = bench.emulated_device(name)
        assert device.application_version == NEW
        assert device.flash.read(START, len(rig.new)) == rig.new
        assert (rig.folder / f"{name}.mark").read_text() == "1.1"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_sweep(rig: Rig, part: int) -> None:
    names = points_of(rig)
    # So that a sweep which finds nothing to kill at is seen.
    assert {"before a record", "within a record"} <= set(names)
    asked = {Action.DOWNLOAD, Action.IS_INSTALLED, Action.BACKUP, Action.INSTALL, Action.APPLY}
    assert {f"{when} {action}" for when in ("before", "after") for action in asked} <= set(names)
    assert sum(name.startswith("flash") for name in names) > 40
    chosen = [number for number, name in enumerate(names, 1) if not name.startswith("flash") or number % EACH == 0]
    assert len(chosen) > 170
    for number in chosen[part::PARTS]:
        killed_and_resumed(rig, number, f"point {number} of {len(names)}: {names[number - 1]}")


def test_a_flash_of_which_no_end_is_known_is_compared_and_verified_again(rig: Rig) -> None:
    """The part reports the new version already; whether all of the image is there, that does not say."""
    names = points_of(rig)
    state = Path(rig.fresh())
    with rig.parts() as bench:
        assert in_process(lambda: rig.work(state, names.index("after install") + 1)) == -signal.SIGKILL
        assert bench.emulated_device("left").application_version == NEW
        assert in_process(lambda: rig.work(state, 0)) == 0
        whole(rig, bench)
    starts = [record for record in journal_of(state) if record["kind"] == "start" and record["task"] == 0]
    assert [record["action"] for record in starts] == ["backup", "install", "install", "apply"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(2))
def test_the_sweep_of_components_at_once(rig: Rig, part: int) -> None:
    """Up to three steps are under way when it is killed; the resume works on them beside each other, too."""
    points = marked(rig, at_once=True)
    flashing = [(thread, name.split()[1]) for thread, name in points if name.startswith("flash")]
    # They did run beside each other: what one tells comes amid what the others tell.
    assert len(set(flashing)) == 3
    assert sum(one != other for one, other in itertools.pairwise(flashing)) > 10
    # A retry more or less than now moves the last ones.
    chosen = range(1 + part * AT_ONCE, len(points) - 10, 2 * AT_ONCE)
    assert len(chosen) > 30
    for number in chosen:
        killed_and_resumed(rig, number, f"point {number} of some {len(points)}", at_once=True)


def killed_and_resumed(rig: Rig, number: int, where: str, *, at_once: bool = False) -> None:
    state = Path(rig.fresh())
    with rig.parts() as bench:
        assert in_process(lambda: rig.work(state, number, at_once=at_once)) == -signal.SIGKILL, where
        known = journal_of(state)
        done = {index for index, task in enumerate(Progress.of(known, where).tasks) if task.finished}
        marked = (rig.folder / "log").read_text()
        if number % 5 == 0:
            # The parts lose their supply with the host.
            for name in COMPONENTS:
                bench.emulated_device(name).supply.off()
                bench.emulated_device(name).supply.on()
        assert in_process(lambda: rig.work(state, 0)) == 0, where
        whole(rig, bench)
        later = journal_of(state)[len(known) :]
        assert done.isdisjoint(record["task"] for record in later if "task" in record), where
        again = (rig.folder / "log").read_text().removeprefix(marked)
        assert not any(f" {name} mark" in again for at, name in enumerate(COMPONENTS) if 2 * at + 1 in done), where


def journal_of(state: Path) -> list[dict[str, Any]]:
    """What is in the journal of the one update; nothing when it had not begun."""
    paths = list(state.glob("benches/*/updates/*/journal.jsonl"))
    return list(journals.records(paths[-1])) if paths else []
