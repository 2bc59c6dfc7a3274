"""Files that are on the disk as a whole or not at all, and that are there when it is said."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from ...transports import private_files

BLOCK = 1 << 20
JOURNAL_BYTES = 64 << 10
"""What is planned for the journal and the counts of attempts; one of a few dozen steps has as much."""
LEAST_LEFT = 16 << 10
"""What a backup leaves for them, of which some is used up by then."""


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


def claim(stream: BinaryIO, size: int) -> None:
    """Takes the room for a new file of a backup before it is written: of two at once, one sees what the other has taken.

    Raises OSError, also where too little would be left for the journal.
    """
    try:
        os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        # A file system that can't: then the file is as full as it is written.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    found = os.fstatvfs(stream.fileno())
    if found.f_bavail * found.f_frsize < LEAST_LEFT:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {size:,} bytes and room for the journal are needed")


def sync_folder(folder: Path) -> None:
    """What was renamed in it is on the disk. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
