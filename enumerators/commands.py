"""Shell commands that the bench file gives: for supplies, checks, versions. Bounded in time, and ended whole."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from ..transports import clock

SECONDS = 30.0
"""How long such a command may take."""
SAID = 400
"""Characters of what such a command said that an error repeats: the last ones."""
MOST = 1 << 20
"""Bytes of what it said that are kept: the last ones."""


class CommandFailed(Exception):
    """It could not be run, took too long, or ended with another status than 0; the text says which."""


def run(command: str, folder: Path) -> str:
    """Runs a shell command in `folder`; what it printed, stderr included. Raises CommandFailed."""
    clock.real(f"the command {command!r}")
    try:
        # A session of its own, so that what the command started ends with it, and Ctrl-C doesn't reach it. A file instead
        # of a pipe: if this process is killed, what the command still says must not end it before it has done its work.
        with os.fdopen(os.memfd_create("output"), "rb") as output:
            process = subprocess.Popen(
                command, shell=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            with process:
                _wait(process, command)
            output.seek(max(0, output.seek(0, os.SEEK_END) - MOST))
            said = output.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{command!r} can't be run in {folder}: {error}") from error
    if process.returncode:
        ended = f"{command!r} ended with {process.returncode}"
        raise CommandFailed(f"{ended}: {said.strip()[-SAID:]}".rstrip(": "))
    return said


def _wait(process: subprocess.Popen[bytes], command: str) -> None:
    try:
        process.wait(SECONDS)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if isinstance(error, subprocess.TimeoutExpired):
            raise CommandFailed(f"{command!r} took longer than {SECONDS:g} s") from error
        raise
