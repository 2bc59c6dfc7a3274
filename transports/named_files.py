"""Files that a person, a bench file or an agent names: regular files alone, opened without waiting for anything.

Opening a FIFO waits for its other end, reading a device may never end, and to open a device can change what it does. So
what is there is looked at before it is opened. Links are followed. Files of the state folder have `private_files`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

_Path = str | os.PathLike[str]
LONGEST_BEGIN = 1024
"""Bytes at the begin of a file that tell who wrote it."""


def opened(path: _Path) -> BufferedReader:
    """A regular file, for reading. Raises OSError, and ValueError for a path with a zero byte."""
    number = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return opened_again(number, path)
    finally:
        os.close(number)


def opened_again(number: int, path: _Path) -> BufferedReader:
    """As `opened`, of what a descriptor (O_PATH) stands for; `path`: what an error calls it. Raises OSError."""
    kind = os.fstat(number).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    try:
        return os.fdopen(os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_CLOEXEC), "rb")
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def read(path: _Path, most: int = -1) -> bytes:
    """A file's bytes, one more than `most` if it has more than these. Raises as `opened`."""
    with opened(path) as stream:
        return stream.read(most if most < 0 else most + 1)


def refuse_other(path: _Path, is_ours: Callable[[bytes], object], kind: str, most: int = LONGEST_BEGIN) -> None:
    """A file that is about to be replaced must be empty, or one of the same kind that we made. Raises OSError.

    Args:
        is_ours: Whether the bytes at its begin, `most` and one more, are those of such a file.
        kind: What such a file is called, such as "a trace".

    A file that is not there, or a link to one, is not an error.
    """
    with suppress(FileNotFoundError):
        found = read(path, most)
        if found and not is_ours(found):
            raise FileExistsError(errno.EEXIST, f"there is something that is not {kind}", os.fspath(path))


def refuse_present(path: _Path) -> None:
    """A file by which nobody can see who made it, such as firmware, is only written where none is, or an empty one.

    Raises OSError.
    """
    with suppress(FileNotFoundError):
        if read(path, 1):
            raise FileExistsError(errno.EEXIST, "this file is there already", os.fspath(path))


@contextmanager
def whole(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that is written and replaces what was there at the end of the block: whole, and on the disk. Links are followed.

    `mode`: of a new file, less the umask. The owner, the group and the mode of a file that was there stay, as far as this
    user may give files to them. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{os.urandom(8).hex()}.partial")
    before = target.stat() if target.exists() else None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    number = os.open(partial, flags, mode if before is None else 0o600)
    try:
        with os.fdopen(number, "wb") as stream:
            if before is not None:
                # Some file systems have none of these, and not every user may give a file away.
                with suppress(PermissionError):
                    os.fchown(number, -1, before.st_gid)
                mode = before.st_mode & 0o777
                if os.fstat(number).st_gid != before.st_gid:
                    mode = mode & 0o707 | (mode & 0o007) << 3  # Another group may do what others may.
                with suppress(PermissionError):
                    os.fchmod(number, mode)
                with suppress(PermissionError):
                    os.fchown(number, before.st_uid, -1)
            yield stream
            stream.flush()
            os.fsync(number)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def opener(mode: int) -> Callable[[str, int], int]:
    """For `open` of a file to write: it does not wait for the reader of a FIFO, and a new file gets `mode` less the umask."""

    def call(path: str, flags: int) -> int:
        number = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
        os.set_blocking(number, True)
        return number

    return call
