"""The order of versions: by hand, and Semantic Versioning's own example."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.updates.manifests.versions import key, older

# The order of Semantic Versioning 2.0.0, section 11, with its sections 2 and 3 around.
IN_ORDER = [
    "0.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.9.0",
    "1.10.0",
    "2",
]


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(IN_ORDER, 2)))
def test_the_order(first: str, second: str) -> None:
    assert older(first, second) is True
    assert older(second, first) is False


@pytest.mark.parametrize(("first", "second"), [("1.0", "1"), ("v1.2", "1.2.0"), ("1.2+5", "1.2+6"), ("01.2", "1.2")])
def test_equal(first: str, second: str) -> None:
    assert older(first, second) is False
    assert older(second, first) is False


@pytest.mark.parametrize("text", ["", "n/a", "1.", ".1", "1..2", "1.2beta", "1.2-", "1 2", "९.१", "1" * 300])
def test_what_is_no_version(text: str) -> None:
    assert key(text) is None
    assert older(text, "1.0") is None
    assert older("1.0", text) is None


@given(st.text(alphabet="0123456789.-+vab ", max_size=40), st.text(alphabet="0123456789.-+vab ", max_size=40))
@settings(max_examples=300, deadline=None)
def test_one_order_for_all(first: str, second: str) -> None:
    if key(first) is not None and key(second) is not None:
        assert not (older(first, second) and older(second, first))
        assert (key(first) == key(second)) == (not older(first, second) and not older(second, first))
