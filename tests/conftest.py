"""What all tests share: the peers that they need, and an environment of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from proxyflash.hil_tests.real.required import pytest_runtest_makereport as pytest_runtest_makereport
from proxyflash.testing.thinning import Thinning
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock

pytest_plugins = ["pytester"]

# How long an example takes to make or to run is the machine's affair. `make properties` tries other examples.
settings.register_profile("proxyflash", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("others", settings.get_profile("proxyflash"), derandomize=False)
settings.load_profile("proxyflash")

SIMULATED_FOLDERS: tuple[str, ...] = (
    "benchmarks",
    "emulators",
    "enumerators",
    "examples",
    "field",
    "flashers",
    "tools",
    "transports",
)
"""Folders of `tests` whose tests run on simulated time by default."""
LIMIT = 86_400.0
"""Simulated seconds of one test: beyond them something ticks for ever while the rest waits."""
TIMES = pytest.StashKey[list[float]]()
"""Simulated and real seconds of the tests that ran on simulated time."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "simulated_time(seed=None, limit=a day): the test runs on a simulated clock")
    config.addinivalue_line(
        "markers", "real_time(why): the test runs in real time, because of what only real time moves"
    )
    config.stash[TIMES] = [0.0, 0.0]
    Thinning.of(config)  # A share that is none is refused before the first test.
    default_signals()


def default_signals() -> None:
    """Whoever started the tests may ignore signals, as nohup does and shells do in the background. What the tests start
    would ignore them too, and some tests send them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            # A program that is started gets the default in the place of a handler.
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)


def is_simulated(item: pytest.Item) -> bool:
    """The nearest marker decides: of the test, its class, its module; else the folder."""
    for marker in item.iter_markers():
        if marker.name == "real_time":
            assert marker.args, f"{item.nodeid}: real_time has no reason"
            return False
        if marker.name == "simulated_time":
            return True
    folder = item.path.relative_to(Path(__file__).parent).parent
    return any(str(place) in SIMULATED_FOLDERS for place in (folder, *folder.parents))


@pytest.fixture(autouse=True)
def simulated_clock(request: pytest.FixtureRequest) -> Iterator[SimulatedClock | None]:
    """The test's simulated clock; None: it runs in real time.

    It is set up before the test's other fixtures of its scope. A fixture of a wider scope is outlived by its clock and
    runs in real time, so it must not open a bench for a test on simulated time.
    """
    if not is_simulated(request.node):
        yield None
        return
    marker = request.node.get_closest_marker("simulated_time")
    settings = marker.kwargs if marker else {}
    simulated = SimulatedClock(settings.get("seed"), limit=settings.get("limit", LIMIT))
    began = perf_counter()
    try:
        with clock.use(simulated):
            yield simulated
    finally:
        times = request.config.stash[TIMES]
        times[0] += simulated.elapsed
        times[1] += perf_counter() - began


def pytest_sessionfinish(session: pytest.Session) -> None:
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["simulated"] = session.config.stash[TIMES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker of pytest-xdist has ended."""
    times = node.config.stash[TIMES]
    for index, seconds in enumerate(getattr(node, "workeroutput", {}).get("simulated", ())):
        times[index] += seconds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    simulated, real = config.stash[TIMES]
    if real:
        terminalreporter.write_line(f"{simulated:,.0f} simulated seconds were tested in {real:,.0f} real ones")
    cuts = sum(
        number
        for report in terminalreporter.stats.get("passed", ())
        for name, number in report.user_properties
        if name == "cuts"
    )
    if cuts:
        terminalreporter.write_line(f"{cuts:,} interruptions of an update were followed by the same command")


@pytest.fixture
def thinned(request: pytest.FixtureRequest) -> Thinning:
    return Thinning.of(request.config)


@pytest.fixture(autouse=True)
def own_folders(simulated_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's bench file or state."""
    monkeypatch.delenv("PROXYFLASH_BENCH", raising=False)
    monkeypatch.setenv("PROXYFLASH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
