"""What a person reads of sizes, plans and finished phases: in the lines of `output` and beside the bars of `bars`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..flashers import events as ev
from ..transports.plain import plain, word

BETWEEN = " · "
"""Stands between the parts of a plan's line."""
MOST_LEFT_OUT = 5
"""Pieces of a file that are named in a line."""


def size(count: int) -> str:
    """Bytes as people write them: 512 bytes, 64 KiB, 1,048,576."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit:,} {name}"
    return f"{count:,} bytes"


def folded(cells: Sequence[str], columns: int, between: str = "  ") -> Iterator[str]:
    """Cells as one line, or as several lines of at most `columns` characters; 0: as one line. A cell is never divided."""
    line, *rest = cells
    for cell in rest:
        if columns and len(f"{line}{between}{cell}".rstrip()) > columns:
            yield line.rstrip()
            line = f"    {cell}"
        else:
            line += f"{between}{cell}"
    yield line.rstrip()


def plan_text(event: ev.Planned) -> str:
    """The sums of a plan, in one line."""
    parts = [f"{event.image_bytes:,} bytes of {event.memory_bytes:,}"]
    if event.erase_units:
        units = "unit" if event.erase_units == 1 else "units"
        parts.append(f"erase {event.erase_units} {units} ({size(event.erase_bytes)})")
    if event.replaces:
        parts.append(f"replace what {event.replaces} holds")
    if event.blank_bytes:
        parts.append(f"skip {event.blank_bytes:,} blank bytes")
    if event.present_bytes:
        parts.append(f"{event.present_bytes:,} bytes are there already")
    parts += [f"left out: {word(what)}" for what in event.left_out[:MOST_LEFT_OUT]]
    if (more := len(event.left_out) - MOST_LEFT_OUT) > 0:
        parts.append(f"and {more:,} more")
    if not event.erase_units and not event.write_bytes:
        parts.append("nothing to write")
    else:
        takes = f"about {max(1, round(event.seconds))} s" if event.seconds is not None else ""
        at = f"at {event.rate}" if event.rate else ""
        parts += [pace] if (pace := f"{takes} {at}".strip()) else []
    parts += [plain(note) for note in (event.default_rate, event.unchecked) if note]
    return BETWEEN.join(parts)


def finished_text(event: ev.PhaseFinished) -> str:
    """What a phase came to: how it went, or bytes and their mean rate."""
    if event.detail:
        return event.detail
    # What was compared by a sample has no rate to speak of.
    timed = event.total and event.seconds > 0.05 and event.phase is not ev.Phase.COMPARE
    rate = f"  {event.total / event.seconds / 1000:,.1f} kB/s" if timed else ""
    return f"{event.total:,} B{rate}" if event.total else f"{event.seconds:.1f} s"
