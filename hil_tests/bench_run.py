"""`BenchRun`: what one run of pytest has of its bench: who may use it, what is skipped, what broke, how it ends."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from ..enumerators.bench import Bench
from ..enumerators.bench_component import BenchComponent
from ..enumerators.benchfile.schema import load
from ..enumerators.errors import PowerFailed
from ..enumerators.state import BenchLock, bench_folder, default_state
from ..flashers.flasher import Capability
from ..transports import clock
from ..transports.errors import AdapterAbsent, AdapterGone, MixedClocks, ProxyflashError
from ..transports.plain import CAUSE, plain, word
from ..transports.recording.recorder import Recorder
from .firmware import Firmware, TestImage
from .names import SIMULATED, SIMULATED_INI
from .needs import CAPABILITIES, Needs
from .parts import Broken, NotThere, Part, PartLost, has_power
from .signal_guard import SignalGuard, undisturbed

if TYPE_CHECKING:
    from .simulated_time import SimulatedTime

EMULATED = Path(__file__).parent / "benches" / "emulated.toml"
"""The bench of a run that names none."""
HARDWARE_FAILED = (AdapterAbsent, AdapterGone, PowerFailed)
"""What no test can help: the part is broken from then on."""
LONGEST_NAME = 100
"""Characters of the name of a test's folder."""
WORKER_SECONDS = 40
"""How long pytest-xdist waits, after Ctrl-C, for a worker that makes its bench safe; it kills it after 10 by itself."""


