"""Which of its places a sweep tries, and how a failure names the place.

The options --every-cut, --cut-share and --only-cut are those of the pytest plugin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import pytest

T = TypeVar("T")


@dataclass(frozen=True)
class Thinning:
    """`every`: all places, as --every-cut wants it; else about as many as the test says, at even distances.

    `share`: (2, 4) is the second of four shares of all places, each fourth from the second on.
    """

    every: bool
    share: tuple[int, int] = (1, 1)

    @property
    def is_all(self) -> bool:
        return self.every and self.share[1] == 1

    @classmethod
    def of(cls, config: pytest.Config) -> Thinning:
        """As the options want it. Raises pytest.UsageError for a share that is none."""
        said = str(config.getoption("cut_share"))
        found = re.fullmatch("([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", said)
        if found is None or int(found[1]) > int(found[2]):
            raise pytest.UsageError(f"--cut-share {said!r} is not a share, such as 2/4")
        return cls(bool(config.getoption("every_cut")), (int(found[1]), int(found[2])))

    def __call__(self, places: Sequence[T], wanted: int) -> Sequence[T]:
        number, count = self.share
        return (places[number - 1 :: count] or places[:1]) if self.every else spread(places, wanted)


def spread(places: Sequence[T], wanted: int) -> Sequence[T]:
    """About `wanted` of the places, from the first one on at even distances."""
    return places[:: -(-len(places) // wanted) or 1]


class Sweep:
    """The places, each a number, that one test tries. Their count goes into the test's report as `cuts`."""

    def __init__(self, request: pytest.FixtureRequest, places: Sequence[int], wanted: int, what: str) -> None:
        """`wanted`: how many places are tried without --every-cut. `what`: happens at a place, in words."""
        self.only: int | None = request.config.getoption("only_cut")
        thinning = Thinning.of(request.config)
        self._what = what
        self._last = places[-1]
        self._node = request.node.nodeid
        self.chosen = thinning(places, wanted) if self.only is None else [self.only]
        request.node.user_properties.append(("cuts", len(self.chosen)))

    def __iter__(self) -> Iterator[int]:
        return iter(self.chosen)

    @contextmanager
    def at(self, place: int) -> Iterator[None]:
        """What fails in this block gets a note with the place, and how to try this place alone."""
        try:
            yield
        except Exception as error:
            error.add_note(f"{self._what} {place} of {self._last}; this place alone: '{self._node}' --only-cut {place}")
            raise
