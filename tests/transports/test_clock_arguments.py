"""What can't be asked of a clock: a simulated clock answers as the standard library does, which the system's clock is."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from proxyflash.transports import clock
from proxyflash.transports.clock import Queue, Thread, sleep

pytestmark = pytest.mark.real_time("clocks of its own")


def held(lock: Any) -> Any:
    lock.acquire()
    return lock


def taken(lock: Any) -> Any:
    """A lock that another thread holds."""
    thread = Thread(lock.acquire)
    thread.start()
    thread.join()
    return lock


def filled(most: int, *items: str) -> clock.SomeQueue[str]:
    made: clock.SomeQueue[str] = Queue(most)
    for item in items:
        made.put(item)
    return made


def running() -> clock.SomeThread:
    """A thread that ends long after it is joined."""
    thread = Thread(lambda: sleep(0.2))
    thread.start()
    return thread


def ended() -> clock.SomeThread:
    thread = running()
    thread.join()
    return thread


CALLS = {
    "sleep(0)": None,
    "sleep(-1)": ValueError,
    "sleep(nan)": ValueError,
    "sleep(None)": TypeError,
    "sleep(BEYOND)": OverflowError,
    "held(Condition()).wait(-1)": False,
    "held(Condition()).wait(nan)": False,
    "held(Condition()).wait(BEYOND)": OverflowError,
    "held(Condition()).wait_for(lambda: False, -1)": False,
    "held(Condition()).wait_for(lambda: False, BEYOND)": OverflowError,
    "held(Condition()).wait_for(lambda: True, BEYOND)": True,
    "held(Condition()).acquire(timeout=-5)": ValueError,
    "Condition().acquire(timeout=-5)": ValueError,
    "Event().wait(-1)": False,
    "Event().wait(nan)": False,
    "Event().wait(BEYOND)": OverflowError,
    "Semaphore(-1)": ValueError,
    "Semaphore(1).release(0)": ValueError,
    "Semaphore(1).release(-1)": ValueError,
    "Semaphore(1).acquire(False)": True,
    "Semaphore(1).acquire(False, 1)": ValueError,
    "Semaphore(1).acquire(timeout=BEYOND)": True,
    "Semaphore(0).acquire(timeout=-1)": False,
    "Semaphore(0).acquire(timeout=BEYOND)": OverflowError,
    "Thread(print).join()": RuntimeError,
    "Thread(print).join(0)": RuntimeError,
    "current_thread().join()": RuntimeError,
    "running().join(-1)": None,
    "running().join(nan)": ValueError,
    "running().join(BEYOND)": OverflowError,
    "ended().join(BEYOND)": None,
    "ended().join('1')": TypeError,
    "filled(-1, 'a', 'b').full()": False,
    "filled(-1, 'a', 'b').qsize()": 2,
    "filled(-1, 'a').get(timeout=-1)": ValueError,
    "filled(0).put('a', timeout=-1)": None,
    "filled(0, 'a').get(timeout=-1)": ValueError,
    "filled(0, 'a').get(timeout=nan)": ValueError,
    "filled(0, 'a').get(timeout=BEYOND)": OverflowError,
    "filled(0, 'a').get(False, -1)": "a",
    "filled(0).get(timeout=BEYOND)": OverflowError,
    "filled(1).put('a', timeout=-1)": ValueError,
    "filled(1).put('a', False, -1)": None,
    "filled(1, 'a').put('b', timeout=BEYOND)": OverflowError,
    "filled(1, 'a').get(timeout=-1)": ValueError,
    "filled(1, 'a').get(timeout=BEYOND)": "a",
    "filled(1, 'a').get(False, -1)": "a",
    "filled(1).get(timeout=BEYOND)": OverflowError,
    **{
        f"{made}.acquire({arguments})": answer
        for made in ("Lock()", "taken(Lock())", "RLock()", "taken(RLock())", "held(RLock())")
        for arguments, answer in {
            "timeout=-5": ValueError,
            "timeout=-0.5": ValueError,
            "timeout=nan": ValueError,
            "timeout=None": TypeError,
            "timeout=BEYOND": OverflowError,
            "False, 0": ValueError,
            "False, 1": ValueError,
            "False, -5": ValueError,
            "False, -1": not made.startswith("taken"),
        }.items()
    },
}
"""What each returns or raises. BEYOND: more seconds than a thread can wait."""


@pytest.mark.parametrize("call", CALLS)
def test_every_clock_answers_as_the_standard_library(either: clock.Clock, call: str) -> None:
    answer = CALLS[call]
    for beyond in (1e12, 1e30, inf) if "BEYOND" in call else (0,):
        names = {**vars(clock), **globals(), "nan": inf - inf, "BEYOND": beyond}
        if isinstance(answer, type):
            with pytest.raises(answer):
                eval(call, names)
        else:
            assert eval(call, names) == answer


def test_a_local_shows_and_loses_what_its_thread_has(either: clock.Clock) -> None:
    own = clock.local()
    own.value, own.other = 1, 2
    seen: list[object] = []
    thread = Thread(lambda: seen.append(dict(own.__dict__)))
    thread.start()
    thread.join()
    assert seen == [{}]
    assert vars(own) == {"value": 1, "other": 2}
    del own.other
    vars(own)["more"] = 3
    assert own.more == 3
    assert own.__dict__ == {"value": 1, "more": 3}
    with pytest.raises(AttributeError, match="'other'"):
        del own.other
    with pytest.raises(AttributeError, match="'other'"):
        own.other  # noqa: B018 - it is the look that fails
    with pytest.raises(AttributeError, match="read-only"):
        own.__dict__ = {}
