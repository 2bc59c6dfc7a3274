"""`Settings`: a table of the bench file as a class, its keys declared with their types and limits.

A table that holds is read here. Whatever does not pass the few checks of this module is judged by pydantic, on a model that is
made of the same declarations: pydantic decides whether the value holds after all, and words the fault. pydantic also
gives the JSON Schema. Importing pydantic takes longer than the rest of a command's start, so it is imported only then.

The rule: this module may leave any value to pydantic, and takes none that pydantic would refuse.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeGuard,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
)

if TYPE_CHECKING:
    from pydantic import BaseModel, GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

_NEEDED: Any = object()
"""The default of a key that has none."""
_folder: ContextVar[Path | None] = ContextVar("_folder", default=None)


class _Unsure(Exception):
    """pydantic judges the value."""


class Limits:
    """What a key's value is limited to, by the names that pydantic's `Field` has, and the key's default."""

    def __init__(self, default: Any, factory: Callable[[], Any] | None, limits: Mapping[str, Any]) -> None:
        self.default = default
        self.factory = factory
        self.limits = limits

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic import Field as PydanticField

        return handler(Annotated[source, PydanticField(**self.limits)])

    def taken(self, value: Any) -> Any:
        """The value, if it is within the limits. Raises _Unsure."""
        limits = self.limits.items()
        if value is not None and not all(name in _WITHIN and _WITHIN[name](value, limit) for name, limit in limits):
            raise _Unsure
        return value


_WITHIN: Mapping[str, Callable[[Any, Any], bool]] = {
    "ge": lambda value, limit: value >= limit,
    "gt": lambda value, limit: value > limit,
    "le": lambda value, limit: value <= limit,
    "lt": lambda value, limit: value < limit,
    "multiple_of": lambda value, limit: value % limit == 0,
    "min_length": lambda value, limit: len(value) >= limit,
    "max_length": lambda value, limit: len(value) <= limit,
    # In the patterns of Python `$` is also before a line end, and `\w` takes other characters beyond ASCII than in pydantic's.
    "pattern": lambda value, limit: value.isascii() and "\n" not in value and re.search(limit, value) is not None,
}


def Field(default: Any = _NEEDED, *, default_factory: Callable[[], Any] | None = None, **limits: Any) -> Any:
    """A key's default, and the limits of its values: `hold: float = Field(default=0.01, gt=0, le=5)`.

    Limits: `ge`, `gt`, `le`, `lt`, `multiple_of`, `min_length`, `max_length`, `pattern`. Without a default the key is needed.
    """
    return Limits(default, default_factory, limits)


class Before:
    """Has a function look at a value before its type is checked: `Annotated[bytes, Before(from_hex)]`.

    The function gives the value to check, or raises ValueError.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic import BeforeValidator

        return handler(Annotated[source, BeforeValidator(self.function)])


class After(Before):
    """As Before, of a value that holds already."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.function, handler(source))


class in_words:
    """Has a value that does not hold refused in these words: "should be ...".

    `always`: also where it is not a pattern that does not match.
    """

    def __init__(self, wanted: str, *, always: bool = False) -> None:
        self.wanted = wanted
        self.always = always

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic import ValidationError
        from pydantic_core import core_schema

        def check(value: object, inner: Callable[[object], object]) -> object:
            try:
                return inner(value)
            except ValidationError as error:
                if not self.always and error.errors(include_url=False)[0]["type"] != "string_pattern_mismatch":
                    raise
                raise ValueError(f"should be {self.wanted}") from None

        return core_schema.no_info_wrap_validator_function(check, handler(source))


class _Secret:
    """See SECRET."""


SECRET = _Secret()
"""Marks a field of a protocol's settings that recordings leave out: `pin: Annotated[str, SECRET]`."""


class Key:
    """One key of a table, as its class declares it."""

    def __init__(self, owner: type[Settings], name: str, written: Any, value: Any) -> None:
        self._owner = owner
        self._name = name
        self._written = written
        self._limits = value if isinstance(value, Limits) else Limits(value, None, {})

    @property
    def annotation(self) -> Any:
        """The type, with all that limits the values."""
        return Annotated[self._type, self._limits] if self._limits.limits else self._type

    @property
    def _type(self) -> Any:
        if isinstance(self._written, str):
            self._written = eval(self._written, vars(sys.modules[self._owner.__module__]))
        return self._written

    @property
    def marks(self) -> tuple[Any, ...]:
        """What an Annotated adds to the type."""
        return get_args(self.annotation)[1:] if get_origin(self.annotation) is Annotated else ()

    @property
    def is_needed(self) -> bool:
        return self._limits.default is _NEEDED and self._limits.factory is None

    def default(self) -> Any:
        """Raises _Unsure where there is none."""
        if self.is_needed:
            raise _Unsure
        return self._limits.factory() if self._limits.factory else self._limits.default

    def for_pydantic(self) -> tuple[Any, Any]:
        """Type and field, as `create_model` takes them."""
        from pydantic import Field as PydanticField

        limits, known = self._limits, dict(self._limits.limits)
        if limits.factory is not None:
            known["default_factory"] = limits.factory
        elif limits.default is not _NEEDED:
            known["default"] = limits.default
        return self._type, PydanticField(**known)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
