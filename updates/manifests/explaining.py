"""What an update means, in plain words, and what is wrong with it: for its author, before anything is sent anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...transports import plugins
from ...transports.errors import PluginUnknown, ProxyflashError
from ..errors import HandlerUnknown, UpdateError
from . import files, options
from .manifest import ImportManifest, InlineStep
from .resolved_update import Update

SHOWN = 60
"""Characters of a handler's property that are shown."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`lines`: what it means. `faults`: all that is wrong, of which the first is the one to end with."""

    lines: tuple[str, ...]
    faults: tuple[ProxyflashError, ...]


def explain(update: Update) -> Explanation:
    """Reads every file of the update, once."""
    return Explanation(tuple(_lines(update)), tuple(_faults(update)))


def _lines(update: Update) -> Iterator[str]:
    manifest = update.manifest
    about = f"  {manifest.description}" if manifest.description else ""
    yield f"{manifest.updateId}{about}"
    yield f"  made        {update.created:%Y-%m-%d %H:%M} {update.created.tzname()}"
    yield f"  signature   {_signature(update)}"
    if update.workflow_id:
        yield f"  deployment  {update.workflow_id}"
    if manifest.isDeployable:
        yield f"  for         hosts with {_selection(manifest)}"
    else:
        yield f"  for         components with {_selection(manifest)}; another update refers to this one"
    for number, step in enumerate(manifest.instructions.steps, 1):
        if isinstance(step, InlineStep):
            on = "on the host" if manifest.isDeployable else "on each component"
            yield f"  {number:<4} {on}: {_step(step)}"
            continue
        child = update.child(step)
        yield f"  {number:<4} {child.manifest.updateId}, on each component with {_selection(child.manifest)}"
        for index, inner in enumerate(child.manifest.instructions.steps, 1):
            if isinstance(inner, InlineStep):
                yield f"  {number}.{index:<2} {_step(inner)}"
    for name, size in _sizes(update).items():
        yield f"  file        {name}  {size:,} bytes"


def _signature(update: Update) -> str:
    if update.signer is not None:
        return f"by {update.signer.key}, under the root key {update.signer.root}"
    return "signed, but there is no root key to verify it by" if update.signature_unverified else "none"


def _selection(manifest: ImportManifest) -> str:
    return ", or with ".join(
        " and ".join(f"{key} {value}" for key, value in pairs.items()) for pairs in manifest.compatibility
    )


def _step(step: InlineStep) -> str:
    said = [f"{key} {_short(value)}" for key, value in step.handlerProperties.items()]
    about = f" ({', '.join(said)})" if said else ""
    words = f"  {step.description}" if step.description else ""
    return f"{step.handler} with {', '.join(step.files)}{about}{words}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _sizes(update: Update) -> Mapping[str, int]:
    return {
        file.filename: file.sizeInBytes
        for member in (update, *update.children.values())
        for file in member.manifest.files
    }


def _faults(update: Update) -> Iterator[ProxyflashError]:
    for member in (update, *update.children.values()):
        whole = {}
        for file in member.manifest.files:
            try:
                files.check(member.files[file.filename], file)
                whole[file.filename] = member.files[file.filename]
            except UpdateError as error:
                yield error
        for index, step in enumerate(member.manifest.instructions.steps):
            if isinstance(step, InlineStep):
                try:
                    _handled(step, member, whole, f"{member.path}: instructions.steps[{index}]")
                except ProxyflashError as error:
                    yield error


def _handled(step: InlineStep, member: Update, whole: Mapping[str, Path], place: str) -> None:
    """Raises HandlerUnknown, and what the handler finds wrong with its step or with the step's files, once they are `whole`."""
    try:
        handler = plugins.load(plugins.STEPS, step.handler)
    except PluginUnknown as error:
        raise HandlerUnknown(f"{place}.handler: {error.cause}") from error
    # What it asks of the engine is the engine's, and not the handler's to know.
    bare, _ = options.split(step, place)
    handler.check(bare, on_component=not member.manifest.isDeployable, place=place)
    if all(name in whole for name in bare.files):
        handler.check_files(bare, [whole[name] for name in bare.files])
