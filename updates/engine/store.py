"""The updates of one bench in its folder: a numbered folder for each, with its journal, files and backups.

`<bench>/updates/000007/`: `journal.jsonl`; `files/`, the update's own checked copies; `work/`, where scripts run;
`backup/`. Of an update that has ended the journal and the manifests are kept, and, until another one has installed something
that can be undone, what a rollback needs.
"""

from __future__ import annotations

import shlex
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ...enumerators.errors import StateFolder
from ...transports import private_files
from ..errors import JournalBroken, UpdateUnknown
from . import journal
from .progress import Progress

MOST_KEPT = 200
"""Journals of updates that have ended."""


@dataclass(frozen=True, slots=True)
class StoredUpdate:
    """One update. Numbers go up, whatever the clock does."""

    folder: Path

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def journal(self) -> Path:
        return self.folder / journal.NAME

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def backup(self) -> Path:
        return self.folder / "backup"

    def progress(self) -> Progress:
        """Raises JournalBroken."""
        return Progress.of(journal.records(self.journal), str(self.journal))

    @property
    def holds_backups(self) -> bool:
        """Whether there is still what a rollback of it needs: `Store.forget` takes away its backups and its files together."""
        documents = self.progress().begin.get("documents", ())
        return self.backup.is_dir() or any(path.name not in documents for path in self.files.glob("*"))

    @property
    def began(self) -> bool:
        """Whether its journal has a first record. Without it the update was interrupted before it touched anything."""
        try:
            return next(journal.records(self.journal), None) is not None
        except JournalBroken:
            return self.journal.exists()


@dataclass(frozen=True, slots=True)
class Change:
    """What an update has changed, or may have, as it is now.

    `entry`: that update, or the last rollback of it; `progress`: of `entry`. `kept`: the update itself, whose files and backups
    bring back what was there before; `done`: its progress.
    """

    entry: StoredUpdate
    progress: Progress
    kept: StoredUpdate
    done: Progress

    @property
    def is_undone(self) -> bool:
        """Whether everything is as it was before."""
        return all(state.as_before for state in self.progress.tasks)

    @property
    def can_be_undone(self) -> bool:
        """Whether something of it is left to be brought back, and what is needed for that is there."""
        pairs = zip(self.progress.tasks, self.done.tasks, strict=False)
        return any(not state.as_before and done.has_kept for state, done in pairs) and self.kept.holds_backups

    @property
    def is_for_rollback(self) -> bool:
        """Whether a rollback has an answer to it: undone already, to be undone, or what an earlier rollback has left."""
        return self.is_undone or self.can_be_undone or self.progress.rolling_back


@dataclass(frozen=True, slots=True)
class Seen:
    """The latest time that this host is known to have had, by an update of its history."""

    time: datetime
    folder: Path

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def leave_out(self) -> str:
        """The command that takes the update out of the history; its number is free again then."""
        return shlex.join(("mv", str(self.folder), f"{self.folder}.wrong-clock"))


