"""The updates of one bench in its folder: a numbered folder for each, with its journal, files and backups.

`<bench>/updates/000007/`: `journal.jsonl`; `files/`, the update's own checked copies; `work/`, where scripts run;
`backup/`. Of an update that has ended the journal and the manifests are kept, and, until another one installs something,
what a rollback needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..enumerators.errors import StateFolder
from ..transports import private_files
from . import journal
from .errors import JournalBroken, UpdateUnknown
from .progress import Progress

MOST_KEPT = 200
"""Journals of updates that have ended."""


@dataclass(frozen=True, slots=True)
class Entry:
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
    def began(self) -> bool:
        """Whether its journal has a first record. One that hasn't was cut before it touched anything."""
        try:
            return next(journal.records(self.journal), None) is not None
        except JournalBroken:
            return self.journal.exists()


class Store:
    """`folder`: the bench's, in the state folder."""

    def __init__(self, folder: Path) -> None:
        # Scripts run in folders below it, and are told of them from there.
        self.folder = folder.absolute() / "updates"
        self.attempts = folder.absolute() / "attempts.json"

    def entries(self) -> list[Entry]:
        """All that began, the oldest first. Raises StateFolder."""
        return [entry for entry in self._all() if entry.began]

    def latest(self) -> Entry | None:
        """The last that began."""
        return next((entry for entry in reversed(self._all()) if entry.began), None)

    def last_change(self) -> Entry | None:
        """The last that changed something, or may have: what a rollback is for. Raises JournalBroken."""
        return next((entry for entry in reversed(self.entries()) if entry.progress().touched), None)

    def entry(self, number: int) -> Entry:
        """Raises UpdateUnknown."""
        found = Entry(self.folder / f"{number:06}")
        if not found.began:
            raise UpdateUnknown(f"there is no update {number} in {self.folder}")
        return found

    def create(self) -> Entry:
        """A folder for a new update; those of updates that never began are taken away. Raises StateFolder."""
        number = 1
        for entry in self._all():
            number = entry.number + 1
            if not entry.began:
                shutil.rmtree(entry.folder, ignore_errors=True)
        entry = Entry(self.folder / f"{number:06}")
        try:
            private_files.folder(entry.folder)
        except OSError as error:
            raise StateFolder(f"{error.filename or entry.folder}: {error.strerror}") from error
        return entry

    def backed_up(self) -> list[Entry]:
        """The last that changed something and whose backups are there, if there is one. Raises nothing for broken journals."""
        for entry in reversed(self._all()):
            with suppress(JournalBroken):
                if entry.backup.is_dir() and entry.progress().touched:
                    return [entry]
        return []

    def forget(self, *needed: Entry) -> None:
        """Takes away what the reports of updates don't need, but for these."""
        entries = [entry for entry in self._all() if entry not in needed]
        for entry in entries[:-MOST_KEPT]:
            shutil.rmtree(entry.folder, ignore_errors=True)
        for entry in entries:
            begin = self._begin(entry)
            if begin is None or "documents" not in begin:
                continue
            for folder in (entry.work, entry.backup):
                shutil.rmtree(folder, ignore_errors=True)
            for path in entry.files.glob("*"):
                # The manifests say what the journal's tasks were.
                if path.name not in begin["documents"]:
                    path.unlink(missing_ok=True)

    def seen(self) -> datetime | None:
        """The latest time that a journal tells of: a clock behind it was set back."""
        begins = [self._begin(entry) for entry in self._all()]
        return max(
            (datetime.fromisoformat(begin["time"]) for begin in begins if begin and "time" in begin), default=None
        )

    def _all(self) -> list[Entry]:
        try:
            found = [Entry(path) for path in self._folders()]
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

    def _begin(self, entry: Entry) -> journal.Record | None:
        """The first record of an update; None: it has none, or a broken one."""
        try:
            return next(journal.records(entry.journal), None)
        except JournalBroken:
            return None
