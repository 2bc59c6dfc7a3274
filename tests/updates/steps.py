"""What the step handlers' tests share: a step's context on a bench of its own, and a new handler for each action,
as the engine makes it after a cut."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.updates.engine.results import ActionResult
from proxyflash.updates.errors import UpdateError
from proxyflash.updates.handlers.handler import StepContext, StepHandler
from proxyflash.updates.manifests.conditions import BenchConditions
from proxyflash.updates.manifests.manifest import InlineStep, PayloadFile


@dataclass
class Stage:
    """One step on one component. `folder`: holds the step's files, and gets `work` and `backup`."""

    bench: Bench
    handler: type[StepHandler]
    step: InlineStep
    folder: Path
    component: str | None = None
    cancelled: Callable[[], bool] = lambda: False
    events: list[ev.Event] = field(default_factory=list)
    payloads: dict[str, PayloadFile] = field(default_factory=dict)
    """As `checked` makes them; without, the files are taken as they are."""
    refusal: UpdateError | None = None

    @property
    def backup(self) -> Path:
        return self.folder / "backup" / "1" / (self.component or "host")

    def made(self) -> StepHandler:
        component = self.bench.find(self.component) if self.component else None
        return self.handler(
            StepContext(
                step=self.step,
                files={name: self.folder / name for name in self.step.files},
                work_folder=self.folder / "work",
                backup_folder=self.backup,
                component=component,
                record=component.look() if component else None,
                conditions=BenchConditions(self.bench, self.component),
                run=RunContext(self.events.append, self.cancelled),
                payloads=self.payloads,
                refusal=self.refusal,
            )
        )

    def act(self, action: str) -> ActionResult:
        """By a handler that knows nothing of the actions before."""
        result: ActionResult = getattr(self.made(), action)()
        return result

    def check_component(self) -> None:
        self.handler.check_component(self.step, self.bench.find(self.component) if self.component else None, "steps[0]")

    def rollback_blocker(self) -> str:
        return self.handler.rollback_blocker(self.step, self.bench.find(self.component) if self.component else None)


def checked(folder: Path, *names: str) -> dict[str, PayloadFile]:
    """What a manifest says of files that lie there now."""
    found = {}
    for name in names:
        data = (folder / name).read_bytes()
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        found[name] = PayloadFile(filename=name, sizeInBytes=len(data), hashes={"sha256": digest})
    return found


def inline(handler: str, *files: str, **properties: Any) -> InlineStep:
    return InlineStep(handler=handler, files=files, handlerProperties=properties)
