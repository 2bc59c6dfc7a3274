"""The pytest plugin: tests of what is on a bench, by fixtures that pytest finds wherever proxyflash is installed.

Loaded into every pytest run of such an environment. So it imports pytest and the standard library alone; everything
else comes with the first test that takes one of its fixtures, and until then it says nothing and costs nothing.
docs/bench-tests.md describes it for those who write tests.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .names import NOT_KEPT, RECORDED, SIMULATED, SIMULATED_INI

if TYPE_CHECKING:
    from ..enumerators.bench import Bench
    from ..enumerators.bench_component import BenchComponent
    from ..flashers.flasher import Bootloader
    from .bench_run import BenchRun
    from .firmware import Firmware
    from .measurements import Measurements
    from .power import Power

RUN = pytest.StashKey["BenchRun"]()
SAID = pytest.StashKey[dict[str, list[str]]]()
"""What the workers of pytest-xdist have to say at the end."""
MARKERS = (
    "needs(*things, name=, group=, protocol=): what a bench test needs, and which components it is for",
    "destructive: a bench test that writes to its part; on hardware it needs --allow-flash",
    "slow: a test that takes long",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proxyflash", "firmware bench tests (proxyflash)")
    group.addoption(
        "--bench", metavar="FILE|TARGET", help="the bench file, or a target; without it an emulated bench is used"
    )
    group.addoption("--bench-profile", metavar="FILE", help="a TOML file with the profile of the target's component")
    group.addoption("--allow-flash", action="store_true", help="let destructive tests write to hardware")
    group.addoption(
        "--require",
        metavar="THINGS",
        default="",
        help="fail instead of skipping tests that lack these, separated by commas: kinds of bus, such as can; power",
    )
    group.addoption(
        "--record", action="store_true", help="keep a recording of every bench test, not only of failed ones"
    )
    group.addoption(
        "--bench-report", metavar="FOLDER", help="write a page for each bench test, and index.html with all verdicts"
    )
    group.addoption(
        "--simulated-time",
        action=argparse.BooleanOptionalAction,
        help="run bench tests on a simulated clock, in a fraction of the time; every bus must be emulated",
    )
    group.addoption(
        "--every-cut",
        action="store_true",
        help="interrupt updates at every place in contract tests, not at some at even distances; takes minutes",
    )
    group.addoption(
        "--cut-share",
        default="1/1",
        metavar="N/COUNT",
        help="with --every-cut: the N-th of COUNT shares of the places, so that runs can share them",
    )
    group.addoption(
        "--only-cut", type=int, metavar="PLACE", help="interrupt updates at this place alone, which a failure named"
    )
    parser.addini(SIMULATED_INI, "whether --simulated-time is the default", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    required = [item for item in config.getoption("require").split(",") if item]
    if required:
        from .needs import buses

        requirable = [*buses(), "power"]
        for item in required:
            if item not in requirable:
                raise pytest.UsageError(f"--require: {item!r} is none of {', '.join(requirable)}")
    try:
        config.getini(SIMULATED_INI)
    except (ValueError, pytest.UsageError):  # By the release of pytest; neither names the option.
        raise pytest.UsageError(f"ini option {SIMULATED_INI}: write true or false") from None
    if config.getoption("bench_report") is not None and not hasattr(config, "workerinput"):
        from .pages import check, folder_of

        check(folder_of(config))
    if config.getoption("bench") is not None or config.getoption("bench_profile") is not None:
        run_of(config).check_options()


def run_of(config: pytest.Config) -> BenchRun:
    """What this run of pytest has of its bench; made when it is first asked for."""
    if RUN not in config.stash:
        from .bench_run import BenchRun

        config.stash[RUN] = BenchRun(config)
    return config.stash[RUN]


def uses_bench(item: pytest.Item) -> bool:
    return "_proxyflash_run" in getattr(item, "fixturenames", ())


def _is_of_bench(fixture: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> bool:
    """Whether a fixture hangs on the bench."""
    names, seen = list(fixture.argnames), {fixture.argname}
    while names:
        name = names.pop()
        if name == "_proxyflash_run":
            return True
        if name not in seen:
            seen.add(name)
            names += [
                more for found in getattr(request, "_arg2fixturedefs", {}).get(name, ())[-1:] for more in found.argnames
            ]
    return fixture.argname == "_proxyflash_run"


# Collecting.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "_proxyflash_component" in metafunc.fixturenames:
        fitting = run_of(metafunc.config).fitting(metafunc.definition)
        metafunc.parametrize("_proxyflash_component", fitting or [None], indirect=True, ids=fitting or ["none"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    told: dict[str, Any] = getattr(config, "workerinput", {})
    if "proxyflash" in told:
        from .xdist_scheduler import note

        note(Path(told["proxyflash"]), told["workerid"], [item.nodeid for item in items if uses_bench(item)])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    if RUN in node.config.stash and run_of(node.config).has_hardware:
        run_of(node.config).prepare_worker(node)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker has the bench of hardware, whatever way of spreading was asked for."""
    if RUN not in config.stash or not run_of(config).has_hardware:
        return None
    from .xdist_scheduler import BenchScheduling

    return BenchScheduling(config, log, run_of(config).notes)


