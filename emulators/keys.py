"""`Table`: the keys of an `emulated` table, declared once as the fields of a class.

The declaration refuses what does not hold, and makes the JSON Schema, from which the reference of the bench file's keys is
written. The docstring below a field is the description of its key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from ..transports.field_texts import field_texts

Schema = dict[str, Any]


class BadDevice(Exception):
    """A key of a component's `emulated` table (or its address or profile) does not hold. `key` names it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason
        self.part = ""
        """The name of the part that refused it, filled in by the bus; "": the bus itself did."""


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the largest value of a number, both allowed: `Annotated[int, Range(0, 255)]`."""

    low: float
    high: float | None = None
    above: bool = False
    """`low` itself is not allowed."""

    def holds(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and (self.high is None or value <= self.high)

    @property
    def words(self) -> str:
        low = f"{'above' if self.above else 'from'} {self.low}"
        return low if self.high is None else f"{low} to {self.high}"

    @property
    def schema(self) -> Schema:
        low = {"exclusiveMinimum" if self.above else "minimum": self.low}
        return low if self.high is None else {**low, "maximum": self.high}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Base of the tables: a subclass is a frozen dataclass with keyword fields.

    A field's type is bool, int, float, str, bytes (hexadecimal in the file), an enum of texts, a Literal of texts or numbers, a
    tuple (a list in the file), a Mapping (a table whose keys are free), another Table, or one of these or None. None as
    default says: as the description has it. `Range` limits numbers.
    """

    @classmethod
    def of(cls, table: Mapping[str, Any], parts: Iterable[str] = ()) -> Self:
        """The values of a table.

        Args:
            parts: The names that the key `part` takes, if the table has that key.

        Raises:
            BadDevice: A key is unknown, is missing or does not hold.
        """
        known = {field.name: field for field in fields(cls)}
        types = _types(cls)
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                meant = f" (did you mean {near[0]!r}?)" if near else ""
                raise BadDevice(key, f"unknown key{meant}; there are: {', '.join(known)}")
        names = list(parts)
        values = {}
        for key, field in known.items():
            if key not in table:
                if not _is_needed(field):
                    continue
                choice = f"; there are: {', '.join(names)}" if key == "part" and names else ""
                raise BadDevice(key, f"it is missing{choice}")
            try:
                values[key] = _taken(types[key], table[key])
                if key == "part" and names and values[key] not in names:
                    raise ValueError(f"is none of {', '.join(names)}")
            except ValueError as error:
                raise BadDevice(key, f"{table[key]!r} {error}") from None
        return cls(**values)

    @classmethod
    def names(cls) -> set[str]:
        return {field.name for field in fields(cls)}

    @classmethod
    def schema(cls, parts: Sequence[str] = ()) -> Schema:
        """The JSON Schema, with a description for each key. `parts`: as in `of`."""
        texts, types = field_texts(cls), _types(cls)
        properties: dict[str, Schema] = {}
        for field in sorted(fields(cls), key=lambda field: _FIRST.get(field.name, len(_FIRST))):
            described = {"title": field.name, "description": texts.get(field.name, "")}
            found = _schema(types[field.name])
            if field.name == "part" and parts:
                found = {"enum": list(parts)}
            properties[field.name] = described | found
            if not _is_needed(field):
                default = _default(field)
                if default is not None:
                    properties[field.name]["default"] = _plain(default)
        return {
            "type": "object",
            "title": cls.__name__,
            "properties": properties,
            "required": [field.name for field in fields(cls) if _is_needed(field)],
            "additionalProperties": False,
        }


_FIRST = {"part": 0, "serial": 1, "firmware": 2}
"""The keys that most tables have, in their order before all others."""


def _types(table: type[Table]) -> dict[str, Any]:
    return get_type_hints(table, include_extras=True)


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _without_none(wanted: Any) -> Any:
    """The type of a key that may be left out."""
    if get_origin(wanted) in (Union, UnionType):
        [wanted] = [member for member in get_args(wanted) if member is not NoneType]
    return wanted


def _is_table(wanted: Any) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, Table)


def _is_enum(wanted: Any) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, Enum)


_NAMES: Mapping[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bytes: "bytes in hexadecimal",
    tuple: "a list",
    Mapping: "a table",
}


def _taken(wanted: Any, value: Any) -> Any:
    """A value of the file as a value of a type. Raises ValueError: "is not ..."."""
    wanted = _without_none(wanted)
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        found = _taken(arguments[0], value)
        for limit in arguments[1:]:
            if not limit.holds(found):
                raise ValueError(f"is not {_NAMES[arguments[0]]} {limit.words}")
        return found
    if origin is Literal or _is_enum(wanted):
        words = arguments or [member.value for member in wanted]
        if not any(value == word and type(value) is type(word) for word in words):
            raise ValueError(f"is none of {', '.join(map(str, words))}")
        return wanted(value) if _is_enum(wanted) else value
    if _is_table(wanted) and isinstance(value, Mapping):
        return _inner(wanted, value)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is bytes and type(value) is str:
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise ValueError("is not hexadecimal bytes") from None
    if origin is tuple and type(value) in (list, tuple):
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) != len(value):
            raise ValueError(f"is not a list of {len(kinds)}")
        return tuple(_taken(kind, item) for kind, item in zip(kinds, value, strict=True))
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {_key(arguments[0], key): _taken(arguments[1], item) for key, item in value.items()}
    if wanted is bool and type(value) is not bool:
        raise ValueError("is neither true nor false")
    if type(value) is not wanted:
        raise ValueError(f"is not {_NAMES.get(_kind_of(origin or wanted), 'a table')}")
    return value


def _kind_of(kind: Any) -> Any:
    return Mapping if isinstance(kind, type) and issubclass(kind, Mapping) else kind


def _inner(wanted: type[Table], value: Mapping[str, Any]) -> Table:
    try:
        return wanted.of(value)
    except BadDevice as error:
        raise ValueError(f"does not hold: {error}") from None


def _key(wanted: Any, key: str) -> Any:
    """The keys of a TOML table are texts, numbers among them."""
    try:
        return int(key, 0) if wanted is int else key
    except ValueError:
        raise ValueError(f"does not hold: the key {key!r} is not a number") from None


def _schema(wanted: Any) -> Schema:
    wanted = _without_none(wanted)
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        limits = [limit.schema for limit in arguments[1:]]
        return _schema(arguments[0]) | {key: value for limit in limits for key, value in limit.items()}
    if origin is Literal or _is_enum(wanted):
        return {"enum": list(arguments) or [member.value for member in wanted]}
    if _is_table(wanted):
        found: Schema = wanted.schema()
        return found
    if origin is tuple:
        if arguments[1:] == (...,):
            return {"type": "array", "items": _schema(arguments[0])}
        items = [_schema(kind) for kind in arguments]
        return {"type": "array", "items": items[0], "minItems": len(items), "maxItems": len(items)}
    if _kind_of(origin) is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if wanted is bytes:
        return {"type": "string", "format": "binary"}
    return {"type": {bool: "boolean", int: "integer", float: "number", str: "string"}[wanted]}


def _plain(value: Any) -> Any:
    """A default, as the file has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Table):
        return {}
    return dict(value) if isinstance(value, Mapping) else value


def around_group(pattern: str) -> tuple[str, str]:
    """The plain text before and after a pattern's one group, with which an answer that fits can be made."""
    before, _, rest = pattern.partition("(")
    before, after = (re.sub(r"\\(.)", r"\1", text.strip("^$")) for text in (before, rest.rpartition(")")[2]))
    found = re.search(pattern, f"{before}1.2.3{after}\r\n")
    if found is None or found[1] != "1.2.3":
        raise BadDevice("version", f"no answer to fit {pattern!r} can be made: write it as text around one group")
    return before, after
