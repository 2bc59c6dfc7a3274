"""`SimulatedTime`: bench tests on a simulated clock, for a bench whose buses are all emulated.

One clock serves the whole run, because the bench stays open for the whole run. The clock is in use while a bench test or
a fixture of the bench runs. In between the simulated time stands still, and everything else in the run has real time.

Real time that a bench test uses beside the simulated clock shows nothing of its part. So a bench test that waits in
real time fails, and a bench test that reads a real clock gets a warning. Both name the test and the line. A thread that outlives
its test troubles the tests after it, and is reported with the name of the test that started it.
"""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from ..transports import clock
from ..transports.errors import MixedClocks, ProxyflashError
from ..transports.simulated_clock import SimulatedClock, SimulatedThread, SimulatedTimer, Unended

LIMIT = 86_400.0
"""Simulated seconds of one test: something ticks for ever beyond them, while the test waits."""
CLOCK = "proxyflash.transports.clock"
SLEEP = time.sleep
READS = {name: getattr(time, name) for name in
         ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns")}  # fmt: skip
"""The functions that read real time."""
LIBRARY = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))
OWN = str(Path(__file__).parents[1])
INSTALLED = (
    *site.getsitepackages(),
    site.getusersitepackages(),
    *map(sysconfig.get_paths().get, ("purelib", "platlib")),
)
NOT_USERS = ("<", OWN, *LIBRARY, *filter(None, INSTALLED))
"""What the names of files begin with that are no tests of the user's."""
WAITING = ("threading", "queue", "concurrent.futures")
"""Modules of the standard library in which a wait belongs to whoever called them."""


class RealTimeRead(UserWarning):
    """A test on simulated time reads a real clock."""


class ThreadLeft(UserWarning):
    """A test on simulated time has ended, and a thread of it has not."""


class _Clock(SimulatedClock):
    """Reports to its SimulatedTime."""

    def __init__(self, told: SimulatedTime) -> None:
        super().__init__()
        self._told_time = told

    def thread(self, *arguments: Any) -> SimulatedThread:
        made = super().thread(*arguments)
        self._told_time.made(made, sys._getframe(2))
        return made

    def timer(self, *arguments: Any) -> SimulatedTimer:
        made = super().timer(*arguments)
        self._told_time.made(made, sys._getframe(2))
        return made

    def remember(self, error: ProxyflashError) -> None:
        self._told_time.remember(error)


