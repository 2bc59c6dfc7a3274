"""Progress bars on a terminal's stderr: one for each phase of each component that has something to count."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from ..flashers import events as ev
from ..flashers.events import Phase
from ..transports.plain import plain
from .wording import finished_text


class _Amount(ProgressColumn):
    """Bytes, rate and time left while it goes on; bytes and mean rate, or how it was verified, once done."""

    def render(self, task: Task) -> Text:
        said = task.fields.get("said")
        if said is not None:
            return Text(plain(said))
        parts = [f"{int(task.completed):,} B"]
        seconds = task.elapsed or 0.0
        if seconds > 0.05 and task.completed:
            parts.append(f"{task.completed / seconds / 1000:.1f} kB/s")
        if task.time_remaining is not None:
            parts.append(f"{task.time_remaining:.0f} s left")
        return Text("  ".join(parts))


class Bars:
    """Started by the first event, until `stop`."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            _Amount(),
            console=Console(stderr=True, highlight=False),
        )
        self._tasks: dict[tuple[str, Phase], TaskID] = {}
        self._progress.start()

    def show(self, event: ev.PhaseStarted | ev.Progress | ev.PhaseFinished) -> None:
        key = (event.component, event.phase)
        if isinstance(event, ev.PhaseStarted):
            if event.total:
                self._tasks[key] = self._progress.add_task(
                    plain(f"{event.component}  {event.phase:<7}"), total=event.total
                )
        elif key in self._tasks:
            if isinstance(event, ev.Progress):
                self._progress.update(self._tasks[key], completed=event.done)
            else:
                # The phase's own time: the clock of a bar goes on for as long as others are shown beside it.
                self._progress.update(self._tasks[key], completed=event.total, said=finished_text(event))

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(Text(plain(text)))

    def stop(self) -> None:
        self._progress.stop()
