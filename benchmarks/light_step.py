"""A step that does next to nothing: what is left is the engine."""

from __future__ import annotations

from pathlib import Path

from ..updates.engine.results import ActionResult, ResultCode
from ..updates.handlers.handler import StepHandler
from ..updates.manifests.manifest import InlineStep


class LightStep(StepHandler):
    """Counts, in a file of the component's own, how often it was installed."""

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        pass

    def is_installed(self) -> ActionResult:
        return ActionResult(ResultCode.NOT_INSTALLED)

    def install(self) -> ActionResult:
        component = self.context.component
        assert component is not None
        path = Path(self.context.step.handlerProperties["folder"]) / f"{component.name}.count"
        with path.open("a") as stream:
            stream.write("installed\n")
        return ActionResult(ResultCode.INSTALL_SUCCESS)
