"""A deadline is a point in time that only comes nearer."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline


def test_it_comes_nearer_and_passes() -> None:
    deadline = Deadline.after(1000)
    first = deadline.remaining
    assert 0 < deadline.remaining <= first <= 1000
    assert not deadline.expired


def test_one_that_has_passed_leaves_nothing() -> None:
    for deadline in (Deadline.after(0), Deadline.after(-5), Deadline(0.0)):
        assert deadline.expired
        assert deadline.remaining == 0.0


def test_it_is_on_the_monotonic_clock() -> None:
    before = clock.monotonic()
    at = Deadline.after(5).at
    assert before + 5 <= at <= clock.monotonic() + 5


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_sooner_is_never_later(seconds: float, other: float) -> None:
    deadline = Deadline.after(seconds)
    sooner = deadline.sooner(other)
    assert sooner.at <= deadline.at
    assert sooner.at <= clock.monotonic() + other


def test_a_deadline_that_never_comes_is_shortened_all_the_same() -> None:
    assert Deadline(math.inf).sooner(1.0).remaining <= 1.0
