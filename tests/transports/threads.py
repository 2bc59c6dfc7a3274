"""Calls that wait, made in a thread of their own, so that a test can look at them and outlives one that never returns."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from proxyflash.transports import clock


class ClockedFuture(Future[Any]):
    """A future that is waited for on the project's clock."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = clock.Event()
        self.add_done_callback(lambda _: self._ended.set())

    def result(self, timeout: float | None = None) -> Any:
        self._ended.wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._ended.wait(timeout)
        return super().exception(0)


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """What becomes of `work`, which runs beside the test, in a daemon thread."""
    future = ClockedFuture()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    clock.Thread(run).start()
    return future
