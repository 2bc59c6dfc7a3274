"""`proxyflash/app:1`: an application of the host: its files into place, its service restarted, its health asked.

handlerProperties: `installedCriteria`, the version that the component reports once it is installed (required); `targets`, for
each file of the step the path below the application's folder (by default its own name); `executable`, the files that
are programs. The folder and the commands are the bench file's (`app` of the component): an update brings files and
names, and no command.

Each file takes the place of the old one at once and as a whole, or not at all. The service is restarted when all of
them are in place, in Apply; a cut before leaves it running as it ran.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from ...enumerators.benchfile.schema import AppSpec, ComponentSpec
from ...enumerators.commands import CommandFailed
from ...flashers.errors import Cancelled
from ...transports import clock, private_files
from ...transports.deadline import Deadline
from ...transports.plain import quoted, word
from ..engine import disk
from ..engine.results import FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code
from ..errors import ManifestField, StepFailed
from ..manifests.manifest import InlineStep
from . import app_folder, backup_store, properties
from .app_folder import Place
from .backup_store import Digest
from .host_part import HostPartHandler

KEYS = (properties.CRITERIA, "targets", "executable")
COMPONENT_APP_HANDLER = 34
HEALTH_PAUSE = 0.5
"""Seconds between two questions for the application's health."""


class _File(backup_store.Facts):
    """A file that was there. `kept`: its name in the backup's folder; `owner`: user and group."""

    kept: Annotated[str, Field(pattern="^[0-9]{1,9}$")]
    sha256: Digest
    mode: Annotated[int, Field(ge=0, le=0o7777)]
    owner: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class _Kept(backup_store.Facts):
    """By the names of the step's files; None: there was none."""

    files: dict[str, _File | None]
    version: str


