"""`--wait SECONDS`: a command waits for a bus or a part that isn't there, or for a bench that another process has, instead of
failing at once.

It is tried again when something of this host has changed, such as an adapter that was plugged in; and, since nothing
announces a part that gets its supply, or a process that ends, every few seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...enumerators.errors import BenchLocked
from ...flashers.errors import NOT_THERE
from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError, TransportError, causes
from ...transports.plain import word
from .session import Session

if TYPE_CHECKING:
    from ...transports.host_changes import HostChanges

T = TypeVar("T")
AGAIN_SECONDS = 2.0
"""After which it is tried again if nothing has changed on this host."""
STILL_LOCKED = "Stop that process, or run the same command again when it has ended."
"""What to do where the bench was in use for all the time of `--wait`."""


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < math.inf:
            self.fail(f"{value!r} is not a number of seconds", parameter, context)
        return number


WAIT = click.option("--wait", type=_Seconds(), metavar="SECONDS", default=0.0,
                    help="How long to wait for what isn't there, or a bench in use.")  # fmt: skip


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
        self._away: tuple[str, ...] = ()
        """The components that are waited for, as far as they are known."""

    def __enter__(self) -> Wait:
        return self

    def __exit__(self, *error: object) -> None:
        if self._changes is not None:
            self._changes.close()

    def until_there(self, attempt: Callable[[], T], *missing: type[ProxyflashError]) -> T:
        """What `attempt` returns. It is made again while it fails for what isn't there, unless it has changed something.

        The same holds for a bench that another process works on. `missing`: what it may raise for that beside `NOT_THERE`.
        Raises what it raised last, once the time is over.
        """
        return self._until(attempt, *NOT_THERE, *missing, BenchLocked)

    def until_free(self, attempt: Callable[[], T]) -> T:
        """As `until_there`, only for a bench that another process works on."""
        return self._until(attempt, BenchLocked)

    def _until(self, attempt: Callable[[], T], *caught: type[ProxyflashError]) -> T:
        while True:
            try:
                found = attempt()
            except caught as error:
                if self.session.standing.touched:
                    raise
                if not self.may_go_on(error):
                    raise self.over(error) from error.__cause__
            else:
                self.all_but()
                return found

    def until_all_are_there(self, names: Iterable[str], look: Callable[[str], object]) -> None:
        """Waits for each component that `look` doesn't find, as long as there is time. Raises what `look` fails for otherwise."""
        left = list(dict.fromkeys(names))
        away: dict[str, ProxyflashError] = {}
        while left:
            away = {}
            for name in left:
                try:
                    look(name)
                except NOT_THERE as error:
                    away[name] = error
            if not away or not self.may_go_on(next(iter(away.values())), *away):
                break
            left = list(away)
        self.all_but(*away)

    def all_but(self, *away: str) -> None:
        """Reports which of the awaited components are there, and remembers who isn't."""
        for name in self._away:
            if name not in away:
                self.session.output.note(f"{word(name)} is there")
        self._away = away

    def may_go_on(self, error: ProxyflashError, *away: str) -> bool:
        """Waits until it is worth trying again; False: the time is over. `away`: the components that aren't there."""
        from ...updates.errors import ComponentAbsent

        if not away:
            away = next((cause.away for cause in causes(error) if isinstance(cause, ComponentAbsent)), ())
        if away:
            self.all_but(*away)
        elif error.component is not None and error.component not in self._away and not isinstance(error, BenchLocked):
            # Whether the others are there now, it doesn't say.
            self._away = (*self._away, error.component)
        if self._changes is None and self.seconds:
            from ...transports.host_changes import HostChanges

            self._changes = HostChanges()
        if self._changes is None or self._deadline.expired:
            return False
        names = ", ".join(map(word, self._away))
        said = error.cause if len(self._away) < 2 else "not there yet"
        if names and names not in said:
            said = f"{names}: {said}"
        if self._said != said:
            self._said = said
            self.session.output.note(f"waiting, for up to {self._deadline.remaining:.0f} s: {said}")
        with self.session.idle():
            self._changes.wait(min(AGAIN_SECONDS, self._deadline.remaining))
        if isinstance(error, TransportError):
            self.session.hang_up()
        return True

    def over(self, error: ProxyflashError) -> ProxyflashError:
        if not self.seconds:
            return error
        error = error.placed(f"waited {self.seconds:g} s")
        return error.advised(STILL_LOCKED) if isinstance(error, BenchLocked) else error
