"""Simulated threads that catch what ends them: neither the end of a simulation nor that of a process waits for them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

import pytest
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import ABANDONED, SimulatedClock, SimulatedThread, Unended

pytestmark = pytest.mark.real_time("clocks of its own")


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """SIGINT raises, whoever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def poll() -> None:
    event = clock.Event()
    while not event.is_set():
        pass


def with_lock() -> None:
    lock = clock.RLock()
    while True:
        with lock:
            pass


def put() -> None:
    items: clock.SomeQueue[int] = clock.Queue()
    while True:
        items.put(1)


def look() -> None:
    while True:
        clock.monotonic()


WORKS: dict[str, Callable[[], object]] = {
    "sleeps": lambda: clock.sleep(1),
    "waits": lambda: clock.Event().wait(),
    "looks": look,
    "polls": poll,
    "locks": with_lock,
    "puts": put,
}


def stubborn(work: Callable[[], object]) -> None:
    with suppress(BaseException):
        clock.sleep(0.1)
    while True:
        with suppress(BaseException):
            work()


@contextmanager
def refused(kind: type[BaseException], text: str) -> Iterator[None]:
    """As `pytest.raises`, for a block of several lines."""
    with pytest.raises(kind, match=text):
        yield


def start(name: str, work: Callable[[], object]) -> SimulatedThread:
    thread = clock.Thread(work, name=name)
    thread.start()
    return cast(SimulatedThread, thread)


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("name", WORKS)
def test_a_thread_that_catches_everything_does_not_keep_a_simulation_from_its_end(name: str, seed: int | None) -> None:
    ended: list[str] = []

    def decent() -> None:
        try:
            clock.Event().wait()
        finally:
            ended.append("decent")

    used = SimulatedClock(seed)
    with refused(Unended, rf"go on at the end of the simulation: {name} at .*\.py:\d+$"), clock.use(used):
        start(name, lambda: stubborn(WORKS[name]))
        start("decent", decent)
        clock.sleep(0.05)
    assert ended == ["decent"]
    assert not any(thread.is_alive() for thread in used.left)
    assert not clock.current().is_simulated


@pytest.mark.parametrize("name", ["sleeps", "waits", "looks", "polls", "locks"])
def test_a_killed_thread_that_catches_everything_is_named(name: str) -> None:
    used = SimulatedClock()
    with clock.use(used):
        thread = start(name, lambda: stubborn(WORKS[name]))
        clock.sleep(0.05)
        used.kill([thread])
        with pytest.raises(Unended, match=f"the thread {name} was killed, catches whatever ends it, and goes on"):
            thread.join()
        assert not thread.is_alive()
        clock.sleep(1)


def test_who_cleans_up_at_the_end_has_time_for_it() -> None:
    done: list[int] = []
    used = SimulatedClock()
    with clock.use(used):
        lock = clock.RLock()

        def cleans_up() -> None:
            try:
                clock.Event().wait()
            finally:
                for number in range(1000):
                    with lock:
                        done.append(number)

        start("cleans up", cleans_up)
        clock.sleep(1)
    assert len(done) == 1000


def computes() -> None:
    """Ctrl-C comes once; no further call of the clock does."""
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass


def test_ctrl_c_ends_the_wait_for_a_predicate_that_computes_for_ever() -> None:
    used = SimulatedClock()
    with clock.use(used):

        def waits() -> None:
            with (changed := clock.Condition()):
                changed.wait_for(computes)

        thread = start("computes", waits)
        with pytest.raises(KeyboardInterrupt):
            thread.join()
    assert [thread.name for thread in used.left] == ["computes"]


def test_ctrl_c_ends_the_end_of_a_simulation() -> None:
    ended: list[str] = []

    def decent() -> None:
        try:
            clock.Event().wait()
        finally:
            ended.append("decent")

    def computes_at_its_end() -> None:
        try:
            clock.Event().wait()
        finally:
            computes()

    with refused(KeyboardInterrupt, "^$"), clock.use(SimulatedClock()):
        start("computes", computes_at_its_end)
        start("decent", decent)
        clock.sleep(1)
    assert ended == ["decent"]
    assert not clock.current().is_simulated
    assert ABANDONED[-1].name == "computes"
    gc.collect()


@pytest.mark.parametrize("work", ["clock.sleep(1)", "os.getpid()"])
def test_the_interpreter_ends_though_a_thread_went_on(work: str) -> None:
    script = f"""
import os, signal, threading
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock

def stubborn():
    while True:
        try:
            {work}
            clock.sleep(0.1)
        except BaseException:
            if "getpid" in {work!r}:
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            while "getpid" in {work!r}:
                pass

try:
    with clock.use(SimulatedClock()):
        clock.Thread(stubborn).start()
        clock.sleep(1)
except BaseException as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "KeyboardInterrupt\n" if "getpid" in work else "Unended\n",
        "",
    )
