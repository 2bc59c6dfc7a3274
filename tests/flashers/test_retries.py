"""`retried`: how often, after what, and what comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from proxyflash.flashers.retries import retried


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def action() -> str:
        if left:
            raise left.pop()
        return "done"

    return action


def test_it_goes_on_until_the_action_succeeds() -> None:
    seen: list[Exception] = []
    assert retried(failing(2, OSError("lost")), 3, OSError, seen.append) == "done"
    assert list(map(str, seen)) == ["lost", "lost"]


def test_the_last_error_is_raised_and_not_recovered_from() -> None:
    seen: list[Exception] = []
    with pytest.raises(OSError, match="lost"):
        retried(failing(3, OSError("lost")), 3, OSError, seen.append)
    assert len(seen) == 2


def test_other_errors_end_it() -> None:
    with pytest.raises(KeyError):
        retried(failing(1, KeyError()), 3, (OSError, ValueError))


def test_what_recovering_finds_is_the_result() -> None:
    assert retried(failing(3, OSError()), 3, OSError, lambda error: "was done") == "was done"
