"""Files that are on the disk as a whole or not at all, and that are there when it is said."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20


def created(path: Path, mode: int = 0o600) -> BinaryIO:
    """A new file; what was there by this name, a link too, is taken away. `mode`: less the umask. Raises OSError."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), "wb")


def copy(source: Path, target: Path, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> str:
    """A whole copy or none, in the place of what was there, on the disk when this returns; its SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    with source.open("rb") as stream, whole(target) as out:
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
def whole(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file that takes the place of what was there at the end of the block: whole, and on the disk. Raises OSError."""
    partial = _partial(path)
    stream = created(partial, mode)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was renamed in it is on the disk. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
