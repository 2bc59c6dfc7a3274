"""Something that goes on beside a test, on a thread of the clock that the test runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxyflash.transports import clock


class Doing:
    """Begins at once; its outcome is asked for."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = clock.Thread(self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except Exception as error:
            self._error = error

    def result(self, seconds: float = 30) -> Any:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "it does not end"
        if self._error is not None:
            raise self._error
        return self._value
