"""Exploration finds old faults that are put back: at the first seed that finds each, of the 5,000 that it may take."""

from __future__ import annotations

import pytest

from .old_faults import MOST, found_by

pytestmark = pytest.mark.real_time("each seed has a simulated clock of its own")

FIRST = {
    "erase_beyond_the_plan": 2,
    "late_journal": 32,
    "retry_that_forgets": 67,
    "names_that_are_not_on_the_disk": 148,
    "lock_order_turned_round": 12,
}
"""As `python -m tests.explore.old_faults NAME` finds them. The seeds mean something else when what is drawn changes."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FIRST)
def test_it_is_found(name: str) -> None:
    seed = FIRST[name]
    assert seed <= MOST
    assert found_by(name, range(seed, seed + 1)) is not None
