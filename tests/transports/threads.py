"""Calls that wait, made in a thread of their own, so that a test can look at them and outlives one that never returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """What becomes of `work`, which runs beside the test, in a daemon thread."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
