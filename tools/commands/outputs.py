"""Files that a command writes: what it may replace.

A page, a recording, a trace, a kept plan, a manifest or a public key replaces a file of its own kind, by
`named_files.refuse_other`. Of a firmware file nobody can see whose it is, so it is replaced with `--force` only.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from ...flashers.errors import ImageNotWritten
from ...flashers.formats import refuse_ending
from ...transports import named_files

FORCE = click.option("--force", is_flag=True, help="Overwrite the file.")


def why_not(path: Path) -> str:
    """Why no file can be written there; "": nothing is known that is against it. A link there is replaced, not followed."""
    try:
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
        if path.is_dir():
            return "this is a folder"
        if path.exists() and not path.is_file():
            return "this is not a regular file"
    except OSError as error:
        return str(error.strerror)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"this user may not write into the folder {path.parent}"
    return ""


def refuse_firmware(path: Path, *, force: bool) -> None:
    """Before anything is done: a firmware file can be written there, and none is there or it may be overwritten.

    Writing an image follows a link (`named_files.whole`), so the folder is that of the link's target.

    Raises ImageNotWritten.
    """
    refuse_ending(path)
    if why := why_not(Path(os.path.realpath(path)) if path.is_symlink() else path):
        raise ImageNotWritten(f"{path} can't be written: {why}", remedy="Name another file.")
    if force:
        return
    try:
        named_files.refuse_present(path)
    except FileExistsError as error:
        raise ImageNotWritten(f"{path} is there already", remedy="Name another file, or add --force.") from error
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ImageNotWritten(f"{path} can't be written: {said}", remedy="Name another file.") from error
