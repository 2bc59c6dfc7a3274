"""Shell commands that the bench file gives: for supplies, checks, versions. Bounded in time, and ended whole.

A bench has one `HostCommands`, through which all of them go. Under replay no command is run: the answer is the recorded one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..transports.outside import Outside, OutsideFailed, without_passwords
from ..transports.plain import quoted
from .child_programs import last_of, started

SECONDS = 30.0
"""How long such a command may take."""
SAID = 400
"""Characters of what such a command said that an error repeats: the last ones."""
MOST_LOOKED_AT = 1 << 14
"""Characters of it in which secrets are looked for: these may begin before what is repeated."""
MOST = 1 << 20
"""Bytes of what it said that are kept: the last ones."""


class CommandFailed(OutsideFailed):
    """It could not be run, took too long, or ended with another status than 0; the text says which."""


class HostCommands:
    """The commands of one bench file. They run in the folder of that file."""

    def __init__(self, folder: Path, outside: Outside) -> None:
        self.folder = folder
        self._outside = outside

    def run(self, command: str) -> str:
        """What a shell command printed, stderr included. Raises CommandFailed; under replay ReplayUnanswered."""
        try:
            return self._outside.ask(f"command: {command}", lambda: _run(command, self.folder))
        except CommandFailed:
            raise
        except OutsideFailed as error:
            raise CommandFailed(str(error)) from error


def shown(command: str) -> str:
    """A command for a message: without its secrets, and no longer than a message has room for."""
    return quoted(without_passwords(command))


def end_of(said: str) -> str:
    """The end of what a command said, for a message: curl -v repeats what it sends."""
    return without_passwords(said.strip()[-MOST_LOOKED_AT:])[-SAID:]


def _run(command: str, folder: Path) -> str:
    try:
        # A file instead of a pipe: if this process is killed, what the command still says must not end it before it has
        # done its work.
        with os.fdopen(os.memfd_create("output"), "rb") as output:
            with started(
                command, f"the command {shown(command)}", folder, stdout=output, stderr=subprocess.STDOUT
            ) as process:
                try:
                    process.wait(SECONDS)
                except subprocess.TimeoutExpired as error:
                    raise CommandFailed(f"{shown(command)} took longer than {SECONDS:g} s") from error
            said = last_of(output, MOST)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{shown(command)} can't be run in {folder}: {error}") from error
    if process.returncode:
        ended = f"{shown(command)} ended with {process.returncode}"
        raise CommandFailed(f"{ended}: {end_of(said)}".rstrip(": "))
    return said