# Running.


def pytest_runtest_setup(item: pytest.Item) -> None:
    """After pytest's own look at `skip` and `skipif`, before any fixture."""
    if uses_bench(item) and not item.config.getoption("setupplan", default=False):
        with run_of(item.config).time.of():
            run_of(item.config).prepare(item)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Innermost: what other plugins do around a test has real time."""
    if not uses_bench(item):
        return (yield)
    with run_of(item.config).time.test_time():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    if RUN not in item.config.stash or not uses_bench(item):
        return (yield)
    with run_of(item.config).time.teardown():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """On simulated time a fixture of the bench has that, and one of a single bench test; any other has real time."""
    if RUN not in request.config.stash or not run_of(request.config).time.is_simulated:
        return (yield)
    run = run_of(request.config)
    is_ours = uses_bench(request.node) if request.scope == "function" else _is_of_bench(fixturedef, request)
    # What the fixture leaves to do at its end is done under the clock that it began under.
    last, first = run.time.at_end(is_ours)
    fixturedef.addfinalizer(last)
    try:
        with run.time.fixture_time(is_ours, request.scope):
            return (yield)
    finally:
        fixturedef.addfinalizer(first)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if RUN not in item.config.stash or not uses_bench(item):
        return (yield)
    run = item.config.stash[RUN]
    if call.when == "teardown":
        run.time.tell(item)
    from ..transports.errors import ProxyflashError
    from .verdicts import showing_codes, told

    error = call.excinfo.value if call.excinfo else None
    with showing_codes(error):
        report = yield
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None and isinstance(error, ProxyflashError) and crash.message.startswith(type(error).__module__):
        # The line of the summary is cut at the terminal's width: the code comes before the class.
        crash.message = told(error)
    with run.time.of():
        run.finished(item, call, report)
    return report


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    try:
        yield
    finally:
        # After the last fixture's end; before the summary, and before a worker sends its results.
        config = session.config
        if RUN in config.stash:
            said = config.stash[RUN].make_safe()
            config.stash.setdefault(SAID, {})[""] = said
            if hasattr(config, "workeroutput"):
                config.workeroutput["proxyflash"] = said
                if session.exitstatus == pytest.ExitCode.INTERRUPTED:
                    # After Ctrl-C nobody takes what a worker has to tell.
                    sys.stderr.writelines(f"{text}\n" for text in said)
        if any(config.stash.get(SAID, {}).values()) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    said = getattr(node, "workeroutput", {}).get("proxyflash")
    if said:
        node.config.stash.setdefault(SAID, {})[node.gateway.id] = said


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    kinds = Counter(
        kind for report in terminalreporter.stats.get("skipped", ()) if (kind := getattr(report, "proxyflash_kind", ""))
    )
    absent = Counter(
        (name, report.proxyflash_kind)
        for report in terminalreporter.stats.get("skipped", ())
        if (name := getattr(report, "proxyflash_absent", ""))
    )
    recordings = {
        str(value)
        for reports in (terminalreporter.stats.values() if config.getoption("record") else ())
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "recording"
    }
    said = [text for texts in config.stash.get(SAID, {}).values() for text in texts]
    reports = [report for reports in terminalreporter.stats.values() for report in reports if hasattr(report, "when")]
    unkept = {
        report.nodeid: text.removeprefix(NOT_KEPT)
        for report in (reports if config.getoption("record") else ())
        for title, text in report.sections
        if title == RECORDED and text.startswith(NOT_KEPT)
    }
    simulated = {
        report.nodeid: float(value)
        for report in reports
        if report.when == "teardown"
        for name, value in report.user_properties
        if name == SIMULATED
    }
    if config.getoption("bench_report") is not None:
        broken = [report for report in reports if report.when == "collect" and report.failed]
        faults = [*said, *(f"{report.nodeid} can't be collected: {_last_line(report)}" for report in broken)]
        if exitstatus == pytest.ExitCode.INTERRUPTED and not broken:
            faults.append("interrupted: not all tests were run")
        said += _index(config, reports, faults)
    if not (kinds or recordings or unkept or said or simulated):
        return
    from .summary import lines

    terminalreporter.section("proxyflash")
    times = (sum(simulated.values()), sum(report.duration for report in reports if report.nodeid in simulated))
    idle = bool(kinds) and not any(
        report.when == "call" and any(name == "bench" for name, _ in report.user_properties) for report in reports
    )
    for line in lines(kinds, recordings, list(unkept.values()), said, times, absent, idle=idle):
        terminalreporter.line(line)


def _last_line(report: Any) -> str:
    """Of why a file can't be collected: the error itself, below its traceback."""
    return next(reversed(report.longreprtext.strip().splitlines()), "").removeprefix("E").strip()


