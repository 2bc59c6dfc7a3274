"""`StepHandler`: carries out one step on one component. One class for each handler name, in one file.

Registered under the entry-point group `proxyflash.steps` by the name that manifests use, such as "microsoft/script:1".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..enumerators.bench import BenchComponent
from ..enumerators.component import Component
from ..flashers import events as ev
from .manifest import InlineStep
from .results import ActionResult, ResultCode


@dataclass(frozen=True, slots=True)
class StepContext:
    """What an action works with. `component`: the one in context; None: the step is for the host.

    `record`: the component as it was seen when the update was planned. `work_folder`: shared by the steps of one
    (child) update. `files`: the step's files, by name.
    """

    step: InlineStep
    files: Mapping[str, Path]
    work_folder: Path
    component: BenchComponent | None
    record: Component | None
    on_event: ev.EventSink
    cancelled: Callable[[], bool]


class StepHandler(ABC):
    """Carries out the actions of one step; made anew for each step and component."""

    @classmethod
    @abstractmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        """Checks the step's own fields while nothing is touched yet. Raises ManifestField, which names `place`."""

    @classmethod
    def seems_installed(cls, step: InlineStep, component: Component) -> bool:
        """Whether the component's record alone says so, for the plan; the default: it can't say."""
        return False

    def __init__(self, context: StepContext) -> None:
        self.context = context

    @abstractmethod
    def is_installed(self) -> ActionResult:
        """INSTALLED or NOT_INSTALLED, or a failure."""

    def download(self) -> ActionResult:
        """Called for every step before the first install; the files are there and checked already."""
        return ActionResult(ResultCode.DOWNLOAD_SUCCESS)

    @abstractmethod
    def install(self) -> ActionResult: ...

    def apply(self) -> ActionResult:
        return ActionResult(ResultCode.APPLY_SUCCESS)

    def cancel(self) -> ActionResult:
        """Called once when the update is cancelled while this step is under way."""
        return ActionResult(ResultCode.CANCEL_SUCCESS)
