"""Which table of the bench file a target's key belongs to, and what its value means there: the schema is asked for both.

Four tables take keys: `bus`, `component`, `address` and `profile`. A key that only one of them has is written as it is; a
key that several of them have is written with its table before it: `bus.baudrate`, `profile.baudrate`.
"""

from __future__ import annotations

import json
import tomllib
import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ..flashers.flasher import Bootloader
from ..flashers.settings import Field, Key, Settings, holds, is_settings
from ..transports.plain import quoted
from ..transports.toml_text import Hexadecimal
from ..transports.transport import Transport
from .benchfile.schema import BusSpec, ComponentSpec

MEANT = {
    "bus": "all that the bus carries",
    "component": "this component",
    "address": "the address",
    "profile": "the bootloader alone",
}
"""What a table's keys are for, where several have the same."""
Fields = Mapping[str, Key | None]
"""The keys of a table. None: a key whose values the library of the bus judges."""
SHORTEST_START = 3
"""Characters of a wrong key that are taken for the start of another one."""
LONGEST_KEY = 64
"""Characters of a wrong key that others are compared with."""
DEEPEST = 4
"""Levels of keys that `all_keys` lists."""
TYPES: Mapping[str, type] = {"boolean": bool, "integer": int}
"""Of JSON Schema, those that no other kind of value is written for."""
NOT_OF_A_TARGET = ("name", "id", "bus", "protocol", "address", "profile", "version_from", "partition", "app")
"""Keys of a component that the target says itself, or that only parts of the host have."""


class KeyWrong(Exception):
    """A key or value that does not hold. `right`: the keys that were likely meant."""

    def __init__(self, said: str, *right: str) -> None:
        super().__init__(said)
        self.right = right


def tables(
    transport: type[Transport], settings: Mapping[str, Any], flasher: type[Bootloader] | None
) -> dict[str, Fields]:
    """The tables that a target may fill. `flasher` None: the target is a bus alone.

    Args:
        settings: What the target's place says of the bus; these keys can't be set again.
    """
    described = transport.settings_schema
    bus = {key: _described(described.get(key, {})) for key in transport.keys(settings)} | _fields(BusSpec)
    found: dict[str, Fields] = {"bus": {key: bus[key] for key in bus if key != "kind" and key not in settings}}
    if flasher is not None:
        component = _fields(ComponentSpec)
        found["component"] = {key: component[key] for key in component if key not in NOT_OF_A_TARGET}
        found |= {"address": _fields(flasher.Address), "profile": _fields(flasher.Profile)}
    return found


def place(known: Mapping[str, Fields], key: str) -> tuple[str, ...]:
    """The table and the keys in it that a key as written leads to. Raises KeyWrong."""
    first, *rest = path = key.split(".")
    if first in known:
        if not rest:
            raise KeyWrong(f"{first!r} is a table: write a key of it", f"{first}.KEY")
        _annotation(known, tuple(path), key)
        return tuple(path)
    owners = [table for table, fields in known.items() if first in fields]
    if len(owners) > 1:
        raise KeyWrong(
            f"{key!r} is a key of {' and of '.join(owners)}: say which "
            f"({', '.join(f'{owner} is for {MEANT[owner]}' for owner in owners)})",
            *(f"{owner}.{key}" for owner in owners),
        )
    if not owners:
        raise KeyWrong(f"unknown key {quoted(key)}", *_near(known, key))
    found = (owners[0], *path)
    _annotation(known, found, key)
    return found


def value(known: Mapping[str, Fields], where: tuple[str, ...], text: str) -> Any:
    """What a text means as the value of the key at `where`.

    It is read as TOML where the schema takes what TOML makes of it (numbers, true and false, lists and tables in line,
    text in quotes), and else as it stands. Raises KeyWrong with the schema's reason.
    """
    reasons = []
    for candidate, reason in _judged(known, where, text):
        # A table's missing keys are reported once all keys are there.
        if reason is None or isinstance(candidate, dict):
            return candidate
        reasons.append((candidate, reason))
    # For a number that is too large the bound is reported, not that it isn't a text.
    told = next((item for item in reasons if not item[1]["type"].endswith("_type")), reasons[-1])
    if where[0] == "bus" and where[1] not in BusSpec.keys_declared:
        # Nobody else looks at what the bus's library takes before the bus is opened.
        key = ".".join(where)
        raise KeyWrong(f"{key} = {quoted(text)}: {told[1]['msg'].replace('Input should', 'should')}", key)
    return told[0]


def takes(known: Mapping[str, Fields], key: str, text: str) -> bool:
    """Whether there is a key, as written, that can have this value."""
    try:
        for candidate, reason in _judged(known, place(known, key), text):
            if reason is None or isinstance(candidate, dict):
                return reason is None
    except KeyWrong:
        pass
    return False


