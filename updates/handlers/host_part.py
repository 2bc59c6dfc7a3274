"""What handlers of the host's own components have in common: which step is for one, and when it is installed."""

from __future__ import annotations

from ...enumerators.component import Component, Presence
from ...enumerators.host import HostComponent
from ..manifests.manifest import InlineStep
from . import properties
from .handler import StepHandler


class HostPartHandler(StepHandler):
    """Its `check_component` refuses what is no component of the host, while nothing is touched yet."""

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        told = "updates a component of the host, and this step names none"
        properties.for_a_component(told, step, place, on_component=on_component)

    @classmethod
    def seems_installed(cls, step: InlineStep, component: Component) -> bool:
        return component.presence is Presence.OK and component.version == step.handlerProperties[properties.CRITERIA]

    @property
    def _component(self) -> HostComponent:
        component = self.context.component
        assert isinstance(component, HostComponent), "the plan refused another one"
        return component
