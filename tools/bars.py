"""The lines of a terminal that change: one for each component under way, with its phase, how far it is, rate and time left.

    imu          write   ━━━━━━━━━━╸           62 %  9.4 kB/s  3 s left

A phase that has ended makes room for the next one. A verdict is a line of its own above these, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..flashers import events as ev
from ..flashers.events import Phase
from ..transports import clock
from ..transports.plain import plain
from .wording import finished_text

LONGEST_BAR, SHORTEST_BAR = 40, 6
"""Cells. Where there is no room for the shortest, there is no bar."""
FIGURES = len("100 %  1,234.5 kB/s  1,234 s left")
"""Cells that are kept for what stands behind a bar."""
SHORTEST_RATED = 0.05
"""Seconds after which there is a rate to speak of."""
REFRESHES = 10
"""A second."""


@dataclass(slots=True)
class _Row:
    """What is known of a component's phase. `began`: in seconds; `said`: what the phase has come to, "" before."""

    phase: Phase
    total: int
    began: float
    done: int = 0
    said: str = ""

    def figures(self, now: float) -> Iterator[str]:
        """How far it is, how fast, how long it takes yet; or what the phase has come to."""
        seconds = now - self.began
        if self.said:
            yield self.said
        elif not self.total:
            if seconds >= 1:
                yield f"{seconds:.0f} s"
        else:
            yield f"{100 * self.done / self.total:3.0f} %"
            if seconds > SHORTEST_RATED and self.done:
                rate = self.done / seconds
                yield f"{rate / 1000:,.1f} kB/s"
                yield f"{(self.total - self.done) / rate:,.0f} s left"


class Bars:
    """Shown from the first event on. `get_time`: seconds, by which rates are computed; `moves`: whether it is drawn again
    between two events."""

    def __init__(self, get_time: Callable[[], float] = clock.monotonic, *, moves: bool = True) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._get_time = get_time
        self._moves = moves
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None

    def show(self, event: ev.PhaseStarted | ev.Progress | ev.PhaseFinished) -> None:
        """A line for the event's component, from its first phase on."""
        row = self._rows.get(event.component)
        match event:
            case ev.PhaseStarted(phase=phase, total=total):
                self._rows[event.component] = _Row(phase, total, self._get_time())
            case ev.Progress(done=done) if row is not None:
                row.done = done
            case ev.PhaseFinished() if row is not None:
                row.done, row.said = row.total, plain(finished_text(event))
        self.resume()
        # A phase that ends before the next time is seen, too.
        if self._live is not None and not (self._moves and isinstance(event, ev.Progress)):
            self._live.refresh()

    def end(self, component: str) -> None:
        """Takes away the line of a component whose verdict is known."""
        self._rows.pop(component, None)

    def say(self, text: str) -> None:
        """A line above the others."""
        self._console.print(Text(plain(text)))

    def stop(self) -> None:
        """Leaves nothing on the terminal, until the next event or `resume`."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def resume(self) -> None:
        """What is under way is shown again, below what was printed since."""
        if self._rows and self._live is None:
            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                auto_refresh=self._moves,
                refresh_per_second=REFRESHES,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)

    def _table(self) -> Table:
        rows = {plain(name): row for name, row in list(self._rows.items())}
        # A blank behind each column, and one cell that is kept free: some terminals go on to the next line in the last.
        room = self._console.width - max(map(len, rows), default=0) - len("  connect") - 3
        width = min(LONGEST_BAR, room - FIGURES)
        width = width if width >= SHORTEST_BAR else 0
        table = Table.grid(padding=(0, 1))
        for _ in range(3 if width else 2):
            table.add_column(no_wrap=True)
        longest = max(map(len, rows), default=0)
        for name, row in rows.items():
            bar = ProgressBar(row.total, row.done, width, complete_style="cyan") if row.total else Text("")
            figures = Text(_fitted("  ".join(row.figures(self._get_time())), room - width))
            table.add_row(Text(f"{name:<{longest}}  {row.phase:<7}"), *([bar] if width else []), figures)
        return table


def _fitted(text: str, room: int) -> str:
    """Text that has no room is left out from its end: a figure with its unit, or a part of a list, before a word."""
    for between in ("  ", ", ", " "):
        while len(text) > room and between in text.strip():
            text = text.rpartition(between)[0].rstrip()
    return text[: max(0, room)]
