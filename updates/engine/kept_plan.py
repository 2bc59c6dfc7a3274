"""A plan in a file: what `plan --out` writes, and `apply` carries out only if it is still the plan.

It holds no more than what it is compared by: what is carried out is planned again from the manifest and the bench.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...enumerators.bench import Bench
from ...enumerators.benchfile.validation import first_fault
from ...transports import json_text, named_files
from ...transports.plain import quoted
from ..errors import PlanChanged, PlanFile
from ..manifests.manifest import MAX_MANIFEST
from .plan import Task, UpdatePlan

FORMAT = "proxyflash plan"
MOST_SHOWN = 5
"""Differences that a message names."""
Text = Annotated[str, Field(max_length=1024)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlannedComponent(_Part):
    name: Text
    id: Text
    version: Text
    presence: Text


class PlannedTask(_Part):
    step: Text
    component: Text
    handler: Text
    wanted: Text
    status: Text
    files: dict[Text, Text]
    """Their SHA-256, as the manifest has it."""


class KeptPlan(_Part):
    """`manifest`: its path. `manifests`, `bench`: the SHA-256 of the manifests, and of the bench file."""

    format: Literal["proxyflash plan"]
    schema_: Literal[1] = Field(alias="schema")
    manifest: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
    manifests: Sha256
    bench: Sha256
    components: list[PlannedComponent]
    tasks: list[PlannedTask]
    named: dict[Annotated[str, Field(max_length=8192)], Sha256 | Literal[""]]
    """By path, the SHA-256 of the files that the components' profiles name; "": it can't be read."""

    @classmethod
    def of(cls, bench: Bench, made: UpdatePlan, manifest: Path) -> Self:
        """`manifest`: as it was named."""
        components = [
            {"name": one.name, "id": one.id, "version": one.version, "presence": one.presence.value}
            for one in (*made.components, *made.unplugged)
        ]
        found = {
            "format": FORMAT,
            "schema": 1,
            "manifest": str(manifest.absolute()),
            "manifests": made.update.digest,
            "bench": hashlib.sha256(bench.file.text.encode()).hexdigest(),
            "components": components,
            "tasks": [_task(task) for task in made.tasks],
            "named": _named(bench, [one["name"] for one in components]),
        }
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise PlanFile(f"this plan can't be kept: {_fault(error)}") from error

    def text(self) -> str:
        """Raises PlanFile for a plan that is too long to be read again."""
        text = json.dumps(self.model_dump(by_alias=True), indent=2) + "\n"
        if len(text) > MAX_MANIFEST:
            raise PlanFile(f"this plan has more than {MAX_MANIFEST:,} characters, and can't be kept")
        return text

    def check(self, now: KeptPlan) -> None:
        """Raises PlanChanged, which names what differs."""
        found = list(self._differences(now))
        if found:
            more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
            raise PlanChanged(f"since it was planned: {'; '.join(found[:MOST_SHOWN])}{more}")

    def _differences(self, now: KeptPlan) -> Iterator[str]:
        if self.bench != now.bench:
            yield "the bench file has changed"
        if self.manifests != now.manifests:
            yield "the manifest, or a manifest that it refers to, has changed"
        was, are = ({one.name: one for one in plan.components} for plan in (self, now))
        for name in dict.fromkeys((*was, *are)):
            if name not in are or name not in was:
                yield f"the update {'no longer selects' if name in was else 'now selects'} {quoted(name)}"
                continue
            for what in ("id", "version", "presence"):
                before, after = getattr(was[name], what), getattr(are[name], what)
                if before != after:
                    yield f"{quoted(name)} had {what} {quoted(before)} and has {quoted(after)}"
        for path in dict.fromkeys((*self.named, *now.named)):
            if self.named.get(path) != now.named.get(path):
                yield f"{path}, which a profile names, has changed"
        if self.tasks != now.tasks:
            pairs = zip(self.tasks, now.tasks, strict=False)
            first = next((after for before, after in pairs if before != after), None)
            place = f"step {first.step} for {first.component}" if first else "the number of steps"
            yield f"{place} differs"


def read(path: Path) -> KeptPlan | None:
    """The plan of a file. None: the file is something else, such as a manifest. Raises PlanFile for a broken plan."""
    try:
        raw = json_text.parse(named_files.read(path, MAX_MANIFEST).decode("utf-8-sig"), most=MAX_MANIFEST)
    except (OSError, ValueError):
        return None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        return None
    try:
        return KeptPlan.model_validate(raw)
    except ValidationError as error:
        raise PlanFile(f"{path}: {_fault(error)}") from None


def _named(bench: Bench, components: Iterable[str]) -> dict[str, str]:
    entries = [bench.file.entries[name] for name in components if name in bench.file.entries]
    paths = {path for entry in entries for path in entry.flasher.files_named(entry.profile)}
    return {str(path.absolute()): _sha256(path) for path in sorted(paths)} if bench.replay is None else {}


def _sha256(path: Path) -> str:
    """An empty text: it can't be read; then what needs it says so."""
    try:
        with named_files.opened(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def _fault(error: ValidationError) -> str:
    fault = first_fault(error)
    return f"{fault.at()}: {fault.message}"


def _task(task: Task) -> dict[str, object]:
    hashes = {file.filename: file.hashes["sha256"] for file in task.update.manifest.files}
    return {
        "step": task.label,
        "component": task.target,
        "handler": task.step.handler,
        "wanted": task.wanted,
        "status": task.status.value,
        "files": {name: hashes[name] for name in task.step.files},
    }
