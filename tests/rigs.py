"""Fixtures that make several tests' rigs, and close what they made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest


class Closed(Protocol):
    def close(self) -> None: ...


def rigs(make: Callable[..., Closed]) -> Any:
    """A fixture that gives `make`. What was made is closed after the test."""

    @pytest.fixture
    def make_rig() -> Iterator[Callable[..., Closed]]:
        made: list[Closed] = []

        def kept(*arguments: Any, **keys: Any) -> Closed:
            made.append(make(*arguments, **keys))
            return made[-1]

        yield kept
        for rig in made:
            rig.close()

    return make_rig
