"""Which places a sweep tries."""

from __future__ import annotations

from itertools import chain

import pytest
from proxyflash.testing.thinning import Thinning


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_the_shares_are_all_places_and_none_twice(count: int) -> None:
    places = range(1, 24)
    shares = [Thinning(True, (number, count))(places, 3) for number in range(1, count + 1)]
    assert sorted(chain(*shares)) == list(places)


def test_a_share_of_few_places_is_not_empty() -> None:
    assert Thinning(True, (3, 4))([5, 6], 3) == [5]


@pytest.mark.parametrize("said", ["0/4", "5/4", "2", "a/b", "", "1/4/2"])
def test_a_share_that_is_none(said: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytestconfig.option, "cut_share", said)
    with pytest.raises(pytest.UsageError, match="is not a share, such as 2/4"):
        Thinning.of(pytestconfig)
