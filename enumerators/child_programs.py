"""Programs that this process starts and waits for: commands of the bench file, and what steps of an update run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ..transports import clock

_running: list[tuple[clock.SomeThread, subprocess.Popen[bytes]]] = []
"""Each with the thread that waits for it."""


@contextmanager
def started(
    arguments: str | Sequence[str],
    what: str,
    folder: Path | None,
    environment: Mapping[str, str] | None = None,
    **streams: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs; an exception in the block ends it with all that it started.

    It has a session of its own, so a Ctrl-C at the terminal does not reach it, and no input.

    Args:
        arguments: A text is a shell command.
        what: Names it in the error that a simulated clock raises.
        streams: Where its output goes.

    Raises:
        OSError: It can't be started.
    """
    clock.program(what)
    with subprocess.Popen(
        arguments, shell=isinstance(arguments, str), cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        start_new_session=True, **streams,
    ) as process:  # fmt: skip
        running = clock.current_thread(), process
        _running.append(running)
        try:
            yield process
        except BaseException:
            end(process, signal.SIGKILL)
            raise
        finally:
            _running.remove(running)


def end(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to a program and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def end_those_of(thread: clock.SomeThread) -> bool:
    """Ends the programs that a thread waits for; whether there were any."""
    found = [process for waiting, process in _running if waiting is thread]
    for process in found:
        end(process, signal.SIGKILL)
    return bool(found)


def last_of(stream: IO[bytes], most: int) -> str:
    """The end of what a program wrote into a file. `most`: in bytes."""
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - most))
    return stream.read().decode("utf-8", "replace")
