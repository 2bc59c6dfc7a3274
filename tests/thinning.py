"""Which of its places a sweep tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Thinning:
    """`every`: all places, as --every-cut wants it; else about as many as the test says, at even distances."""

    every: bool

    def __call__(self, places: Sequence[T], wanted: int) -> Sequence[T]:
        return places if self.every else places[:: -(-len(places) // wanted) or 1]
