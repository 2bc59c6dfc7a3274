"""The messages on the buses of a bench, in words, in what `-vv` and `--log-file` write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..enumerators.described import describers
from ..flashers.describing import Describing
from ..transports import clock
from ..transports.recording.records import Record
from .output import Output

if TYPE_CHECKING:
    from ..enumerators.bench import Bench


def tell_messages(bench: Bench, output: Output, one_by_one: clock.SomeLock) -> None:
    """From now on each message of a component goes to the output. What others say on a shared bus is left out.

    `one_by_one`: held by whoever shows something.
    """
    describing = Describing(describers(bench.file), others=False)

    def tell(record: Record) -> None:
        with one_by_one:
            for line in describing.take(record):
                output.message(str(line))

    bench.recorder.watcher = tell
