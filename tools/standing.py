"""`Standing`: what state the parts are in while a command works on them, from its events, for who ends it at once.

A first Ctrl-C waits for a safe point, and the engine says how the part is left. A second one waits for nothing: then
this is all that is known.
"""

from __future__ import annotations

from ..flashers import events as ev
from ..flashers.events import Phase
from ..updates.events import Status, StepFinished, StepStarted

WHILE_TOUCHED = {
    Phase.ERASE: "was being erased; it stays in its bootloader until its image is whole",
    Phase.WRITE: "was being written; it stays in its bootloader until its image is whole",
    Phase.VERIFY: "was written and not compared to the end; it is in its bootloader",
    Phase.BOOT: "holds its whole image and was being started",
}


class Standing:
    """Told of every event."""

    def __init__(self) -> None:
        self._touched: set[str] = set()
        self._under_way = ""
        self._done: list[str] = []
        self.remedy = ""
        """How it goes on, where it is not by the same command again."""

    @property
    def touched(self) -> bool:
        """Whether anything was changed, or may have been."""
        return bool(self._under_way or self._done)

    def see(self, event: ev.Event) -> None:
        match event:
            case ev.PhaseStarted(component=name, phase=phase):
                if phase in (Phase.ERASE, Phase.WRITE):
                    self._touched.add(name)
                if name in self._touched:
                    self._under_way = f"{name} {WHILE_TOUCHED.get(phase, 'was asked what it holds')}"
            case StepStarted(component=name, label=label, handler=handler) if handler.startswith("microsoft/script:"):
                self._under_way = f"the script of step {label} was running for {name}, and was ended"
            case StepFinished(component=name, status=status):
                self._under_way = ""
                if status is Status.DONE and name not in self._done:
                    self._done.append(name)
            case _:
                pass

    def finish(self) -> None:
        """The command has done what it was to do."""
        self._under_way = ""

    def sentence(self) -> str:
        """How things stand, in a sentence without its full stop."""
        parts = ["stopped at once"]
        if self._under_way:
            parts.append(self._under_way)
        if self._done:
            parts.append(f"done before: {', '.join(self._done)}")
        if not self.touched:
            parts.append("nothing was changed")
        return "; ".join(parts)
