"""`--wait SECONDS`: a command waits for a bus or a part that isn't there, instead of failing at once.

It is tried again when something of this host has changed, such as an adapter that was plugged in; and, since nothing tells
of a part that gets its supply, every few seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar

import click

from ...flashers.errors import NOT_THERE
from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError, TransportError
from ...transports.host_changes import HostChanges
from .session import Session

T = TypeVar("T")
AGAIN_SECONDS = 2.0
"""After which it is tried again if nothing has changed on this host."""


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < math.inf:
            self.fail(f"{value!r} is no number of seconds", parameter, context)
        return number


WAIT = click.option("--wait", type=_Seconds(), metavar="SECONDS", default=0.0,
                    help="How long to wait for a bus or a part that isn't there.")  # fmt: skip


def waits(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Adds `--wait` to a command that works on one component: it begins again while that isn't there."""

    def call(session: Session, *, wait: float, **values: Any) -> int | None:
        with Wait(session, wait) as waiting:
            return waiting.until_there(lambda: function(session, **values))

    wrapped: Callable[..., int | None] = WAIT(update_wrapper(call, function))
    return wrapped


class Wait:
    """The time that one command has for waiting. A context manager."""

    def __init__(self, session: Session, seconds: float) -> None:
        self.session = session
        self.seconds = seconds
        self._deadline = Deadline.after(seconds)
        self._changes: HostChanges | None = None
        self._said = ""

    def __enter__(self) -> Wait:
        return self

    def __exit__(self, *error: object) -> None:
        if self._changes is not None:
            self._changes.close()

    def until_there(self, attempt: Callable[[], T], *missing: type[ProxyflashError]) -> T:
        """What `attempt` returns. It is made again while it fails for what isn't there, unless it has changed something.

        `missing`: what it may raise for that beside `NOT_THERE`. Raises what it raised last, once the time is over.
        """
        caught: tuple[type[ProxyflashError], ...] = (*NOT_THERE, *missing)
        while True:
            try:
                return attempt()
            except caught as error:
                if self.session.standing.touched:
                    raise
                if not self.may_go_on(error):
                    raise self.over(error) from error.__cause__

    def may_go_on(self, error: ProxyflashError) -> bool:
        """Waits until it is worth trying again; False: the time is over."""
        if self._changes is None and self.seconds:
            self._changes = HostChanges()
        if self._changes is None or self._deadline.expired:
            return False
        if self._said != str(error.cause):
            self._said = str(error.cause)
            where = f"{error.component}: " if error.component else ""
            self.session.output.note(f"waiting, for up to {self._deadline.remaining:.0f} s: {where}{error.cause}")
        with self.session.idle():
            self._changes.wait(min(AGAIN_SECONDS, self._deadline.remaining))
        if isinstance(error, TransportError):
            self.session.bench.hang_up()
        return True

    def over(self, error: ProxyflashError) -> ProxyflashError:
        return error.placed(f"waited {self.seconds:g} s") if self.seconds else error
