"""How long an action of a step may take, and what ends an action that takes longer.

Once the time is over the action is asked to stop, as by a person's Ctrl-C. If it doesn't stop, the programs that it
runs are ended. If it does not return even then, it is left behind: the engine halts, since nobody knows what it still
does, and goes on in another process. Without a limit an action may take for ever, as with Azure Device Update's agent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...enumerators import child_programs
from ...flashers.errors import Cancelled
from ...flashers.events import Event, RunContext
from ...transports import clock
from ...transports.deadline import Deadline
from ..errors import StepHangs
from .results import ActionResult

GRACE_SECONDS = 30.0
"""How long an action has to end once it was asked to, and again once its programs were ended."""

_left_behind: dict[Path, list[clock.SomeThread]] = {}
"""By bench, the actions of this process that did not return. An action that returned after all is taken out at the next look."""


def check_none_hangs(bench: Path) -> None:
    """Raises StepHangs while an action that was left behind may still be at work on this bench. `bench`: its folder."""
    if alive := [thread for thread in _left_behind.pop(bench, ()) if thread.is_alive()]:
        _left_behind[bench] = alive
        raise StepHangs("an action of a step that did not return is still at work in this process")


class ActionTimeout:
    """Over the actions of one step on one component, one after the other.

    `seconds`: for each of them; 0: no limit. `context`: of the whole update. `bench`: its folder.
    """

    def __init__(self, bench: Path, seconds: float, context: RunContext) -> None:
        self.seconds = seconds
        self.context = RunContext(self._tell, lambda: self._left or self.expired or self.stops)
        """What the actions get in the place of the update's."""
        self._bench = bench
        self._of_update = context
        self._deadline: Deadline | None = None
        self._left = False

    @property
    def expired(self) -> bool:
        """Whether the action's time is over; of the last one, when none is under way."""
        return self._deadline is not None and self._deadline.expired

    @property
    def stops(self) -> bool:
        """Whether the whole update is to stop."""
        return self._of_update.cancelled()

    def _tell(self, event: Event) -> None:
        """Passes an event of the action on. Raises Cancelled in an action that was left behind."""
        if self._left:
            raise Cancelled("it was left behind", touched=True)
        self._of_update.on_event(event)

    def call(self, work: Callable[[], ActionResult], what: str = "an action") -> ActionResult:
        """An action's result, or its exception. Raises StepHangs, which names it, when it doesn't return."""
        if not self.seconds:
            return work()
        found: list[ActionResult] = []
        raised: list[BaseException] = []

        def run() -> None:
            try:
                found.append(work())
            except BaseException as error:
                raised.append(error)

        self._deadline = Deadline.after(self.seconds)
        thread = clock.Thread(target=run)
        thread.start()
        thread.join(self._deadline.remaining)
        self._wait_for_the_end(thread, what)
        if raised:
            raise raised[0]
        return found[0]

    def _wait_for_the_end(self, thread: clock.SomeThread, what: str) -> None:
        """Raises StepHangs."""
        if thread.is_alive():
            thread.join(GRACE_SECONDS)
        if thread.is_alive() and child_programs.end_those_of(thread):
            thread.join(GRACE_SECONDS)
        if thread.is_alive():
            self._left = True
            _left_behind.setdefault(self._bench, []).append(thread)
            raise StepHangs(f"{what} has not returned within {self.seconds:g} s, nor when it was asked to stop")
