"""What breaks into the simulated clock's own work: a signal at any line of it, an error while a lock is wanted back, a poll."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from proxyflash.transports import clock, simulated_clock
from proxyflash.transports.simulated_clock import Deadlock, SimulatedClock

pytestmark = pytest.mark.real_time("clocks of their own")


def scheduling() -> Iterator[tuple[Any, int]]:
    """Each line of the calls by which a main thread lets others go on."""
    places: list[Callable[..., Any]] = [
        SimulatedClock.wait, SimulatedClock._hand_over, SimulatedClock._next, SimulatedClock._fire,
        simulated_clock.SimulatedCondition.wait_as, simulated_clock.SimulatedLock.acquire,
    ]  # fmt: skip
    for place in places:
        lines = {line for _, _, line in place.__code__.co_lines() if line}
        yield from ((place, line) for line in sorted(lines - {place.__code__.co_firstlineno}))


@pytest.mark.parametrize(("place", "line"), scheduling(), ids=lambda value: getattr(value, "__qualname__", None))
def test_ctrl_c_at_any_line_loses_no_thread(place: Callable[..., Any], line: int) -> None:
    """The main thread gets a KeyboardInterrupt and nothing else; the others go on."""
    ticks = 0
    stop = False
    sent = False

    def tick() -> None:
        nonlocal ticks
        while not stop:
            with changed:
                changed.wait(0.01)
            ticks += 1

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal sent
        if frame.f_code is not place.__code__:
            return trace
        if event == "line" and frame.f_lineno == line and used.running is used.main and not sent:
            sent = True
            os.kill(os.getpid(), signal.SIGINT)
        return trace

    used = SimulatedClock()
    with clock.use(used):
        changed = clock.Condition()
        thread = clock.Thread(tick, name="board")
        thread.start()
        clock.sleep(1)
        sys.settrace(trace)
        try:
            for _ in range(5):
                with changed:
                    changed.wait(0.0101)
            clock.sleep(0.001)
        except KeyboardInterrupt:
            assert sent
        else:
            assert not sent, "the interrupt was lost"
        finally:
            sys.settrace(None)
        before = ticks
        clock.sleep(1)
        assert ticks > before
        stop = True
        thread.join()


def test_every_function_of_the_list_schedules() -> None:
    assert len({inspect.unwrap(place) for place, _ in scheduling()}) == 6


@pytest.mark.parametrize("seed", [None, 1])
def test_a_deadlock_is_told_though_the_condition_s_lock_is_gone(seed: int | None) -> None:
    """Its holder waits for ever; leaving the block must not turn it into an error that a retry catches."""
    with clock.use(SimulatedClock(seed)):
        changed, never = clock.Condition(), clock.Event()

        def hold() -> None:
            with changed:
                never.wait()

        clock.Thread(hold, name="holder").start()
        with pytest.raises(Deadlock), changed:
            changed.wait()


@pytest.mark.parametrize("poll", ["wait", "sleep"])
def test_a_poll_lets_time_pass(poll: str) -> None:
    with clock.use(SimulatedClock()):
        done = clock.Event()

        def work() -> None:
            clock.sleep(0.01)
            done.set()

        clock.Thread(work).start()
        if poll == "wait":
            while not done.wait(0):
                pass
        else:
            while not done.is_set():
                clock.sleep(0)
        assert clock.monotonic() >= 0.01
