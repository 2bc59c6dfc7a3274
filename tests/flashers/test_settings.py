"""Settings: without pydantic they take just the values that pydantic would take, and give the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.enumerators.benchfile.schema import BusSpec, FileSpec
from proxyflash.flashers.settings import After, Before, Field, Limits, Settings, in_words, is_settings
from proxyflash.transports import plugins
from proxyflash.transports.toml_text import Hexadecimal
from proxyflash.updates.manifests.policy import Policy
from pydantic import TypeAdapter, ValidationError


def models() -> Iterator[type[Settings]]:
    """Those of the bench file, of every protocol, and of the updates, with the tables in them."""
    flashers = [plugins.load(plugins.FLASHERS, name) for name in plugins.names(plugins.FLASHERS)]
    waiting: list[Any] = [FileSpec, Policy, *(kind for f in flashers for kind in (f.Address, f.Profile))]
    seen = set()
    while waiting:
        found = waiting.pop()
        if is_settings(found) and found not in seen:
            seen.add(found)
            yield found
            waiting += [key.annotation for key in found.keys_declared.values()]
        waiting += get_args(found)


MODELS = sorted(models(), key=lambda model: (model.__module__, model.__name__))


def likely(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a type and its limits, some just outside of them."""
    arguments = get_args(annotation)
    if is_settings(annotation):
        return tables(annotation)
    if get_origin(annotation) is Annotated:
        bounds = [bound for mark in arguments[1:] if isinstance(mark, Limits) for bound in mark.limits.values()]
        near = [bound + by for bound in bounds if isinstance(bound, (int, float)) for by in (-1, 0, 1)]
        return likely(arguments[0]) | st.sampled_from(near or [0])
    if get_origin(annotation) is Literal:
        return st.sampled_from([*arguments, "x"])
    if get_origin(annotation) in (tuple, list):
        return st.lists(likely(arguments[0]), max_size=2)
    if get_origin(annotation) is dict:
        return st.dictionaries(st.text("a-\n", max_size=2), likely(arguments[1]), max_size=3)
    if arguments:
        return st.one_of([likely(member) for member in arguments])
    return ANYTHING


ANYTHING: st.SearchStrategy[Any] = (
    st.booleans()
    | st.integers(-2, 2)
    | st.integers(0, 1 << 33)
    | st.just(10**400)
    | st.floats(0, 10)
    | st.sampled_from(
        ["", "a", "00 ff", "none", "xor", "a.b:c", "erase", "loader", "gecko", "(x)", "(", "é", "²", "a\n"]
    )
    | st.lists(st.integers(0, 2), max_size=1)
    | st.just({})
)


def tables(model: type[Settings]) -> st.SearchStrategy[Any]:
    keys = {name: key.annotation for name, key in model.keys_declared.items()}
    needed = {name for name, key in model.keys_declared.items() if key.is_needed}
    of_keys = [
        st.fixed_dictionaries({key: likely(keys[key]) for key in needed | {chosen}}) for chosen in keys or needed
    ]
    return st.one_of([*of_keys, st.just({}), st.just({"nonsense": 1})])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_table_is_taken_as_pydantic_takes_it(model: type[Settings], data: st.DataObject) -> None:
    table = data.draw(tables(model))
    try:
        found = model.of_file(table, Path("/bench"))
    except ValidationError:
        return  # pydantic refuses it.
    other = TypeAdapter(model).validate_json(json.dumps(table), strict=True)
    # Paths start at the folder, which only one of the two knows.
    dumped = json.dumps(found.model_dump(), default=repr).replace("/bench/", "")
    assert dumped == json.dumps(other.model_dump(), default=repr)
    assert found.model_fields_set == other.model_fields_set


class Inner(Settings):
    number: int = Field(ge=1, le=4)
    word: Literal["a", "b"] = "a"


class Table(Settings):
    raw: Annotated[bytes, Before(lambda value: bytes.fromhex(value) if isinstance(value, str) else value)] = b""
    name: Annotated[str, Field(pattern="^[a-z]+$"), in_words("of letters")] = "x"
    double: Annotated[int, After(lambda value: 2 * value)] = 0
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    more: dict[str, float] = Field(default_factory=dict, max_length=1)
    seconds: float = Field(default=1.0, le=5)
    function: str = Field(default="", pattern=r"^\w*$")
    finite: float = Field(default=1.0, allow_inf_nan=False)
    level: Literal[1, 2] = 1

    def check_together(self) -> None:
        if self.inner is not None and self.many:
            raise ValueError("inner and many exclude each other")


