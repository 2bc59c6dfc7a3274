"""`SimulatedClock`: a whole bench of emulated parts as one deterministic program.

Each simulated thread is a greenlet of one real thread, so exactly one of them runs, and the next one is chosen here and
nowhere else. When every thread waits, the clock jumps to the earliest deadline. When no thread has a deadline either,
the main thread gets `Deadlock`.

Without a seed the threads run in the order in which they became runnable, each until it waits. With a seed, a random
generator chooses the next thread, and each lock, notification and queue is a place where another thread may go on.

with use(SimulatedClock()) as clock:
    ...                 # benches are opened, used and closed in here
    clock.elapsed       # simulated seconds
"""

from __future__ import annotations

import itertools
import random
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from math import inf
from queue import Empty, Full
from threading import TIMEOUT_MAX, get_ident
from types import FrameType, TracebackType
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

from greenlet import GreenletExit, getcurrent, greenlet

from . import clock as clocks
from .clock import Clock
from .errors import MixedClocks, ProxyflashError, UnknownThread

T = TypeVar("T")

clocks.check_mixing()

START = 1000.0
"""What `monotonic` starts from, in seconds."""
EPOCH = 1_800_000_000.0
"""What `time` starts from: 2027-01-15 08:00:00 UTC."""
CREEP = 1e-6
"""Seconds that pass with each look at the clock, so that a loop that only looks ends."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP)
"""Their handlers may raise, which the main thread must get, whichever simulated thread runs."""
SLICE = 100 * CREEP
"""How long a thread may run that only looks at the clock, while others could run."""
NEGATIVE = "'timeout' must be a non-negative number"
"""What a queue answers."""
MOST_EXITS = 100
"""How often a thread may catch what ends it."""
MOST_CALLS = 10_000
"""Calls of the clock that a thread may do at the end of the simulation before it is ended again."""
FEW_TIMERS = 1000
"""Timers beyond which those are thrown away that nobody waits for any more."""


class Deadlock(BaseException):
    """Every simulated thread waits, none of them with a time limit. No Exception, so that no retry catches it."""


class LimitPassed(Deadlock):
    """The simulation went on beyond its limit of simulated time: a timer that ticks for ever hides a deadlock."""


class Unended(Deadlock):
    """A simulated thread can't be ended: it catches whatever ends it, and goes on."""


class SimulatedThread:
    """A thread of a simulated clock; the interface of `threading.Thread`."""

    def __init__(
        self,
        clock: SimulatedClock,
        target: Callable[..., object] | None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.ident: int | None = None
        self.number = next(clock.numbers)
        self.name = name or f"simulated-{self.number}"
        self.daemon = True
        self.locals: dict[object, dict[str, Any]] = {}
        self.greenlet: greenlet | None = None
        self.turn = 0
        """Counts its waits, so that a timer of an earlier wait is known as such."""
        self.waits_for: object = None
        """What it waits for; None while it could run."""
        self.timed_out = False
        self.error: BaseException | None = None
        """What it raises when it goes on."""
        self.lost: dict[object, int] = {}
        """Locks that it was to have back after a wait and has not, and how often it will release each all the same."""
        self.is_killed = False
        """Its process has ended: it takes no lock any more, and waits for nothing."""
        self.exits = 0
        """How often it was ended."""
        self.last_calls = 0
        """Its calls of the clock since the simulation began to end."""
        self._clock = clock
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._alive = False
        self._joining: deque[SimulatedThread] = deque()

    def __repr__(self) -> str:
        return f"<SimulatedThread {self.name}>"

    def start(self) -> None:
        self._clock.me()
        if self.ident is not None:
            raise RuntimeError("threads can only be started once")
        self.ident = self.number
        self._alive = True
        self.greenlet = greenlet(self._run, self._clock.main.greenlet)
        self._clock.add(self)

    def is_alive(self) -> bool:
        self._clock.poll()
        return self._alive

    def join(self, timeout: float | None = None) -> None:
        if self.ident is None:
            raise RuntimeError("cannot join thread before it is started")
        if timeout is not None:
            timeout = max(timeout, 0)
        if not self._alive:
            return
        if timeout is not None:
            _check_timeout(timeout)
        clock = self._clock
        me = clock.me()
        if me is self:
            raise RuntimeError("cannot join current thread")
        self._joining.append(me)
        try:
            clock.wait(timeout, self)
        finally:
            if me in self._joining:
                self._joining.remove(me)

    def run(self) -> None:
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def _run(self, *_: object) -> object:
        try:
            self._clock.resumed(self)
            self.run()
        except GreenletExit:
            pass
        except BaseException as error:
            threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, self)))
        finally:
            self._alive = False
            self._target = None
            self._clock.wake_all(self._joining)
        # A greenlet that ends goes on in its parent.
        self._clock.hand_on()
        return None


