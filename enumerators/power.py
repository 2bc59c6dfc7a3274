"""The supply of a component that is switched and measured by commands of the bench file."""

from __future__ import annotations

import math

from .commands import CommandFailed, HostCommands, end_of, shown
from .errors import PowerFailed


def cycle(off: str, on: str, *, commands: HostCommands, component: str) -> None:
    """Cuts the supply and restores it by shell commands of the bench file. Raises PowerFailed.

    Whatever came of cutting it, `on` is run: a part is not left without its supply.
    """
    try:
        switch(off, commands=commands, component=component)
    finally:
        switch(on, commands=commands, component=component)


def switch(command: str, *, commands: HostCommands, component: str) -> str:
    """Runs one such command: what it printed. Raises PowerFailed."""
    try:
        return commands.run(command)
    except CommandFailed as error:
        raise PowerFailed(str(error), component=component) from error


def volts(command: str, *, commands: HostCommands, component: str) -> float:
    """The supply's voltage, which such a command prints. Raises PowerFailed."""
    said = switch(command, commands=commands, component=component)
    try:
        found = float(said)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise PowerFailed(f"{shown(command)} printed {end_of(said)!r}, and no voltage", component=component)
    return found
