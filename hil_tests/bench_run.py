"""`BenchRun`: what one run of pytest has of its bench: who may use it, what is skipped, what broke, how it ends."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from ..enumerators.bench import Bench
from ..enumerators.bench_component import BenchComponent
from ..enumerators.benchfile.schema import BenchFile, load
from ..enumerators.described import describers
from ..enumerators.state import BenchLock, default_state
from ..enumerators.target import Target, TargetFile, is_target_or_file, without_settings
from ..flashers.describing import described
from ..transports import clock
from ..transports.errors import MixedClocks, ProxyflashError
from ..transports.plain import CAUSE, plain
from ..transports.recording.recorder import Recorder
from ..transports.recording.records import clock_text
from .firmware import Firmware, TestImage
from .names import MESSAGES, NOT_KEPT, RECORDED
from .needs import Needs
from .parts import Part, has_power
from .parts_of_run import PartsOfRun
from .signal_guard import SignalGuard, undisturbed
from .time_of_tests import TimeOfTests
from .verdicts import Missing, component_of, tell, told

if TYPE_CHECKING:
    from .pages import Pages

EMULATED = Path(__file__).parent / "benches" / "emulated.toml"
"""The bench of a run that names none."""
LONGEST_NAME = 100
"""Characters of the name of a test's folder."""
LAST_MESSAGES, LAST_RECORDS = 20, 2000
"""How many messages the report of a failed test shows, and of how many records they are looked for."""
WORKER_SECONDS = 40
"""How long pytest-xdist waits, after Ctrl-C, for a worker that makes its bench safe. pytest-xdist's own limit is 10."""


