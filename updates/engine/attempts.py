"""How often a step was tried on a component with the same files: counted before each try, over restarts and updates.

Kept in one small file, replaced as a whole, and on the disk before the try begins. A step that succeeds clears its count.
On a full disk a count stays as it was where it should become less: at worst a step is tried less often.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

from ...enumerators.errors import StateFolder
from ...transports import clock, json_text, private_files
from ..errors import AttemptsExhausted
from . import room
from .plan import Task

MOST_BYTES = 16 << 20
"""Of the file: a hundred thousand steps."""


def key(task: Task) -> str:
    """What counts as the same: the component, by its id, and the step, by its files' hashes, handler and properties."""
    hashes = {file.filename: file.hashes["sha256"] for file in task.update.manifest.files}
    step = {
        "handler": task.step.handler,
        "files": {name: hashes[name] for name in task.step.files},
        "properties": task.step.handlerProperties,
    }
    digest = hashlib.sha256(json.dumps(step, sort_keys=True).encode()).hexdigest()
    return f"{task.component.id if task.component else 'host'} {digest}"


class Attempts:
    """For any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = clock.Lock()

    @cached_property
    def _counts(self) -> dict[str, int]:
        return _read(self._path)

    def check(self) -> None:
        """Raises StateFolder for a file that can't be read; else what needs the counts does so."""
        self._counts  # noqa: B018

    def take(self, task: Task, limit: int, *, again: bool = False) -> None:
        """Counts an attempt; on the disk when this returns. `again`: those before don't count.

        Raises AttemptsExhausted, StateFolder.
        """
        if again:
            self.clear(task)
        if (tried := self.count(task)) >= limit:
            times = "once" if tried == 1 else f"{tried} times"
            raise AttemptsExhausted(f"step {task.label} was tried {times}, and is not tried again")
        self.add(task)

    def count(self, task: Task) -> int:
        return self._counts.get(key(task), 0)

    def add(self, task: Task) -> None:
        """One more; on the disk when this returns. Raises StateFolder."""
        with self._lock:
            name = key(task)
            self._counts[name] = self._counts.get(name, 0) + 1
            self._write()

    def give_back(self, task: Task) -> None:
        """One less: it did not come to trying. Raises StateFolder, but not for a full disk."""
        with self._lock:
            if self._counts.get(key(task), 0):
                self._counts[key(task)] -= 1
                self._write_if_there_is_room()

    def clear(self, task: Task) -> None:
        """None so far. Raises StateFolder, but not for a full disk."""
        with self._lock:
            if self._counts.pop(key(task), 0):
                self._write_if_there_is_room()

    def _write_if_there_is_room(self) -> None:
        try:
            self._write()
        except StateFolder as error:
            if not room.is_full(error):
                raise

    def _write(self) -> None:
        with private_files.told(self._path), private_files.whole(self._path) as stream:
            stream.write(json.dumps(self._counts, indent=2).encode())


def _read(path: Path) -> dict[str, int]:
    """Raises StateFolder for another kind of file: a count that is lost would begin the loop again."""
    try:
        with private_files.reading(path) as stream:
            found = json_text.parse(stream.read(MOST_BYTES + 1), most=MOST_BYTES, undecoded=True)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StateFolder(f"{path} can't be read: {error}", remedy="Move it away; the counts begin again.") from error
    if not isinstance(found, dict) or not all(type(count) is int for count in found.values()):
        raise StateFolder(f"{path} holds no counts", remedy="Move it away; the counts begin again.")
    return found