FOLDER = Path("/bench")


class Stricter(Inner):
    number: int = Field(ge=1, le=2)


class Other(Inner):
    pass


class Both(Other, Stricter):
    pass


def test_a_key_is_that_of_the_base_that_python_finds_first() -> None:
    assert Both.of_file({"number": 2}, FOLDER).number == 2
    with pytest.raises(ValidationError, match="less than or equal to 2"):
        Both.of_file({"number": 3}, FOLDER)


def test_values_are_given_as_their_types_are() -> None:
    table = {"raw": "01 02", "double": 3, "many": [{"number": 2}], "more": {"a": 1}}
    found = Table.of_file(table, FOLDER)
    assert (found.raw, found.double, found.many, found.more) == (b"\x01\x02", 6, (Inner(number=2),), {"a": 1.0})
    assert found.model_fields_set == set(table)
    assert found == Table.model_validate(table)
    assert {Inner(number=2), Inner(number=2, word="a")} == set(found.many)


@pytest.mark.parametrize(("table", "place", "said"), [
    ({"inner": {"number": 5}}, ("inner", "number"), "less than or equal to 4"),
    ({"inner": {}}, ("inner", "number"), "Field required"),
    ({"inner": {"number": True}}, ("inner", "number"), "valid integer"),
    ({"inner": {"number": 1, "word": "c"}}, ("inner", "word"), "'a' or 'b'"),
    ({"inner": {"number": 1}, "many": [{"number": 1}]}, (), "inner and many exclude each other"),
    ({"name": "x\n"}, ("name",), "should be of letters"),
    ({"raw": "0"}, ("raw",), "hexadecimal"),
    ({"more": {"a": 1, "b": 2}}, ("more",), "at most 1 item"),
    ({"seconds": 10**400}, ("seconds",), "less than or equal to 5"),
    ({"function": "²"}, ("function",), "should match pattern"),
    ({"finite": float("inf")}, ("finite",), "finite number"),
    ({"nonsense": 1}, ("nonsense",), "Extra inputs"),
    ([], (), "should be an object"),
])  # fmt: skip
def test_what_does_not_hold_is_worded_by_pydantic(table: Any, place: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Table.of_file(table, FOLDER)
    (fault,) = caught.value.errors()
    assert fault["loc"] == place
    assert said in fault["msg"]


@pytest.mark.parametrize("given", [True, 1.0])
def test_a_number_that_pydantic_turns_into_the_declared_value_is_that_value(given: Any) -> None:
    assert type(Table.of_file({"level": given}, FOLDER).level) is int


def test_values_of_any_type_are_plain() -> None:
    """A target's hexadecimal number is a kind of int that is written otherwise."""
    found = BusSpec.of_file({"kind": "can", "deep": [{"id": Hexadecimal(0x7E0)}]}, FOLDER)
    assert type(found.settings["deep"][0]["id"]) is int


def test_all_faults_are_found() -> None:
    with pytest.raises(ValidationError) as caught:
        Table.of_file({"name": "1", "inner": {"number": 9, "word": "z"}}, FOLDER)
    assert [fault["loc"] for fault in caught.value.errors()] == [("name",), ("inner", "number"), ("inner", "word")]


def test_settings_are_not_changed() -> None:
    with pytest.raises(AttributeError, match=r"Inner.number can't be changed"):
        Inner(number=1).number = 2  # type: ignore[misc]


@pytest.mark.real_time("another program")
@pytest.mark.parametrize(("protocol", "address"), [
    ("stm32-uart", {}), ("uds", {"request": 0x7E0}), ("dfu", {"serial": "1"}), ("stk500v1", {}), ("smp", {"image": 1}),
    ("xmodem", {}),
])  # fmt: skip
def test_what_holds_needs_no_pydantic(protocol: str, address: dict[str, Any]) -> None:
    """pydantic takes as long to import as the rest of a command's start."""
    code = (
        "import sys, pathlib\n"
        "from proxyflash.transports import plugins\n"
        "from proxyflash.enumerators.benchfile.schema import BusSpec, FileSpec\n"
        f"flasher = plugins.load(plugins.FLASHERS, {protocol!r})\n"
        f"flasher.Address.of_file({address!r}, pathlib.Path()), flasher.Profile.of_file({{}}, pathlib.Path())\n"
        "FileSpec.of_file({'bus': {'b': {'kind': 'can', 'bitrate': 1}}}, pathlib.Path())\n"
        "assert 'pydantic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
