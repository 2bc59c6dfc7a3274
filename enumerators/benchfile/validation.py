"""What pydantic finds wrong with a value, in the words of this project's messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from ...flashers.settings import Settings, is_settings

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

SHORT = {
    "extra_forbidden": "is not known here",
    "missing": "is missing",
    "bool_type": "should be true or false",
    "list_type": "should be a list, in square brackets",
    "tuple_type": "should be a list, in square brackets",
    "string_type": "should be text in quotes",
}
"""Messages by the kind of fault, in the place of pydantic's."""
HEXADECIMAL = re.compile(r"(?=.*[A-Fa-f])[0-9A-Fa-f]{1,8}")
"""What can be meant as a hexadecimal number only: with one of these letters."""


class Fault(NamedTuple):
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
        Fault(
            found["loc"],
            found["type"],
            (SHORT.get(found["type"]) or _message(found["msg"])) + _prefixed(found["type"], found["input"]),
            found["input"],
        )
        for found in error.errors(include_url=False, include_context=False)
    ]


def first_fault(error: ValidationError) -> Fault:
    return first_of(faults_of(error))


def first_of(found: list[Fault]) -> Fault:
    """The first one; an unknown key before a missing key of the same table, which it may be, misspelt."""
    first = found[0]
    strangers = (one for one in found if one.kind == "extra_forbidden" and one.place[:-1] == first.place[:-1])
    return next(strangers, first) if first.kind == "missing" else first


def keys_beside(model: type[BaseModel | Settings], place: tuple[str | int, ...]) -> list[str]:
    """The keys that there may be in the table of a key that a model doesn't know."""
    tables = [model]
    for item in place[:-1]:
        inner = [annotation for table in tables for name, annotation in _keys(table) if name == item]
        tables = [found for annotation in inner for found in _tables(annotation)] or tables
    return [name for table in tables for name, _ in _keys(table)]


def _keys(model: type[BaseModel | Settings]) -> list[tuple[str, Any]]:
    """Names and types."""
    if is_settings(model):
        return [(name, key.annotation) for name, key in model.keys_declared.items()]
    assert not issubclass(model, Settings)
    return [(field.alias or name, field.annotation) for name, field in model.model_fields.items()]


def _tables(annotation: Any) -> Iterator[type[BaseModel | Settings]]:
    """The models in a type: of a value, of a list's items, of a table's values."""
    if isinstance(annotation, type) and (is_settings(annotation) or hasattr(annotation, "model_fields")):
        yield annotation
    for inner in get_args(annotation):
        yield from _tables(inner)


def lowered(text: str) -> str:
    """A sentence that goes on behind a colon."""
    return text[:1].lower() + text[1:]


def _message(text: str) -> str:
    return lowered(text.removeprefix("Value error, ").removeprefix("Input "))


def _prefixed(kind: str, value: object) -> str:
    """Goes on behind the message: what is meant by a hexadecimal number, such as a CAN id, without its 0x."""
    if kind == "int_type" and isinstance(value, str) and HEXADECIMAL.fullmatch(value):
        return f"; hexadecimal numbers begin with 0x: 0x{value}"
    return ""
