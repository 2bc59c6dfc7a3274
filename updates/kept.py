"""What Backup keeps for Restore: facts, and files with their digests, in the step's backup folder.

`backup.json` is written last and as a whole: where it is, the backup is whole. It is never written anew while it is
there, so that an action which is run again after a cut doesn't take what is half installed for what was there before.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..enumerators.errors import StateFolder

NAME = "backup.json"
BLOCK = 1 << 20


def facts(folder: Path) -> dict[str, Any] | None:
    """What was kept; None: nothing, or not to its end. Raises StateFolder."""
    try:
        found = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateFolder(f"{folder / NAME} can't be read: {error}") from error
    return found if isinstance(found, dict) else None


def keep(folder: Path, found: Mapping[str, Any]) -> None:
    """Ends a backup. Raises StateFolder."""
    write(folder / NAME, json.dumps(dict(found)).encode())


def write(path: Path, data: bytes) -> str:
    """A whole file or none, on the disk when this returns; its SHA-256 in hex. Raises StateFolder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _whole(path) as stream:
            stream.write(data)
    except OSError as error:
        raise StateFolder(f"{path}: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def copy(source: Path, target: Path, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> str:
    """A whole copy or none, in the place of what was there, on the disk when this returns; its SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    with source.open("rb") as stream, _whole(target) as out:
        while block := stream.read(BLOCK):
            digest.update(block)
            out.write(block)
        if owner is not None:
            os.fchown(out.fileno(), *owner)
        os.fchmod(out.fileno(), mode)
    return digest.hexdigest()


def tidy(path: Path) -> None:
    """Takes away what a cut may have left beside a file. Raises OSError."""
    _partial(path).unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    partial = _partial(path)
    partial.unlink(missing_ok=True)
    number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(number, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read(path: Path, sha256: str) -> bytes | None:
    """A kept file; None: it isn't any more what was kept."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """What was renamed in it is on the disk. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
