"""`StepHandler`: carries out one step on one component. One class for each handler name, in one file.

Registered under the entry-point group `proxyflash.steps` by the name that manifests use, such as "microsoft/script:1".
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from ...enumerators.bench_component import BenchComponent
from ...enumerators.component import Component
from ...enumerators.host import HostComponent
from ...flashers.events import RunContext
from ...transports import named_files
from ...transports.errors import Remedy
from ..engine.results import ActionResult, ResultCode
from ..errors import PayloadHash, PayloadKind, PayloadMissing, PayloadSize, StagedChanged, UpdateError
from ..manifests import files
from ..manifests.conditions import BenchConditions
from ..manifests.manifest import InlineStep, PayloadFile


@dataclass(frozen=True, slots=True)
class StepContext:
    """What an action works with. `component`: the one in context; None: the step is for the host.

    `record`: the component as it was seen when the update was planned. `files`: the step's files, by name: the update's
    own checked copies, which nobody else writes. `work_folder`: shared by the steps of one (child) update.
    `backup_folder`: this step's and component's own; made when it is first needed, kept until the update has ended, also
    over a cut and a resume. `conditions`: asks conditions on the bench. `run`: where events go, and whether to stop.
    `payloads`: what the manifest says of the files; a file without an entry is not checked again. `refusal`: why the
    update's files must not be used: it is rolled back, and the policy does not take it any more. `changed`: an earlier action
    of this step has changed the component, or may have.

    A handler uses a file by `read`, `pour` or, for a program that gets a path, `check` right before the program starts.
    """

    step: InlineStep
    files: Mapping[str, Path]
    work_folder: Path
    backup_folder: Path
    component: BenchComponent | HostComponent | None
    record: Component | None
    conditions: BenchConditions
    run: RunContext = field(default_factory=RunContext)
    payloads: Mapping[str, PayloadFile] = field(default_factory=dict)
    refusal: UpdateError | None = None
    changed: bool = False

    def read(self, name: str) -> bytes:
        """A file, read once: exactly the checked bytes are returned. Raises StagedChanged, `refusal`."""
        found = io.BytesIO()
        self.pour(name, found)
        return found.getvalue()

    def pour(self, name: str, target: BinaryIO) -> None:
        """Copies a file. What `target` got counts only if nothing is raised. Raises StagedChanged, `refusal`, OSError."""
        with self._unchanged():
            if name in self.payloads:
                files.pour(self.files[name], self.payloads[name], target)
            else:
                target.write(named_files.read(self.files[name]))

    def check(self, name: str, there: Path | None = None) -> None:
        """That a file, or its copy at `there`, agrees with the manifest. Raises StagedChanged, `refusal`."""
        with self._unchanged():
            if name in self.payloads:
                files.check(there or self.files[name], self.payloads[name])

    def sha256(self, name: str) -> bytes:
        """What a file's SHA-256 must be. Raises OSError."""
        if name in self.payloads:
            return self.payloads[name].sha256
        with named_files.opened(self.files[name]) as stream:
            return hashlib.file_digest(stream, "sha256").digest()

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        if self.refusal is not None:
            raise type(self.refusal)(self.refusal.cause)
        with unchanged():
            yield


@contextmanager
def unchanged(remedy: Remedy | None = None) -> Iterator[None]:
    """What is wrong with a file in the block was done to it after it had been checked. Raises StagedChanged."""
    try:
        yield
    except (PayloadMissing, PayloadKind, PayloadSize, PayloadHash) as error:
        raise StagedChanged(f"changed after it was checked: {error.cause}", remedy=remedy) from error


