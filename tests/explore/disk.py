"""A simulated disk below one folder: what a host's disk holds after its supply was cut at any moment.

The folder is a real one. This module sees each name that is made, renamed or taken away in it and each fsync, and so
knows what is sure to be on the disk: a file's bytes at its last fsync, and the names in a folder at that folder's last
fsync. What a cut leaves is that, the operations on names up to any later one, and of each file any beginning of what was
written behind its last fsync.

It also fills up (ENOSPC), and counts operations as points at which something may happen.
"""

# Paths are text here, as the calls get them that are listened to.

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_fsync, _write, _open = os.fsync, os.write, os.open
_disks: list[Disk] = []
"""The one in use, if there is one."""


@dataclass(slots=True)
class _Change:
    """One operation on names. `folder`: whose fsync makes it sure."""

    kind: str
    folders: tuple[str, ...]
    path: str
    node: int
    target: str = ""
    is_folder: bool = False
    sure: bool = False


@dataclass(slots=True)
class Image:
    """What is on a disk: folders, and files with their bytes, by their paths below the disk's folder."""

    folders: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


class Disk:
    """`folder`: exists, and nobody else writes there. `point`: called with the name of each operation, before it."""

    def __init__(self, folder: Path, point: Callable[[str], None]) -> None:
        self.folder = folder
        self.left: int | None = None
        """Bytes that can still be written; None: no limit."""
        self._root = str(folder)
        self._point = point
        self._names: dict[str, int] = {}
        self._is_folder: dict[int, bool] = {}
        self._first: dict[str, int] = {}
        self._changes: list[_Change] = []
        self._sure: dict[int, bytes] = {}
        self._nodes = 0
        self._asleep = False
        """Whether what happens is this module's own doing."""
        self.rest()

    # What is on it.

    def rest(self) -> None:
        """Everything that is there is on the disk, as after a host was shut down."""
        self._names.clear()
        self._is_folder.clear()
        self._changes.clear()
        self._sure.clear()
        image = self.now()
        for path in image.folders:
            self._names[path] = self._new(is_folder=True)
        for path, data in image.files.items():
            node = self._names[path] = self._new(is_folder=False)
            self._sure[node] = data
        self._first = dict(self._names)

    def now(self) -> Image:
        """What programs see."""
        found = Image()
        self._asleep = True
        try:
            for place, folders, files in os.walk(self._root):
                folders.sort()
                for name in folders:
                    found.folders.append(self._below(os.path.join(place, name)) or "")
                for name in sorted(files):
                    path = os.path.join(place, name)
                    with open(path, "rb") as stream:
                        found.files[self._below(path) or ""] = stream.read()
        finally:
            self._asleep = False
        return found

    def lost(self, image: Image) -> list[str]:
        """The files that were brought to the disk by an fsync, and of which a cut left less."""
        return [
            path
            for path, node in self._names.items()
            if (sure := self._sure.get(node)) and not image.files.get(path, b"").startswith(sure)
        ]

    def after_a_cut(self, chance: random.Random) -> Image:
        """What a host's disk holds that loses its supply now; one of the many things that it may hold."""
        kept = chance.choice((0, len(self._changes), chance.randint(0, len(self._changes))))
        return self._cut(
            kept,
            lambda sure, now: chance.choice((sure, now, chance.randint(sure, now))),
            lambda: chance.choice((False, True)),
        )

    def left_of(self, part: float) -> Image:
        """The same without chance. `part`: of what is not sure to be there, 0.0: nothing, 1.0: all, as after a kill."""
        if part == 1:
            return self.now()
        unsure = [number for number, change in enumerate(self._changes) if not change.sure]
        count = int(len(unsure) * part)
        kept = unsure[count] if unsure else 0
        return self._cut(kept, lambda sure, now: sure + int((now - sure) * part), lambda: part >= 0.5)

    def _cut(self, kept: int, end: Callable[[int, int], int], is_new: Callable[[], bool]) -> Image:
        """`kept`: how many operations on names. `end`: of what was appended, from the lengths at the last fsync and now.

        `is_new`: whether there is the new one of what was overwritten.
        """
        seen = self.now()
        names = dict(self._first)
        for number, change in enumerate(self._changes):
            if not (change.sure or number < kept):
                continue
            if change.kind == "made":
                names[change.path] = change.node
            else:
                if names.get(change.path) == change.node:
                    del names[change.path]
                if change.kind == "renamed":
                    names[change.target] = change.node
        live = {node: path for path, node in self._names.items()}
        image = Image()
        for path, node in sorted(names.items()):
            if not all(self._is_folder.get(names.get(parent, -1)) for parent in _parents(path)):
                continue
            if self._is_folder[node]:
                image.folders.append(path)
                continue
            sure = self._sure.get(node, b"")
            now = seen.files.get(live.get(node, ""), sure)
            if now.startswith(sure):
                image.files[path] = now[: end(len(sure), len(now))]
            else:
                image.files[path] = now if is_new() else sure
        return image

    def put(self, image: Image) -> None:
        """Has the folder hold this, and all of it is on the disk."""
        self._asleep = True
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for there in list(self.folder.iterdir()):
                shutil.rmtree(there) if there.is_dir() and not there.is_symlink() else there.unlink()
            for path in image.folders:
                (self.folder / path).mkdir(mode=0o700)
            for path, data in image.files.items():
                (self.folder / path).write_bytes(data)
                (self.folder / path).chmod(0o600)
        finally:
            self._asleep = False
        self.rest()

    # What happens to it.

    def __enter__(self) -> Disk:
        _listen()
        _disks.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _disks.remove(self)

    def changed(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit event: something is about to happen, or to be refused, somewhere."""
        if self._asleep:
            return
        match event:
            case "open":
                path, _, flags = arguments
                if flags & (os.O_CREAT | os.O_TRUNC):
                    self._opened(path, flags)
            case "os.mkdir" if where := self._below(arguments[0], arguments[2]):
                if where not in self._names:
                    self._wants_room(0)
                    self._point(f"mkdir {where}")
                    if os.path.isdir(os.path.dirname(self._full(where))):
                        self._made(where, is_folder=True)
            case "os.rename":
                source, target = self._below(arguments[0], arguments[2]), self._below(arguments[1], arguments[3])
                if source in self._names and target:
                    self._point(f"rename {source}")
                    node = self._names.pop(source)
                    self._names[target] = node
                    folders = (os.path.dirname(source), os.path.dirname(target))
                    self._changes.append(_Change("renamed", folders, source, node, target))
            case "os.remove" | "os.rmdir" if where := self._below(arguments[0], arguments[1]):
                if where in self._names:
                    self._point(f"remove {where}")
                    node = self._names.pop(where)
                    self._changes.append(_Change("removed", (os.path.dirname(where),), where, node))

    def opening(self, path: Any, flags: int, folder: int) -> None:
        """A file is about to be opened in an open folder, of which an audit event says nothing."""
        if not self._asleep and flags & os.O_CREAT:
            self._opened(path, flags, folder)

    def _opened(self, path: Any, flags: int, folder: int = -1) -> None:
        where = self._below(path, folder)
        if where is None or where in self._names or not flags & os.O_CREAT:
            return
        self._wants_room(0)
        self._point(f"open {where}")
        if os.path.isdir(os.path.dirname(self._full(where))):
            self._made(where, is_folder=False)

    def synced(self, descriptor: int) -> None:
        where = self._of(descriptor)
        if where is None:
            _fsync(descriptor)
            return
        self._point(f"fsync {where}")
        if where == "" or self._is_folder.get(self._names.get(where, -1)):
            for change in self._changes:
                change.sure = change.sure or where in change.folders
        elif where in self._names:
            self._asleep = True
            try:
                with open(self._full(where), "rb") as stream:
                    data = stream.read()
            finally:
                self._asleep = False
            node = self._names[where]
            self._wants_room(len(data) - len(self._sure.get(node, b"")))
            self._sure[node] = data
        self._point(f"fsynced {where}")

    def written(self, descriptor: int, data: Any) -> int:
        where = self._of(descriptor)
        if where is None:
            return _write(descriptor, data)
        view = memoryview(data)
        half = len(view) // 2
        self._point(f"write {where}")
        if self.left is not None and len(view) > self.left:
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count = _write(descriptor, view[: self.left])
        else:
            count = _write(descriptor, view[:half]) if half else 0
            self._point(f"written half of {where}")
            count += _write(descriptor, view[half:])
        if self.left is not None:
            self.left -= count
        return count

    def _wants_room(self, size: int) -> None:
        if self.left is not None:
            if size > self.left or not self.left:
                self.left = 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._root)
            self.left -= max(0, size)

    def _made(self, where: str, *, is_folder: bool) -> None:
        node = self._names[where] = self._new(is_folder=is_folder)
        self._changes.append(_Change("made", (os.path.dirname(where),), where, node, is_folder=is_folder))

    def _new(self, *, is_folder: bool) -> int:
        self._nodes += 1
        self._is_folder[self._nodes] = is_folder
        return self._nodes

    def _full(self, where: str) -> str:
        return os.path.join(self._root, where)

    def _of(self, descriptor: int) -> str | None:
        try:
            return self._below(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            return None

    def _below(self, path: Any, folder: int = -1) -> str | None:
        """A path from the disk's folder on; "": the folder itself; None: it lies elsewhere."""
        if not isinstance(path, str):
            if not hasattr(path, "__fspath__"):
                return None
            path = os.fspath(path)
        if not path.startswith("/"):
            if folder is None or folder < 0:
                return None
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
        if path == self._root:
            return ""
        return path[len(self._root) + 1 :] if path.startswith(self._root + "/") else None


def _parents(path: str) -> list[str]:
    pieces = path.split("/")[:-1]
    return ["/".join(pieces[: end + 1]) for end in range(len(pieces))]


_EVENTS = frozenset(("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"))
_listens: list[bool] = []


def _listen() -> None:
    """An audit hook can't be taken back: it stays, and does nothing while no disk is in use."""
    if _listens:
        return
    _listens.append(True)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if _disks and event in _EVENTS:
            _disks[-1].changed(event, arguments)

    sys.addaudithook(heard)


def _fsync_of_disk(descriptor: Any) -> None:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    if _disks:
        _disks[-1].synced(number)
    else:
        _fsync(number)


def _write_of_disk(descriptor: int, data: Any) -> int:
    return _disks[-1].written(descriptor, data) if _disks else _write(descriptor, data)


def _open_of_disk(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    if dir_fd is not None and _disks:
        _disks[-1].opening(path, flags, dir_fd)
    return _open(path, flags, mode, dir_fd=dir_fd)


# While this module is imported, when no test runs: a test that has put something in the place of these would take ours away
# at its end.
os.open = _open_of_disk
os.fsync = _fsync_of_disk  # type: ignore[assignment]
os.write = _write_of_disk
