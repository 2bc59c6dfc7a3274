"""Exploration finds old faults that are put back, each within the 5,000 seeds that it may take."""

from __future__ import annotations

import pytest

from .old_faults import MOST, found_by

pytestmark = pytest.mark.real_time("each seed has a simulated clock of its own")

FIRST = {
    "erase_beyond_the_plan": 1,
    "late_journal": 32,
    "retry_that_forgets": 37,
    "names_that_are_not_on_the_disk": 80,
    "lock_order_turned_round": 12,
}
"""As `python -m tests.explore.old_faults NAME` finds them: where the search begins, so that it is short. The seeds mean something
else when what is drawn changes."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FIRST)
def test_it_is_found(name: str) -> None:
    assert found_by(name, range(FIRST[name], MOST + 1)) is not None