class StepHandler(ABC):
    """Carries out the actions of one step; made for each step, component and run of the engine.

    An action may be run again after a cut in its middle: it asks what is there, and never trusts what it remembers.
    What it must keep for a later action lies in `backup_folder`.
    """

    buses_only: ClassVar[bool] = False
    """Whether its actions reach nothing but the bench's buses, the commands of the bench file and its own folders.

    A replay runs the actions of such handlers alone; of all others it takes the recorded results.
    """
    runs_script: ClassVar[bool] = False
    """Whether a program of the update runs from the step's start on, which is ended when the command is."""
    enters_bootloader: ClassVar[bool] = False
    """Whether Install reaches a component that doesn't answer, by its bootloader. Such a component must be on a bus."""
    tells_changes: ClassVar[bool] = False
    """Whether its events say what it changes, or it changes nothing: that an action has started then changes nothing yet."""
    changes_nothing: ClassVar[bool] = False
    """Whether none of its actions changes anything: an update of such steps alone leaves nothing to undo."""

    @classmethod
    def draft(cls, version: str, files: Sequence[str]) -> dict[str, Any]:
        """The handler properties of a new step whose author says nothing else. `version`: the update's. `files`: names."""
        return {}

    @classmethod
    @abstractmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        """Checks the step's own fields while nothing is touched yet; only whether it is for a component is known.

        Raises ManifestField, which names `place`.

        `handlerProperties.proxyflash`, which holds the engine's options of the step, is not in it.
        """

    @classmethod  # noqa: B027 - most handlers take any
    def check_files(cls, step: InlineStep, files: Sequence[Path]) -> None:
        """Checks what the step's files hold, as far as that shows without a component, for the update's author.

        `files`: the step's, in its order. Raises ProxyflashError; the default: any will do.
        """

    @classmethod  # noqa: B027 - most handlers take any
    def check_component(cls, step: InlineStep, component: BenchComponent | HostComponent | None, place: str) -> None:
        """Checks that the step can be for this component of the bench (None: the host). Sends nothing.

        Called for each task when an update is planned, and when it is resumed. Raises ManifestField, which names `place`;
        the default: any will do.
        """

    @classmethod
    def seems_installed(cls, step: InlineStep, component: Component) -> bool:
        """Whether the component's record alone says so, for the plan; the default: it can't say."""
        return False

    @classmethod
    def backup_bytes(cls, step: InlineStep, files: Sequence[Path]) -> int:
        """About how many bytes Backup keeps of one component, for the plan. `files`: the step's, in its order."""
        return 0

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        """Why what Install does can't be undone, for the plan; "": it can. Sends nothing.

        Asked only once `check_component` has taken the component.
        """
        return f"{step.handler} has no restore"

    def __init__(self, context: StepContext) -> None:
        self.context = context

    @abstractmethod
    def is_installed(self) -> ActionResult:
        """INSTALLED or NOT_INSTALLED. A failure or an error is taken for the latter: Install finds what is wrong."""

    def is_complete(self) -> ActionResult:
        """As `is_installed`, asked when a cut ended an Install or Apply in its midst, of which everything is possible.

        NOT_INSTALLED has the action run again, which is always safe.
        """
        return self.is_installed()

    def download(self) -> ActionResult:
        """Called before the first install for every step that isn't installed; the files are there and checked already."""
        return ActionResult(ResultCode.DOWNLOAD_SUCCESS)

    def backup(self) -> ActionResult:
        """Keeps what Install is about to replace, in `backup_folder`; writes nothing else.

        What it keeps is on the disk when this returns: Restore may be asked for it after the host has lost its supply.
        """
        return ActionResult(ResultCode.BACKUP_UNSUPPORTED)

    @abstractmethod
    def install(self) -> ActionResult: ...

    def apply(self) -> ActionResult:
        return ActionResult(ResultCode.APPLY_SUCCESS)

    def restore(self) -> ActionResult:
        """Brings back what Backup kept, after a failed Install or Apply, or when the whole update is rolled back."""
        return ActionResult(ResultCode.RESTORE_UNSUPPORTED)

    def cancel(self) -> ActionResult:
        """Called once when the update is cancelled while this step is under way."""
        return ActionResult(ResultCode.CANCEL_SUCCESS)
