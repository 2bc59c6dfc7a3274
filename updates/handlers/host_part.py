"""What handlers of the host's own components have in common: which step is for one, and when it is installed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from ...enumerators.bench_component import BenchComponent
from ...enumerators.benchfile.schema import ComponentSpec
from ...enumerators.component import Component, Presence
from ...enumerators.host import HostComponent
from ..engine.results import ActionResult, ResultCode
from ..errors import ManifestField
from ..manifests.manifest import InlineStep
from . import properties
from .handler import StepHandler

T = TypeVar("T")


class HostPartHandler(StepHandler, Generic[T]):
    """`T`: the table of the bench file that makes a component fit for this handler.

    Its `check_component` refuses any other component, while nothing is touched yet.
    """

    kind: ClassVar[str]
    """What it updates: "applications"."""
    table: ClassVar[str]
    """The table, with its article: "an app table"."""

    @classmethod
    @abstractmethod
    def table_of(cls, spec: ComponentSpec) -> T | None:
        """The table of a component; None: it has none."""

    @classmethod
    def draft(cls, version: str, files: Sequence[str]) -> dict[str, Any]:
        return {properties.CRITERIA: version}

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        told = "updates a component of the host, and this step names none"
        properties.for_a_component(told, step, place, on_component=on_component)

    @classmethod
    def check_component(cls, step: InlineStep, component: BenchComponent | HostComponent | None, place: str) -> None:
        cls._taken(step, component, f"{place}: ")

    @classmethod
    def seems_installed(cls, step: InlineStep, component: Component) -> bool:
        return component.presence is Presence.OK and component.version == step.handlerProperties[properties.CRITERIA]

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        return ""

    def is_installed(self) -> ActionResult:
        installed = self.seems_installed(self.context.step, self._component.look())
        return ActionResult(ResultCode.INSTALLED if installed else ResultCode.NOT_INSTALLED)

    def _told_and_wanted(self) -> str:
        """Of a component that reports another version than the step installs."""
        wanted = self.context.step.handlerProperties[properties.CRITERIA]
        return f"{self._component.name} reports {self._component.look().version or 'no version'}, wanted {wanted}"

    @property
    def _component(self) -> HostComponent:
        component = self.context.component
        assert isinstance(component, HostComponent), "the plan refused another one"
        return component

    @property
    def _table(self) -> T:
        return self._taken(self.context.step, self.context.component)

    @classmethod
    def _taken(cls, step: InlineStep, component: BenchComponent | HostComponent | None, place: str = "") -> T:
        """Raises ManifestField."""
        if isinstance(component, HostComponent) and (found := cls.table_of(component.spec)) is not None:
            return found
        name = component.name if component else "the host"
        raise ManifestField(
            f"{place}{step.handler} updates {cls.kind} of the host, and the bench file doesn't call {name} one",
            remedy=f"Give the component {cls.table} in the bench file. Its keys: proxyflash help bench-file",
        )