class Settings:
    """Base of what the bench file says of one protocol: unknown keys are refused, values are not coerced loosely.

    A key is an annotated attribute: `part: str = ""`, or with limits `node: int = Field(ge=0, le=255)`. The docstring below
    is its description in the JSON Schema. With `takes_more` a class has keys that it does not declare in `model_extra`.
    The methods are named as those of pydantic.
    """

    keys_declared: ClassVar[Mapping[str, Key]] = {}
    _own: ClassVar[Mapping[str, Key]] = {}
    takes_more: ClassVar[bool] = False
    _adapter: ClassVar[Any] = None
    _model: ClassVar[Any] = None
    if TYPE_CHECKING:
        model_fields_set: ClassVar[frozenset[str]]
        model_extra: ClassVar[Mapping[str, Any]]

    def __init_subclass__(cls, *, takes_more: bool = False) -> None:
        cls.takes_more = takes_more or cls.takes_more
        cls._adapter = cls._model = None
        cls._own = {
            name: Key(cls, name, written, cls.__dict__.get(name, _NEEDED))
            for name, written in cls.__annotations__.items()
            if not name.startswith("_") and not _is_of_the_class(written)
        }
        # In Python's order: a key that one base only inherits is that of another base which declares it again.
        of_each = [vars(base).get("_own", {}) for base in reversed(cls.__mro__)]
        cls.keys_declared = {name: key for keys in of_each for name, key in keys.items()}

    def __init__(self, **given: Any) -> None:
        vars(self).update(vars(self.model_validate(given)))

    @classmethod
    def prepared(cls, table: dict[str, Any]) -> dict[str, Any]:
        """The table before its keys are looked at. Raises ValueError."""
        return table

    def check_together(self) -> None:
        """Looks at values that each hold. Raises ValueError where they do not hold together; call it of `super()` first."""

    @classmethod
    def model_validate(cls, table: Any, *, folder: Path | None = None) -> Self:
        """The settings of a table of Python values. `folder`: see `bench_folder`. Raises pydantic's ValidationError."""
        with _in_folder(folder):
            try:
                return cls._read(table)
            except (_Unsure, ValueError):
                found: Self = _adapter(cls).validate_python(_plain(table))
                return found

    @classmethod
    def of_file(cls, table: object, folder: Path) -> Self:
        """The settings of a table of a file, strictly as JSON is: no number for a boolean, no text for a number.

        Raises pydantic's ValidationError.
        """
        with _in_folder(folder):
            try:
                return cls._read(table)
            except (_Unsure, ValueError):
                found: Self = _adapter(cls).validate_json(json.dumps(table), strict=True)
                return found

    @classmethod
    def _read(cls, table: Any) -> Self:
        """Raises _Unsure, and what `prepared` and `check_together` raise."""
        if not isinstance(table, dict):
            raise _Unsure
        keys, more, values = cls.keys_declared, {}, {}
        for name, value in cls.prepared(table).items():
            if name in keys:
                values[name] = _taken(keys[name].annotation, value)
            elif cls.takes_more:
                more[name] = _taken(Any, value)
            else:
                raise _Unsure
        return cls._made(values, more)

    @classmethod
    def _of_model(cls, model: BaseModel) -> Self:
        values = {name: getattr(model, name) for name in model.model_fields_set if name in cls.keys_declared}
        return cls._made(values, model.model_extra or {})

    @classmethod
    def _made(cls, values: dict[str, Any], more: Mapping[str, Any]) -> Self:
        made = cls.__new__(cls)
        held = vars(made)
        for name, key in cls.keys_declared.items():
            held[name] = values[name] if name in values else key.default()
        held["model_fields_set"], held["model_extra"] = frozenset(values) | frozenset(more), more
        made.check_together()
        return made

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same with other values, which are not checked."""
        made = type(self).__new__(type(self))
        vars(made).update({**vars(self), **update, "model_fields_set": self.model_fields_set | update.keys()})
        return made

    def model_dump(self) -> dict[str, Any]:
        """The values, tables in them as dicts."""
        return {name: _plain(getattr(self, name)) for name in self.keys_declared} | dict(self.model_extra)

    def _held(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "model_fields_set"}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Settings) and self._held() == other._held()

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.keys_declared)))

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.keys_declared)
        return f"{type(self).__name__}({said})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can't be changed")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        dumped = core_schema.plain_serializer_function_ser_schema(lambda made: made.model_dump())
        found: CoreSchema = core_schema.no_info_after_validator_function(
            cls._of_model, handler.generate_schema(pydantic_model(cls)), serialization=dumped
        )
        if cls.prepared.__func__ is Settings.prepared.__func__:  # type: ignore[attr-defined]
            return found
        return core_schema.no_info_before_validator_function(
            lambda table: cls.prepared(table) if isinstance(table, dict) else table, found
        )


def is_settings(annotation: Any) -> TypeGuard[type[Settings]]:
    """Whether a type is a table with keys of its own."""
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def pydantic_model(settings: type[Settings]) -> type[BaseModel]:
    """The pydantic model that has the same keys. `declared_by`: the settings."""
    if settings._model is None:
        from pydantic import ConfigDict, create_model

        keys: dict[str, Any] = {name: key.for_pydantic() for name, key in settings.keys_declared.items()}
        config = ConfigDict(extra="allow" if settings.takes_more else "forbid")
        made: Any = create_model(
            settings.__name__, __config__=config, __doc__=settings.__doc__, __module__=settings.__module__, **keys
        )
        made.declared_by = settings
        settings._model = made
    found: type[BaseModel] = settings._model
    return found


def bench_folder() -> Path | None:
    """The bench file's folder, while settings are read from a bench file: where relative paths of it start."""
    return _folder.get()


