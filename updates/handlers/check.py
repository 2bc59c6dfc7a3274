"""`proxyflash/check:1`: a condition as a step: the update goes on when it holds, and ends there when it does not.

handlerProperties: `condition`, one of those of manifests/conditions.py (required). It is asked at Install, at its place in
the order, and never taken as installed: what held once need not hold now. Nothing is changed, so there is nothing to bring
back. A step must have a file; this one reads none.
"""

from __future__ import annotations

from ...enumerators.bench_component import BenchComponent
from ...enumerators.host import HostComponent
from ..engine.results import ActionResult, ResultCode
from ..errors import ConditionFailed, ManifestField
from ..manifests import conditions
from ..manifests.conditions import Condition
from ..manifests.manifest import InlineStep
from . import properties
from .handler import StepHandler

KEY = "condition"


class CheckHandler(StepHandler):
    """Asks in Install, and again after an interruption."""

    buses_only = True
    tells_changes = True
    changes_nothing = True

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        properties.none_but([KEY], step, place)
        if KEY not in step.handlerProperties:
            raise ManifestField(f"{place}.handlerProperties.{KEY} is missing")
        _condition(step, place)

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        return ""

    def is_installed(self) -> ActionResult:
        return ActionResult(ResultCode.NOT_INSTALLED)

    def download(self) -> ActionResult:
        """What is missing in the bench file for it is reported before the first component is touched."""
        if lacking := self.context.conditions.missing(_condition(self.context.step, "")):
            raise ConditionFailed(lacking, remedy="Add it to the bench file, or correct the manifest.")
        return ActionResult(ResultCode.DOWNLOAD_SUCCESS)

    def install(self) -> ActionResult:
        self.context.conditions.demand([_condition(self.context.step, "")])
        return ActionResult(ResultCode.INSTALL_SUCCESS, details="it holds")

    def restore(self) -> ActionResult:
        return ActionResult(ResultCode.RESTORE_SUCCESS, details="nothing was changed")


def _condition(step: InlineStep, place: str) -> Condition:
    return conditions.parse(step.handlerProperties[KEY], f"{place}.handlerProperties.{KEY}")
