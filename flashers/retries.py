"""`retried`: what is tried again where its failure may pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def _go_on(error: Exception) -> None:
    """Nothing has to be done before the next try."""


def retried(
    action: Callable[[], T],
    tries: int,
    errors: type[Exception] | tuple[type[Exception], ...],
    recover: Callable[[Exception], T | None] = _go_on,
) -> T:
    """What `action` returns, tried up to `tries` times where it raises one of `errors`.

    `recover` gets the error of each try but the last one. What it returns is the result, unless that is None: then the
    action is tried again. Raises what the last try raises, and what `recover` does.
    """
    for _ in range(tries - 1):
        try:
            return action()
        except errors as error:
            if (settled := recover(error)) is not None:
                return settled
    return action()
