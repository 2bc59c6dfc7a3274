"""Programs that handlers run: apt-get, swupdate, an update's scripts. By their own arguments, never through a shell."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...flashers.errors import Cancelled
from ...transports import clock
from ..errors import StepFailed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOOK_SECONDS = 0.2
"""How often a running program is looked after for a cancellation. In seconds."""
STOP_SECONDS = 5.0
"""How long it has to end after it was asked to."""
SAID = 4000
"""Bytes of what it said that are kept: the last ones."""

_running: list[tuple[clock.SomeThread, subprocess.Popen[bytes]]] = []
"""Each with the thread that waits for it."""


def clean_environment() -> dict[str, str]:
    """What a program of an update finds in its environment: the system's paths, and nothing that came with ours."""
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = "/"
    return {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8"}


def run(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[int, str]:
    """Its exit status, and what it said, stderr included. Raises StepFailed when it isn't there, Cancelled.

    `cancelled`: for what can be stopped without harm; it is then ended with all that it started.
    """
    with tempfile.TemporaryFile() as said:
        try:
            with started(arguments, environment, folder, stdout=said, stderr=said) as process:
                if not ended(process, cancelled):
                    raise Cancelled("stopped on request", touched=False)
        except OSError as error:
            raise StepFailed(f"{arguments[0]} can't be run: {error.strerror}", remedy="Is it installed?") from error
        end = said.seek(0, os.SEEK_END)
        said.seek(max(0, end - SAID))
        return process.returncode, said.read().decode("utf-8", "replace")


@contextmanager
def started(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None, **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs; an exception in the block ends it with all that it started. Raises OSError.

    In a group of its own: a Ctrl-C at the terminal is for us. `streams`: where its output goes; it has no input.
    """
    clock.program(f"the program {arguments[0]}")
    with subprocess.Popen(
        arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, process_group=0, **streams
    ) as process:  # fmt: skip
        running = clock.current_thread(), process
        _running.append(running)
        try:
            yield process
        except BaseException:
            _signal(process, signal.SIGKILL)
            raise
        finally:
            _running.remove(running)


def end_those_of(thread: clock.SomeThread) -> bool:
    """Ends the programs that a thread waits for, with all that they started; whether there were any."""
    found = [process for waiting, process in _running if waiting is thread]
    for process in found:
        _signal(process, signal.SIGKILL)
    return bool(found)


def ended(process: subprocess.Popen[bytes], cancelled: Callable[[], bool]) -> bool:
    """Waits until it ends by itself; False: it was asked to, because of a cancellation, and given time."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
            return True
        if cancelled():
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            return False


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
