"""What Backup keeps for Restore: facts, and files with their digests, in the step's backup folder.

`backup.json` is written last and as a whole: where it is, the backup is whole. It is never written again while it is
there, so that an action which is run again after a cut doesn't take what is half installed for what was there before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...enumerators.benchfile.validation import first_fault
from ...enumerators.errors import StateFolder
from ...transports import json_text, named_files, private_files
from ..engine import disk

M = TypeVar("M", bound="Facts")
NAME = "backup.json"
MOST_BYTES = 64 << 20
"""Of that file: it lists the files of an application."""


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""SHA-256 in hex."""


class Facts(BaseModel):
    """What a handler keeps. What it reads again it believes only as far as this says."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def facts(folder: Path, shape: type[M]) -> M | None:
    """What was kept; None: nothing, or not to its end. Raises StateFolder, also for what no Backup writes."""
    path = folder / NAME
    try:
        with private_files.reading(path) as stream:
            found = json_text.parse(stream.read(MOST_BYTES + 1), most=MOST_BYTES, undecoded=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateFolder(f"{path} can't be read: {error}") from error
    try:
        return shape.model_validate(found)
    except ValidationError as error:
        fault = first_fault(error)
        raise broken(folder, f"{fault.at()}: {fault.message}".removeprefix(": ")) from None


def broken(folder: Path, why: str) -> StateFolder:
    """What was kept is not what Backup writes."""
    return StateFolder(
        f"{folder / NAME} is not as it was written: {why}",
        remedy="Nothing was brought back from it. Install the wanted version by an update.",
    )


def keep(folder: Path, found: Mapping[str, Any]) -> None:
    """Ends a backup, with what `Facts` of the handler describe. Raises StateFolder."""
    write(folder / NAME, json.dumps(dict(found)).encode())


def write(path: Path, data: bytes) -> str:
    """A whole file or none, on the disk when this returns; its SHA-256 in hex. Raises StateFolder."""
    with private_files.told(path):
        private_files.folder(path.parent)
        with private_files.whole(path) as stream:
            disk.claim(stream, len(data))
            stream.write(data)
    return hashlib.sha256(data).hexdigest()


def read(path: Path, sha256: str) -> bytes | None:
    """A kept file; None: it isn't any more what was kept."""
    try:
        data = private_files.read(path)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with named_files.opened(path) as stream:
        return digest_of(stream)


def digest_of(stream: BufferedReader) -> str:
    """As `digest`, of an open file."""
    return hashlib.file_digest(stream, "sha256").hexdigest()