class SimulatedTime:
    """The simulated clock of one run of pytest. Nothing begins before the first bench test."""

    def __init__(self) -> None:
        self._clock = _Clock(self)
        self._real = clock.current()
        self._thread = 0
        self.test_name = ""
        self._owner = ""
        """Whose the threads are that are started now; "": of a fixture that lasts longer than a test."""
        self._made: list[tuple[SimulatedThread, str, int]] = []
        """The simulated threads of the test, each with the line that made it."""
        self._started: MutableMapping[threading.Thread, str] = WeakKeyDictionary()
        """The tests that have started threads of real time."""
        self._refused: list[tuple[str, ProxyflashError]] = []
        self._before = 0.0
        self._files: set[str] = set()
        """Files of tests, wherever they are installed."""
        self._told: set[object] = set()
        self._instead: dict[Any, Callable[..., Any]] = {fn: self._read(name, fn) for name, fn in READS.items()}
        self._instead[SLEEP] = self._sleep
        self._modules: set[str] = set()
        self._undo = ExitStack()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Simulated time goes on, until the block ends."""
        if not self._thread:
            self._thread = threading.get_ident()
            self._clock.begin()
            self._take(time)
            self._undo.callback(setattr, threading.Condition, "wait", threading.Condition.wait)
            threading.Condition.wait = self._wait(threading.Condition.wait)  # type: ignore[method-assign]
            self._undo.callback(setattr, threading.Thread, "start", threading.Thread.start)
            threading.Thread.start = self._start(threading.Thread.start)  # type: ignore[assignment, method-assign]
        with clock.within(self._clock):
            yield

    def standing_still(self) -> Any:
        """A block of real time."""
        return clock.within(self._real)

    def begin_test(self, name: str, file: str) -> None:
        """A bench test begins."""
        self.test_name = self._owner = name
        self._made.clear()
        self._before = self._clock.elapsed
        self._clock.allow(LIMIT)
        self._files.add(file)
        self._told.clear()
        for module in set(sys.modules) - self._modules:
            self._modules.add(module)
            if self._is_users(getattr(sys.modules[module], "__file__", None) or ""):
                self._take(sys.modules[module])

    @property
    def test_seconds(self) -> float:
        """Simulated seconds since the test began."""
        return self._clock.elapsed - self._before

    @contextmanager
    def outlasting(self) -> Iterator[None]:
        """What is started in this block lasts longer than the test."""
        before, self._owner = self._owner, ""
        try:
            yield
        finally:
            self._owner = before

    def refused(self) -> str:
        """What threads of the test did that the clock doesn't run; "": nothing. Each is reported once."""
        said = self._take_refused(self.test_name)
        return said[0] if said else ""

    def warn_of_threads(self) -> None:
        """The test is over; some of its threads may be not."""
        if any(thread in self._clock.threads() for thread, _, _ in self._made):
            with self.running():
                clock.sleep(0)  # For those that only have to end.
        for thread, file, line in self._made:
            if thread in self._clock.threads():
                text = f"{self.test_name} has ended, and its thread '{thread.name}' has not: join it in the test"
                warnings.warn_explicit(text, ThreadLeft, file, line)
        self._made.clear()

    def end(self) -> list[str]:
        """What no test was failed for, in words."""
        said = []
        if self._thread:
            with clock.within(self._clock):
                try:
                    self._clock.end()
                except Unended as error:
                    said.append(str(error))
        self._undo.close()
        return self._take_refused() + said

    # What the clock reports.

    def made(self, thread: SimulatedThread, maker: FrameType) -> None:
        """A simulated thread. Those that the bench itself has stay open like its buses."""
        if self._owner and self._is_users(maker.f_code.co_filename):
            self._made.append((thread, maker.f_code.co_filename, maker.f_lineno))

    def remember(self, error: ProxyflashError) -> None:
        """A thread that the clock doesn't run got an error, now or long after its test."""
        self._refused.append((self._started.get(threading.current_thread()) or self.test_name, error))

    def _take_refused(self, name: str = "") -> list[str]:
        taken = [item for item in self._refused if name in ("", item[0])]
        self._refused = [item for item in self._refused if item not in taken]
        return [f"{test}: {error.code} {error}" for test, error in taken]

    # What is reported about uses of real time.

    def _take(self, module: Any) -> None:
        """Puts the functions that tell in the place of those of `time`, under whatever name the module has them."""
        for name, value in list(vars(module).items()):
            instead = self._instead.get(value) if type(value) is type(SLEEP) else None
            if instead is not None:
                setattr(module, name, instead)
                self._undo.callback(setattr, module, name, value)

    def _concerns(self) -> bool:
        return clock.current() is self._clock and threading.get_ident() == self._thread

    def _is_users(self, file: str) -> bool:
        return file in self._files or not (not file or file.startswith(NOT_USERS))

    def _read(self, name: str, function: Callable[[], float]) -> Callable[[], float]:
        @functools.wraps(function)
        def read() -> float:
            frame = sys._getframe(1)
            if self._concerns() and self._is_users(frame.f_code.co_filename):
                place = (frame.f_code.co_filename, frame.f_lineno)
                if place not in self._told:
                    self._told.add(place)
                    instead = "time" if name.startswith("time") else "monotonic"
                    warnings.warn(
                        f"{self.test_name} reads time.{name}, but runs on simulated time: use {CLOCK}.{instead}",
                        RealTimeRead,
                        stacklevel=2,
                    )
            return function()

        return read

    def _sleep(self, seconds: float) -> None:
        frame = sys._getframe(1)
        if self._concerns() and self._is_users(frame.f_code.co_filename):
            self._refuse("time.sleep", frame, f"Use {CLOCK}.sleep")
        SLEEP(seconds)

    def _wait(self, function: Callable[..., bool]) -> Callable[..., bool]:
        @functools.wraps(function)
        def wait(condition: threading.Condition, timeout: float | None = None) -> bool:
            if self._concerns():
                frame, called = _caller(sys._getframe(1))
                # A thread that starts is waited for, and that doesn't count as time.
                if called != "start" and self._is_users(frame.f_code.co_filename):
                    self._refuse("threads of Python's own", frame, f"Make events, queues and threads by {CLOCK}")
            return function(condition, timeout)

        return wait

    def _start(self, function: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
        @functools.wraps(function)
        def start(thread: threading.Thread) -> None:
            if self._concerns():
                self._started[thread] = self._owner
            function(thread)

        return start

    def _refuse(self, what: str, frame: FrameType, instead: str) -> None:
        raise MixedClocks(
            f"{self.test_name} runs on simulated time, and waits in real time by {what}"
            f" ({frame.f_code.co_filename}:{frame.f_lineno})",
            remedy=f"{instead}, or run without --simulated-time.",
        )


def _caller(frame: FrameType) -> tuple[FrameType, str]:
    """Who called the standard library's threads, and which function of theirs."""
    called = "wait"
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(WAITING):
        called = frame.f_code.co_name
        frame = frame.f_back
    return frame, called
