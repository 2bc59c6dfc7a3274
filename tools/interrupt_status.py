"""`Standing`: what state the parts are in while a command works on them, from its events, for who ends it at once.

A first Ctrl-C waits for a safe point, and the engine says how the part is left. A second one waits for nothing: then
this is all that is known.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..flashers import events as ev
from ..flashers.events import Phase
from ..transports import plugins
from ..transports.errors import PluginBroken, PluginUnknown

if TYPE_CHECKING:
    from ..updates.handlers.handler import StepHandler

WHILE_TOUCHED = {
    Phase.ERASE: "was being erased; it stays in its bootloader until its image is whole",
    Phase.WRITE: "was being written; it stays in its bootloader until its image is whole",
    Phase.VERIFY: "was written and not compared to the end; it is in its bootloader",
    Phase.BOOT: "holds its whole image and was being started",
}


def handler_of(name: str) -> type[StepHandler]:
    """The class of a step's handler; that of any handler where nobody has it, or it can't be loaded."""
    from ..updates.handlers.handler import StepHandler

    with suppress(PluginUnknown, PluginBroken):
        found: type[StepHandler] = plugins.load(plugins.STEPS, name)
        return found
    return StepHandler


class Standing:
    """Gets every event. Several components may be worked on at once."""

    def __init__(self) -> None:
        self._touched: set[str] = set()
        self._handlers: dict[str, str] = {}
        self._under_way: dict[str, str] = {}
        self._done: list[str] = []
        self._changed: dict[str, str] = {}
        """What became of the other components that were changed."""
        self.is_unfinished = False
        """Whether it goes on with what an earlier command began: then stopping it leaves that as it is."""
        self.remedy = ""
        """How it goes on, where it is not by the same command again."""

    @property
    def touched(self) -> bool:
        """Whether anything was changed, or may have been."""
        return bool(self._under_way or self._done or self._changed)

    def see(self, event: ev.Event) -> None:
        match event:
            case ev.PhaseStarted(component=name, phase=phase):
                if phase in (Phase.ERASE, Phase.WRITE):
                    self._touched.add(name)
                if name in self._touched:
                    self._under_way[name] = f"{name} {WHILE_TOUCHED.get(phase, 'was asked what it holds')}"
            case _:
                self._see_step(event)

    def _see_step(self, event: ev.Event) -> None:
        """An event of the update engine, of which a flash has none: its classes are imported here."""
        from ..updates.events import ActionStarted, Status, StepFinished, StepStarted

        match event:
            case StepStarted(component=name, label=label, handler=handler):
                self._handlers[name] = handler
                if handler_of(handler).runs_script:
                    self._under_way[name] = f"the script of step {label} was running for {name}, and was ended"
            case ActionStarted(component=name, label=label, action=action):
                from ..updates.engine.action import CHANGING

                if action in CHANGING and not handler_of(self._handlers.get(name, "")).tells_changes:
                    self._touched.add(name)
                    self._under_way.setdefault(name, f"step {label} was under way for {name}")
            case StepFinished(component=name, status=status):
                self._under_way.pop(name, None)
                if status is Status.DONE:
                    self._changed.pop(name, None)
                    if name not in self._done:
                        self._done.append(name)
                elif status is Status.RESTORED or name in self._touched:
                    if name in self._done:
                        self._done.remove(name)
                    self._changed[name] = status
            case _:
                pass

    def finish(self) -> None:
        """The command has done what it was to do."""
        self._under_way.clear()
        self.is_unfinished = False

    def sentence(self) -> str:
        """How things stand, in a sentence without its full stop."""
        parts = ["stopped at once", *self._under_way.values()]
        if done := [name for name in self._done if name not in self._under_way]:
            parts.append(f"done before: {', '.join(done)}")
        parts += [f"{status} before: {name}" for name, status in self._changed.items() if name not in self._under_way]
        if not self.touched:
            parts.append(f"nothing was changed{' by this command' if self.is_unfinished else ''}")
        return "; ".join(parts)
