"""The one reader of JSON: what it refuses, and that its work grows with the text and no faster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.transports import json_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_what_python_writes_is_read_as_it_was(value: Any) -> None:
    text = json.dumps(value)
    assert json_text.parse(text, most=len(text)) == value
    assert json_text.parse(text.encode("utf-8-sig"), most=len(text) + 3) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' is given twice"),
        ('[{"x": {"a": 1, "a": 1}}]', "'a' is given twice"),
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ("[" * 500_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("NaN", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        (r'"\ud800"', "half a surrogate pair"),
        (r'{"\udfff": 1}', "half a surrogate pair"),
        (r'["\ude00\ud83d"]', "half a surrogate pair"),
        ("9" * 5000, "digits"),
        ("", "Expecting value"),
        ("{} {}", "Extra data"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"\xff\xfe{\0}\0", "not UTF-8 at byte 0"),
    ],
    ids=str,
)
def test_what_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        json_text.parse(text, most=2_000_000)


def test_what_is_as_deep_as_allowed_is_taken() -> None:
    text = "[" * 64 + "]" * 64
    assert json.dumps(json_text.parse(text, most=200)) == text


def test_a_text_that_is_too_long_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *words, **more: pytest.fail("parsed"))
    for text in ("[1, 2]", b"[1, 2]"):
        with pytest.raises(ValueError, match="more than 5"):
            json_text.parse(text, most=5)


def test_halves_of_pairs_that_this_program_wrote_are_taken() -> None:
    assert json_text.parse(json.dumps("caf\udce9"), most=100, undecoded=True) == "caf\udce9"


def test_many_fields_of_which_the_last_is_given_twice_are_refused_at_once() -> None:
    # With a search through all earlier fields for each one this takes hours: it does not end within this test's time.
    fields = ",".join(f'"{number}":0' for number in range(400_000))
    with pytest.raises(ValueError, match="'399999' is given twice"):
        json_text.parse(f'{{{fields},"399999":0}}', most=8 << 20)
