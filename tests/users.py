"""Two users for real: the tests' own, which is root, and `nobody` in a process of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
RENAME_EXCHANGE = 2
AT_FDCWD = -100

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root is missing: it acts as two users here")


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder of root's that others may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def become_nobody(groups: Sequence[int] = ()) -> None:
    os.setgroups(list(groups))
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def as_nobody(work: Callable[[], object], groups: Sequence[int] = ()) -> None:
    """Carries it out as that user, a member of these groups too, to its end."""
    child = _started(work, groups)
    _, status = os.waitpid(child, 0)
    assert status == 0


@contextmanager
def meanwhile_as_nobody(work: Callable[[], object]) -> Iterator[None]:
    """Carries it out as that user again and again, until the end of the block."""

    def forever() -> None:
        while True:
            work()

    child = _started(forever)
    try:
        yield
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the other user has stopped early"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def exchange(one: Path, other: Path) -> None:
    """Swaps two names at once: there is no moment without either."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


def _started(work: Callable[[], object], groups: Sequence[int] = ()) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            become_nobody(groups)
            work()
            status = 0
        finally:
            os._exit(status)
    return child
