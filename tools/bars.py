"""Progress bars on a terminal's stderr: one for each phase of each component that has something to count."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from ..flashers import events as ev
from ..flashers.events import Phase


class _Amount(ProgressColumn):
    """Bytes, rate and time left while it goes on; bytes and mean rate, or how it was verified, once done."""

    def render(self, task: Task) -> Text:
        parts = [f"{int(task.completed):,} B"]
        detail = task.fields.get("detail", "")
        seconds = task.elapsed or 0.0
        if seconds > 0.05 and task.completed:
            parts.append(f"{task.completed / seconds / 1000:.1f} kB/s")
        if not task.finished and task.time_remaining is not None:
            parts.append(f"{task.time_remaining:.0f} s left")
        return Text("  ".join([detail] if detail else parts))


class Bars:
    """Started by the first event, until `stop`."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), _Amount(), console=Console(stderr=True)
        )
        self._tasks: dict[tuple[str, Phase], TaskID] = {}
        self._progress.start()

    def show(self, event: ev.PhaseStarted | ev.Progress | ev.PhaseFinished) -> None:
        key = (event.component, event.phase)
        if isinstance(event, ev.PhaseStarted):
            if event.total:
                self._tasks[key] = self._progress.add_task(f"{event.component}  {event.phase:<7}", total=event.total)
        elif key in self._tasks:
            if isinstance(event, ev.Progress):
                self._progress.update(self._tasks[key], completed=event.done)
            else:
                self._progress.update(self._tasks[key], completed=event.total, detail=event.detail)

    def stop(self) -> None:
        self._progress.stop()
