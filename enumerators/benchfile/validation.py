"""What pydantic finds wrong with a value, in the words of this project's messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

SHORT = {"extra_forbidden": "is not known here", "missing": "is missing"}
"""Messages by the kind of fault, in the place of pydantic's."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`place`: the keys and indexes that lead to the value. `kind`: pydantic's name of the fault.

    `message`: goes on behind the name of the value: "should be a valid number".
    """

    place: tuple[str | int, ...]
    kind: str
    message: str
    value: Any

    def at(self, *start: str | int) -> str:
        """The place in words, with what leads to the whole value before it: "updates.conditions.0"."""
        return ".".join(map(str, (*start, *self.place)))


def faults_of(error: ValidationError) -> list[Fault]:
    """All faults, in pydantic's order; there is at least one."""
    return [
        Fault(found["loc"], found["type"], SHORT.get(found["type"]) or _message(found["msg"]), found["input"])
        for found in error.errors(include_url=False, include_context=False)
    ]


def first_fault(error: ValidationError) -> Fault:
    return faults_of(error)[0]


def lowered(text: str) -> str:
    """A sentence that goes on behind a colon."""
    return text[:1].lower() + text[1:]


def _message(text: str) -> str:
    return lowered(text.removeprefix("Value error, ").removeprefix("Input "))