def _index(config: pytest.Config, reports: list[Any], faults: list[str]) -> list[str]:
    """Writes the page of all bench tests; where it is, or why it isn't there. `faults`: of the run, beside those of tests."""
    from ..enumerators.target import is_target_or_file, without_settings
    from ..transports.errors import ProxyflashError
    from .pages import NOTHING, folder_of, write_index
    from .signal_guard import undisturbed

    found = [(report, dict(report.user_properties)) for report in reports if report.when != "collect"]
    bench = str(config.getoption("bench") or "emulated")
    bench = without_settings(bench) if is_target_or_file(bench) else bench
    try:
        # After Ctrl-C a second one would end pytest within its summary, with a traceback.
        with undisturbed():
            index, count = write_index(folder_of(config), bench, found, faults)
    except ProxyflashError as error:
        return [f"--bench-report: {error}"]
    shown = Path(config.getoption("bench_report")) / index.name
    return [f"report: {shown}" if count else f"report: {shown}: {NOTHING.lower()}"]


# Fixtures. Each hangs on _proxyflash_run, by which a test that uses the plugin is known.


@pytest.fixture(scope="session")
def _proxyflash_run(pytestconfig: pytest.Config, record_testsuite_property: Callable[[str, object], None]) -> BenchRun:
    run = run_of(pytestconfig)
    for name, value in run.told.items():
        record_testsuite_property(name, value)
    return run


@pytest.fixture(scope="session")
def bench(_proxyflash_run: BenchRun) -> Bench:
    """The `Bench` of this run: what `--bench` names, else an emulated one.

    For a test of several components. Its buses stay open until the end of the run.

    Example:

        def test_all_serial_numbers_differ(bench):
            ids = [component.look().id for component in bench.components]
            assert len(set(ids)) == len(ids)
    """
    return _proxyflash_run.bench


