"""Calls that wait, made in a thread of their own, so that a test can look at them and outlives a call that never returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock


class Call:
    """What becomes of `work`, which runs beside the test; the interface of `concurrent.futures.Future`."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._ended = clock.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        clock.Thread(self._run).start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def done(self) -> bool:
        return self._ended.is_set()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self._ended.wait(timeout):
            raise TimeoutError("the call has not returned")
        return self._error

    def result(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._result


def in_thread(work: Callable[[], Any]) -> Call:
    """Calls `work` in a thread of its own."""
    return Call(work)


def names() -> list[str]:
    """The names of the threads that have not ended, on the clock that is in use."""
    current = clock.current()
    threads = current.threads() if isinstance(current, SimulatedClock) else threading.enumerate()
    return sorted(thread.name for thread in threads)
