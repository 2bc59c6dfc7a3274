"""`proxyflash/partition:1`: a partition of the host, by two slots: written where it isn't in use, read back, switched to.

handlerProperties: `installedCriteria`, the version that the component reports once it is installed (required). The step's
one file is the slot's new content, raw. The slots and the commands are the bench file's (`partition` of the component).

The slot in use is never written to: whatever cuts an Install, the host goes on with what it had. Apply switches, and asks
for a restart of the host where the bench file says that it takes one; Restore switches back.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...enumerators.benchfile.schema import ComponentSpec, PartitionSpec
from ...enumerators.commands import CommandFailed
from ...flashers import events as ev
from ...flashers.errors import Cancelled
from ...transports import clock, private_files
from ...transports.errors import NextAction
from ..engine.results import FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code
from ..errors import StepFailed
from ..manifests.manifest import InlineStep
from . import backup_store, properties
from .host_part import HostPartHandler

COMPONENT_PARTITION_HANDLER = 33
BLOCK = 1 << 20


class _Kept(backup_store.Facts):
    """Which slot was in use."""

    slot: str
    version: str


class PartitionHandler(HostPartHandler[PartitionSpec]):
    """Backup keeps which slot was in use: its content stays where it is."""

    kind = "partitions"
    table = "a partition table"

    @classmethod
    def table_of(cls, spec: ComponentSpec) -> PartitionSpec | None:
        return spec.partition

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        super().check(step, on_component=on_component, place=place)
        properties.one_file(step, place)
        properties.none_but([properties.CRITERIA], step, place)
        properties.criteria(step, place)

    def download(self) -> ActionResult:
        """Whether both slots are there, one is in use, and the other has room: before anything is touched."""
        with self._opened(self._spare(), os.O_RDONLY):
            return ActionResult(ResultCode.DOWNLOAD_SUCCESS)

    def backup(self) -> ActionResult:
        folder = self.context.backup_folder
        if backup_store.facts(folder, _Kept) is None:
            backup_store.keep(folder, {"slot": self._active(), "version": self._component.look().version})
        return ActionResult(ResultCode.BACKUP_SUCCESS)

    def install(self) -> ActionResult:
        """What the slot holds already is not written again, so that an Install which was cut goes on."""
        slot = self._spare()
        self.context.check(self.context.step.files[0])
        with self._source() as source, self._opened(slot, os.O_RDWR) as number:
            size = os.fstat(source).st_size
            with self._phase(ev.Phase.WRITE, size):
                written = self._write(source, number, size)
            with self._phase(ev.Phase.VERIFY, size):
                self._read_back(number, size, slot)
        return ActionResult(
            ResultCode.INSTALL_SUCCESS, details=f"slot {slot}: {written:,} of {size:,} bytes written, read back"
        )

    def apply(self) -> ActionResult:
        """Switches to the other slot than was in use before; when that is so already, it is said again."""
        found = backup_store.facts(self.context.backup_folder, _Kept)
        if found is None:
            raise StepFailed("which slot was in use before is not known: Backup comes first")
        (slot,) = (name for name in self._table.slots if name != found.slot)
        self._switch(slot)
        if self._table.reboot:
            return ActionResult(ResultCode.APPLY_REBOOT, details=f"slot {slot} from the next start on")
        if self.is_installed().code == ResultCode.INSTALLED:
            return ActionResult(ResultCode.APPLY_SUCCESS, details=f"slot {slot}")
        code = extended_code(FACILITY_STEP_HANDLERS, COMPONENT_PARTITION_HANDLER, 1)
        return ActionResult(ResultCode.FAILURE, code, self._told_and_wanted())

    def restore(self) -> ActionResult:
        found = backup_store.facts(self.context.backup_folder, _Kept)
        if found is None:
            return ActionResult(ResultCode.RESTORE_UNSUPPORTED)
        slot = found.slot
        self._switch(slot)
        if self._table.reboot and self._active() != slot:
            return ActionResult(ResultCode.RESTORE_REBOOT, details=f"slot {slot} from the next start on")
        return ActionResult(ResultCode.RESTORE_SUCCESS, details=f"slot {slot}")

    # The slots.

    def _active(self) -> str:
        said = self._run(self._table.active).strip()
        if said not in self._table.slots:
            known = ", ".join(self._table.slots)
            raise StepFailed(f"the slot in use is {said[-80:]!r} by the bench file's command, which is none of {known}")
        return said

    def _spare(self) -> str:
        active = self._active()
        return next(name for name in self._table.slots if name != active)

    def _switch(self, slot: str) -> None:
        if slot not in self._table.slots:
            known = ", ".join(self._table.slots)
            raise StepFailed(f"the backup names the slot {slot[:80]!r}, and the bench file has {known}")
        self._run(self._table.switch.replace("{slot}", shlex.quote(slot)))

    def _run(self, command: str) -> str:
        try:
            return self._component.commands.run(command)
        except CommandFailed as error:
            raise StepFailed(str(error)) from error

    @contextmanager
    def _opened(self, slot: str, how: int) -> Iterator[int]:
        """A slot that has room for the file. Raises StepFailed; for a block device also when it is mounted."""
        path = self._component.folder / self._table.slots[slot]
        other = next(self._component.folder / there for name, there in self._table.slots.items() if name != slot)
        try:
            number = _opened(path, other, how)
        except OSError as error:
            raise StepFailed(f"slot {slot}: {error.filename or path}: {error.strerror}") from error
        try:
            size, room = self._size, _room(number, path)
            if room is not None and size > room:
                raise StepFailed(f"slot {slot} has {room:,} bytes, and the file has {size:,}")
            yield number
        except OSError as error:
            raise StepFailed(f"slot {slot}: {path}: {error.strerror}") from error
        finally:
            os.close(number)

    def _write(self, source: int, number: int, size: int) -> int:
        written = done = 0
        while done < size:
            if self.context.run.cancelled():
                raise Cancelled(
                    "stopped on request; the slot in use was not touched",
                    touched=True,
                    remedy=("It goes on with what is missing: ", NextAction.RESUME),
                )
            block = os.pread(source, BLOCK, done)
            if os.pread(number, len(block), done) != block:
                _write_all(number, block, done)
                written += len(block)
            done += len(block)
            self.context.run.on_event(ev.Progress(self._component.name, ev.Phase.WRITE, done, size))
        if stat.S_ISREG(os.fstat(number).st_mode):
            os.ftruncate(number, size)
        os.fsync(number)
        return written

    def _read_back(self, number: int, size: int, slot: str) -> None:
        """From the device, not from what the kernel remembers of it, against the manifest. Raises StepFailed, StagedChanged."""
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        digest = hashlib.sha256()
        done = 0
        while done < size:
            block = os.pread(number, min(BLOCK, size - done), done)
            if not block:
                break
            digest.update(block)
            done += len(block)
            self.context.run.on_event(ev.Progress(self._component.name, ev.Phase.VERIFY, done, size))
        name = self.context.step.files[0]
        if digest.digest() != self.context.sha256(name):
            # Either the file has changed while it was written, or the device doesn't keep what it gets.
            self.context.check(name)
            raise StepFailed(f"slot {slot} does not hold what was written to it", remedy="Is the device worn out?")

    @contextmanager
    def _phase(self, phase: ev.Phase, total: int) -> Iterator[None]:
        began = clock.monotonic()
        name = self._component.name
        self.context.run.on_event(ev.PhaseStarted(name, phase, total))
        yield
        self.context.run.on_event(ev.PhaseFinished(name, phase, total, clock.monotonic() - began))

    @contextmanager
    def _source(self) -> Iterator[int]:
        number = os.open(self.context.files[self.context.step.files[0]], os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield number
        finally:
            os.close(number)

    @property
    def _size(self) -> int:
        return self.context.files[self.context.step.files[0]].stat().st_size


def _opened(path: Path, other: Path, how: int) -> int:
    """Opens what `path` names, through links of root and of this user only. Raises StepFailed, OSError."""
    number, second = private_files.named(path), -1
    try:
        second = private_files.named(other)
        status = os.fstat(number)
        if os.path.samestat(status, os.fstat(second)):
            raise StepFailed(f"both slots are {path}")
        # The kernel refuses an exclusive open of a block device that is in use.
        exclusive = os.O_EXCL if stat.S_ISBLK(status.st_mode) else 0
        try:
            # The same one again, whatever lies at the path by now.
            return os.open(f"/proc/self/fd/{number}", how | exclusive | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            error.filename = str(path)
            raise
    finally:
        os.close(number)
        if second >= 0:
            os.close(second)


def _room(number: int, path: Path) -> int | None:
    """Bytes of a block device; None: a file, which grows. Raises StepFailed for anything else."""
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return None
    if not stat.S_ISBLK(mode):
        raise StepFailed(f"{path} is neither a block device nor a file")
    return os.lseek(number, 0, os.SEEK_END)


def _write_all(number: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(number, view, offset)
        view, offset = view[done:], offset + done