def holds(wanted: Any, value: object) -> bool:
    """Whether it is certain, without pydantic, that a value of a file is of a type."""
    try:
        _taken(wanted, value)
    except (_Unsure, ValueError):
        return False
    return True


@contextmanager
def _in_folder(folder: Path | None) -> Iterator[None]:
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def _adapter(settings: type[Settings]) -> TypeAdapter[Any]:
    if settings._adapter is None:
        from pydantic import TypeAdapter

        settings._adapter = TypeAdapter(settings)
    found: TypeAdapter[Any] = settings._adapter
    return found


def _is_of_the_class(written: Any) -> bool:
    return written.startswith("ClassVar") if isinstance(written, str) else get_origin(written) is ClassVar


def _plain(value: Any) -> Any:
    """A value with the settings in it as dicts."""
    if isinstance(value, Settings):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _taken(wanted: Any, value: Any) -> Any:
    """A value that is certainly of a type, as pydantic would give it. Raises _Unsure, and ValueError as a Before does."""
    if wanted is Any:
        return _taken(_ANY.get(type(value), int), value)
    if wanted is str and isinstance(value, str):
        value.encode()  # A lone surrogate is refused.
        return value
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _Unsure from None
    if wanted in (bool, bytes, type(None)) and type(value) is wanted:
        return value
    if isinstance(wanted, type) and not get_args(wanted):
        return _taken_as_class(wanted, value)
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return _taken_with_marks(arguments[0], arguments[1:], value)
    if origin is Literal and any(value == word and type(value) is type(word) for word in arguments):
        return value
    if origin in (Union, types.UnionType):
        return _taken_as_any(arguments, value)
    if origin is dict and isinstance(value, dict):
        return {_taken(arguments[0], key): _taken(arguments[1], item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and (origin is list or (origin is tuple and arguments[1:] == (...,))):
        return origin(_taken(arguments[0], item) for item in value)
    raise _Unsure


_ANY: Mapping[type, Any] = {
    **{kind: kind for kind in (str, bool, float, bytes, type(None))},
    list: list[Any],
    tuple: tuple[Any, ...],
    dict: dict[str, Any],
}
"""The types that a file's values have, by that of the value. Others can only be kinds of int."""


def _taken_as_class(wanted: type, value: Any) -> Any:
    if is_settings(wanted):
        return value if isinstance(value, wanted) else wanted._read(value)
    if issubclass(wanted, Enum):
        return wanted(value)
    raise _Unsure


def _taken_as_any(members: tuple[Any, ...], value: Any) -> Any:
    for member in members:
        try:
            return _taken(member, value)
        except (_Unsure, ValueError):
            continue
    raise _Unsure


def _taken_with_marks(wanted: Any, marks: tuple[Any, ...], value: Any) -> Any:
    """The value of an Annotated type; marks that this module does not know are left to pydantic."""
    for mark in reversed(marks):
        if type(mark) is Before:
            value = mark.function(value)
    value = _taken(wanted, value)
    for mark in marks:
        if isinstance(mark, After):
            value = mark.function(value)
        elif isinstance(mark, Limits):
            value = mark.taken(value)
        elif not isinstance(mark, (Before, in_words, _Secret)):
            raise _Unsure
    return value
