"""The clock: each primitive behaves alike in real and in simulated time; what only a simulation can do and must refuse."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, cast

import pytest
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import MixedClocks, UnknownThread
from proxyflash.transports.serial.port import SerialPort
from proxyflash.transports.simulated_clock import EPOCH, Deadlock, LimitPassed, SimulatedClock, SimulatedThread
from proxyflash.transports.udp import UdpSocket

pytestmark = pytest.mark.real_time("each test makes the clock that it is about, the system's among them")
LONG = 60.0
SHORT = 0.02

# Alike on both clocks.


def test_sleeping_takes_its_time(either: clock.Clock) -> None:
    began, day = clock.monotonic(), clock.time()
    clock.sleep(SHORT)
    assert clock.monotonic() - began >= SHORT
    assert clock.time() > day


def test_a_thread_runs_with_its_arguments_and_is_joined(either: clock.Clock) -> None:
    seen: list[tuple[Any, ...]] = []

    def run(*args: object, **kwargs: object) -> None:
        seen.append((args, kwargs, clock.current_thread()))

    thread = clock.Thread(run, args=(1, 2), kwargs={"key": 3}, name="worker")
    assert thread.name == "worker"
    assert not thread.is_alive()
    thread.start()
    thread.join()
    assert not thread.is_alive()
    assert seen == [((1, 2), {"key": 3}, thread)]
    with pytest.raises(RuntimeError):
        thread.start()


def test_the_main_thread_is_known(either: clock.Clock) -> None:
    seen: list[bool] = []
    thread = clock.Thread(lambda: seen.append(clock.current_thread() is clock.main_thread()))
    thread.start()
    thread.join()
    assert seen == [False]
    assert clock.current_thread() is clock.main_thread()


def test_joining_gives_up_in_time(either: clock.Clock) -> None:
    go_on = clock.Event()
    thread = clock.Thread(go_on.wait)
    thread.start()
    before = clock.active_count()
    thread.join(SHORT)
    assert thread.is_alive()
    go_on.set()
    thread.join()
    assert clock.active_count() == before - 1


def test_a_lock_holds_others_off(either: clock.Clock) -> None:
    lock = clock.Lock()
    seen: list[str] = []

    def other() -> None:
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=SHORT)
        seen.append("held")
        with lock:
            seen.append("free")

    with lock:
        thread = clock.Thread(other)
        thread.start()
        while "held" not in seen:
            clock.sleep(SHORT)
        seen.append("released")
    thread.join()
    assert seen == ["held", "released", "free"]
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_lock_says_whether_it_is_held(either: clock.Clock) -> None:
    lock: Any = clock.Lock()
    assert not lock.locked()
    with lock:
        assert lock.locked()


def test_a_condition_is_acquired_and_released_by_name(either: clock.Clock) -> None:
    changed = clock.Condition()
    assert changed.acquire()
    assert changed.acquire(timeout=1)
    assert not changed.wait(0)
    changed.release()
    changed.release()
    with pytest.raises(RuntimeError):
        changed.release()


def test_an_rlock_is_taken_twice_by_its_holder_alone(either: clock.Clock) -> None:
    lock = clock.RLock()
    got: list[bool] = []
    with lock, lock:
        thread = clock.Thread(lambda: got.append(lock.acquire(blocking=False)))
        thread.start()
        thread.join()
    thread = clock.Thread(lambda: got.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    assert got == [False, True]


def test_a_condition_wakes_one_or_all(either: clock.Clock) -> None:
    changed = clock.Condition()
    waiting, woken = [0], [0]

    def wait() -> None:
        with changed:
            waiting[0] += 1
            in_time = changed.wait(LONG)
            woken[0] += in_time

    threads = [clock.Thread(wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while waiting[0] < 3:
        clock.sleep(0.001)
    with changed:
        changed.notify()
    while not woken[0]:
        clock.sleep(0.001)
    clock.sleep(SHORT)
    assert woken == [1]
    with changed:
        changed.notify_all()
    for thread in threads:
        thread.join()
    assert woken == [3]


def test_a_condition_gives_up_in_time(either: clock.Clock) -> None:
    changed = clock.Condition()
    began = clock.monotonic()
    with changed:
        assert not changed.wait(SHORT)
        assert not changed.wait_for(lambda: False, SHORT)
        assert changed.wait_for(lambda: "yes", SHORT) == "yes"
    assert clock.monotonic() - began >= 2 * SHORT


def test_a_condition_that_is_not_held_is_refused(either: clock.Clock) -> None:
    changed = clock.Condition()
    with pytest.raises(RuntimeError):
        changed.wait(0)
    with pytest.raises(RuntimeError):
        changed.notify()


def test_a_nested_condition_is_free_while_it_waits(either: clock.Clock) -> None:
    changed = clock.Condition()
    ready = [False]

    def make_ready() -> None:
        with changed:
            ready[0] = True
            changed.notify()

    with changed, changed:
        clock.Thread(make_ready).start()
        assert changed.wait_for(lambda: ready[0], LONG)


def test_an_event_stays_set(either: clock.Clock) -> None:
    event = clock.Event()
    assert not event.wait(SHORT)
    clock.Thread(event.set).start()
    assert event.wait(LONG)
    assert event.is_set()
    assert event.wait(0)
    event.clear()
    assert not event.is_set()


def test_a_semaphore_counts(either: clock.Clock) -> None:
    credits = clock.Semaphore(1)
    assert credits.acquire()
    assert not credits.acquire(blocking=False)
    clock.Thread(credits.release).start()
    assert credits.acquire(timeout=LONG)


def test_a_queue_keeps_order_and_gives_up_in_time(either: clock.Clock) -> None:
    items: clock.SomeQueue[int] = clock.Queue()
    assert items.empty()
    assert not items.full()
    with pytest.raises(clock.Empty):
        items.get(timeout=SHORT)
    with pytest.raises(clock.Empty):
        items.get_nowait()

    def put() -> None:
        for number in range(3):
            items.put(number)

    clock.Thread(put).start()
    assert [items.get(timeout=LONG) for _ in range(3)] == [0, 1, 2]
    assert items.qsize() == 0


def test_a_full_queue_waits_for_room(either: clock.Clock) -> None:
    items: clock.SomeQueue[int] = clock.Queue(1)
    items.put(1)
    assert items.full()
    with pytest.raises(clock.Full):
        items.put_nowait(2)
    taken: list[int] = []
    thread = clock.Thread(lambda: taken.append(items.get()))
    thread.start()
    items.put(2, timeout=LONG)
    thread.join()
    assert taken == [1]


def test_a_timer_fires_unless_it_is_cancelled(either: clock.Clock) -> None:
    fired: list[str] = []
    cancelled = clock.Timer(SHORT, fired.append, ("cancelled",))
    kept = clock.Timer(SHORT, fired.append, ("kept",))
    kept.start()
    cancelled.start()
    cancelled.cancel()
    kept.join()
    cancelled.join()
    assert fired == ["kept"]


def test_a_local_is_each_threads_own(either: clock.Clock) -> None:
    own = clock.local()
    own.value = "main"
    seen: list[object] = []

    def look() -> None:
        seen.append(getattr(own, "value", None))
        own.value = "other"

    thread = clock.Thread(look)
    thread.start()
    thread.join()
    assert (seen, own.value) == ([None], "main")


def test_an_exception_of_a_thread_is_reported(either: clock.Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fail() -> None:
        raise ValueError("as it should")

    thread = clock.Thread(fail, name="failing")
    thread.start()
    thread.join()
    (args,) = told
    assert (args.exc_type, str(args.exc_value)) == (ValueError, "as it should")
    assert args.thread is not None
    assert args.thread.name == "failing"


def test_a_deadline_follows_the_clock(either: clock.Clock) -> None:
    deadline = Deadline.after(SHORT)
    assert 0 < deadline.remaining <= SHORT
    clock.sleep(SHORT)
    assert deadline.expired
    assert deadline.remaining == 0.0


def test_the_time_of_day(either: clock.Clock) -> None:
    assert abs(clock.now().timestamp() - clock.time()) < LONG
    assert clock.strftime("%s") == clock.now().astimezone().strftime("%s")


# Simulated time.


def test_time_passes_only_while_all_wait(simulated: SimulatedClock) -> None:
    order: list[tuple[str, float]] = []

    def sleeper(name: str, seconds: float) -> None:
        clock.sleep(seconds)
        order.append((name, round(simulated.elapsed, 3)))

    threads = [clock.Thread(sleeper, args=item) for item in (("day", 86_400.0), ("hour", 3600.0), ("blink", 0.1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == [("blink", 0.1), ("hour", 3600.0), ("day", 86_400.0)]
    assert simulated.jumps == 3
    assert simulated.elapsed == pytest.approx(86_400)


def test_a_loop_that_only_looks_at_the_clock_comes_to_its_end(simulated: SimulatedClock) -> None:
    """And does not keep others from running meanwhile, neither those that could run nor those whose time comes."""
    seen: list[str] = []
    clock.Thread(seen.append, args=("runnable",)).start()
    clock.Timer(0.001, seen.append, ("timer",)).start()
    deadline = Deadline.after(0.002)
    while not deadline.expired:
        pass
    assert seen == ["runnable", "timer"]


def test_the_wall_clock_can_be_set(simulated: SimulatedClock) -> None:
    assert clock.time() == pytest.approx(EPOCH, abs=1)
    before = clock.monotonic()
    simulated.set_time(1_000_000_000)
    assert clock.now().year == 2001
    assert 0 < clock.monotonic() - before < 0.001


@pytest.mark.parametrize(
    ("waits", "text"),
    [
        (lambda: clock.Event().wait(), "an event"),
        (lambda: clock.Queue().get(), "a queue"),
        (lambda: clock.Semaphore(0).acquire(), "a semaphore"),
        (lambda: [lock := clock.Lock(), lock.acquire(), lock.acquire()], "a lock that main holds"),
        (lambda: _wait(clock.Condition()), "a condition"),
    ],
)
def test_a_deadlock_is_told_with_what_each_thread_waits_for(
    simulated: SimulatedClock, waits: Callable[[], object], text: str
) -> None:
    lock = clock.Lock()

    def swallows() -> None:
        with lock:
            try:
                clock.Event().wait()
            except Exception:
                pytest.fail("a deadlock is the main thread's")

    holder = clock.Thread(swallows, name="holder")
    blocked = clock.Thread(lambda: lock.acquire(), name="blocked")
    joiner = clock.Thread(lambda: blocked.join(), name="joiner")
    for thread in (holder, blocked, joiner):
        thread.start()
    with pytest.raises(Deadlock) as told:
        waits()
    expected = (
        f"  main waits for {text} at",
        "  holder waits for an event at",
        "  blocked waits for a lock that holder holds at",
        "  joiner waits for the end of the thread blocked at",
    )
    first, *lines = str(told.value).splitlines()
    assert "none has a time limit" in first
    for line, words in zip(lines, expected, strict=True):
        assert re.fullmatch(re.escape(f"{words} {__file__}:") + r"\d+", line)


def _wait(changed: clock.SomeCondition) -> None:
    with changed:
        changed.wait()


def test_a_thread_that_catches_everything_does_not_catch_a_deadlock(simulated: SimulatedClock) -> None:
    def retries() -> None:
        try:
            clock.Event().wait()
        except Exception:
            return

    with pytest.raises(Deadlock):
        retries()


def test_a_thread_that_waits_in_the_library_is_told_by_where_it_was_called(simulated: SimulatedClock) -> None:
    with pytest.raises(Deadlock, match=rf"main waits for a condition at {re.escape(__file__)}"):
        _wait(clock.Condition())


def test_a_limit_ends_what_a_timer_that_ticks_for_ever_would_hide() -> None:
    used = SimulatedClock(limit=10)
    told: list[LimitPassed] = []
    with clock.use(used):
        lock = clock.Lock()

        def tick() -> None:
            while True:
                clock.sleep(0.02)

        def blocked() -> None:
            with lock:
                clock.Event().wait()

        clock.Thread(tick, name="ticks").start()
        clock.Thread(blocked, name="blocked").start()
        clock.sleep(0.01)
        for _ in range(2):
            with pytest.raises(LimitPassed) as caught, lock:
                pytest.fail("the lock is held by a thread that waits")
            told.append(caught.value)
        assert 20 <= used.elapsed < 20.1
        # What is closed then may wait.
        clock.sleep(5)
    for error in told:
        first, *lines = str(error).splitlines()
        assert "a limit of 10 s" in first
        assert re.fullmatch(rf"  main waits for a lock that blocked holds at {re.escape(__file__)}:\d+", lines[0])
        assert "  blocked waits for an event at" in lines[2]
        assert lines[1].startswith("  ticks waits for ")


@pytest.mark.parametrize("seed", [None, 1])
def test_a_limit_ends_a_loop_that_only_looks_at_the_clock(seed: int | None) -> None:
    with clock.use(SimulatedClock(seed, limit=0.01)):
        starts = clock.Thread(print, name="starts")

        def spin() -> None:
            while True:
                clock.monotonic()

        spins = clock.Thread(spin, name="spins")
        spins.start()
        with pytest.raises(LimitPassed, match="spins waits for its turn at "):
            spins.join()
        assert not starts.is_alive()


def test_within_its_limit_a_simulation_is_left_alone() -> None:
    with clock.use(SimulatedClock(limit=10)) as used:
        clock.sleep(9.9)
        assert clock.Event().wait(0.05) is False
        assert isinstance(used, SimulatedClock)
        assert used.elapsed < 10


def trace(seed: int | None) -> tuple[list[tuple[str, int, float]], float, int]:
    """What three threads do that share a lock, a queue and a condition."""
    events: list[tuple[str, int, float]] = []
    with clock.use(SimulatedClock(seed)) as used:
        assert isinstance(used, SimulatedClock)
        lock, items, changed = clock.Lock(), clock.Queue(), clock.Condition()

        def work(name: str) -> None:
            for number in range(5):
                with lock:
                    events.append((name, number, clock.monotonic()))
                items.put(number)
                with changed:
                    changed.notify_all()
                clock.sleep(0.01)

        threads = [clock.Thread(work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        with changed:
            changed.wait_for(lambda: items.qsize() == 15)
        for thread in threads:
            thread.join()
    return events, used.elapsed, used.switches


def test_without_a_seed_threads_run_in_their_order() -> None:
    events, _, _ = trace(None)
    assert [name for name, _, _ in events] == list("abc" * 5)


def test_the_same_seed_gives_the_same_events() -> None:
    traces = {seed: trace(seed) for seed in range(20)}
    assert all(trace(seed) == traces[seed] for seed in traces)
    assert len({tuple(events) for events, _, _ in traces.values()}) > 10


def lost_updates(seed: int | None) -> int:
    """Two threads that add to a number, each between two looks at something that has a lock."""
    number = 0
    with clock.use(SimulatedClock(seed)):
        lock = clock.Lock()

        def add() -> None:
            nonlocal number
            for _ in range(5):
                before = number
                with lock:
                    pass
                number = before + 1

        threads = [clock.Thread(add) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 10 - number


def test_a_seed_shows_a_race() -> None:
    assert lost_updates(None) == 0
    assert sum(lost_updates(seed) > 0 for seed in range(20)) > 10


def test_a_seed_shows_locks_that_are_taken_in_two_orders() -> None:
    def deadlocks(seed: int | None) -> bool:
        with clock.use(SimulatedClock(seed)):
            left, right = clock.Lock(), clock.Lock()

            def take(first: clock.SomeLock, second: clock.SomeLock) -> None:
                with first, second:
                    pass

            threads = [clock.Thread(take, args=order) for order in ((left, right), (right, left))]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except Deadlock:
                return True
            return False

    assert not deadlocks(None)
    assert any(deadlocks(seed) for seed in range(50))


# A time-out and what is waited for, at the very same moment.

SEEDS = range(200)


def _condition_at_its_deadline() -> bool:
    """One notification and two waiters, one of which gives up at that moment: whether that one was in time."""
    changed = clock.Condition()
    got: dict[str, bool] = {}

    def wait(name: str, seconds: float | None) -> None:
        with changed:
            got[name] = changed.wait(seconds)

    def notify() -> None:
        clock.sleep(1)
        with changed:
            changed.notify()

    threads = [clock.Thread(wait, args=args) for args in (("hurried", 1.0), ("patient", None))]
    for thread in (*threads, clock.Thread(notify)):
        thread.start()
    clock.sleep(2)
    # It is the notification of exactly one of them.
    assert sorted(got.items()) in ([("hurried", True)], [("hurried", False), ("patient", True)])
    with changed:
        changed.notify_all()
    for thread in threads:
        thread.join()
    return got["hurried"]


def _event_at_its_deadline() -> bool:
    event = clock.Event()
    is_set = False
    got: list[tuple[bool, bool]] = []

    def wait() -> None:
        got.append((event.wait(1.0), is_set))

    def set_for_a_moment() -> None:
        nonlocal is_set
        clock.sleep(1)
        is_set = True
        event.set()
        event.clear()

    threads = [clock.Thread(wait), clock.Thread(set_for_a_moment)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((in_time, was_set),) = got
    assert in_time == was_set
    return in_time


def _queue_at_its_deadline() -> bool:
    items: clock.SomeQueue[str] = clock.Queue()
    got: dict[str, str] = {}

    def hurried() -> None:
        try:
            got["hurried"] = items.get(timeout=1.0)
        except clock.Empty:
            got["hurried"] = ""

    def patient() -> None:
        got["patient"] = items.get()

    def put() -> None:
        clock.sleep(1)
        items.put("first")
        clock.sleep(1)
        items.put("second")

    threads = [clock.Thread(work) for work in (hurried, patient, put)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if got["hurried"]:
        assert got == {"hurried": "first", "patient": "second"}
    else:
        assert got["patient"] == "first"
        assert items.get(timeout=0) == "second"
    return bool(got["hurried"])


def _bounded_queue_at_its_deadline() -> bool:
    """Two that put into a full queue, one of which gives up as room is made."""
    items: clock.SomeQueue[str] = clock.Queue(1)
    items.put("old")
    full: list[bool] = []

    def hurried() -> None:
        try:
            items.put("hurried", timeout=1.0)
            full.append(False)
        except clock.Full:
            full.append(True)

    threads = [clock.Thread(hurried), clock.Thread(lambda: items.put("patient"))]
    for thread in threads:
        thread.start()
    clock.sleep(1)
    assert items.get() == "old"
    taken = [items.get(timeout=5)]
    for thread in threads:
        thread.join()
    while not items.empty():
        taken.append(items.get_nowait())
    assert sorted(taken) == (["patient"] if full[0] else ["hurried", "patient"])
    return not full[0]


def _semaphore_at_its_deadline() -> bool:
    credits = clock.Semaphore(0)
    got: dict[str, bool] = {}

    def acquire(name: str, seconds: float | None) -> None:
        got[name] = credits.acquire(timeout=seconds)

    threads = [clock.Thread(acquire, args=args) for args in (("hurried", 1.0), ("patient", None))]
    for thread in threads:
        thread.start()
    clock.sleep(1)
    credits.release()
    clock.sleep(1)
    assert sorted(got.items()) in ([("hurried", True)], [("hurried", False), ("patient", True)])
    credits.release()
    for thread in threads:
        thread.join()
    # Nobody took more than there was, and nothing was lost.
    assert credits.acquire(blocking=False) == (not got["hurried"])
    return got["hurried"]


def _lock_at_its_deadline() -> bool:
    lock = clock.Lock()
    got: dict[str, bool] = {}

    def acquire(name: str, seconds: float) -> None:
        got[name] = lock.acquire(timeout=seconds)
        if got[name]:
            lock.release()

    with lock:
        threads = [clock.Thread(acquire, args=args) for args in (("hurried", 1.0), ("patient", -1))]
        for thread in threads:
            thread.start()
        clock.sleep(1)
    for thread in threads:
        thread.join()
    assert got["patient"]
    assert lock.acquire(blocking=False)
    return got["hurried"]


def _join_at_its_deadline() -> bool:
    thread = clock.Thread(lambda: clock.sleep(1))
    thread.start()
    thread.join(1.0)
    in_time = not thread.is_alive()
    thread.join()
    return in_time


@pytest.mark.parametrize(
    "meet",
    [
        _condition_at_its_deadline,
        _event_at_its_deadline,
        _queue_at_its_deadline,
        _bounded_queue_at_its_deadline,
        _semaphore_at_its_deadline,
        _lock_at_its_deadline,
        _join_at_its_deadline,
    ],
)
def test_at_a_deadline_nothing_is_lost_and_both_outcomes_happen(meet: Callable[[], bool]) -> None:
    outcomes = set()
    for seed in SEEDS:
        with clock.use(SimulatedClock(seed, limit=60)):
            try:
                outcomes.add(meet())
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
    assert outcomes == {False, True}


# What a simulated clock ends.


def test_threads_that_are_left_are_ended_and_named() -> None:
    used = SimulatedClock()
    ended: list[str] = []
    with clock.use(used):
        lock = clock.Lock()

        def stay() -> None:
            with lock:
                try:
                    clock.Event().wait()
                finally:
                    ended.append("stayed")

        clock.Thread(stay, name="stays").start()
        clock.Thread(lambda: clock.sleep(LONG), name="sleeps").start()
        clock.Thread(lambda: None, name="ends").start()
        clock.sleep(1)
        assert [thread.name for thread in used.threads()] == ["stays", "sleeps"]
        assert [thread.name for thread in used.holders()] == ["stays"]
    assert ended == ["stayed"]
    assert [thread.name for thread in used.left] == ["stays", "sleeps"]
    assert [thread.name for thread in used.left_locked] == ["stays"]
    assert not any(thread.is_alive() for thread in used.left)
    assert not clock.current().is_simulated


def test_an_error_in_the_block_ends_the_threads_too() -> None:
    used = SimulatedClock()

    def fail() -> None:
        with clock.use(used):
            clock.Thread(clock.Event().wait).start()
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert len(used.left) == 1
    assert not clock.current().is_simulated


def test_the_threads_of_a_killed_process_do_nothing_that_counts(simulated: SimulatedClock) -> None:
    """Whatever they do on their way out: they neither take a lock nor wait nor start a thread, and free what they hold."""
    lock, other, changed = clock.Lock(), clock.Lock(), clock.Condition()
    began: list[str] = []
    did: list[str] = []

    def work(name: str, wait: Callable[[], object]) -> None:
        try:
            with lock if name == "holds" else clock.Lock():
                began.append(name)
                wait()
                did.append("went on")
        finally:
            clock.Thread(lambda: did.append("started")).start()
            with other:
                did.append("took a lock")

    def wait_for_news() -> None:
        with changed:
            changed.wait()

    waits = {"holds": clock.Event().wait, "sleeps": lambda: clock.sleep(LONG), "waits": wait_for_news}
    threads = [clock.Thread(work, args=item) for item in waits.items()]
    bystander = clock.Thread(lambda: clock.sleep(1))
    for thread in (*threads, bystander):
        thread.start()
    clock.sleep(0.5)
    assert sorted(began) == ["holds", "sleeps", "waits"]
    simulated.kill(cast("list[SimulatedThread]", threads))
    for thread in threads:
        thread.join(0.1)
    assert [thread.is_alive() for thread in threads] == [False] * 3
    assert bystander.is_alive()
    assert did == []
    assert lock.acquire(timeout=0)
    assert other.acquire(timeout=0)
    with changed:
        changed.notify_all()


def test_a_thread_that_kills_its_own_process_ends_there(simulated: SimulatedClock) -> None:
    did: list[str] = []

    def work() -> None:
        try:
            simulated.kill([simulated.running])
        except Exception:
            did.append("caught")
        did.append("went on")

    thread = clock.Thread(work)
    thread.start()
    thread.join(1)
    assert not thread.is_alive()
    assert did == []


def test_a_simulated_clock_serves_one_block() -> None:
    used = SimulatedClock()
    with clock.use(used):
        pass
    with pytest.raises(MixedClocks, match="one block"), clock.use(used):
        pass


# What can't be mixed.


def in_real_thread(work: Callable[[], object]) -> BaseException | None:
    with ThreadPoolExecutor(1, "stranger") as pool:
        return pool.submit(work).exception(LONG)


@pytest.mark.parametrize(
    "work",
    [
        clock.monotonic,
        clock.time,
        lambda: clock.sleep(1),
        lambda: clock.Lock().acquire(),
        lambda: clock.Condition().__enter__(),
        lambda: clock.Event().set(),
        lambda: clock.Event().wait(1),
        lambda: clock.Queue().put(1),
        lambda: clock.Thread(print).start(),
        lambda: Deadline.after(1),
    ],
)
def test_a_real_thread_that_uses_the_clock_is_named(simulated: SimulatedClock, work: Callable[[], object]) -> None:
    error = in_real_thread(work)
    assert isinstance(error, UnknownThread)
    assert "'stranger_0'" in str(error)
    assert "proxyflash.transports.clock.Thread" in error.remedy


MADE: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "lock": (clock.Lock, lambda lock: lock.acquire()),
    "rlock": (clock.RLock, lambda lock: lock.__enter__()),
    "condition": (clock.Condition, lambda changed: changed.__enter__()),
    "condition's lock": (clock.Condition, lambda changed: changed.acquire()),
    "event": (clock.Event, lambda event: event.wait(1)),
    "queue": (clock.Queue, lambda items: items.get(timeout=1)),
    "bounded queue": (lambda: clock.Queue(1), lambda items: items.get(timeout=1)),
    "bounded queue's room": (lambda: clock.Queue(1), lambda items: items.put(1, timeout=1)),
    "semaphore": (lambda: clock.Semaphore(0), lambda credits: credits.acquire(timeout=1)),
    "thread": (lambda: clock.Thread(print), lambda thread: thread.start()),
    "timer": (lambda: clock.Timer(1, print), lambda timer: timer.start()),
}


@pytest.mark.parametrize("name", MADE)
def test_what_was_made_in_real_time_is_refused_under_a_simulated_clock(name: str) -> None:
    make, use = MADE[name]
    made = make()
    with clock.use(SimulatedClock()), pytest.raises(MixedClocks, match="made in real time"):
        use(made)


@pytest.mark.parametrize("name", MADE)
def test_what_was_made_under_a_simulated_clock_is_refused_outside(name: str) -> None:
    make, use = MADE[name]
    with clock.use(SimulatedClock()):
        made = make()
    with pytest.raises(MixedClocks, match="outside of its block"):
        use(made)
    with clock.use(SimulatedClock()), pytest.raises(MixedClocks, match="outside of its block"):
        use(made)


@pytest.mark.parametrize("make", [clock.Thread, lambda work: clock.Timer(0, work)])
def test_a_real_thread_that_runs_is_not_joined_under_a_simulated_clock(
    make: Callable[[Callable[[], object]], clock.SomeThread],
) -> None:
    go_on = threading.Event()
    thread = make(go_on.wait)
    thread.start()
    with clock.use(SimulatedClock()), pytest.raises(MixedClocks):
        thread.join()
    go_on.set()
    thread.join()
    with clock.use(SimulatedClock()):
        thread.join()


@pytest.mark.parametrize(
    ("opens", "what"),
    [
        (lambda: SerialPort.open("b", {"url": "/dev/ttyNONE"}), "the serial port /dev/ttyNONE"),
        (lambda: SerialPort.open("b", {"url": "rfc2217://127.0.0.1:1"}), "the serial port rfc2217://127.0.0.1:1"),
        (lambda: SerialPort.open("b", {"url": "socket://127.0.0.1:1"}), "the serial port socket://127.0.0.1:1"),
        (lambda: CanBus.open("b", {"interface": "socketcan", "channel": "none0"}), "socketcan"),
        (lambda: CanBus.open("b", {"interface": "virtual", "channel": "x"}), "virtual"),
        (lambda: UdpSocket.open("b", {"host": "127.0.0.1", "port": 1337}), "the UDP socket to 127.0.0.1"),
    ],
)
def test_a_real_port_is_refused_under_a_simulated_clock(
    simulated: SimulatedClock, opens: Callable[[], object], what: str
) -> None:
    with pytest.raises(MixedClocks) as told:
        opens()
    assert what in told.value.cause
    assert "emulated" in told.value.remedy


# Signals.


class Alarm(Exception):
    """What a handler raises: a test that took too long, for one."""


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """Sends a signal whose handler raises Alarm."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Alarm

    before = signal.signal(signal.SIGTERM, ring)
    yield lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert signal.signal(signal.SIGTERM, before) is ring


