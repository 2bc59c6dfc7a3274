"""The one clock: time, sleeping, and what threads are made of and wait with.

Every other module takes them from here. In production the clock is the system's, and each of these calls costs one
function call more than the standard library's. Under `use(SimulatedClock())` the same calls run on simulated time.

What is made under one clock works under that clock alone: anything else raises MixedClocks, because a thread of real
time and a thread of simulated time would wait for each other for ever. Where nothing has imported the simulated clock
there is nothing to mix, and what is made is the standard library's own.
"""

from __future__ import annotations

import queue
import threading
import time as _time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import Empty, Full
from types import TracebackType
from typing import Any, Protocol, TypeVar

from .errors import MixedClocks

__all__ = ["Empty", "Full"]

T = TypeVar("T")


# What the factories make, for annotations.


class SomeLock(Protocol):
    """`threading.Lock` and `threading.RLock`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class SomeCondition(Protocol):
    """`threading.Condition`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T: ...
    def notify(self, n: int = 1) -> None: ...
    def notify_all(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class SomeEvent(Protocol):
    """`threading.Event`."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class SomeSemaphore(Protocol):
    """`threading.Semaphore`."""

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool: ...
    def release(self, n: int = 1) -> None: ...


class SomeThread(Protocol):
    """`threading.Thread`."""

    name: str

    @property
    def ident(self) -> int | None: ...
    def start(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class SomeTimer(SomeThread, Protocol):
    """`threading.Timer`, as a daemon."""

    def cancel(self) -> None: ...


class SomeQueue(Protocol[T]):
    """`queue.Queue` and `queue.SimpleQueue`."""

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None: ...
    def put_nowait(self, item: T) -> None: ...
    def get(self, block: bool = True, timeout: float | None = None) -> T: ...
    def get_nowait(self) -> T: ...
    def qsize(self) -> int: ...
    def empty(self) -> bool: ...
    def full(self) -> bool: ...


class Clock(ABC):
    """Where time and threads come from. `is_simulated`: time passes only while every thread waits."""

    is_simulated: bool
    runs_programs = True
    """Whether child programs may run. They have real time of their own."""

    @abstractmethod
    def monotonic(self) -> float: ...
    @abstractmethod
    def time(self) -> float: ...
    @abstractmethod
    def sleep(self, seconds: float) -> None: ...
    @abstractmethod
    def lock(self) -> SomeLock: ...
    @abstractmethod
    def rlock(self) -> SomeLock: ...
    @abstractmethod
    def condition(self) -> SomeCondition: ...
    @abstractmethod
    def event(self) -> SomeEvent: ...
    @abstractmethod
    def semaphore(self, value: int) -> SomeSemaphore: ...
    @abstractmethod
    def thread(
        self, target: Callable[..., object], args: Iterable[Any], kwargs: Mapping[str, Any], name: str | None
    ) -> SomeThread: ...
    @abstractmethod
    def timer(
        self, seconds: float, function: Callable[..., object], args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> SomeTimer: ...
    @abstractmethod
    def queue(self, most: int) -> SomeQueue[Any]: ...
    @abstractmethod
    def local(self) -> Any: ...
    @abstractmethod
    def current_thread(self) -> SomeThread: ...
    @abstractmethod
    def main_thread(self) -> SomeThread: ...
    @abstractmethod
    def active_count(self) -> int: ...
    @abstractmethod
    def begin(self) -> None:
        """`use` begins."""

    @abstractmethod
    def end(self) -> None:
        """`use` ends."""


# The system's.


def _check() -> None:
    if _current is not _SYSTEM:
        raise MixedClocks("what was made in real time is used under a simulated clock")


class _SystemLock:
    __slots__ = ("_lock", "locked", "release")
    release: Callable[[], None]
    locked: Callable[[], bool]

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.release = lock.release
        if hasattr(lock, "locked"):  # An RLock has it from Python 3.14 on.
            self.locked = lock.locked

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        _check()
        return bool(self._lock.acquire(blocking, timeout))

    def __enter__(self) -> bool:
        _check()
        return bool(self._lock.acquire())

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.release()


class _SystemCondition(threading.Condition):
    def __init__(self) -> None:
        super().__init__()
        # The lock's own, which would hide the one below.
        del vars(self)["acquire"]

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        _check()
        return bool(self._lock.acquire(blocking, timeout))  # type: ignore[attr-defined]

    def __enter__(self) -> bool:
        _check()
        return super().__enter__()

    def wait(self, timeout: float | None = None) -> bool:
        _check()
        return super().wait(timeout)


class _SystemEvent(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        _check()
        return super().wait(timeout)


class _SystemSemaphore(threading.Semaphore):
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        _check()
        return super().acquire(blocking, timeout)


class _SystemThread(threading.Thread):
    def start(self) -> None:
        _check()
        super().start()

    def join(self, timeout: float | None = None) -> None:
        if _current is not _SYSTEM and self.is_alive():
            _check()
        super().join(timeout)


class _SystemTimer(_SystemThread, threading.Timer):
    """Checked as a thread is."""


class _SystemQueue(queue.Queue[Any]):
    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        _check()
        super().put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        _check()
        return super().get(block, timeout)


class _UnboundedQueue(queue.SimpleQueue[Any]):
    def full(self) -> bool:
        return False


class _SystemUnboundedQueue(_UnboundedQueue):
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        _check()
        return super().get(block, timeout)


class SystemClock(Clock):
    """Real time and the operating system's threads. `checks`: what it makes looks at the clock in use."""

    is_simulated = False
    checks = False
    monotonic = staticmethod(_time.monotonic)
    time = staticmethod(_time.time)
    current_thread = staticmethod(threading.current_thread)
    main_thread = staticmethod(threading.main_thread)
    active_count = staticmethod(threading.active_count)

    def sleep(self, seconds: float) -> None:
        _time.sleep(seconds)

    def lock(self) -> SomeLock:
        return _SystemLock(threading.Lock()) if self.checks else threading.Lock()

    def rlock(self) -> SomeLock:
        return _SystemLock(threading.RLock()) if self.checks else threading.RLock()

    def condition(self) -> SomeCondition:
        return _SystemCondition() if self.checks else threading.Condition()

    def event(self) -> SomeEvent:
        return _SystemEvent() if self.checks else threading.Event()

    def semaphore(self, value: int) -> SomeSemaphore:
        return _SystemSemaphore(value) if self.checks else threading.Semaphore(value)

    def thread(
        self, target: Callable[..., object], args: Iterable[Any], kwargs: Mapping[str, Any], name: str | None
    ) -> SomeThread:
        return _SystemThread(target=target, args=args, kwargs=kwargs, name=name, daemon=True)

    def timer(
        self, seconds: float, function: Callable[..., object], args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> SomeTimer:
        timer = _SystemTimer(seconds, function, args, dict(kwargs))
        timer.daemon = True
        return timer

    def queue(self, most: int) -> SomeQueue[Any]:
        if most:
            return _SystemQueue(most) if self.checks else queue.Queue(most)
        return _SystemUnboundedQueue() if self.checks else _UnboundedQueue()

    def local(self) -> Any:
        return threading.local()

    def begin(self) -> None:
        """Real time has begun long ago."""

    def end(self) -> None:
        """Real time goes on."""


_SYSTEM = SystemClock()
_current: Clock = _SYSTEM


def current() -> Clock:
    """The clock that is in use."""
    return _current


def check_mixing() -> None:
    """From now on what is made in real time raises MixedClocks under another clock. The simulated one calls it."""
    _SYSTEM.checks = True


@contextmanager
def use(clock: Clock) -> Iterator[Clock]:
    """Puts a clock in the place of the one in use, for the whole process, until the block ends.

    A simulated clock serves one block. The threads that are left at its end are ended.
    """
    clock.begin()
    with within(clock):
        try:
            yield clock
        finally:
            clock.end()


@contextmanager
def within(clock: Clock) -> Iterator[None]:
    """Goes on with a clock that has begun; the clock that was in use stands still until the block ends.

    For whoever calls `begin` and `end`, such as a run of tests of which only some are simulated.
    """
    global _current
    before, _current = _current, clock
    try:
        yield
    finally:
        _current = before


def real(what: str) -> None:
    """Called before something is opened that only real time moves. Raises MixedClocks under a simulated clock.

    Args:
        what: names it, as "the serial port /dev/ttyUSB0".
    """
    if _current.is_simulated:
        raise MixedClocks(f"{what} can't be used under a simulated clock")


def program(what: str) -> None:
    """Called before a child program is started. Raises MixedClocks under a simulated clock that runs no programs.

    Args:
        what: names it, as "the program apt-get".
    """
    if not _current.runs_programs:
        raise MixedClocks(f"{what} can't be used under a simulated clock")


# What the other modules call.


def monotonic() -> float:
    """Seconds, as `time.monotonic`."""
    return _current.monotonic()


def time() -> float:
    """Seconds since 1970, as `time.time`."""
    return _current.time()


def now() -> datetime:
    """The time of day, in UTC."""
    return datetime.fromtimestamp(_current.time(), UTC)


def strftime(form: str) -> str:
    """This moment in the host's time zone, as `time.strftime`."""
    return _time.strftime(form, _time.localtime(_current.time()))


def sleep(seconds: float) -> None:
    """As `time.sleep`."""
    _current.sleep(seconds)


def Lock() -> SomeLock:
    return _current.lock()


def RLock() -> SomeLock:
    return _current.rlock()


def Condition() -> SomeCondition:
    return _current.condition()


def Event() -> SomeEvent:
    return _current.event()


def Semaphore(value: int = 1) -> SomeSemaphore:
    return _current.semaphore(value)


def Thread(
    target: Callable[..., object],
    *,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> SomeThread:
    """A daemon thread."""
    return _current.thread(target, args, kwargs or {}, name)


def Timer(
    seconds: float, function: Callable[..., object], args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> SomeTimer:
    """A timer on a daemon thread."""
    return _current.timer(seconds, function, args, kwargs or {})


def Queue(most: int = 0) -> SomeQueue[Any]:
    """A queue; `most`: how many items it takes, 0 for no limit."""
    return _current.queue(most)


def local() -> Any:
    """As `threading.local`."""
    return _current.local()


def current_thread() -> SomeThread:
    return _current.current_thread()


def main_thread() -> SomeThread:
    return _current.main_thread()


def active_count() -> int:
    """How many threads have not ended, the main one included."""
    return _current.active_count()
