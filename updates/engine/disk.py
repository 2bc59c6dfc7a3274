"""Files that are on the disk as a whole or not at all, and that are there when it is said."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from ...transports import private_files

BLOCK = 1 << 20


def copy(source: Path, target: Path, *, mode: int = private_files.FILE_MODE) -> None:
    """A whole copy in the state folder or none, in the place of what was there. Raises OSError."""
    with source.open("rb") as stream, private_files.whole(target) as out:
        poured(stream, out)
        os.fchmod(out.fileno(), mode)


def poured(source: BinaryIO, target: BinaryIO) -> str:
    """Copies what is left of one into the other; its SHA-256 in hex. Raises OSError."""
    digest = hashlib.sha256()
    while block := source.read(BLOCK):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """What was renamed in it is on the disk. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
