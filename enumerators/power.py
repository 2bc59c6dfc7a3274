"""The supply of a component that is switched and measured by commands of the bench file."""

from __future__ import annotations

import math
from pathlib import Path

from .commands import SAID, CommandFailed, run
from .errors import PowerFailed


def cycle(off: str, on: str, *, folder: Path, component: str) -> None:
    """Cuts the supply and restores it by shell commands, run in `folder`. Raises PowerFailed.

    Whatever came of cutting it, `on` is run: a part is not left without its supply.
    """
    try:
        switch(off, folder=folder, component=component)
    finally:
        switch(on, folder=folder, component=component)


def switch(command: str, *, folder: Path, component: str) -> str:
    """Runs one such command in `folder`: what it printed. Raises PowerFailed."""
    try:
        return run(command, folder)
    except CommandFailed as error:
        raise PowerFailed(str(error), component=component) from error


def volts(command: str, *, folder: Path, component: str) -> float:
    """The supply's voltage, which such a command prints. Raises PowerFailed."""
    said = switch(command, folder=folder, component=component)
    try:
        found = float(said)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise PowerFailed(f"{command!r} printed {said.strip()[-SAID:]!r}, and no voltage", component=component)
    return found
