"""The events of the update engine, beside those of flashing; and the results of a task."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from ..flashers import events as ev


class Status(StrEnum):
    """What a task of the plan is in for, or has come to."""

    TODO = "to do"
    INSTALLED = "installed already"
    AWAITING = "awaits a restart"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    """It was under way when the update was stopped; `resume` goes on with it."""
    WAITING = "waiting"
    """Not begun: the update awaits the restart that another step has asked for."""
    NOT_RUN = "not run"
    RESTORED = "restored"
    """Undone by a rollback."""
    NOT_RESTORED = "not restored"
    """A rollback could not undo it."""
    NOT_BROUGHT_BACK = "not brought back yet"
    """Done, and to be undone by a rollback that isn't at its end."""


@dataclass(frozen=True, slots=True)
class StepStarted(ev.Event):
    """`component` is "host" for a step without one."""

    kind: ClassVar[str] = "step"
    label: str
    description: str
    handler: str


@dataclass(frozen=True, slots=True)
class ActionStarted(ev.Event):
    """`action`: "install" and the like."""

    kind: ClassVar[str] = "action"
    label: str
    action: str


@dataclass(frozen=True, slots=True)
class StepFinished(ev.Event):
    kind: ClassVar[str] = "step-done"
    label: str
    status: Status
    result_code: int
    extended: int
    details: str


@dataclass(frozen=True, slots=True)
class ComponentFinished(ev.Event):
    """No further step is for the component, as far as is known. `verdict`: what became of it, in words.

    `statuses`: those of its steps.
    """

    kind: ClassVar[str] = "component-done"
    verdict: str
    statuses: tuple[Status, ...] = ()