class Store:
    """`folder`: the bench's, in the state folder."""

    def __init__(self, folder: Path) -> None:
        # Scripts run in folders below it, and get their paths from there.
        self.folder = folder.absolute() / "updates"
        self.attempts = folder.absolute() / "attempts.json"

    def entries(self) -> list[StoredUpdate]:
        """All that began, the oldest first. Raises StateFolder."""
        return [entry for entry in self._all() if entry.began]

    def latest(self) -> StoredUpdate | None:
        """The last that began."""
        return next((entry for entry in reversed(self._all()) if entry.began), None)

    def changes(self) -> Iterator[Change]:
        """The updates that changed something, or may have, the latest first. Raises JournalBroken."""
        seen: set[int] = set()
        for entry in reversed(self.entries()):
            progress = entry.progress()
            kept = self.kept(entry, progress)
            if progress.touched and kept.number not in seen:
                seen.add(kept.number)
                yield Change(entry, progress, kept, progress if kept == entry else kept.progress())

    def kept(self, entry: StoredUpdate, progress: Progress) -> StoredUpdate:
        """Whose files and backups an update uses: for a rollback, those of the update that it undoes. Raises UpdateUnknown."""
        undone = progress.begin.get("undoes")
        return entry if undone is None else self.entry(int(undone))

    def entry(self, number: int) -> StoredUpdate:
        """Raises UpdateUnknown."""
        found = StoredUpdate(self.folder / f"{number:06}")
        if not found.began:
            raise UpdateUnknown(f"there is no update {number} in {self.folder}")
        return found

    def create(self) -> StoredUpdate:
        """A folder for a new update; those of updates that never began are taken away. Raises StateFolder."""
        number = 1
        for entry in self._all():
            number = entry.number + 1
            if not entry.began:
                self.take_away(entry)
        entry = StoredUpdate(self.folder / f"{number:06}")
        with private_files.told(entry.folder):
            private_files.folder(entry.folder)
        return entry

    def take_away(self, entry: StoredUpdate) -> None:
        """An update that never began; files that can't be removed stay."""
        shutil.rmtree(entry.folder, ignore_errors=True)

    def backed_up(self) -> list[StoredUpdate]:
        """The last that changed something which can be brought back, if there is one.

        Behind a broken journal nobody knows which that is: all whose backups are there.
        """
        try:
            return next(([change.kept] for change in self.changes() if change.can_be_undone), [])
        except (JournalBroken, UpdateUnknown):
            return [entry for entry in self._all() if entry.backup.is_dir()]

    def forget(self, *needed: StoredUpdate) -> None:
        """Takes away what the reports of updates don't need, but for these."""
        entries = [entry for entry in self._all() if entry not in needed]
        for entry in entries[:-MOST_KEPT]:
            shutil.rmtree(entry.folder, ignore_errors=True)
        for entry in entries:
            begin = self._begin(entry)
            if begin is None or "documents" not in begin:
                continue
            for path in _beyond_reports(entry, begin):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def to_be_freed(self) -> tuple[int, int]:
        """Bytes that `create` takes away, and those that `forget` takes away once nothing before is needed any more."""
        at_once = later = 0
        for entry in self._all():
            if not entry.began:
                at_once += _bytes_of(entry.folder)
            elif (begin := self._begin(entry)) is not None and "documents" in begin:
                later += sum(map(_bytes_of, _beyond_reports(entry, begin)))
        return at_once, later

    def seen(self, max_age_days: float | None) -> Seen | None:
        """The latest time in a journal: a clock behind it was set back. None: age doesn't matter.

        An update was not too old when it began. So the time of its begin is believed up to the end of its manifest's age: a
        clock that was wrong once refuses older manifests than that update's, and never newer ones.
        """
        if max_age_days is None:
            return None
        age = timedelta(days=max_age_days)
        found = []
        for entry in self._all():
            begin = self._begin(entry) or {}
            began, made = _time(begin.get("time")), _time(begin.get("created"))
            if began is not None:
                believed = made + age if made is not None and began - made > age else began
                found.append(Seen(believed, entry.folder))
        return max(found, key=lambda one: one.time, default=None)

    def _all(self) -> list[StoredUpdate]:
        try:
            found = [StoredUpdate(path) for path in self._folders()]
        except OSError as error:
            raise StateFolder(f"{self.folder}: {error.strerror}") from error
        return sorted(found, key=lambda entry: entry.number)

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            private_files.folder(self.folder)
            for path in self.folder.iterdir():
                if path.name.isascii() and path.name.isdigit():
                    private_files.own(path)
                    yield path

    def _begin(self, entry: StoredUpdate) -> journal.Record | None:
        """The first record of an update; None: it has none, or a broken one."""
        try:
            return next(journal.records(entry.journal), None)
        except JournalBroken:
            return None


def _beyond_reports(entry: StoredUpdate, begin: journal.Record) -> Iterator[Path]:
    """What the report of an update doesn't need: the manifests say what the journal's tasks were."""
    yield from (entry.work, entry.backup)
    for path in entry.files.glob("*"):
        if path.name not in begin["documents"]:
            yield path


def _bytes_of(path: Path) -> int:
    """Of a file, or of all files in a folder, as far as they take room of the disk that nothing else holds."""
    total = 0
    left = [path]
    while left:
        with suppress(OSError):
            path = left.pop()
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode):
                left.extend(path.iterdir())
            elif stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                total += min(found.st_size, found.st_blocks * 512)
    return total


def _time(text: object) -> datetime | None:
    """A time of a journal; without a zone it is UTC. None: it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