def _judged(known: Mapping[str, Fields], where: tuple[str, ...], text: str) -> Iterator[tuple[Any, Any]]:
    """What a text may mean as the value of the key at `where`, each with the schema's reason against it. Raises KeyWrong."""
    wanted = _annotation(known, where, ".".join(where))
    for candidate in _meanings(text):
        try:
            written = json.dumps(candidate)
        except (TypeError, ValueError):
            continue  # A date in a list, or a number of thousands of digits: no key has such a value.
        yield candidate, None if holds(wanted, candidate) else _reason(wanted, written)


def _reason(wanted: Any, written: str) -> Any:
    """What pydantic has against a value, written as JSON; None: it holds."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(wanted).validate_json(written, strict=True)
    except ValidationError as error:
        return error.errors(include_url=False)[0]
    return None


def is_free(known: Mapping[str, Fields], key: str) -> bool:
    """Whether the library of the bus judges this key's values."""
    table, *rest = place(known, key)
    return known[table].get(rest[0]) is None


def all_keys(known: Mapping[str, Fields]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each key that has a value, as it is written, with the values that it can have if these are words."""
    for table, fields in known.items():
        for key, field in fields.items():
            shared = sum(key in others for others in known.values()) > 1
            for path, words in _leaves((key,), field):
                yield ".".join((table, *path) if shared else path), words


def _leaves(path: tuple[str, ...], field: Key | None) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    models = [] if field is None else list(_models(field.annotation))
    if not models or len(path) == DEEPEST:
        yield path, () if field is None else tuple(_words(field.annotation))
    for model in models:
        for key, inner in _fields(model).items():
            if len(path) < DEEPEST:
                yield from _leaves((*path, key), inner)


def _words(annotation: Any) -> Iterator[str]:
    """The words that a value can be."""
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from (str(word) for word in get_args(annotation))
    elif get_origin(annotation) is Annotated:
        yield from _words(get_args(annotation)[0])
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(word.value) for word in annotation)
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _words(member)


def _meanings(text: str) -> Iterator[Any]:
    """What a value may mean: first what it is in TOML, then the text itself."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        read = {}
    if set(read) == {"value"} and isinstance(read["value"], (bool, int, float, str, list, dict)):
        number = read["value"]
        yield Hexadecimal(number) if type(number) is int and text[:2] == "0x" else number
        if isinstance(number, str):
            return
    yield text


def _annotation(known: Mapping[str, Fields], where: tuple[str, ...], written: str) -> Any:
    """What the schema takes as the value of a key. Raises KeyWrong for a key that there isn't."""
    table, key, *rest = where
    if key not in known[table]:
        if table == "bus":
            # The library of a bus may take keys that it doesn't list; it refuses the others when the bus is opened.
            return Any
        raise KeyWrong(f"unknown key {quoted(written)}", *_near(known, written))
    field = known[table][key]
    annotation: Any = Any if field is None else field.annotation
    for index, name in enumerate(rest):
        models = list(_models(annotation))
        inner = [field for model in models if (field := _fields(model).get(name)) is not None]
        if inner:
            annotation = inner[0].annotation
        elif models:
            raise KeyWrong(f"unknown key {quoted(written)}", *_near(known, written))
        elif (values := _of_a_table(annotation)) is not None:
            annotation = values
        else:
            holder = written.rsplit(".", len(rest) - index)[0]
            raise KeyWrong(f"{quoted(holder)} has no keys in it", holder)
    return annotation


def _models(annotation: Any) -> Iterator[type[Settings]]:
    """The tables with known keys that a value may be; not those in a list."""
    if is_settings(annotation):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _models(member)
    elif get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])


def _of_a_table(annotation: Any) -> Any | None:
    """The type of the values of a table that takes any key. None: another kind of key."""
    if get_origin(annotation) is Annotated:
        return _of_a_table(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    return Any if annotation is Any else None


def _fields(model: type[Settings]) -> dict[str, Key | None]:
    return dict(model.keys_declared)


def _described(schema: Mapping[str, Any]) -> Key | None:
    """What a library's key takes, where its JSON Schema has one type or a list of values; None: the library judges it."""
    if words := schema.get("enum"):
        return Key(Settings, "", Literal[tuple(words)], Field())
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        return None
    return Key(Settings, "", TYPES[kind], Field(ge=schema["minimum"]) if "minimum" in schema else Field())


def _near(known: Mapping[str, Fields], key: str) -> list[str]:
    """A key of the same table that is written like this one; else any that ends like it, begins like it or is written
    like it."""
    there = dict(all_keys(known))
    table, dot, _ = key.rpartition(".")
    beside = [other for other in there if dot and other.rpartition(".")[0] == table]
    alike = [other for other in there if other.rpartition(".")[2] == key.rpartition(".")[2]]
    longer = [other for other in there if len(key) >= SHORTEST_START and other.rpartition(".")[2].startswith(key)]
    return (
        get_close_matches(key[:LONGEST_KEY], beside, n=1, cutoff=0.7)
        or alike[:1]
        or longer[:1]
        or get_close_matches(key[:LONGEST_KEY], there, n=1, cutoff=0.7)
    )
