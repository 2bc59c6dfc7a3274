"""What breaks into the simulated clock's own work: a signal at any line of it, an error while a lock is wanted back."""

from __future__ import annotations

import inspect
import os
import random
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


@pytest.mark.parametrize(("place", "line"), list(scheduling()), ids=lambda value: getattr(value, "__qualname__", None))
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


@pytest.mark.parametrize("seed", range(20))
def test_a_handler_that_looks_lets_nobody_go_on_amid_scheduling(seed: int) -> None:
    """The next thread is being chosen, from those that could run."""
    looked: list[bool] = []

    def look(number: int, frame: FrameType | None) -> None:
        looked.extend(event.is_set() for _ in range(200))

    class Random(random.Random):
        """A signal comes once a number is drawn."""

        def randrange(self, *range: Any) -> int:
            drawn = super().randrange(*range)
            if not looked:
                os.kill(os.getpid(), signal.SIGALRM)
            return drawn

    before = signal.signal(signal.SIGALRM, look)
    used = SimulatedClock(seed)
    try:
        with clock.use(used):
            event = clock.Event()
            for _ in range(3):
                clock.Thread(lambda: clock.sleep(1)).start()
            used._random = Random(seed)
            clock.sleep(1)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert looked == [False] * 200
