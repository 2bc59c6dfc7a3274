"""Room on the state folder's disk: counted when an update is planned, and what is done once it is used up."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from ...transports.errors import ProxyflashError, StateFolder
from ..errors import NoRoom
from ..events import Status
from ..manifests.resolved_update import Update
from .plan import Task

JOURNAL_BYTES = 64 << 10
"""What is left for the journal and the counts of attempts; one of a few dozen steps has as much."""
FULL = (errno.ENOSPC, errno.EDQUOT)
MAKE_ROOM = "Make room on that disk."


def demand(folder: Path, update: Update, tasks: Iterable[Task]) -> None:
    """That the disk of `folder` has room for the update's copies and backups. Raises NoRoom."""
    copies = _copies(update)
    backups = _backups(tasks)
    needed, free = copies + backups + JOURNAL_BYTES, _free(folder)
    if free < needed:
        raise NoRoom(
            f"{folder} needs {needed:,} bytes, {copies:,} for copies of the update's files and {backups:,} for backups, and "
            f"its disk has {free:,} left"
        )


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk, or a quota that is used up, is behind an error of the state folder."""
    return isinstance(error, StateFolder) and isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL


def advised(error: StateFolder) -> StateFolder:
    """The error; where the disk is full, with the advice that helps."""
    return error.advised(MAKE_ROOM) if is_full(error) else error


def _copies(update: Update) -> int:
    members = (update, *update.children.values())
    files = {(member.files[file.filename], file.sizeInBytes) for member in members for file in member.manifest.files}
    documents = sum(len(data) for member in members for data in member.documents.values())
    return documents + sum(size for _, size in files)


def _backups(tasks: Iterable[Task]) -> int:
    """About what the backups will have: what the steps write is what they replace."""
    known: dict[tuple[Path, ...], int] = {}
    total = 0
    for task in tasks:
        if task.status is Status.INSTALLED or task.rollback_blocker:
            continue
        paths = tuple(task.update.files[name] for name in task.step.files)
        if paths not in known:
            try:
                known[paths] = task.handler.backup_bytes(task.step, paths)
            except (ProxyflashError, OSError):
                # What is wrong with a file is for Download to say.
                known[paths] = 0
        total += known[paths]
    return total


def _free(folder: Path) -> int:
    """What this user may still write on the disk that the folder is on, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize
