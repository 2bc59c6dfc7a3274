"""The state folder: what proxyflash remembers (locks, emulated flash), in files that a person can read."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import Self

from ..transports import clock, private_files
from .errors import BenchLocked, StateFolder

HOLDER = re.compile(rb"process [1-9][0-9]{0,9}( since [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} UTC)?")
"""What a lock file says. An earlier version writes no time."""


def default_state() -> Path:
    """PROXYFLASH_STATE, else the user's state folder (XDG Base Directory Specification, 0.8)."""
    named = os.environ.get("PROXYFLASH_STATE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "proxyflash"


def bench_folder(state: Path, bench: Path) -> Path:
    """The folder of one bench file in the state folder: its parent's name and a part of its path's SHA-256."""
    path = bench.resolve()
    return state / "benches" / f"{path.parent.name or 'root'}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def target_folder(state: Path, name: str, identity: str) -> Path:
    """The folder of one target: the name of its component, and a part of the SHA-256 of what it is known by."""
    return state / "targets" / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


class BenchLock:
    """Keeps two processes from working on one bench. Gone with its process, however that ends."""

    def __init__(self, folder: Path) -> None:
        """Raises BenchLocked, which names the holder; StateFolder, StateUnsafe when the folder can't be used."""
        self.path = folder / "lock"
        with private_files.told(folder):
            private_files.folder(folder)
            self._number = private_files.opened(self.path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self._number)
            self.close()
            raise BenchLocked(f"this bench is in use by {holder}") from None
        except OSError as error:
            self.close()
            raise StateFolder(f"{self.path} can't be locked: {error.strerror}") from error
        try:
            with private_files.told(self.path):
                os.ftruncate(self._number, 0)
                since = clock.now().strftime("%Y-%m-%d %H:%M:%S UTC")
                os.pwrite(self._number, f"process {os.getpid()} since {since}".encode(), 0)
        except StateFolder:
            self.close()
            raise

    def close(self) -> None:
        if self._number >= 0:
            number, self._number = self._number, -1
            os.close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _holder(number: int) -> str:
    """Who has the lock, and since when, by the lock file. What no BenchLock writes is not repeated."""
    said = os.pread(number, 64, 0)
    return said.decode() if HOLDER.fullmatch(said) else "another process"
