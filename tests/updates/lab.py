"""A bench of components that are small files, a step handler that works on them, and engines that are killed.

The handler keeps a log of what it is asked; what goes wrong, and where, is said by `Faults`. An engine that is to be
killed runs in a process of its own, see kills.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.enumerators.component import Component, Presence
from proxyflash.enumerators.host import HostComponent
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import RunContext
from proxyflash.tests.explore.disk import Disk
from proxyflash.transports import clock, plugins
from proxyflash.updates.engine import restarting
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.engine.report import Outcome
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.handlers import backup_store
from proxyflash.updates.handlers.handler import StepContext, StepHandler
from proxyflash.updates.manifests.manifest import InlineStep
from proxyflash.updates.manifests.policy import Policy
from proxyflash.updates.manifests.resolved_update import Update, load

from .kills import Process, forked, kill, passed

HANDLER = "test/file:1"
OLD, NEW = "1.0", "1.1"
Fault = Callable[[], ActionResult | None]

SUCCESS = {
    Action.DOWNLOAD: ResultCode.DOWNLOAD_SUCCESS,
    Action.BACKUP: ResultCode.BACKUP_SUCCESS,
    Action.INSTALL: ResultCode.INSTALL_SUCCESS,
    Action.APPLY: ResultCode.APPLY_SUCCESS,
    Action.RESTORE: ResultCode.RESTORE_SUCCESS,
    Action.CANCEL: ResultCode.CANCEL_SUCCESS,
}


ASKED = "asked"
"""For faults: IsInstalled before a download."""


class FileHandler(StepHandler):
    """Installs a version into `<world>/<component>.<step>`: Install writes it, Apply makes it count."""

    world: ClassVar[Path]
    faults: ClassVar[dict[tuple[str, str], Fault]]
    asking: ClassVar[Any]
    """`cancelled`: what the action that a thread is at asks."""

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        assert "proxyflash" not in step.handlerProperties

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        return ""

    @property
    def target(self) -> str:
        return self.context.component.name if self.context.component else "host"

    @property
    def file(self) -> Path:
        return self.world / f"{self.target}.{self.context.step.description}"

    @property
    def wanted(self) -> str:
        return str(self.context.step.handlerProperties["installedCriteria"])

    def is_installed(self) -> ActionResult:
        self.asking.cancelled = self.context.run.cancelled
        where = f"{self.target} {self.context.step.description}"
        log = self.world / "log"
        if log.exists() and f"download {where}\n" in log.read_text():
            return self._do(Action.IS_INSTALLED, self._is_installed)
        # Asked whether there is something to download for: tests see this as a call of its own.
        self._log(f"asked {where}")
        fault = self.faults.get((where, ASKED))
        told = fault() if fault is not None else None
        return told or self._is_installed()

    def download(self) -> ActionResult:
        return self._do(Action.DOWNLOAD, lambda: None)

    def backup(self) -> ActionResult:
        def work() -> None:
            backup_store.write(self.context.backup_folder / "kept", self.file.read_bytes())

        return self._do(Action.BACKUP, work)

    def install(self) -> ActionResult:
        def work() -> None:
            (self.world / "used").write_bytes(self.context.files["payload"].read_bytes())
            self.file.write_text(f"{self.wanted} not applied")

        return self._do(Action.INSTALL, work)

    def apply(self) -> ActionResult:
        return self._do(Action.APPLY, lambda: self.file.write_text(self.wanted))

    def restore(self) -> ActionResult:
        return self._do(Action.RESTORE, lambda: self.file.write_text((self.context.backup_folder / "kept").read_text()))

    def cancel(self) -> ActionResult:
        return self._do(Action.CANCEL, lambda: None)

    def _is_installed(self) -> ActionResult:
        installed = self.file.read_text() == self.wanted
        return ActionResult(ResultCode.INSTALLED if installed else ResultCode.NOT_INSTALLED)

    def _do(self, action: Action, work: Callable[[], ActionResult | object]) -> ActionResult:
        step = self.context.step.description
        self.asking.cancelled = self.context.run.cancelled
        self._log(f"{action} {self.target} {step}")
        fault = self.faults.get((f"{self.target} {step}", action))
        if fault is not None and (told := fault()) is not None:
            return told
        done = work()
        self._log(f"{action} {self.target} {step} ended")
        return done if isinstance(done, ActionResult) else ActionResult(SUCCESS[action])

    def _log(self, line: str) -> None:
        with (self.world / "log").open("a") as stream:
            stream.write(line + "\n")


def step(name: str, *, wanted: str = NEW, **options: Any) -> dict[str, Any]:
    """One step of the file handler; `options`: what the engine is asked for."""
    properties: dict[str, Any] = {"installedCriteria": wanted} | ({"proxyflash": options} if options else {})
    return {"handler": HANDLER, "description": name, "files": ["payload"], "handlerProperties": properties}


def reference(name: str) -> dict[str, Any]:
    return {"type": "reference", "updateId": {"provider": "Contoso", "name": name, "version": "1.1"}}


COMPONENTS = {"left": "motors", "right": "motors", "camera": "cameras"}


@dataclass
class Lab:
    """Three components, their updates, and engines for them."""

    folder: Path
    bench_text: str = ""
    policy: dict[str, Any] = field(default_factory=dict)
    cancelled: Callable[[], bool] = lambda: False
    boot: str = "first"
    disk: Disk | None = None
    """The host's, on simulated time."""
    left: float = 1.0
    """How much a kill leaves of what was written and not synced."""
    undo: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.mkdir()
        (self.folder / "payload").write_bytes(b"what is installed")
        parts = "".join(
            f'[[component]]\nname = "{name}"\ngroup = "{group}"\nbus = "bus"\nprotocol = "uds"\n'
            f"address = {{request = 0x{0x700 + 2 * index:X}, response = 0x{0x701 + 2 * index:X}}}\n"
            for index, (name, group) in enumerate(COMPONENTS.items())
        )
        text = f'[bus.bus]\nkind = "can"\ninterface = "virtual"\nat_once = 4\n{parts}{self.bench_text}'
        (self.folder / "bench.toml").write_text(text)
        FileHandler.world = self.world
        FileHandler.faults = {}
        FileHandler.asking = clock.local()

    @property
    def world(self) -> Path:
        return self.folder / "world"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> list[str]:
        path = self.world / "log"
        return path.read_text().splitlines() if path.exists() else []

    def began(self, action: Action) -> list[str]:
        """Which components and steps an action was begun for, in order."""
        return [
            line.removeprefix(f"{action} ")
            for line in self.log
            if line.startswith(f"{action} ") and "ended" not in line
        ]

    def holds(self) -> dict[str, str]:
        """What each component's steps hold."""
        return {path.name: path.read_text() for path in sorted(self.world.glob("*.*"))}

    def fault(self, where: str, action: str, fault: Fault | ActionResult) -> None:
        """`where`: component and step, such as "left one"."""
        FileHandler.faults[where, action] = fault if callable(fault) else lambda: fault

    def write(self, name: str, steps: list[dict[str, Any]], *selectors: dict[str, str]) -> Path:
        data = (self.folder / "payload").read_bytes()
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        document = {
            "updateId": {"provider": "Contoso", "name": name, "version": "1.1"},
            "isDeployable": not selectors,
            "compatibility": selectors or [{"model": "host"}],
            "instructions": {"steps": steps},
            "files": [{"filename": "payload", "sizeInBytes": len(data), "hashes": {"sha256": digest}}],
            "createdDateTime": "2026-01-01T00:00:00Z",
            "manifestVersion": "4.0",
        }
        path = self.folder / f"{name}.importmanifest.json"
        path.write_text(json.dumps(document))
        return path

    def bundle(self, **options: dict[str, Any]) -> Update:
        """Three components, two steps each, "one" and "two"; `options`: of the steps of that name."""
        steps = [step(name, **options.get(name, {})) for name in ("one", "two")]
        self.write("motors", steps, {"group": "motors"})
        self.write("cameras", steps, {"group": "cameras"})
        for name in COMPONENTS:
            for item in ("one", "two"):
                (self.world / f"{name}.{item}").write_text(OLD)
        return load(self.write("bundle", [reference("motors"), reference("cameras")]))

    def look(self, name: str) -> Component:
        """What a component reports: the version of its first step."""
        (found,) = (component for component in self.components() if component.name == name)
        return replace(found, version=(self.world / f"{name}.one").read_text())

    def components(self, **versions: str) -> list[Component]:
        return [
            Component(name, name, group, "", "", versions.get(name, OLD), Presence.OK, "bus", "uds", "")
            for name, group in COMPONENTS.items()
        ]

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        with Bench.open(self.folder / "bench.toml", state=self.state) as bench:
            yield Engine(bench, policy=Policy.model_validate(self.policy), context=RunContext(cancelled=self.cancelled))

    def apply(self, update: Update, **options: Any) -> Outcome:
        with self.engine() as engine:
            return engine.apply(engine.plan(update, self.components()), **options)

    def resume(self, **options: Any) -> Outcome:
        with self.engine() as engine:
            return engine.resume(**options)

    def rollback(self) -> Outcome:
        with self.engine() as engine:
            return engine.rollback()

    def process(self, work: Callable[[], object], *, until: Any = None) -> int:
        """Runs `work` in a process of its own: 0, or minus the signal that ended it.

        `until`: on simulated time an event: when the process is to be killed; in real time see `kills.forked`.
        """
        if not clock.current().is_simulated:
            return forked(work, until=until)
        assert self.disk is not None
        return Process(self.disk, left=self.left).run(work, until)

    def journal(self, number: int = 1) -> Path:
        with self.engine() as engine:
            return engine.store.entry(number).journal


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    made = Lab(tmp_path)
    serve(monkeypatch, FileHandler)
    monkeypatch.setattr(BenchComponent, "look", lambda component: made.look(component.name))
    monkeypatch.setattr(restarting, "boot_id", lambda: made.boot)
    with ExitStack() as stack:
        if clock.current().is_simulated:
            made.disk = stack.enter_context(Disk(made.state, passed))
        yield made
    for undo in made.undo:
        undo()


def serve(monkeypatch: pytest.MonkeyPatch, handler: type[StepHandler]) -> None:
    """Has the handler's name known as if a package had registered it."""
    loaded = plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, name: handler if name == HANDLER else loaded(group, name))


def all_new() -> dict[str, str]:
    return {f"{name}.{item}": NEW for name in sorted(COMPONENTS) for item in ("one", "two")}


def all_old() -> dict[str, str]:
    return dict.fromkeys(all_new(), OLD)


def cancel() -> ActionResult | None:
    raise Cancelled("stopped", touched=True)


def hang_until_asked() -> None:
    """An action that would take for ever, and stops when it is asked to."""
    until_asked()
    cancel()


def until_asked() -> None:
    while not FileHandler.asking.cancelled():
        clock.sleep(0.01)


__all__ = ["StepContext", "kill", "lab"]
