"""Signals that end a run: they come as Ctrl-C does, so that the bench is made safe; and nothing disturbs that."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

CANCELS = (signal.SIGTERM, signal.SIGHUP)
"""What cancels a job, and what a terminal or an ssh connection sends when it goes. By themselves they end pytest as it
stands."""


class SignalGuard:
    """`worker`: whether this process is one of pytest-xdist's, which SIGINT asks to end."""

    def __init__(self, *, worker: bool) -> None:
        self._worker = worker
        self._before: dict[int, Any] = {}

    def arrange(self) -> None:
        """From now on these signals are as Ctrl-C. A handler of somebody else stays, and so does what nohup ignores."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in CANCELS:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._take(number)
        # A shell's background job ignores SIGINT, and so do its children: the worker would be killed as it stands.
        if self._worker and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            self._take(signal.SIGINT)

    def undo(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _take(self, number: int) -> None:
        self._before[number] = signal.signal(number, signal.default_int_handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave a supply off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # By a handler: what is ignored would be so in the commands that switch supplies too.
    before = {number: signal.signal(number, _nothing) for number in (signal.SIGINT, *CANCELS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Handles the signal: does nothing."""