@pytest.fixture
def _proxyflash_component(request: pytest.FixtureRequest, _proxyflash_run: BenchRun) -> str:
    return str(request.param)


@pytest.fixture
def component(_proxyflash_component: str, bench: Bench) -> BenchComponent:
    """A `BenchComponent`: a component of the bench, powered, its application running.

    The test is run once for each component that fits its `needs`. So is a test that takes `bus`, `flasher`, `power` or
    `firmware`.

    Example:

        from proxyflash.hil_tests.boot_session import running

        def test_runs(component):
            assert running(component).version
    """
    return bench.component(_proxyflash_component)


@pytest.fixture
def bus(component: BenchComponent) -> Any:
    """The component's open `CanBus`, `SerialPort`, `UdpSocket` or `UsbBus`.

    Example:

        import pytest
        from proxyflash.transports.deadline import Deadline

        @pytest.mark.needs("serial", protocol="stm32-uart")
        def test_reports_its_version(bus):
            bus.write(b"VER?\\r", Deadline.after(1))
            assert bus.read_until(b"\\n", Deadline.after(1)).startswith(b"FW ")
    """
    return component.bench.transport(component.entry.spec.bus)


@pytest.fixture
def flasher(component: BenchComponent) -> Iterator[Bootloader]:
    """The component's `Bootloader`.

    Nothing was sent yet. It is closed after the test.

    Example:

        def test_its_bootloader_answers(flasher):
            identity = flasher.connect()
            flasher.leave()
            assert identity.part or identity.bootloader
    """
    made = component.bootloader()
    yield made
    made.close()


@pytest.fixture
def _proxyflash_power(_proxyflash_run: BenchRun, component: BenchComponent) -> Power:
    """Apart from `power`, so that a suite may have one of that name that is of another kind."""
    supply = _proxyflash_run.parts.of(component.name).power
    assert supply is not None  # Else the test was skipped before.
    return supply


@pytest.fixture
def power(_proxyflash_power: Power) -> Power:
    """The component's supply: `off()`, `on()`, `cycle()`, `is_on`.

    None of them waits for the application: `running` does. A test that takes `power` needs power control, as with
    `needs("power")`.

    Example:

        from proxyflash.hil_tests.boot_session import running

        def test_starts_again(component, power):
            power.cycle()
            assert running(component).version
    """
    return _proxyflash_power


@pytest.fixture
def firmware(_proxyflash_run: BenchRun, component: BenchComponent, request: pytest.FixtureRequest) -> Firmware:
    """Releases to test with, from the component's `images` in the bench file: `old`, `new`, `images`.

    Each has `path`, `image` and `version`. For an emulated part without images two releases are made. Every emulated part
    also has `made(version="2.0.0", size=20_000)`.

    Example:

        import pytest

        @pytest.mark.destructive
        def test_update(component, firmware):
            component.flash(firmware.new.image, expect_version=firmware.new.version)
    """
    return _proxyflash_run.firmware(component, request.node)


@pytest.fixture
def measurements(_proxyflash_run: BenchRun, request: pytest.FixtureRequest) -> Measurements:
    """What the test measures: `add(name, value, unit, low=None, high=None)`.

    A value beyond a limit fails the test. All values go into the JUnit file.

    Example:

        import pytest

        @pytest.mark.destructive
        def test_is_fast(component, firmware, measurements):
            seconds = component.flash(firmware.new.image).seconds
            measurements.add("update", seconds, "s", high=120)
    """
    from .measurements import Measurements

    return Measurements(request.node.user_properties)


@pytest.fixture
def artefacts(_proxyflash_run: BenchRun, request: pytest.FixtureRequest) -> Path:
    """A `Path`: the test's own folder, for what the test leaves behind.

    What was recorded on its buses lies in `recording` in it.

    Example:

        def test_keeps_a_note(component, artefacts):
            (artefacts / "version.txt").write_text(component.look().version or "unknown")
    """
    return _proxyflash_run.artefacts(request.node)
