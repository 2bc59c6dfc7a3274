"""`loop/label:1`: gives a part on a ring the label of the step's `handlerProperties.label`."""

from __future__ import annotations

from typing import ClassVar

from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.enumerators.host import HostComponent
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import ManifestField
from proxyflash.updates.handlers.handler import StepHandler
from proxyflash.updates.manifests.manifest import InlineStep

from .codec import Command
from .flasher import LoopAddress, LoopClient, LoopProfile

KEPT = "label"


class LabelHandler(StepHandler):
    """Asks the part for the label that it has, and keeps that for a rollback."""

    buses_only: ClassVar[bool] = True

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        if not on_component or not isinstance(step.handlerProperties.get("label"), str):
            raise ManifestField(f"{place}: loop/label:1 is for a component, and needs handlerProperties.label, a text")

    @classmethod
    def check_component(cls, step: InlineStep, component: BenchComponent | HostComponent | None, place: str) -> None:
        if not isinstance(component, BenchComponent) or not isinstance(component.entry.address, LoopAddress):
            raise ManifestField(f"{place}: loop/label:1 is for parts on a ring")

    @classmethod
    def no_way_back(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        return ""

    def is_installed(self) -> ActionResult:
        same = self._client.ask(Command.GET_LABEL) == self._wanted
        return ActionResult(ResultCode.INSTALLED if same else ResultCode.NOT_INSTALLED)

    def backup(self) -> ActionResult:
        self.context.backup_folder.mkdir(parents=True, exist_ok=True)
        (self.context.backup_folder / KEPT).write_bytes(self._client.ask(Command.GET_LABEL))
        return ActionResult(ResultCode.BACKUP_SUCCESS)

    def install(self) -> ActionResult:
        self._client.ask(Command.SET_LABEL, self._wanted)
        return ActionResult(ResultCode.INSTALL_SUCCESS)

    def restore(self) -> ActionResult:
        self._client.ask(Command.SET_LABEL, (self.context.backup_folder / KEPT).read_bytes())
        return ActionResult(ResultCode.RESTORE_SUCCESS)

    @property
    def _wanted(self) -> bytes:
        return str(self.context.step.handlerProperties["label"]).encode()

    @property
    def _client(self) -> LoopClient:
        component = self.context.component
        assert isinstance(component, BenchComponent), "the plan refused another one"
        address, profile = component.entry.address, component.entry.profile
        assert isinstance(address, LoopAddress)
        assert isinstance(profile, LoopProfile)
        return LoopClient(component.bench.transport(component.entry.spec.bus), address.node, profile.answer)
