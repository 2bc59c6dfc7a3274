"""A loop that only looks at what others change: others go on, and simulated time passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SLICE, SimulatedClock

pytestmark = pytest.mark.real_time("clocks of its own")
MOST_LOOKS = 100_000
LATER = 0.002


@pytest.fixture(params=[None, 7], ids=["simulated", "seeded"])
def used(request: pytest.FixtureRequest) -> Iterator[SimulatedClock]:
    made = SimulatedClock(request.param)
    with clock.use(made):
        yield made


def later(*works: Callable[[], object]) -> clock.SomeThread:
    def run() -> None:
        clock.sleep(LATER)
        for work in works:
            work()

    thread = clock.Thread(run)
    thread.start()
    return thread


def event_set() -> Callable[[], bool]:
    event = clock.Event()
    later(event.set)
    return event.is_set


def event_cleared() -> Callable[[], bool]:
    event = clock.Event()
    event.set()
    later(event.clear)
    return lambda: not event.is_set()


def event_waited_for() -> Callable[[], bool]:
    event = clock.Event()
    later(event.set)
    return lambda: event.wait(0)


def lock_free(**how: Any) -> Callable[[], bool]:
    lock = clock.Lock()
    lock.acquire()
    later(lock.release)
    return lambda: lock.acquire(**how)


def rlock_free() -> Callable[[], bool]:
    lock = clock.RLock()

    def hold() -> None:
        with lock:
            clock.sleep(LATER)

    clock.Thread(hold).start()
    clock.sleep(LATER / 2)
    return lambda: lock.acquire(blocking=False)


def lock_locked() -> Callable[[], bool]:
    lock: Any = clock.Lock()
    later(lock.acquire)
    return lambda: bool(lock.locked())


def semaphore_free(**how: Any) -> Callable[[], bool]:
    credits = clock.Semaphore(0)
    later(credits.release)
    return lambda: credits.acquire(**how)


def queue_filled(look: Callable[[clock.SomeQueue[str]], object], most: int = 0) -> Callable[[], object]:
    items: clock.SomeQueue[str] = clock.Queue(most)
    later(lambda: items.put("it"))
    return lambda: look(items)


def queue_emptied(look: Callable[[clock.SomeQueue[str]], object]) -> Callable[[], object]:
    items: clock.SomeQueue[str] = clock.Queue(1)
    items.put("old")
    later(items.get)
    return lambda: look(items)


def got(items: clock.SomeQueue[str]) -> str:
    try:
        return items.get_nowait()
    except clock.Empty:
        return ""


def put(items: clock.SomeQueue[str]) -> bool:
    try:
        items.put_nowait("new")
    except clock.Full:
        return False
    return True


def thread_ended() -> Callable[[], bool]:
    thread = later()
    return lambda: not thread.is_alive()


def threads_ended() -> Callable[[], bool]:
    later()
    return lambda: clock.active_count() == 1


def thread_joined() -> Callable[[], bool]:
    done: list[str] = []
    thread = later(lambda: done.append("it"))

    def joined() -> bool:
        thread.join(0)
        return bool(done)

    return joined


def condition_met() -> Callable[[], bool]:
    """The lock is held at each look, and wanted by who changes what is looked at."""
    changed, done = clock.Condition(), [False]

    def change() -> None:
        with changed:
            done[0] = True

    later(change)

    def met() -> bool:
        with changed:
            return changed.wait_for(lambda: done[0], 0)

    return met


def deadline_under_a_lock() -> Callable[[], bool]:
    """As above, where the look is at the clock."""
    lock, done = clock.Lock(), [False]

    def change() -> None:
        with lock:
            done[0] = True

    later(change)

    def met() -> bool:
        with lock:
            clock.monotonic()
            return done[0]

    return met


POLLS: dict[str, Callable[[], Callable[[], object]]] = {
    "event is set": event_set,
    "event is cleared": event_cleared,
    "event waited for": event_waited_for,
    "lock": lambda: lock_free(blocking=False),
    "lock in no time": lambda: lock_free(timeout=0),
    "rlock": rlock_free,
    "locked": lock_locked,
    "semaphore": lambda: semaphore_free(blocking=False),
    "semaphore in no time": lambda: semaphore_free(timeout=0),
    "queue get": lambda: queue_filled(got),
    "bounded queue get": lambda: queue_filled(got, 1),
    "queue qsize": lambda: queue_filled(lambda items: items.qsize()),
    "queue empty": lambda: queue_filled(lambda items: not items.empty()),
    "queue full": lambda: queue_filled(lambda items: items.full(), 1),
    "queue put": lambda: queue_emptied(put),
    "queue no more full": lambda: queue_emptied(lambda items: not items.full()),
    "thread": thread_ended,
    "thread joined": thread_joined,
    "threads": threads_ended,
    "condition": condition_met,
    "deadline under a lock": deadline_under_a_lock,
}


@pytest.mark.parametrize("name", POLLS)
def test_a_loop_that_only_looks_comes_to_its_end(used: SimulatedClock, name: str) -> None:
    look = POLLS[name]()
    began = used.read()
    assert any(look() for _ in range(MOST_LOOKS))
    assert used.read() - began < 10 * LATER


def test_others_that_could_run_do_so_after_a_slice(used: SimulatedClock) -> None:
    """Without waiting for the time to reach them."""
    event = clock.Event()
    clock.Thread(event.set).start()
    began = used.read()
    assert any(event.is_set() for _ in range(MOST_LOOKS))
    assert used.read() - began < 2 * SLICE


def test_a_loop_that_sleeps_for_no_time_comes_to_its_end(used: SimulatedClock) -> None:
    thread = later()
    while thread in used.threads():
        clock.sleep(0)
    assert used.elapsed >= LATER


def test_a_look_from_outside_changes_nothing(used: SimulatedClock) -> None:
    """A real thread may look, and so may who stands in real time; each sees what is so."""
    real = threading.Thread
    event, items, thread = clock.Event(), clock.Queue(), clock.Thread(print)
    event.set()
    seen: list[object] = []

    def look() -> None:
        seen.append([event.is_set(), items.empty(), items.qsize(), items.full(), thread.is_alive()])

    before = used.read()
    strange = real(target=look)
    strange.start()
    strange.join()
    assert used.read() == before
    assert seen == [[True, True, 0, False, False]]
    assert used.refused == []
