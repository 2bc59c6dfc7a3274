"""Programs that handlers run: apt-get, swupdate, an update's scripts. By their own arguments, never through a shell."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from ...enumerators import child_programs
from ...flashers.errors import Cancelled
from ..errors import StepFailed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOOK_SECONDS = 0.2
"""How often a running program is looked after for a cancellation. In seconds."""
STOP_SECONDS = 5.0
"""How long it has to end after it was asked to."""
SAID = 4000
"""Bytes of what it said that are kept: the last ones."""


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
        return process.returncode, child_programs.last_of(said, SAID)


def started(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None, **streams: Any
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A program that runs; an exception in the block ends it with all that it started. Raises OSError."""
    return child_programs.started(arguments, f"the program {arguments[0]}", folder, environment, **streams)


def ended(process: subprocess.Popen[bytes], cancelled: Callable[[], bool]) -> bool:
    """Waits until it ends unasked; False: it was asked to, because of a cancellation, and given time."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
            return True
        if cancelled():
            child_programs.end(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            return False
