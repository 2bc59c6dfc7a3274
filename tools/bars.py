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
    """Bytes, rate and time left while it goes on; bytes and mean rate, or how it was verified, once done.

    `room`: columns for it and the description. What has no room is left out from its end, in whole words.
    """

    def __init__(self, room: int) -> None:
        super().__init__(Column(no_wrap=True))
        self._room = room

    def render(self, task: Task) -> Text:
        room = self._room - len(task.description)
        said = task.fields.get("said")
        if said is not None:
            return Text(_fitted(plain(said), " ", room))
        parts = [f"{task.percentage:3.0f}%", f"{int(task.completed):,} B"]
        seconds = task.elapsed or 0.0
        if seconds > 0.05 and task.completed:
            parts.append(f"{task.completed / seconds / 1000:.1f} kB/s")
        if task.time_remaining is not None:
            parts.append(f"{task.time_remaining:.0f} s left")
        return Text(_fitted("  ".join(parts), "  ", room))


def _fitted(text: str, between: str, room: int) -> str:
    while len(text) > room and between in text:
        text = text.rpartition(between)[0].rstrip()
    return text


TEXT_COLUMNS = 64
"""What stands beside a bar, at most."""


class Bars:
    """Shown from the first event on; `stop` takes them from the terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        # One that is too narrow for text and bar has the text alone.
        width = max(1, min(40, console.width - TEXT_COLUMNS))
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=width, complete_style="cyan", finished_style="green"),
            _Amount(console.width - width - 2),
            console=console,
        )
        self._tasks: dict[tuple[str, Phase], TaskID] = {}

    def show(self, event: ev.PhaseStarted | ev.Progress | ev.PhaseFinished) -> None:
        key = (event.component, event.phase)
        if isinstance(event, ev.PhaseStarted):
            before = self._tasks.pop(key, None)
            if before is not None and before not in self._finished():
                self._progress.remove_task(before)  # It failed, and begins anew.
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
        if key in self._tasks:
            self._progress.start()

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(Text(plain(text)))

    def stop(self) -> None:
        """Makes room for text below what is finished. What is under way is shown again below that text, with its next event."""
        if not self._progress.live.is_started:
            return
        finished = self._finished()
        under_way = {key: task for key, task in self._tasks.items() if task not in finished}
        self._progress.live.transient = not finished
        for task in under_way.values() if finished else ():
            self._progress.update(task, visible=False)
        self._progress.stop()
        for task in finished:
            self._progress.remove_task(task)
        for task in under_way.values():
            self._progress.update(task, visible=True)
        self._tasks = under_way

    def _finished(self) -> set[TaskID]:
        return {task.id for task in self._progress.tasks if task.fields.get("said") is not None}