class BenchRun:
    """Reads the bench file at once, and opens nothing before a test is run.

    Raises pytest.UsageError when the file doesn't hold.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._missing = Missing(frozenset(item for item in config.getoption("require").split(",") if item))
        try:
            self._file = _file_of(config.getoption("bench"), config.getoption("bench_profile"))
        except ProxyflashError as error:
            raise pytest.UsageError(told(error)) from None
        path = self._file.path
        self.name = path.stem if path.stem != "bench" else path.absolute().parent.name
        self._bench: Bench | None = None
        self._lock: BenchLock | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.parts = PartsOfRun(self.name, self._part, self._missing, named=isinstance(self._file, TargetFile))
        self._end = SignalGuard(worker=hasattr(config, "workerinput"))
        self._began = self._began_before = 0.0
        """When the test began, and the one before it, on time.monotonic's clock."""
        self.time = TimeOfTests(config)
        self._pages: Pages | None = None
        if config.getoption("bench_report") is not None:
            from .pages import Pages, folder_of

            self._pages = Pages(folder_of(config))

    @property
    def has_hardware(self) -> bool:
        return any(not bus.emulated for bus in self._file.spec.bus.values())

    @cached_property
    def notes(self) -> Path:
        """Where the workers of pytest-xdist note which of their tests use the bench."""
        self._notes = tempfile.TemporaryDirectory(prefix="proxyflash-")
        return Path(self._notes.name)

    def check_options(self) -> None:
        """Raises UsageError for what `bench check` refuses; for hardware also for simulated time and for several workers."""
        if not hasattr(self.config, "workerinput"):
            try:
                Bench(self._file, Path()).check()
            except ProxyflashError as refused:
                raise pytest.UsageError(told(refused)) from None
        if self.time.is_simulated and self.has_hardware:
            real = ", ".join(f"'{name}'" for name, bus in self._file.spec.bus.items() if not bus.emulated)
            error = MixedClocks(
                f"bench '{self.name}' has buses that are not emulated: {real}",
                remedy="Simulated time is for emulated buses alone: run with --no-simulated-time.",
            )
            raise pytest.UsageError(told(error))
        if self.has_hardware and self.config.getoption("dist", "no") == "each":
            raise pytest.UsageError(
                f"bench '{self.name}' has hardware, which one worker at a time can use: not --dist each"
            )

    def prepare_worker(self, node: Any) -> None:
        """One of pytest-xdist's, in the process that has started it: both end in order."""
        node.workerinput["proxyflash"] = str(self.notes)
        node.nodemanager.EXIT_TIMEOUT = WORKER_SECONDS
        self._end.arrange()

    # The bench.

    @property
    def bench(self) -> Bench:
        """Opened when it is first asked for, locked where it has hardware. Raises BenchLocked, StateFolder."""
        if self._bench is None:
            if self.has_hardware and self._lock is None:
                self._lock = BenchLock(self._file.state_folder(default_state()))
            # Emulated parts are as from the factory in each run, and each worker has its own.
            self._folder = tempfile.TemporaryDirectory(prefix="proxyflash-")
            self._bench = Bench(self._file, Path(self._folder.name), Recorder())
            self._end.arrange()
        return self._bench

    @cached_property
    def told(self) -> dict[str, str]:
        """What the JUnit file says of the whole run."""
        is_target = isinstance(self._file, TargetFile)
        bench = without_settings(self.config.getoption("bench")) if is_target else str(self._file.path)
        return {"bench": plain(bench), "proxyflash": version("proxyflash")}

    def _part(self, name: str) -> Part:
        component = self.bench.component(name)
        may_flash = component.emulated or self.config.getoption("allow_flash")
        known = Firmware(component, self.bench.state, self._without_images)
        return Part(component, known, may_flash=may_flash)

    def _without_images(self, reason: str) -> NoReturn:
        self._missing.report("images", reason)

    def firmware(self, component: BenchComponent, item: pytest.Item) -> Firmware:
        """For one test, whose JUnit entry names the used one."""

        def used(image: TestImage) -> None:
            digest = hashlib.sha256(image.path.read_bytes()).hexdigest()
            tell(
                item,
                {f"firmware.{image.path.name}.sha256": digest, f"firmware.{image.path.name}.version": image.version},
            )

        return Firmware(component, self.bench.state, self._without_images, used)

    def artefacts(self, item: pytest.Item) -> Path:
        """The folder of one test: in PROXYFLASH_ARTEFACTS, else in pytest's own temporary folder."""
        named = os.environ.get("PROXYFLASH_ARTEFACTS")
        base = Path(named).absolute() if named else self._temporary
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", item.nodeid).strip("-")
        if len(name) > LONGEST_NAME:
            name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(item.nodeid.encode()).hexdigest()[:8]}"
        folder = base / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def _temporary(self) -> Path:
        # What tmp_path_factory hands out, before there is a fixture: the first test may fail without its part.
        return Path(self.config._tmp_path_factory.mktemp("proxyflash"))  # type: ignore[attr-defined]

    # Which tests there are, and which run.

    def fitting(self, test: Any) -> list[str]:
        """The components that a test is for."""
        needs = Needs.of(test)
        return [component.name for component in self._components() if needs.fit(component)]

    def _components(self) -> Iterator[BenchComponent]:
        # Nothing is opened by this one: it knows the file.
        yield from Bench(self._file, Path()).components

    def prepare(self, item: pytest.Item) -> None:
        """Skips a test that misses something or may not run; else makes its part ready."""
        self.time.begin_test(item)
        self._began_before, self._began = self._began, clock.monotonic()
        tell(item, {"bench": self.told["bench"]})
        needs = Needs.of(item)
        fitting = self.fitting(item)
        one = component_of(item)
        if not fitting and (one is not None or needs.things or needs.wanted):
            can_be_added_to = self.config.getoption("bench") and not isinstance(self._file, TargetFile)
            path = self._file.path if can_be_added_to else None
            buses = self._file.spec.bus.values()
            emulated = any(bus.emulated and bus.kind in (needs.buses or (bus.kind,)) for bus in buses)
            self._missing.report(needs.kind, needs.missing(self.name, path, emulated=emulated))
        self._need_power(item, needs, [one] if one else fitting)
        involved = [one] if one else fitting if needs.wanted else []
        self._require_consent(item, involved or fitting)
        self.parts.need_unbroken(involved)
        with self.parts.out_of_use(item):
            self.bench.recorder.note("", f"test {item.nodeid}")
            if self._pages is not None:
                self._pages.begin(item.nodeid, self.bench)
            for component in self._components():
                self.parts.of(component.name).await_start()
            # A test of the bench as a whole may touch any part; those that aren't there don't hold it up.
            for name in involved or [component.name for component in self._components()]:
                self.parts.make_ready(name, item, wanted=name in involved)
            for name in involved:
                self.parts.need_version(name, needs)
                self.parts.need_capabilities(name, needs, item)

    def _need_power(self, item: pytest.Item, needs: Needs, names: list[str]) -> None:
        asked = "power" in needs.things or "_proxyflash_power" in item.fixturenames  # type: ignore[attr-defined]
        if asked and not any(has_power(component) for component in self._components() if component.name in names):
            whose = " or ".join(f"'{name}'" for name in names)
            remedy = f"add [power.{names[0]}] to {self._file.path}"
            if isinstance(self._file, TargetFile):
                remedy = "write it into a bench file, which can have power control: proxyflash bench add NAME TARGET"
            self._missing.report("power", f"no power control for {whose} on bench '{self.name}'; {remedy}")

    def _require_consent(self, item: pytest.Item, names: list[str]) -> None:
        """Destructive tests write to hardware only where that was allowed."""
        if item.get_closest_marker("destructive") is None or self.config.getoption("allow_flash"):
            return
        real = [
            component.name for component in self._components() if component.name in names and not component.emulated
        ]
        if real:
            whose = ", ".join(f"'{name}'" for name in real)
            self._missing.report(
                "flash", f"it writes to {whose} on bench '{self.name}', which is hardware; allow it: --allow-flash"
            )

    def finished(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """After each phase of a test: notes what was skipped and why, and what broke."""
        error = call.excinfo.value if call.excinfo else None
        kind = getattr(error, "proxyflash_kind", None)
        if kind is not None:
            report.proxyflash_kind = kind  # type: ignore[attr-defined]
            report.proxyflash_absent = getattr(error, "proxyflash_absent", "")  # type: ignore[attr-defined]
            path, line, _ = item.reportinfo()
            report.longrepr = (str(path), (line or 0) + 1, f"Skipped: {error}")
        elif report.failed:
            self.parts.look_for_cause(item, error)
        if self._bench is None:
            return
        if self._pages is not None:
            self._pages.phase(report)
            if report.when == "teardown":
                self._write_page(self._pages, item)
                report.user_properties = list(item.user_properties)
        if report.failed or (report.when == "teardown" and self.config.getoption("record")):
            # What made a test fail may have happened in the one before.
            kept = self._kept(
                self._bench, item, self._began_before if item.nodeid in self.parts.failed else self._began
            )
            report.user_properties = list(item.user_properties)
            report.sections.append((RECORDED, plain(kept)))
        if report.failed and (said := self._last_messages(self._bench, item)):
            report.sections.append((MESSAGES, said))

    def _write_page(self, pages: Pages, item: pytest.Item) -> None:
        try:
            tell(item, {"page": pages.end()})
        except ProxyflashError as error:  # As with a recording.
            tell(item, {"page": f"not written: {error}"})

    def _kept(self, bench: Bench, item: pytest.Item, since: float) -> str:
        """The folder with what was recorded since then, and its files."""
        try:
            folder = self.artefacts(item) / "recording"
            files = bench.recorder.save(folder, since)
        except OSError as error:  # A full disk must not lose the run.
            return f"{NOT_KEPT}{error}"
        tell(item, {"recording": str(folder)})
        return f"{folder}: {', '.join(file.name for file in files)}"

    def _last_messages(self, bench: Bench, item: pytest.Item) -> str:
        """The last messages in words, a line each: those of the test's component, or of all buses."""
        entry = bench.file.entries.get(component_of(item) or "")
        records = [
            record for record in bench.recorder.records(self._began) if entry is None or record.bus == entry.spec.bus
        ][-LAST_RECORDS:]
        lines = deque(described(records, describers(bench.file)), LAST_MESSAGES)
        return "\n".join(plain(f"{clock_text(line.time)} {line}") for line in lines)

    # The end.

    def make_safe(self) -> list[str]:
        """All supplies on, all parts running, all buses closed; what could not be done, in words."""
        said: list[str] = []
        with undisturbed(), self.time.of():
            if self._bench is not None:
                said += self.parts.make_safe()
                self._bench.close()
                self._bench = None
            if self._folder is not None:
                self._folder.cleanup()
            if self._lock is not None:
                self._lock.close()
                self._lock = None
        said += self.time.end()
        self._end.undo()
        return [plain(f"bench '{self.name}': {text}", CAUSE) for text in said]


def _file_of(named: str | None, profile: str | None) -> BenchFile:
    """The bench file of a run, or that of its target. Raises BenchError, TargetWrong, PluginBroken, pytest.UsageError."""
    if named is not None and is_target_or_file(named):
        return Target(named, Path(profile) if profile is not None else None).file()
    if profile is not None:
        raise pytest.UsageError("--bench-profile goes with a target; a component's profile is in the bench file")
    return load((Path(named) if named else EMULATED).absolute())