class AppHandler(HostPartHandler[AppSpec]):
    """Backup copies what Install replaces; Restore puts it back, takes away what was not there, and restarts."""

    kind = "applications"
    table = "an app table"

    @classmethod
    def table_of(cls, spec: ComponentSpec) -> AppSpec | None:
        return spec.app

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        super().check(step, on_component=on_component, place=place)
        properties.none_but(KEYS, step, place)
        properties.criteria(step, place)
        place = f"{place}.handlerProperties"
        targets = step.handlerProperties.get("targets", {})
        if not isinstance(targets, dict):
            raise ManifestField(f"{place}.targets: no object of files and paths")
        for key, listed in (("targets", targets), ("executable", step.handlerProperties.get("executable", []))):
            for name in listed if isinstance(listed, list | dict) else [listed]:
                properties.one_of_the_files(name, step, f"{place}.{key}")
        for name, path in targets.items():
            if not _stays_inside(path):
                raise ManifestField(
                    f"{place}.targets.{word(name)}: {quoted(path)} is not a path below the application's folder"
                )
        paths = [_target(step, name) for name in step.files]
        for path in paths:
            if paths.count(path) > 1 or any(str(parent) in paths for parent in PurePosixPath(path).parents):
                raise ManifestField(f"{place}.targets: {quoted(path)} is given twice, or lies below another file")

    @classmethod
    def backup_bytes(cls, step: InlineStep, files: Sequence[Path]) -> int:
        return sum(path.stat().st_size for path in files)

    def is_installed(self) -> ActionResult:
        """By the version and by the files."""
        installed = self.seems_installed(self.context.step, self._component.look()) and all(
            self._is_in_place(name) for name in self.context.step.files
        )
        return ActionResult(ResultCode.INSTALLED if installed else ResultCode.NOT_INSTALLED)

    def is_complete(self) -> ActionResult:
        """All files may be in place, and the service not restarted: both are done again."""
        return ActionResult(ResultCode.NOT_INSTALLED)

    def download(self) -> ActionResult:
        """Obstacles are reported before anything is touched."""
        for name in self.context.step.files:
            with self._place(name) as there:
                self._status(there)
        return ActionResult(ResultCode.DOWNLOAD_SUCCESS)

    def backup(self) -> ActionResult:
        folder = self.context.backup_folder
        if backup_store.facts(folder, _Kept) is not None:
            return ActionResult(ResultCode.BACKUP_SUCCESS)
        found: dict[str, Any] = {}
        with private_files.told(folder):
            private_files.folder(folder)
            for index, name in enumerate(self.context.step.files):
                with self._place(name) as there:
                    found[name] = self._kept(there, folder, str(index))
        backup_store.keep(folder, {"files": found, "version": self._component.look().version})
        return ActionResult(ResultCode.BACKUP_SUCCESS)

    def install(self) -> ActionResult:
        for name in self.context.files:
            if self.context.run.cancelled():
                raise Cancelled("stopped on request between two files", touched=True)
            with self._place(name, make=True) as there:
                try:
                    there.tidy()
                    if self._holds(there, name):
                        continue
                    before = self._status(there)
                    mode = stat.S_IMODE(before.st_mode) if before else 0o644
                    if name in self.context.step.handlerProperties.get("executable", []):
                        mode |= 0o111
                    owner = (before.st_uid, before.st_gid) if before else None
                    there.put(partial(self.context.pour, name), mode=mode, owner=owner)
                except OSError as error:
                    raise StepFailed(f"{there.path}: {error.strerror}") from error
        return ActionResult(ResultCode.INSTALL_SUCCESS)

    def apply(self) -> ActionResult:
        if reason := self._restarted():
            return _failure(1, reason)
        if self.is_installed().code != ResultCode.INSTALLED:
            return _failure(2, self._told_and_wanted())
        return ActionResult(ResultCode.APPLY_SUCCESS, details=f"-> {self._component.look().version}")

    def restore(self) -> ActionResult:
        folder = self.context.backup_folder
        found = backup_store.facts(folder, _Kept)
        if found is None:
            return ActionResult(ResultCode.RESTORE_UNSUPPORTED)
        # Where a file goes is the step's to say, whose manifest was checked.
        if strange := found.files.keys() - set(self.context.step.files):
            raise backup_store.broken(folder, f"the step has no file {quoted(min(strange))}")
        try:
            for entry in found.files.values():
                if entry is not None and backup_store.digest(folder / entry.kept) != entry.sha256:
                    return _failure(3, f"{folder / entry.kept} is not any more what was kept")
            for name, entry in found.files.items():
                with self._place(name, make=entry is not None) as there:
                    there.tidy()
                    if entry is None:
                        there.remove()
                        continue
                    with private_files.reading(folder / entry.kept) as stream:
                        there.put(partial(disk.poured, stream), mode=entry.mode, owner=entry.owner)
        except OSError as error:
            raise StepFailed(f"{error.filename}: {error.strerror}") from error
        if reason := self._restarted():
            return _failure(4, f"the old files are back, but {reason}")
        told = self._component.look().version
        if told != found.version:
            return _failure(5, f"the old files are back, but it reports {told or 'no version'}, not {found.version}")
        return ActionResult(ResultCode.RESTORE_SUCCESS, details=f"-> {told}" if told else "")

    def _kept(self, there: Place, folder: Path, name: str) -> dict[str, Any] | None:
        """Copies a file into the backup; None: there is none. The opened file is described, not its name."""
        source = there.opened()
        if source is None:
            return None
        with source, private_files.whole(folder / name) as out:
            status = os.fstat(source.fileno())
            disk.claim(out, status.st_size)
            digest = disk.poured(source, out)
            out.truncate()
            return {
                "kept": name,
                "sha256": digest,
                "mode": stat.S_IMODE(status.st_mode),
                "owner": [status.st_uid, status.st_gid],
            }

    def _restarted(self) -> str:
        """Restarts it and waits until it works; why it doesn't, "": it does."""
        app = self._table
        try:
            if app.restart:
                self._component.commands.run(app.restart)
        except CommandFailed as error:
            return f"it can't be restarted: {error}"
        if not app.health:
            return ""
        deadline = Deadline.after(app.health_seconds)
        while True:
            try:
                self._component.commands.run(app.health)
                return ""
            except CommandFailed as error:
                if deadline.expired:
                    return f"it does not work within {app.health_seconds:g} s: {error}"
            if self.context.run.cancelled():
                raise Cancelled("stopped on request while the application started", touched=True)
            clock.sleep(min(HEALTH_PAUSE, deadline.remaining))

    def _is_in_place(self, name: str) -> bool:
        with self._place(name) as there:
            return self._holds(there, name)

    def _holds(self, there: Place, name: str) -> bool:
        """Whether a place has the update's file already."""
        found = there.opened()
        if found is None:
            return False
        source = self.context.files[name]
        with found:
            try:
                status = os.fstat(found.fileno())
                same = status.st_size == source.stat().st_size
                same = same and backup_store.digest_of(found) == self.context.sha256(name).hex()
                executable = name in self.context.step.handlerProperties.get("executable", [])
                return same and (not executable or status.st_mode & 0o111 == 0o111)
            except OSError:
                return False

    def _status(self, there: Place) -> os.stat_result | None:
        """Of the file that is there. Raises StepFailed for a link, and for anything else that is not a file."""
        found = there.opened()
        if found is None:
            return None
        with found:
            return os.fstat(found.fileno())

    @contextmanager
    def _place(self, name: str, *, make: bool = False) -> Iterator[Place]:
        """Where a file goes. Raises StepFailed for what leads out of the folder."""
        root = self._component.folder / self._table.folder
        target = PurePosixPath(_target(self.context.step, name))
        with app_folder.reached(root, target, make=make) as place:
            yield place


def _failure(value: int, details: str) -> ActionResult:
    code = extended_code(FACILITY_STEP_HANDLERS, COMPONENT_APP_HANDLER, value)
    return ActionResult(ResultCode.FAILURE, code, details)


def _target(step: InlineStep, name: str) -> str:
    return str(PurePosixPath(step.handlerProperties.get("targets", {}).get(name, name)))


def _stays_inside(path: object) -> bool:
    if not isinstance(path, str) or not path or "\0" in path or len(path) > 4096:
        return False
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts
