"""Files that a command writes: what it may replace.

A page, a recording, a trace, a kept plan, a manifest or a public key replaces a file of its own kind, by
`named_files.refuse_other`. Of a firmware file nobody can see whose it is, so it is replaced with `--force` only.
"""

from __future__ import annotations

from pathlib import Path

import click

from ...flashers.errors import ImageNotWritten
from ...transports import named_files

FORCE = click.option("--force", is_flag=True, help="Overwrite the file.")


def refuse_firmware(path: Path, *, force: bool) -> None:
    """Before anything is done: no file is there, or an empty one, or it may be overwritten. Raises ImageNotWritten."""
    if force:
        return
    try:
        named_files.refuse_present(path)
    except FileExistsError as error:
        raise ImageNotWritten(f"{path} is there already", remedy="Name another file, or add --force.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageNotWritten(f"{path} can't be written: {why}", remedy="Name another file.") from error