class SimulatedTimer(SimulatedThread):
    """A timer of a simulated clock; the interface of `threading.Timer`."""

    def __init__(
        self,
        clock: SimulatedClock,
        seconds: float,
        function: Callable[..., object],
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__(clock, function, args, kwargs, f"timer of {seconds:g} s")
        self._seconds = seconds
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        if self.waits_for is self:
            self._clock.wake(self)

    def run(self) -> None:
        if not self._cancelled:
            self._clock.wait(self._seconds, self)
        if not self._cancelled:
            super().run()


class SimulatedClock(Clock):
    """Time and threads of a simulation. One clock serves one `clock.use` block.

    `jumps`: how often the clock moved to a deadline; `switches`: how often another thread went on.

    Args:
        seed: chooses among the threads that could run; None: in the order in which they became runnable.
        epoch: the wall clock's time at the beginning, in seconds since 1970.
        limit: simulated seconds. Beyond them the main thread gets LimitPassed, and again after as many seconds more:
            what the main thread then closes may take its time.
        runs_programs: whether child programs may run, in real time, while the simulated time stands still. For programs
            that use nothing of the simulated bench.
        preemption: how likely another thread may go on at a lock, a notification or a queue, 0.0 to 1.0. Few of these
            switches find what many hide, and cost less.
    """

    is_simulated = True

    def __init__(
        self,
        seed: int | None = None,
        *,
        epoch: float = EPOCH,
        limit: float = inf,
        preemption: float = 1.0,
        runs_programs: bool = False,
    ) -> None:
        self.seed = seed
        self.limit = limit
        self.runs_programs = runs_programs
        self.jumps = 0
        self.switches = 0
        self.numbers = itertools.count(1)
        self.ending = False
        self.locks: WeakSet[SimulatedLock] = WeakSet()
        self.left: list[SimulatedThread] = []
        """Threads that had not ended when the `use` block did, and were ended by it."""
        self.left_locked: list[SimulatedThread] = []
        """Threads that held a lock when the block ended; a thread that holds two is in it twice."""
        self.refused: list[ProxyflashError] = []
        """What threads got that this clock doesn't run: they may tell nobody."""
        self.main = SimulatedThread(self, None, name="main")
        self.is_seeded = seed is not None
        self.preemption = preemption
        self._random = random.Random(seed)
        self._now = START
        self._wall = epoch - START
        self._real_thread = 0
        self._system_thread = 0
        """The real thread that may call; 0 while the simulation ends, where each call is counted."""
        self.running = self.main
        """The thread that runs."""
        self._interrupted = False
        self.is_handling = False
        """Whether a signal's handler runs, in a thread or during scheduling: nobody else goes on meanwhile."""
        self._threads: list[SimulatedThread] = []
        self._ready: list[SimulatedThread] = []
        self._timers: list[tuple[float, int, SimulatedThread, int]] = []
        self._most_timers = FEW_TIMERS
        self._until = START + limit
        self._slice = START + SLICE
        """When others go on though the running thread doesn't wait."""
        self._nested = False
        self._gets_signals = False
        self._handlers: list[Any] = []
        self._sequence = itertools.count()

    # The interface.

    @property
    def elapsed(self) -> float:
        """Simulated seconds since the clock was made."""
        return self._now - START

    def threads(self) -> list[SimulatedThread]:
        """The threads that have not ended, but for the main one."""
        self._threads = [thread for thread in self._threads if thread._alive]
        return list(self._threads)

    def holders(self) -> list[SimulatedThread]:
        """The threads that hold a lock, or more than one, each as often as it does."""
        return sorted((lock.owner for lock in self.locks if lock.owner is not None), key=lambda thread: thread.number)

    def set_time(self, time: float) -> None:
        """Sets the wall clock, in seconds since 1970; `monotonic` goes on as before."""
        self._wall = time - self._now

    def allow(self, seconds: float) -> None:
        """Sets a new limit, from this moment."""
        self.limit = seconds
        self._until = self._now + seconds

    def monotonic(self) -> float:
        if get_ident() != self._system_thread:
            self._refuse()
        now = self._now = self._now + CREEP
        if now >= self._slice or self._interrupted or (self._timers and self._timers[0][0] <= now):
            self._let_others()
        return self._now

    def poll(self) -> None:
        """Called at each look at what others change: as `monotonic`, so that a loop that only looks ends.

        Whoever looks from outside of the simulation changes nothing in it.
        """
        if get_ident() == self._real_thread and clocks._current is self:
            self.monotonic()

    def read(self) -> float:
        """As `monotonic`, but neither does time creep nor do others go on."""
        return self._now

    def time(self) -> float:
        return self.monotonic() + self._wall

    def sleep(self, seconds: float) -> None:
        self.me()
        if not seconds >= 0:
            raise ValueError(f"the length of a sleep can't be {seconds:g}")
        self.wait(seconds, "time to pass")

    def lock(self) -> SimulatedLock:
        return SimulatedLock(self)

    def rlock(self) -> SimulatedRLock:
        return SimulatedRLock(self)

    def condition(self) -> SimulatedCondition:
        return SimulatedCondition(self)

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self)

    def semaphore(self, value: int) -> SimulatedSemaphore:
        return SimulatedSemaphore(self, value)

    def thread(
        self, target: Callable[..., object], args: Iterable[Any], kwargs: Mapping[str, Any], name: str | None
    ) -> SimulatedThread:
        return SimulatedThread(self, target, args, kwargs, name)

    def timer(
        self, seconds: float, function: Callable[..., object], args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> SimulatedTimer:
        return SimulatedTimer(self, seconds, function, args, kwargs)

    def queue(self, most: int) -> SimulatedQueue:
        return SimulatedQueue(self, most)

    def local(self) -> SimulatedLocal:
        return SimulatedLocal(self)

    def current_thread(self) -> SimulatedThread:
        return self.me()

    def main_thread(self) -> SimulatedThread:
        return self.main

    def active_count(self) -> int:
        self.poll()
        return len(self.threads()) + 1

    def begin(self) -> None:
        if self._real_thread:
            raise MixedClocks("a simulated clock serves one block", remedy="Make another one.")
        self._real_thread = self._system_thread = get_ident()
        self._gets_signals = self._real_thread == threading.main_thread().ident
        self._nested = clocks._current.is_simulated
        self.main.greenlet = getcurrent()
        self.main.ident = 0
        self.main._alive = True
        self._guard_signals()

    def end(self) -> None:
        """Ends the threads that are left, each by an exception where it waits.

        Raises Unended when threads went on all the same, and what a signal's handler raised meanwhile. Neither keeps
        the other threads from being ended.
        """
        self.left = self.threads()
        self.left_locked = self.holders()
        self.ending = True
        self._interrupted = False
        self._system_thread = 0
        for thread in self.left:
            if thread.greenlet is not None and not thread.greenlet.dead:
                self.running = thread
                assert self.main.greenlet is not None
                thread.greenlet.parent = self.main.greenlet
                thread.greenlet.throw(GreenletExit)
            thread._alive = False
        self.running = self.main
        self.main._alive = False
        self._system_thread = self._real_thread
        self._threads.clear()
        self._ready.clear()
        self._timers.clear()
        if not self._nested:
            _unguard_signals()
        if self.main.error is not None:
            raise self.main.error
        unended = [thread for thread in self.left if thread.greenlet is not None and not thread.greenlet.dead]
        if unended:
            places = ", ".join(f"{thread.name} at {_place(thread)}" for thread in unended)
            raise Unended(f"threads that catch whatever ends them go on at the end of the simulation: {places}")

    def kill(self, threads: Iterable[SimulatedThread]) -> None:
        """Ends threads as the end of their process does: none of them takes a lock, waits or starts a thread any more.

        Each is ended by an exception, the running one at once and the others when their turn comes. What a thread does
        on its way out without the clock's help is done: whoever simulates a process has to keep that from counting.
        """
        for thread in threads:
            if thread._alive and not thread.is_killed:
                thread.is_killed = True
                if thread is not self.running:
                    thread.error = GreenletExit()
                    self.wake(thread)
        if self.running.is_killed:
            self.exit()

    def raise_in(self, thread: SimulatedThread, error: BaseException) -> None:
        """Has a thread raise an error where it waits, as a signal's handler does in a main thread."""
        if thread is self.running:
            raise error
        thread.error = error
        self.wake(thread)

    # What the parts below call.

    def me(self) -> SimulatedThread:
        """The thread that runs. Raises UnknownThread, MixedClocks."""
        if get_ident() != self._system_thread or clocks._current is not self:
            self._refuse()
        return self.running

    def add(self, thread: SimulatedThread) -> None:
        """A thread was started."""
        if self.ending or self.running.is_killed:
            thread._alive = False
            return
        self._threads.append(thread)
        self._ready.append(thread)
        if len(self._threads) > 64:
            self.threads()
        self.preempt()

    def wait(self, seconds: float | None, what: object) -> bool:
        """The running thread waits until it is woken; False: that number of seconds had passed first."""
        me = self.running
        if self.ending or me.is_killed:
            self.exit()
        if seconds is not None:
            if not seconds > 0:
                # Whoever asks again and again without waiting must not hold the time.
                seconds = 0
                self._now += CREEP
            elif seconds > TIMEOUT_MAX:
                raise OverflowError(f"{seconds:g} s are more than a thread can wait")
        me.waits_for = what
        me.timed_out = False
        me.turn += 1
        if seconds is not None:
            heappush(self._timers, (self._now + seconds, next(self._sequence), me, me.turn))
            if len(self._timers) > self._most_timers:
                self._throw_away()
        self._hand_over(me)
        return not me.timed_out

    def wake(self, thread: SimulatedThread) -> bool:
        """Makes a thread that waits runnable; whether it waited."""
        if thread.waits_for is None:
            return False
        thread.waits_for = None
        self._ready.append(thread)
        return True

    def wake_all(self, threads: deque[SimulatedThread]) -> None:
        """Wakes them and takes them out of `threads`; whose time was up at this very moment was woken in time."""
        while threads:
            thread = threads.popleft()
            if not self.wake(thread):
                thread.timed_out = False

    def preempt(self) -> None:
        """A place where, with a seed, another thread may go on."""
        if (
            self.is_seeded
            and self._ready
            and self._random.random() < self.preemption
            and not self.ending
            and not self.running.is_killed
        ):
            self._let_others()

    def exit(self) -> NoReturn:
        """Ends the running thread by an exception; for good when it has caught many of them."""
        me = self.running
        me.exits += 1
        if me.exits > MOST_EXITS:
            self._abandon(me)
        raise GreenletExit

    def hand_on(self) -> None:
        """The running thread has ended: its greenlet goes on in its parent."""
        following = self.main if self.ending else self._next()
        self.switches += 1
        self.running = following
        assert following.greenlet is not None
        getcurrent().parent = following.greenlet

    def resumed(self, me: SimulatedThread) -> None:
        """The thread goes on. Raises what is to be raised in it."""
        error = me.error
        if error is not None:
            me.error = None
            self._interrupted = False
            raise error

    # Scheduling.

    def _hand_over(self, me: SimulatedThread) -> None:
        if me is self.main:
            self._guard_signals()
        following = self._next()
        if following is not me:
            self.switches += 1
            self.running = following
            assert following.greenlet is not None
            following.greenlet.switch()
        if me.error is not None:
            self.resumed(me)

    def _let_others(self) -> None:
        """The running thread could go on, and so may others."""
        if self.ending or self.is_handling:
            return
        me = self.running
        if me.is_killed:
            self.exit()
        self._fire(jump=False)
        self._ready.append(me)
        self._hand_over(me)

    def _abandon(self, me: SimulatedThread) -> None:
        """The running thread never goes on."""
        me._alive = False
        ABANDONED.append(me)
        self.wake_all(me._joining)
        following = self.main
        if not self.ending:
            following = self._stopped(
                Unended, f"the thread {me.name} was killed, catches whatever ends it, and goes on"
            )
        self.running = following
        assert following.greenlet is not None
        following.greenlet.switch()

    def _fire(self, *, jump: bool) -> None:
        """Makes those runnable whose time has come. `jump`: if nobody is runnable, to the next time that there is."""
        timers = self._timers
        ready = self._ready
        while timers and (timers[0][0] <= self._now or (jump and not ready)):
            when, _, thread, turn = heappop(timers)
            if thread.waits_for is None or thread.turn != turn:
                continue
            if when > self._now:
                self._now = when
                self.jumps += 1
            thread.timed_out = True
            thread.waits_for = None
            ready.append(thread)

    def _next(self) -> SimulatedThread:
        """The thread that goes on."""
        ready = self._ready
        if self._interrupted:
            if self.main in ready:
                ready.remove(self.main)
            self.main.waits_for = None
            return self.main
        self._fire(jump=True)
        self._slice = self._now + SLICE
        if not ready:
            return self._stopped(Deadlock, "every thread waits, and none has a time limit")
        if self._now > self._until:
            self._until = self._now + self.limit
            return self._stopped(LimitPassed, f"the simulation has a limit of {self.limit:g} s, which has passed")
        if self.is_seeded and len(ready) > 1:
            return ready.pop(self._random.randrange(len(ready)))
        return ready.pop(0)

    def _stopped(self, kind: type[Deadlock], why: str) -> SimulatedThread:
        """The main thread, which goes on with an error that lists what each thread waits for."""
        main = self.main
        main.error = kind(self._told(why))
        main.waits_for = None
        if main in self._ready:
            self._ready.remove(main)
        return main

    def _throw_away(self) -> None:
        self._timers = [item for item in self._timers if item[2].waits_for is not None and item[2].turn == item[3]]
        heapify(self._timers)
        self._most_timers = max(FEW_TIMERS, 2 * len(self._timers))

    # Errors.

    def _refuse(self) -> None:
        if self.ending and clocks._current is self and get_ident() == self._real_thread:
            self.running.last_calls += 1
            if self.running.last_calls > MOST_CALLS:
                self.exit()
            return
        error: ProxyflashError = UnknownThread(
            f"the thread {threading.current_thread().name!r} uses a simulated clock that doesn't run it"
        )
        if get_ident() != self._real_thread:
            self.remember(error)
        if clocks._current is not self:
            error = MixedClocks("what was made under a simulated clock is used outside of its block")
        raise error

    def remember(self, error: ProxyflashError) -> None:
        """A thread got an error that this clock doesn't run. May be called in any thread."""
        self.refused.append(error)

    def _told(self, why: str) -> str:
        lines = [f"{why} (after {self.elapsed:.6f} simulated seconds):"]
        for thread in [self.main, *self.threads()]:
            lines.append(f"  {thread.name} waits for {_named(thread.waits_for)} at {_place(thread)}")
        return "\n".join(lines)

    # Signals.

    def _guard_signals(self) -> None:
        """Has handlers that raise do so in the main thread."""
        # Called at each turn: no loop of Python's, in whose jumps back, which have no line, a handler might raise.
        if self._gets_signals and list(map(_handler_of, SIGNALS)) != self._handlers:
            self._handlers = _guarded()

    def interrupt(self, error: BaseException, frame: FrameType | None) -> None:
        """What a signal's handler raised while another thread ran is raised in the main one, as soon as can be."""
        self.main.error = error
        self._interrupted = True
        if self.ending:
            if getcurrent() is not self.main.greenlet:
                self._abandon(self.running)
        elif not _is_amid_scheduling(frame):
            self._let_others()


ABANDONED: list[SimulatedThread] = []
"""Threads that could not be ended. Without a reference to them the interpreter would try so again, and for ever."""
_handler_of: Callable[[int], Any] = getattr(signal, "_signal", signal).getsignal
"""As `signal.getsignal`, without the enumeration members that it makes: it is asked at each turn of the main thread."""


class _Guarded:
    """A signal's handler, of which the main simulated thread gets what it raises."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        clock = clocks._current
        if not isinstance(clock, SimulatedClock):
            return self.handler(number, frame)
        if clock.running is clock.main and not _is_amid_scheduling(frame):
            return self.handler(number, frame)
        clock.is_handling = True
        try:
            return self.handler(number, frame)
        except BaseException as error:
            clock.is_handling = False
            clock.interrupt(error, frame)
            return None
        finally:
            clock.is_handling = False


def _guarded() -> list[Any]:
    """The handlers, each of which that raises does so in the main thread from now on."""
    for number in SIGNALS:
        handler = _handler_of(number)
        if callable(handler) and not isinstance(handler, _Guarded):
            signal.signal(number, _Guarded(handler))
    return list(map(_handler_of, SIGNALS))


def _unguard_signals() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if isinstance(handler, _Guarded):
            signal.signal(number, handler.handler)


CALLERS = ("run", "_run", "wait_for", "wait_for_as")
"""Functions below that call threads' targets and predicates, and have nothing half done meanwhile."""


def _is_scheduling(frame: FrameType) -> bool:
    """Whether a frame is of the clock itself, and none that only calls what others wrote."""
    return frame.f_code.co_filename == __file__ and frame.f_code.co_name not in CALLERS


def _is_amid_scheduling(frame: FrameType | None) -> bool:
    """Whether an exception raised in this frame would leave the clock's own work half done."""
    return any(_is_scheduling(place) for place in itertools.islice(_callers(frame), 4))


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(thread: SimulatedThread) -> str:
    """File and line where a thread waits."""
    if not thread.greenlet:
        return "its start"
    frame = thread.greenlet.gr_frame or sys._getframe()
    for caller in _callers(frame):
        if caller.f_code.co_filename not in (__file__, clocks.__file__):
            return f"{caller.f_code.co_filename}:{caller.f_lineno}"
    return "its start"


def _named(what: object) -> str:
    if isinstance(what, SimulatedThread):
        return f"the end of the thread {what.name}"
    return "its turn" if what is None else str(what)


# What the threads wait with.


def _check_timeout(timeout: float, blocking: bool = True) -> None:
    """Raises what the standard library's lock does when it can't be asked to wait so long."""
    threading.Lock().acquire(blocking, timeout)


class SimulatedLock:
    """The interface of `threading.Lock`."""

    __slots__ = ("__weakref__", "_clock", "_is_due", "_owner", "_waiters")

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._owner: SimulatedThread | None = None
        self._waiters: deque[SimulatedThread] = deque()
        self._is_due = False
        """A thread that was woken to take it came too late: at the next release it goes on at once."""
        clock.locks.add(self)

    @property
    def owner(self) -> SimulatedThread | None:
        """The thread that holds it."""
        return self._owner

    def __str__(self) -> str:
        return "a lock" if self._owner is None else f"a lock that {self._owner.name} holds"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        clock = self._clock
        me = clock.me()
        if timeout != -1:
            _check_timeout(timeout, blocking)
        if me.is_killed:
            clock.exit()
        if clock.is_seeded:
            clock.preempt()
        if self._owner is not None and not clock.ending and not (blocking and self._waited(me, timeout)):
            clock.poll()
            return False
        self._owner = me
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def release(self) -> None:
        if self._owner is None and not self._clock.ending:
            if self._clock.running.is_killed:
                return
            raise RuntimeError("release unlocked lock")
        self._released()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.release()

    def locked(self) -> bool:
        self._clock.poll()
        return self._owner is not None

    def _released(self) -> None:
        clock = self._clock
        clock.me()
        self._owner = None
        while self._waiters:
            if clock.wake(self._waiters.popleft()):
                break
        if self._is_due and not clock.running.is_killed:
            self._is_due = False
            clock._let_others()
        elif clock.is_seeded:
            clock.preempt()

    def _waited(self, me: SimulatedThread, timeout: float) -> bool:
        """Whether the lock became free in time."""
        clock = self._clock
        until = clock.read() + timeout if timeout >= 0 else None
        while self._owner is not None:
            left = None if until is None else until - clock.read()
            if left is not None and left <= 0:
                return False
            self._waiters.append(me)
            try:
                clock.wait(left, self)
            except BaseException:
                if self._owner is None and me not in self._waiters:
                    # It was woken to take the lock, and doesn't.
                    self._released()
                raise
            finally:
                if me in self._waiters:
                    self._waiters.remove(me)
            self._is_due = self._owner is not None
        return True


class SimulatedRLock(SimulatedLock):
    """The interface of `threading.RLock`."""

    __slots__ = ("_depth",)

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__(clock)
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._owner is not None and self._owner is self._clock.me():
            if timeout != -1:
                _check_timeout(timeout, blocking)
            self._depth += 1
            return True
        if super().acquire(blocking, timeout):
            self._depth = 1
            return True
        return False

    def __enter__(self) -> bool:
        # As `acquire`; most of what a simulation does is to enter and to leave conditions.
        if self._owner is None and not self._clock.is_seeded:
            me = self._clock.me()
            if not me.is_killed:
                self._owner = me
                self._depth = 1
                return True
        return self.acquire()

    def release(self) -> None:
        if self._owner is None or self._owner is not self._clock.running:
            if self._clock.ending or self._clock.running.is_killed or self._is_lost():
                return
            raise RuntimeError("cannot release un-acquired lock")
        self._depth -= 1
        if self._depth:
            return
        if self._waiters or self._clock.is_seeded:
            self._released()
        else:
            self._owner = None

    def _is_lost(self) -> bool:
        """Whether the running thread was to have it back after a wait, and an error was raised instead."""
        lost = self._clock.running.lost
        left = lost.pop(self, 0)
        if left > 1:
            lost[self] = left - 1
        return left > 0

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        # As `release`.
        clock = self._clock
        if self._depth == 1 and self._owner is clock.running and not self._waiters and not clock.is_seeded:
            self._depth = 0
            self._owner = None
        else:
            self.release()


class SimulatedCondition(SimulatedRLock):
    """The interface of `threading.Condition`, with its lock."""

    __slots__ = ("_sleepers",)

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__(clock)
        self._sleepers: deque[SimulatedThread] = deque()

    def wait(self, timeout: float | None = None) -> bool:
        return self.wait_as("a condition", timeout)

    def wait_as(self, what: object, timeout: float | None) -> bool:
        """As `wait`; `what` is waited for."""
        clock = self._clock
        me = clock.me()
        if self._owner is not me:
            self._not_held()
        sleepers = self._sleepers
        sleepers.append(me)
        depth, self._depth = self._depth, 1
        try:
            self.release()
            # Others may have gone on by now and have notified.
            return clock.wait(timeout, what) if me in sleepers else True
        finally:
            if me in sleepers:
                sleepers.remove(me)
            if self._owner is not me:
                try:
                    super().acquire()
                except BaseException:
                    # Who leaves a `with` block releases what it has not: that must not hide why.
                    me.lost[self] = depth
                    raise
            self._depth = depth

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        return self.wait_for_as("a condition", predicate, timeout)

    def wait_for_as(self, what: object, predicate: Callable[[], T], timeout: float | None) -> T:
        """As `wait_for`; `what` is waited for."""
        clock = self._clock
        until = None if timeout is None else clock.read() + timeout
        result = predicate()
        while not result:
            left = None if until is None else until - clock.read()
            if left is not None and left <= 0:
                clock.poll()
                break
            self.wait_as(what, left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        clock = self._clock
        if self._owner is not clock.me():
            self._not_held()
        sleepers = self._sleepers
        while n > 0 and sleepers:
            thread = sleepers.popleft()
            if not clock.wake(thread):
                thread.timed_out = False  # Its time was up at this very moment, and it has not gone on yet.
            n -= 1
        if clock.is_seeded:
            clock.preempt()

    def notify_all(self) -> None:
        self.notify(len(self._sleepers))

    def _not_held(self) -> None:
        if not self._clock.ending:
            raise RuntimeError("cannot wait on or notify an un-acquired condition")


class SimulatedEvent:
    """The interface of `threading.Event`."""

    __slots__ = ("_clock", "_set", "_waiters")

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._set = False
        self._waiters: deque[SimulatedThread] = deque()

    def __str__(self) -> str:
        return "an event"

    def is_set(self) -> bool:
        self._clock.poll()
        return self._set

    def set(self) -> None:
        clock = self._clock
        clock.me()
        self._set = True
        clock.wake_all(self._waiters)
        if clock.is_seeded:
            clock.preempt()

    def clear(self) -> None:
        self._clock.me()
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        clock = self._clock
        me = clock.me()
        if not self._set:
            self._waiters.append(me)
            try:
                clock.wait(timeout, self)
            finally:
                if me in self._waiters:
                    self._waiters.remove(me)
            # Set and cleared again before this thread went on is set in time, as with a real event.
            return self._set or not me.timed_out
        return True


class SimulatedSemaphore:
    """The interface of `threading.Semaphore`."""

    __slots__ = ("_changed", "_value")

    def __init__(self, clock: SimulatedClock, value: int) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._changed = SimulatedCondition(clock)
        self._value = value

    def __str__(self) -> str:
        return "a semaphore"

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        with self._changed:
            if not self._changed.wait_for_as(self, lambda: self._value > 0, timeout if blocking else 0):
                return False
            self._value -= 1
            return True

    def release(self, n: int = 1) -> None:
        if n < 1:
            raise ValueError("n must be one or more")
        with self._changed:
            self._value += n
            self._changed.notify(n)


class SimulatedQueue:
    """The interface of `queue.SimpleQueue`, and of `queue.Queue` where `most`, how many items it takes, is not 0."""

    __slots__ = ("_changed", "_clock", "_items", "_most")

    def __init__(self, clock: SimulatedClock, most: int) -> None:
        self._clock = clock
        self._changed = SimulatedCondition(clock)
        self._items: deque[Any] = deque()
        self._most = most

    def __str__(self) -> str:
        return "a queue"

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self._most > 0 and block and timeout is not None and timeout < 0:
            raise ValueError(NEGATIVE)
        with self._changed:
            if self._most > 0 and not self._changed.wait_for_as(
                self, lambda: len(self._items) < self._most, timeout if block else 0
            ):
                raise Full
            self._items.append(item)
            self._changed.notify_all()

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if block and timeout is not None:
            if timeout < 0:
                raise ValueError(NEGATIVE)
            if not self._most and not timeout <= TIMEOUT_MAX:
                _check_timeout(timeout)
        with self._changed:
            if not self._changed.wait_for_as(self, lambda: bool(self._items), timeout if block else 0):
                raise Empty
            item = self._items.popleft()
            if self._most > 0:
                self._changed.notify_all()
            return item

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def qsize(self) -> int:
        self._clock.poll()
        return len(self._items)

    def empty(self) -> bool:
        return not self.qsize()

    def full(self) -> bool:
        return 0 < self._most <= self.qsize()


class SimulatedLocal:
    """The interface of `threading.local`."""

    __slots__ = ("__clock", "__weakref__")
    __clock: SimulatedClock

    def __init__(self, clock: SimulatedClock) -> None:
        object.__setattr__(self, "_SimulatedLocal__clock", clock)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """What the running thread has here."""
        return self.__clock.me().locals.setdefault(self, {})

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__
        if name not in values:
            raise AttributeError(f"no attribute {name!r} in this thread")
        return values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            raise AttributeError("__dict__ is read-only")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self.__dict__:
            raise AttributeError(f"no attribute {name!r} in this thread")
        del self.__dict__[name]