class BenchRun:
    """Reads the bench file at once, and opens nothing before a test is run.

    Raises pytest.UsageError when the file doesn't hold.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        named = config.getoption("bench")
        self.path = Path(named) if named else EMULATED
        self.name = self.path.stem if self.path.stem != "bench" else self.path.absolute().parent.name
        self._required = {item for item in config.getoption("require").split(",") if item}
        try:
            self._file = load(self.path.absolute())
        except ProxyflashError as error:
            raise pytest.UsageError(str(error)) from None
        self._bench: Bench | None = None
        self._lock: BenchLock | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._parts: dict[str, Part] = {}
        self._failed: set[str] = set()
        self._unusable: Broken | None = None
        self._end = SignalGuard(worker=hasattr(config, "workerinput"))
        self._began = self._began_before = 0.0
        """When the test began, and the one before it, on time.monotonic's clock."""
        wanted = config.getoption("simulated_time")
        self.is_simulated: bool = config.getini(SIMULATED_INI) if wanted is None else wanted
        self._simulated = _simulated_time() if self.is_simulated else None

    @property
    def has_hardware(self) -> bool:
        return any(not bus.emulated for bus in self._file.spec.bus.values())

    @cached_property
    def notes(self) -> Path:
        """Where the workers of pytest-xdist note which of their tests use the bench."""
        self._notes = tempfile.TemporaryDirectory(prefix="proxyflash-")
        return Path(self._notes.name)

    def check_options(self) -> None:
        """Raises UsageError for what a bench of hardware can't do: be simulated, or be used by several workers."""
        if self.is_simulated and self.has_hardware:
            real = ", ".join(f"'{name}'" for name, bus in self._file.spec.bus.items() if not bus.emulated)
            error = MixedClocks(
                f"bench '{self.name}' has buses that are not emulated: {real}",
                remedy="Simulated time is for emulated buses alone: run with --no-simulated-time.",
            )
            raise pytest.UsageError(f"{error.code} {error}")
        if self.has_hardware and self.config.getoption("dist", "no") == "each":
            raise pytest.UsageError(
                f"bench '{self.name}' has hardware, which one worker at a time can use: not --dist each"
            )

    def prepare_worker(self, node: Any) -> None:
        """One of pytest-xdist's, in the process that has started it: both end in order."""
        node.workerinput["proxyflash"] = str(self.notes)
        node.nodemanager.EXIT_TIMEOUT = WORKER_SECONDS
        self._end.arrange()

    # Simulated time.

    def time(self, is_ours: bool = True) -> AbstractContextManager[object]:
        """The time of a bench test, for a block; real time where the block isn't ours, or nothing is simulated."""
        if self._simulated is None:
            return nullcontext()
        return self._simulated.running() if is_ours else self._simulated.standing_still()

    def at_end(self, is_ours: bool) -> tuple[Callable[[], object], Callable[[], object]]:
        """Two finalizers of a fixture: the one that is called last, and the one that begins the time of those between."""
        stack = ExitStack()
        return stack.close, lambda: stack.enter_context(self.time(is_ours))

    @contextmanager
    def test_time(self) -> Iterator[None]:
        """The time of a test's own function."""
        with self._without_strangers(), self.time():
            yield

    @contextmanager
    def teardown(self) -> Iterator[None]:
        """All that ends with a test. Warns of threads that don't."""
        with self._without_strangers():
            yield
            if self._simulated is not None:
                self._simulated.warn_of_threads()

    def fixture_time(self, is_ours: bool, scope: str) -> AbstractContextManager[object]:
        """The time of a fixture that is set up."""
        stack = ExitStack()
        if self._simulated is not None and scope != "function":
            stack.enter_context(self._simulated.outlasting())
        stack.enter_context(self.time(is_ours))
        return stack

    @contextmanager
    def _without_strangers(self) -> Iterator[None]:
        """Fails the test for threads that it had beside the simulated clock's."""
        try:
            yield
        except BaseException as error:
            if self._simulated is not None and (said := self._simulated.refused()):
                error.add_note(said)
            raise
        if self._simulated is not None and (said := self._simulated.refused()):
            _fail(said)

    def tell_time(self, item: pytest.Item) -> None:
        """What the test took on simulated time goes into its report."""
        if self._simulated is not None and item.nodeid == self._simulated.test_name:
            _tell(item, {SIMULATED: f"{self._simulated.test_seconds:.6f}"})

    # The bench.

    @property
    def bench(self) -> Bench:
        """Opened when it is first asked for, locked where it has hardware. Raises BenchLocked, StateFolder."""
        if self._bench is None:
            if self.has_hardware and self._lock is None:
                self._lock = BenchLock(bench_folder(default_state(), self.path))
            # Emulated parts are as from the factory in each run, and each worker has its own.
            self._folder = tempfile.TemporaryDirectory(prefix="proxyflash-")
            self._bench = Bench(self._file, Path(self._folder.name), Recorder())
            self._end.arrange()
        return self._bench

    @cached_property
    def told(self) -> dict[str, str]:
        """What the JUnit file says of the whole run."""
        return {"bench": plain(str(self.path.absolute())), "proxyflash": version("proxyflash")}

    def part(self, name: str) -> Part:
        if name not in self._parts:
            component = self.bench.component(name)
            may_flash = component.emulated or self.config.getoption("allow_flash")
            known = Firmware(component, self.bench.state, self._report_missing_images)
            self._parts[name] = Part(component, known, may_flash=may_flash)
        return self._parts[name]

    def firmware(self, component: BenchComponent, item: pytest.Item) -> Firmware:
        """For one test, whose JUnit entry tells which it used."""

        def used(image: TestImage) -> None:
            digest = hashlib.sha256(image.path.read_bytes()).hexdigest()
            _tell(
                item,
                {f"firmware.{image.path.name}.sha256": digest, f"firmware.{image.path.name}.version": image.version},
            )

        return Firmware(component, self.bench.state, self._report_missing_images, used)

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
        # What tmp_path_factory hands out, before there is a fixture: the first test may fail for want of its part.
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
        """Skips a test that lacks something or may not run; else makes ready what it is for."""
        if self._simulated is not None:
            self._simulated.begin_test(item.nodeid, str(item.path))
        self._began_before, self._began = self._began, clock.monotonic()
        _tell(item, {"bench": self.told["bench"]})
        needs = Needs.of(item)
        fitting = self.fitting(item)
        one = _component_of(item)
        if not fitting and (one is not None or needs.things or needs.wanted):
            self._report_missing(
                needs.kind, needs.missing(self.name, self.path if self.config.getoption("bench") else None)
            )
        self._need_power(item, needs, [one] if one else fitting)
        involved = [one] if one else fitting if needs.wanted else []
        self._require_consent(item, involved or fitting)
        self._need_unbroken(involved)
        with self._out_of_use(item):
            self.bench.recorder.note("", f"test {item.nodeid}")
            # A test of the bench as a whole may touch any part; those that aren't there don't hold it up.
            for name in involved or [component.name for component in self._components()]:
                self._make_ready(name, item, wanted=name in involved)
            for name in involved:
                self._need_capabilities(name, needs, item)

    def _need_power(self, item: pytest.Item, needs: Needs, names: list[str]) -> None:
        asked = "power" in needs.things or "_proxyflash_power" in item.fixturenames  # type: ignore[attr-defined]
        if asked and not any(has_power(component) for component in self._components() if component.name in names):
            whose = " or ".join(f"'{name}'" for name in names)
            self._report_missing(
                "power",
                f"no power control for {whose} on bench '{self.name}'; add [power.{names[0]}] to {self.path}",
            )

    def _require_consent(self, item: pytest.Item, names: list[str]) -> None:
        """Destructive tests write to hardware only where that was allowed."""
        if item.get_closest_marker("destructive") is None or self.config.getoption("allow_flash"):
            return
        real = [
            component.name for component in self._components() if component.name in names and not component.emulated
        ]
        if real:
            whose = ", ".join(f"'{name}'" for name in real)
            self._report_missing(
                "flash", f"it writes to {whose} on bench '{self.name}', which is hardware; allow it: --allow-flash"
            )

    def _need_unbroken(self, names: list[str]) -> None:
        if self._unusable is not None:
            self._report_missing(
                "bench", f"bench '{self.name}' is out of use since {self._unusable.test}: {self._unusable.cause}"
            )
        for name in names:
            broken = self._parts[name].broken if name in self._parts else None
            if broken is not None:
                self._report_missing("broken", f"'{name}' is broken since {broken.test}: {broken.cause}")

    def _need_capabilities(self, name: str, needs: Needs, item: pytest.Item) -> None:
        for wanted in needs.capabilities:
            part = self.part(name)
            able = Capability.NONE
            try:
                able = part.capabilities() & CAPABILITIES[wanted]
            except (PartLost, ProxyflashError) as error:
                self._lost(part, item, error)
            if not able:
                self._report_missing("capability", f"the bootloader of '{name}' on bench '{self.name}' can't {wanted}")

    def _make_ready(self, name: str, item: pytest.Item, *, wanted: bool) -> None:
        part = self.part(name)
        if not wanted and (part.broken or part.absent):
            return
        try:
            found = part.make_ready()
        except (NotThere, PartLost, ProxyflashError) as error:
            if part.seen is None and isinstance(error, NotThere | AdapterAbsent):
                part.absent = True
                if wanted:
                    kind = part.component.entry.flasher.bus_kind
                    self._report_missing(kind, f"'{name}' is absent on bench '{self.name}': {error}")
                return
            self._lost(part, item, error, wanted=wanted)
            return
        part.test = item.nodeid
        if not wanted:
            return
        told = {
            "component": name,
            "protocol": found.protocol,
            "serial": found.properties.get("serial", ""),
            "manufacturer": found.manufacturer,
            "model": found.model,
            "version": found.version,
            "state": found.presence.value,
        }
        alone = _component_of(item) is not None
        _tell(item, {key if alone else f"{name}.{key}": word(value) for key, value in told.items()})

    def _lost(self, part: Part, item: pytest.Item, error: Exception, *, wanted: bool = True) -> None:
        """A part that can't be made ready any more is told once: by the test that lost it, or, if that passed, here."""
        self._break(part, part.test or item.nodeid, error)
        if part.test not in self._failed:
            since = f" since {part.test}" if part.test else ""
            _fail(f"'{part.name}' is broken{since}: {error}")
        if wanted:
            self._need_unbroken([part.name])

    def _report_missing_images(self, reason: str) -> NoReturn:
        self._report_missing("images", reason)

    def _report_missing(self, kind: str, reason: str) -> NoReturn:
        if kind in self._required:
            _fail(f"{reason} (--require {kind})")
        skipped = pytest.skip.Exception(plain(reason, CAUSE))
        skipped.proxyflash_kind = kind  # type: ignore[attr-defined]
        raise skipped from None

    # What breaks.

    @contextmanager
    def _out_of_use(self, item: pytest.Item) -> Iterator[None]:
        """Of the bench as a whole: another process has it, its state can't be kept."""
        try:
            yield
        except ProxyflashError as error:
            self._unusable = Broken(item.nodeid, str(error))
            _fail(f"bench '{self.name}': {error}")

    def _break(self, part: Part, test: str, error: Exception) -> None:
        """A CAN adapter or a serial port that is gone takes all parts of its bus with it."""
        names = {part.name}
        spec = part.component.entry.spec
        if isinstance(error, AdapterAbsent | AdapterGone) and part.component.entry.flasher.bus_kind != "usb":
            names |= {other.name for other in self._components() if other.entry.spec.bus == spec.bus}
        for name in names:
            other = self.part(name)
            other.broken = other.broken or Broken(test, str(error))

    def finished(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """After each phase of a test: notes what was skipped for want of what, and what broke."""
        error = call.excinfo.value if call.excinfo else None
        kind = getattr(error, "proxyflash_kind", None)
        if kind is not None:
            report.proxyflash_kind = kind  # type: ignore[attr-defined]
            path, line, _ = item.reportinfo()
            report.longrepr = (str(path), (line or 0) + 1, f"Skipped: {error}")
        elif report.failed:
            self._failed.add(item.nodeid)
            self._look_for_cause(item, error)
        if self._bench is None:
            return
        if report.failed or (report.when == "teardown" and self.config.getoption("record")):
            # What made a test fail may have happened in the one before.
            kept = self._kept(self._bench, item, self._began_before if item.nodeid in self._failed else self._began)
            report.user_properties = list(item.user_properties)
            report.sections.append(("what passed on the buses", plain(kept)))

    def _kept(self, bench: Bench, item: pytest.Item, since: float) -> str:
        """The folder with what was recorded since then, and its files."""
        try:
            folder = self.artefacts(item) / "recording"
            files = bench.recorder.save(folder, since)
        except OSError as error:  # A full disk is no reason to lose the run.
            return f"not kept: {error}"
        _tell(item, {"recording": str(folder)})
        return f"{folder}: {', '.join(file.name for file in files)}"

    def _look_for_cause(self, item: pytest.Item, error: BaseException | None) -> None:
        while error is not None and not isinstance(error, HARDWARE_FAILED):
            error = error.__cause__
        if error is not None:
            name = error.component or _component_of(item)
            if name in self._parts:
                self._break(self._parts[name], item.nodeid, error)

    # The end.

    def make_safe(self) -> list[str]:
        """All supplies on, all parts running, all buses closed; what could not be done, in words."""
        said: list[str] = []
        with undisturbed(), self.time():
            if self._bench is not None:
                # Supplies first, all of them: a worker of pytest-xdist is killed when this takes too long.
                steps = [(part, step) for step in (Part.supply, Part.bring_back) for part in self._parts.values()]
                said += [f"'{part.name}' is left as it is: {fault}" for part, step in steps if (fault := step(part))]
                self._bench.close()
                self._bench = None
            if self._folder is not None:
                self._folder.cleanup()
            if self._lock is not None:
                self._lock.close()
                self._lock = None
        if self._simulated is not None:
            said += self._simulated.end()
        self._end.undo()
        return [plain(f"bench '{self.name}': {text}", CAUSE) for text in said]


def _simulated_time() -> SimulatedTime:
    """Only where it is wanted: what is made beside a simulated clock costs more."""
    from .simulated_time import SimulatedTime

    return SimulatedTime()


def _component_of(item: pytest.Item) -> str | None:
    """The component that a test was made for; "" if it is for one and none fits, None if it is for none."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return (parameters["_proxyflash_component"] or "") if "_proxyflash_component" in parameters else None


def _tell(item: pytest.Item, told: Mapping[str, str]) -> None:
    """What the JUnit file says of a test, each thing once. What a part says is shown in it, not obeyed."""
    shown = [(plain(key), plain(value)) for key, value in told.items() if value]
    item.user_properties += [pair for pair in shown if pair not in item.user_properties]


def _fail(reason: str) -> NoReturn:
    """What is wrong is said in `reason`; what led there would only hide it."""
    raise pytest.fail.Exception(plain(reason, CAUSE), pytrace=False) from None
