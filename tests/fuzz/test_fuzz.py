"""Every reader on inputs that nobody made: it returns, or raises what it is documented to raise. E-UNEXPECTED is a fault.

The same targets run for as long as you like, guided by coverage, under `make fuzz`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.tests.fuzz import targets
from proxyflash.tests.fuzz.inputs import FOLDER, all_seeds, all_targets, found
from proxyflash.transports.errors import ProxyflashError

TARGETS = all_targets()
SEEDS = all_seeds()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WITH_JSON = (
    "json_document", "import_manifest", "device_manifest", "update", "key_file", "attempts_file", "backup_file",
    "emulated_marker", "apt_manifest", "script_result", "selector", "kept_plan_file",
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good input with a few pieces taken out, put in, turned, or given twice."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 2, 4, 8, 64])))
        match draw(st.integers(0, 3)):
            case 0:
                del data[start:end]
            case 1:
                data[start:end] = draw(st.binary(max_size=9))
            case 2:
                data[start:start] = data[start:end] * draw(st.sampled_from([1, 2, 50]))
            case _:
                data[start:end] = bytes(byte ^ 0xFF for byte in data[start:end])
    return bytes(data)


@st.composite
def replaced(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A JSON document with one value that is another one."""
    document: Any = json.loads(draw(st.sampled_from(seeds)))
    place, value = None, document
    while isinstance(value, dict | list) and value and (place is None or draw(st.booleans())):
        key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else list(range(len(value)))))
        place, value = (value, key), value[key]
    if place is not None:
        place[0][place[1]] = draw(JSON)
    return json.dumps(document).encode()


def inputs(name: str) -> st.SearchStrategy[bytes]:
    ways = [st.binary(max_size=300)]
    if seeds := SEEDS.get(name):
        ways.append(changed(seeds))
    if name in WITH_JSON:
        ways += [replaced(seeds or [b"{}"]), JSON.map(lambda value: json.dumps(value).encode())]
    return st.one_of(ways)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_reader_takes_or_refuses_whatever_comes(name: str) -> None:
    given_inputs = 0

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs(name))
    def run(data: bytes) -> None:
        nonlocal given_inputs
        given_inputs += 1
        TARGETS[name](data)

    run()
    assert given_inputs >= 20


KEPT = [(name, path) for name in sorted(TARGETS) for path in found(name)]


@pytest.mark.parametrize(("name", "path"), KEPT, ids=lambda value: getattr(value, "name", value))
def test_what_found_a_fault_once_finds_none_any_more(name: str, path: Any) -> None:
    data = path.read_bytes()
    assert data
    TARGETS[name](data)


def test_the_corpus_belongs_to_targets() -> None:
    kept = {path.name for path in FOLDER.glob("*") if path.is_dir()}
    assert kept <= set(TARGETS)


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_a_good_input_is_taken_by_its_target(name: str) -> None:
    assert SEEDS[name]
    for data in SEEDS[name]:
        TARGETS[name](data)


def test_an_unforeseen_exception_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "TARGETS", {})

    @targets.reader(ProxyflashError)
    def broken(data: bytes) -> None:
        raise KeyError(re.escape(data.decode()))

    with pytest.raises(KeyError):
        targets.TARGETS["broken"](b"x")
