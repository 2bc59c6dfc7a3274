"""What `monitor` shows on a terminal: a table of the ids that updates, and a log of the last messages below it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..flashers.describing import Describer, Line, id_text
from ..transports.plain import plain
from ..transports.recording.records import clock_text
from .frame_counts import FrameCounts, Id

LOG_SHARE = 3
"""The log has 1 / LOG_SHARE of the terminal's height."""
FRAME_LINES = 5
"""Lines of the table that are no ids: its title, its head, and what lies between it and the log."""


class MonitorTable:
    """Shown from `__enter__` to `__exit__`, which leaves the last picture on the terminal.

    `signals`: what says the frames of the ids in words, if anything does.
    """

    def __init__(self, signals: Describer | None = None) -> None:
        self._signals = signals
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._lines: deque[Line] = deque(maxlen=200)

    def __enter__(self) -> MonitorTable:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, counts: FrameCounts, lines: Iterable[Line], lost: int) -> None:
        """One picture."""
        self._lines.extend(lines)
        self._live.update(self._picture(counts, lost), refresh=True)

    def _picture(self, counts: FrameCounts, lost: int) -> Group:
        height = max(self._console.height, 10)
        log_lines = min(len(self._lines), height // LOG_SHARE)
        ids = list(counts.sorted())
        room = max(height - FRAME_LINES - log_lines, 1)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("bus", no_wrap=True)
        for name in ("id", "frames", "1/s"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("last", no_wrap=True, overflow="ellipsis")
        for found in ids[:room]:
            cells = (found.bus, id_text(found.last), f"{found.count:,}", f"{found.rate:,.0f}", self._last(found))
            table.add_row(*(Text(plain(cell)) for cell in cells))
        more = f"  {len(ids) - room:,} more ids" if len(ids) > room else ""
        head = Text(plain(summary(counts, lost) + more), no_wrap=True, overflow="ellipsis")
        log = [
            Text(
                plain(f"{clock_text(line.time)} {line}"),
                style="red" if line.failed else "",
                no_wrap=True,
                overflow="ellipsis",
            )
            for line in list(self._lines)[-log_lines:]
        ]
        return Group(head, table, *log) if log_lines else Group(head, table)

    def _last(self, found: Id) -> str:
        """The last frame under an id: its signals, or its bytes."""
        if found.secret:
            return "not shown: may be part of a seed or key"
        said = self._signals.take(found.last) if self._signals is not None else None
        return next((line.words for line in said or ()), found.last.data.hex(" ").upper())


def summary(counts: FrameCounts, lost: int) -> str:
    """Frames, loads and what was lost, on one line."""
    loads = ", ".join(f"{bus} {load:.0%} busy" for bus, load in counts.loads.items())
    parts = [f"{counts.frames:,} frames", f"{len(counts.ids):,} ids", loads]
    parts += [f"{counts.errors:,} error frames"] if counts.errors else []
    return ", ".join(filter(None, (*parts, f"{lost:,} lost")))