def test_what_a_handler_raises_while_another_thread_runs_is_raised_in_the_main_one(
    alarm: Callable[[], None], simulated: SimulatedClock
) -> None:
    done: list[str] = []

    def part() -> None:
        alarm()
        clock.sleep(1)
        done.append("went on")

    thread = clock.Thread(part)
    thread.start()
    with pytest.raises(Alarm):
        clock.Event().wait()
    assert thread.is_alive()
    thread.join()
    assert done == ["went on"]


def test_ctrl_c_reaches_the_main_thread_and_not_a_part(simulated: SimulatedClock) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    seen: list[BaseException] = []

    def part() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            clock.sleep(1)
        except BaseException as error:
            seen.append(error)
            raise

    try:
        thread = clock.Thread(part)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert seen == []


def test_a_thread_that_never_waits_does_not_keep_a_signal_from_the_main_one(
    alarm: Callable[[], None], simulated: SimulatedClock
) -> None:
    rung = [False]

    def spins() -> None:
        alarm()
        while not rung[0]:
            pass

    thread = clock.Thread(spins)
    thread.start()
    with pytest.raises(Alarm):
        thread.join()
    rung[0] = True
    thread.join()


def test_a_signal_within_the_clock_itself_waits_for_its_end(
    alarm: Callable[[], None], simulated: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that hands over has its list of threads half done."""
    wake = SimulatedClock.wake

    def rings(self: SimulatedClock, thread: Any) -> bool:
        alarm()
        return wake(self, thread)

    event = clock.Event()
    woken: list[bool] = []
    waiter = clock.Thread(lambda: woken.append(event.wait()))
    waiter.start()

    def sets() -> None:
        monkeypatch.setattr(SimulatedClock, "wake", rings)
        event.set()
        monkeypatch.undo()
        clock.sleep(1)

    clock.Thread(sets).start()
    with pytest.raises(Alarm):
        clock.Event().wait()
    waiter.join()
    assert woken == [True]


def test_a_handler_that_the_main_thread_is_interrupted_by_raises_there(
    alarm: Callable[[], None], simulated: SimulatedClock
) -> None:
    with pytest.raises(Alarm):
        alarm()
    clock.sleep(1)
    assert simulated.elapsed >= 1
