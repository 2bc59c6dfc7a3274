"""Room on the state folder's disk: counted when an update is planned, and what is done once it is used up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...transports import private_files
from ...transports.errors import ExitStatus, ProxyflashError, StateFolder
from ..errors import JournalNotWritten, NoRoom
from ..events import Status
from ..manifests.resolved_update import Update
from . import scheduling
from .disk import JOURNAL_BYTES
from .plan import Task


def demand(
    folder: Path,
    update: Update,
    tasks: Iterable[Task],
    freed: tuple[int, int] = (0, 0),
    limits: Mapping[str, int] | None = None,
) -> None:
    """That the disk of `folder` has room for the update's copies and backups. Raises NoRoom.

    `freed`: bytes of earlier updates that are given up before the copies are made, and those once a step is done: the
    backups before that need room beside them. `limits`: of each bus, for components that are updated at once; None: they are
    updated one by one.
    """
    copies, backups = _copies(update), _backups(tasks)
    at_once, later = freed
    in_all = sum(size for _, size in backups)
    needed = copies + max(_before_an_install(backups, limits), in_all - later) + JOURNAL_BYTES - at_once
    free = _free(folder)
    if free < needed:
        given_up = copies + in_all + JOURNAL_BYTES - needed
        less = f", less {given_up:,} of earlier updates that are given up" if given_up else ""
        raise NoRoom(
            f"{folder} needs {needed:,} bytes: {copies:,} for copies of the update's files, {in_all:,} for backups and "
            f"{JOURNAL_BYTES:,} for the journal{less}; its disk has {free:,} left, and {needed - free:,} are missing"
        )


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk, or a quota that is used up, is behind an error of the state folder or of the journal."""
    cause = error.__cause__ if isinstance(error, StateFolder | JournalNotWritten) else None
    return isinstance(cause, OSError) and cause.errno in private_files.FULL


def advised(error: StateFolder, folder: Path, update: Update) -> StateFolder:
    """The error; where the disk had no room for the update's copies, with the advice that helps."""
    if not is_full(error):
        return error
    return error.advised(f"{private_files.MAKE_ROOM}: {_missing(folder, _copies(update))}.")


def not_begun(error: JournalNotWritten, folder: Path) -> JournalNotWritten:
    """The error, where it kept an update from beginning: there is nothing to go on with, and the same command begins it."""
    first = f"{private_files.MAKE_ROOM}: {_missing(folder, 0)}." if is_full(error) else "Make the folder writable."
    found = error.advised(f"Nothing was begun. {first} Then run the same command again.")
    found.exit_status = ExitStatus.FAILED
    return found


def left_over(folder: Path, tasks: Iterable[Task]) -> str:
    """The room that the backups of these tasks and the journal need, and how much is missing, for a message.

    A quota that is used up is not seen: only what is needed is said then.
    """
    return _missing(folder, sum(size for _, size in _backups(tasks)))


def _missing(folder: Path, size: int) -> str:
    needed, free = size + JOURNAL_BYTES, _free(folder)
    missing = f", {free:,} are left, {needed - free:,} are missing" if free < needed else ""
    return f"{needed:,} bytes are needed{missing}"


def _copies(update: Update) -> int:
    members = (update, *update.children.values())
    files = {(member.files[file.filename], file.sizeInBytes) for member in members for file in member.manifest.files}
    documents = sum(len(data) for member in members for data in member.documents.values())
    return documents + sum(size for _, size in files)


def _before_an_install(backups: list[tuple[Task, int]], limits: Mapping[str, int] | None) -> int:
    """The most that may be kept before a step is done: a backup of each component that is worked on."""
    if limits is None:
        return max((size for _, size in backups), default=0)
    largest: dict[str, dict[str, int]] = {}
    for task, size in backups:
        of_bus = largest.setdefault(scheduling.bus_of(task), {})
        of_bus[task.target] = max(size, of_bus.get(task.target, 0))
    return sum(sum(sorted(found.values(), reverse=True)[: limits.get(bus)]) for bus, found in largest.items())


def _backups(tasks: Iterable[Task]) -> list[tuple[Task, int]]:
    """About what each backup will have: steps replace as many bytes as they write."""
    known: dict[tuple[object, ...], int] = {}
    found = []
    for task in tasks:
        if task.status is Status.INSTALLED or task.rollback_blocker:
            continue
        paths = tuple(task.update.files[name] for name in task.step.files)
        # One step is that of many components.
        step = (task.handler, paths, repr(task.step.handlerProperties))
        if step not in known:
            try:
                known[step] = task.handler.backup_bytes(task.step, paths)
            except (ProxyflashError, OSError):
                # What is wrong with a file is for Download to say.
                known[step] = 0
        found.append((task, known[step]))
    return found


def _free(folder: Path) -> int:
    """What this user may still write on the disk that the folder is on, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize
