"""`Reporter`: the engine's events of one component while it works on it, and where it stops on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..transports import clock
from . import events as ev
from .errors import Cancelled
from .events import Phase, RunContext


class Reporter:
    """`component`: the name that events and errors carry."""

    def __init__(self, component: str, context: RunContext) -> None:
        self.component = component
        self.context = context
        self.touched = False
        """Whether anything of the part's memory was changed, or may have been."""
        self.current = Phase.CONNECT
        """The phase that it is in. Connecting again and comparing, once the part was changed, is part of that change."""
        self.erased = self.written = 0
        """Bytes that the part has acknowledged, over all attempts."""
        self.headless: set[int] = set()
        """Where the processor may start, and the part has acknowledged an erase, and no write since, over all attempts."""
        self.attempts = 0
        """Of the flash that goes on, those that have begun to change the part."""
        self.verified = False
        """Whether the part holds the whole image, as its verification showed."""
        self._before = 0

    def tell(self, event: ev.Event) -> None:
        self.context.on_event(event)

    def progress(self, phase: Phase, done: int, total: int) -> None:
        """Reports how far it is, in bytes. Raises Cancelled, but not at the last byte written: the next safe point is after
        what ends the write."""
        if phase is Phase.ERASE:
            self.erased = self._before + done
        elif phase is Phase.WRITE:
            self.written = self._before + done
        self.tell(ev.Progress(self.component, phase, done, total))
        if phase is not Phase.WRITE or done < total:
            self.check_cancelled()

    def check_cancelled(self) -> None:
        """Raises Cancelled once that is wanted."""
        if not self.context.cancelled():
            return
        if self.touched:
            raise Cancelled(
                "stopped on request",
                touched=True,
                remedy="Run the same command again: it goes on with what is missing.",
            )
        raise Cancelled("stopped on request before anything was erased", touched=False)

    def enter(self, phase: Phase) -> None:
        if not self.touched or phase in (Phase.ERASE, Phase.WRITE, Phase.VERIFY, Phase.BOOT):
            self.current = phase
            self._before = self.written if phase is Phase.WRITE else self.erased

    @contextmanager
    def phase(self, phase: Phase, total: int = 0) -> Iterator[Callable[[str], None]]:
        """Reports the start and the end of a phase; a text given to what it yields is reported at its end."""
        began = clock.monotonic()
        detail = ""

        def finish(text: str) -> None:
            nonlocal detail
            detail = text

        self.enter(phase)
        self.tell(ev.PhaseStarted(self.component, phase, total))
        yield finish
        self.tell(ev.PhaseFinished(self.component, phase, total, clock.monotonic() - began, detail))
