"""Faults that the product once had, or could have, put back one at a time: exploration has to find each of them.

python -m tests.explore.old_faults          # searches the first seed that finds each one, from 1 on
python -m tests.explore.old_faults NAME     # that of one
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers.flasher import Bootloader
from proxyflash.flashers.memory import Range
from proxyflash.flashers.memory_strategy import MemoryStrategy
from proxyflash.flashers.serial.bootloader import SerialBootloader
from proxyflash.transports import clock, private_files
from proxyflash.updates.engine import plan as planning
from proxyflash.updates.engine.attempts import Attempts
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.engine.journal import Journal
from proxyflash.updates.engine.scheduling import Scheduler
from proxyflash.updates.engine.task_runner import TaskRunner

from .run import explore
from .world import replaced

MOST = 5000
"""Seeds among which each fault is found."""
WRITTEN = 0.001
"""Seconds that a disk takes to write."""


@contextmanager
def retry_that_forgets() -> Iterator[None]:
    """The same update again doesn't know that the last one left a part without an application, which can't answer.

    Nor does it look for a silent part in its bootloader.
    """
    with replaced(Engine, "_torn", lambda engine: set()), replaced(planning, "_silent", lambda bench, plan: ()):
        yield


@contextmanager
def late_journal() -> Iterator[None]:
    """What begins is written together with the next record, when it has ended."""
    append = Journal.append

    def late(journal: Any, kind: str, fields: Any, *, sync: bool = True) -> Any:
        held = vars(journal).pop("held", None)
        if held is not None:
            append(journal, *held)
        if kind != "start":
            return append(journal, kind, fields, sync=sync)
        journal.held = (kind, fields)
        now = clock.now().isoformat(timespec="milliseconds")
        return {"seq": journal._written + 1, "time": now, "kind": kind, **fields}

    with replaced(Journal, "append", late):
        yield


@contextmanager
def lock_order_turned_round() -> Iterator[None]:
    """One thread takes the journal's lock and then that of the counts, another one the other way round.

    Each holds its first one for as long as a disk takes to write.
    """
    made, record, add = TaskRunner.__init__, TaskRunner.record, Attempts.add

    def worker(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        self.settings.attempts.worker = self

    def recorded(self: Any, *arguments: Any, **fields: Any) -> None:
        with self._lock:
            clock.sleep(WRITTEN)
            with self.settings.attempts._lock:
                record(self, *arguments, **fields)

    def added(self: Any, task: Any) -> None:
        with self._lock:
            clock.sleep(WRITTEN)
            with self.worker._lock:
                pass
        add(self, task)

    with ExitStack() as stack:
        stack.enter_context(replaced(TaskRunner, "__init__", worker))
        stack.enter_context(replaced(TaskRunner, "record", recorded))
        stack.enter_context(replaced(Attempts, "add", added))
        yield


@contextmanager
def lost_wake_up() -> Iterator[None]:
    """A task's end wakes none of the threads that wait for it."""
    done = Scheduler.done

    def woken(self: Any, task: Any) -> None:
        notify_all, self._changed.notify_all = self._changed.notify_all, lambda: None
        try:
            done(self, task)
        finally:
            self._changed.notify_all = notify_all

    class Waker:
        """A condition whose `notify_all` can be replaced."""

        def __init__(self, condition: Any) -> None:
            self._condition = condition
            self.notify_all = condition.notify_all
            self.notify = condition.notify
            self.wait = condition.wait

        def __enter__(self) -> Any:
            return self._condition.__enter__()

        def __exit__(self, *error: Any) -> Any:
            return self._condition.__exit__(*error)

    made = Scheduler.__init__

    def scheduler(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        self._changed = Waker(self._changed)

    with ExitStack() as stack:
        stack.enter_context(replaced(Scheduler, "__init__", scheduler))
        stack.enter_context(replaced(Scheduler, "done", woken))
        yield


@contextmanager
def erase_beyond_the_plan() -> Iterator[None]:
    """One erase unit more is erased than the plan names."""
    erase = MemoryStrategy._erase

    def more(self: Any, units: Any) -> Any:
        last = units[-1] if units else None
        region = last and self.memory.memory_map().region_of(last.end)
        if last is not None and region is not None:
            units = (*units, Range(last.end, last.size))
        return erase(self, units)

    with replaced(MemoryStrategy, "_erase", more):
        yield


@contextmanager
def names_that_are_not_on_the_disk() -> Iterator[None]:
    """A journal is synced in a folder whose own name is not."""
    with replaced(private_files, "_sync_names", lambda number: None):
        yield


@contextmanager
def torn_part_that_is_started() -> Iterator[None]:
    """A part is started after it was looked at, although it did not run before: it may hold half an application.

    A serial bootloader leaves what it found so as well.
    """
    programmer = BenchComponent.programmer

    def started(self: Any, *arguments: Any, **options: Any) -> Any:
        return programmer(self, *arguments, **{**options, "starts_again": True})

    with ExitStack() as stack:
        stack.enter_context(replaced(BenchComponent, "programmer", started))
        stack.enter_context(replaced(SerialBootloader, "leave", Bootloader.leave))
        from proxyflash.flashers.xymodem.flasher import XymodemFlasher

        stack.enter_context(
            replaced(XymodemFlasher, "readback_unavailable_reason", classmethod(lambda cls, profile: ""))
        )
        yield


FAULTS: dict[str, Callable[[], Any]] = {
    fault.__name__: fault
    for fault in (
        retry_that_forgets,
        late_journal,
        lock_order_turned_round,
        lost_wake_up,
        erase_beyond_the_plan,
        names_that_are_not_on_the_disk,
        torn_part_that_is_started,
    )
}


def found_by(name: str, seeds: range) -> tuple[int, str] | None:
    """The first seed that finds a fault, and what is wrong then."""
    for seed in seeds:
        with FAULTS[name]():
            wrong = explore(seed).wrong
        if wrong and not explore(seed).wrong:
            return seed, wrong
    return None


if __name__ == "__main__":
    for wanted in sys.argv[1:] or FAULTS:
        print(wanted, found_by(wanted, range(1, MOST + 1)), flush=True)
