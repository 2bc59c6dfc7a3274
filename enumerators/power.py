"""The supply of a component that is switched by commands of the bench file."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from .errors import PowerFailed

POWER_SECONDS = 30.0
"""How long a command that switches a supply may take."""
SAID = 400
"""Characters of what such a command said that an error repeats: the last ones."""


def cycle(off: str, on: str, *, folder: Path, component: str) -> None:
    """Cuts the supply and restores it by shell commands, run in `folder`. Raises PowerFailed.

    Whatever came of cutting it, `on` is run: a part is not left without its supply.
    """
    try:
        switch(off, folder=folder, component=component)
    finally:
        switch(on, folder=folder, component=component)


def switch(command: str, *, folder: Path, component: str) -> None:
    """Runs one such command in `folder`. Raises PowerFailed."""
    # A session of its own, so that what the command started ends with it, and Ctrl-C doesn't reach it. A file instead of
    # a pipe: if this process is killed, what the command still says must not end it before it has switched.
    with os.fdopen(os.memfd_create("output"), "rb") as output, subprocess.Popen(
        command, shell=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            process.wait(POWER_SECONDS)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise PowerFailed(f"{command!r} took longer than {POWER_SECONDS:g} s", component=component) from error
            raise
        output.seek(max(0, output.seek(0, os.SEEK_END) - 4 * SAID))
        said = output.read().decode(errors="replace")
    if process.returncode:
        ended = f"{command!r} ended with {process.returncode}"
        raise PowerFailed(f"{ended}: {said.strip()[-SAID:]}".rstrip(": "), component=component)
