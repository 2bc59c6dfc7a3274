"""The table that the benchmarks print: a row for each side of each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`seconds` that a side took; `ratio` to what `against` says."""

    title: str
    side: str
    seconds: float
    ratio: float
    against: str


def printed(rows: Sequence[Row]) -> str:
    titles = max(len(row.title) for row in rows)
    sides = max(len(row.side) for row in rows)
    return "\n".join(
        f"{row.title:<{titles}}  {row.side:<{sides}}  {row.seconds:9.3f} s  {row.ratio:6.2f}  {row.against}".rstrip()
        for row in rows
    )
