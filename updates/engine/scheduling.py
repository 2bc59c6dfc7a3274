"""Which tasks may run at once: components beside each other, within what their buses bear; one component's in order.

A stage is a run of reference steps, whose components don't depend on each other unless a condition says so: a step that asks
for another component's version waits for the update's earlier steps on that component. A step for the host has the stage for
itself: whatever it does, the steps before it are done and those behind it are not begun.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from ...enumerators.bench import Bench
from ...transports import clock, plugins
from ..manifests.conditions import Version
from .plan import Task

MOST_WORKERS = 32


def stages(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    """The tasks in runs, each of which is done before the next one begins."""
    for key, run in groupby(tasks, key=lambda task: -1 if task.component else task.index):
        del key
        yield list(run)


def waits_for(tasks: Sequence[Task]) -> dict[int, set[int]]:
    """By a task's index, the earlier ones of its stage that are to be done before."""
    last: dict[str, int] = {}
    found: dict[int, set[int]] = {}
    for task in tasks:
        names = {task.target}
        names |= {c.component for c in task.options.conditions if isinstance(c, Version) and c.component}
        found[task.index] = {last[name] for name in names if name in last}
        last[task.target] = task.index
    return found


def limits_of(bench: Bench) -> dict[str, int]:
    """By bus, how many components may be worked on at once; a bus that is not in it has no limit."""
    limits = {
        name: spec.at_once or 1
        for name, spec in bench.file.spec.bus.items()
        if spec.at_once is not None or plugins.load(plugins.TRANSPORTS, spec.kind).shared_wire
    }
    alone = {entry.spec.bus for entry in bench.file.entries.values() if not entry.flasher.shares_bus}
    return limits | dict.fromkeys(alone, 1)


def bus_of(task: Task) -> str:
    """The name of its component's bus; "" for a step for the host, and for a component of the host."""
    return task.component.bus if task.component else ""


class Scheduler:
    """Hands out the tasks of one stage to threads, the lowest index first; every hand-out is followed by `done`."""

    def __init__(self, tasks: Sequence[Task], limits: Mapping[str, int]) -> None:
        """`limits`: as `limits_of` has them."""
        self._tasks = {task.index: task for task in tasks}
        self._waits = waits_for(tasks)
        self._followers: dict[int, list[int]] = {}
        for index, before in self._waits.items():
            for other in before:
                self._followers.setdefault(other, []).append(index)
        self._ready: dict[str, list[int]] = {}
        self._free = dict(limits)
        self._left = len(tasks)
        self._running = 0
        self._stopped = False
        self._last: int | None = None
        self._changed = clock.Condition()
        for task in tasks:
            if not self._waits[task.index]:
                self._make_ready(task.index)

    @property
    def workers(self) -> int:
        """How many threads can have something to do at once."""
        return min(MOST_WORKERS, len({task.target for task in self._tasks.values()}))

    def take(self) -> Task | None:
        """The next task, waiting until there is one; None: there are none any more."""
        with self._changed:
            while True:
                task = self._next()
                if task is not None:
                    return task
                if not self._running:
                    self._changed.notify_all()
                    return None
                self._changed.wait()

    def done(self, task: Task) -> None:
        with self._changed:
            self._running -= 1
            self._left -= 1
            if bus_of(task) in self._free:
                self._free[bus_of(task)] += 1
            for index in self._followers.get(task.index, ()):
                self._waits[index].discard(task.index)
                if not self._waits[index]:
                    self._make_ready(index)
            self._changed.notify_all()

    def stop(self) -> None:
        """No task is begun any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def end_with(self, number: int) -> None:
        """No task of a later step of the parent is begun any more."""
        with self._changed:
            self._last = number if self._last is None else min(self._last, number)

    def _next(self) -> Task | None:
        if self._stopped:
            return None
        free = [(waiting[0], bus) for bus, waiting in self._ready.items() if waiting and self._free.get(bus, 1) > 0]
        if not free:
            return None
        index, bus = min(free)
        task = self._tasks[index]
        if self._last is not None and task.number > self._last:
            return None
        heapq.heappop(self._ready[bus])
        self._running += 1
        if bus in self._free:
            self._free[bus] -= 1
        return task

    def _make_ready(self, index: int) -> None:
        heapq.heappush(self._ready.setdefault(bus_of(self._tasks[index]), []), index)


def carry_out(scheduler: Scheduler, work: Callable[[Task], None]) -> None:
    """Runs a stage in threads. Raises what `work` raised first; the others then end what they have begun."""
    raised: list[BaseException] = []

    def run() -> None:
        while (task := scheduler.take()) is not None:
            try:
                work(task)
            except BaseException as error:
                raised.append(error)
                scheduler.stop()
            finally:
                scheduler.done(task)

    threads = [clock.Thread(target=run) for _ in range(scheduler.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
