"""The state folder: what proxyflash remembers (locks, emulated flash), in files that a person can read."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Self

from .errors import BenchLocked, StateFolder


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


class BenchLock:
    """Keeps two processes from working on one bench. Gone with its process, however that ends."""

    def __init__(self, folder: Path) -> None:
        """Raises BenchLocked, which names the holder; StateFolder when the folder can't be written."""
        self.path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="ascii", errors="replace")
        except OSError as error:
            raise StateFolder(f"{error.filename or folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise BenchLocked(f"this bench is in use by {holder}") from None
        except OSError as error:
            self._file.close()
            raise StateFolder(f"{self.path} can't be locked: {error.strerror}") from error
        try:
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()}")
            self._file.flush()
        except OSError as error:
            self._file.close()
            raise StateFolder(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
