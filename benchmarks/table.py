"""The table that the benchmarks print: a row for each side of each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`seconds` that a side took, None where it could not be measured, which `note` then explains.

    `of_limit`: the limit's time divided by this one; 1.0 is as quick as wire and part allow. `to_reference`: this time
    divided by that of the quickest other tool (or by what the comparison names); below 1.0 is quicker than that.
    `note`: where the time goes, or what else was measured. `host`: milliseconds of this host's processor for each 1024
    bytes of the image.
    """

    title: str
    side: str
    seconds: float | None = None
    of_limit: float | None = None
    to_reference: float | None = None
    note: str = ""
    host: float | None = None


HEAD = ("comparison", "side", "seconds", "of limit", "to others", "ms/KiB", "where the time goes")


def printed(rows: Sequence[Row]) -> str:
    """The rows as text, in columns; a title stands where it changes."""
    cells = [HEAD]
    before = ""
    for row in rows:
        cells.append(
            (
                "" if row.title == before else row.title,
                row.side,
                "" if row.seconds is None else f"{row.seconds:.3f}",
                "" if row.of_limit is None else f"{100 * row.of_limit:.1f} %",
                "" if row.to_reference is None else f"{row.to_reference:.2f}",
                "" if row.host is None else f"{row.host:.3f}",
                row.note,
            )
        )
        before = row.title
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD) - 1)]
    lines = []
    for line in cells:
        texts = [f"{line[column]:<{widths[column]}}" for column in (0, 1)]
        figures = [f"{line[column]:>{widths[column]}}" for column in (2, 3, 4, 5)]
        lines.append("  ".join([*texts, *figures, line[6]]).rstrip())
    return "\n".join(lines)
