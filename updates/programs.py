"""Programs of the host that handlers run: apt-get, swupdate. By their own arguments, never through a shell."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..flashers.errors import Cancelled
from .errors import StepFailed

LOOK_SECONDS = 0.2
"""How often a running program is looked after for a cancellation. In seconds."""
STOP_SECONDS = 5.0
"""How long it has to end after it was asked to."""
SAID = 4000
"""Bytes of what it said that are kept: the last ones."""


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
            process = subprocess.Popen(
                arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0
            )  # fmt: skip
        except OSError as error:
            raise StepFailed(f"{arguments[0]} can't be run: {error.strerror}", remedy="Is it installed?") from error
        with process:
            try:
                _wait(process, cancelled)
            except BaseException:
                _signal(process, signal.SIGKILL)
                raise
        end = said.seek(0, os.SEEK_END)
        said.seek(max(0, end - SAID))
        return process.returncode, said.read().decode("utf-8", "replace")


def _wait(process: subprocess.Popen[bytes], cancelled: Callable[[], bool]) -> None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
            return
        if cancelled():
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            raise Cancelled("stopped on request", touched=False)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
