"""Files that a person, a bench file or an agent names: regular files alone, opened without waiting for anything.

Opening a FIFO waits for its other end, reading a device may never end, and to open a device can change what it does. So
what is there is looked at before it is opened. Links are followed. Files of the state folder have `private_files`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from io import BufferedReader

_Path = str | os.PathLike[str]


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


def opener(mode: int) -> Callable[[str, int], int]:
    """For `open` of a file to write: it does not wait for the reader of a FIFO, and a new file gets `mode` less the umask."""

    def call(path: str, flags: int) -> int:
        number = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
        os.set_blocking(number, True)
        return number

    return call
