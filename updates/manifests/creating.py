"""Writes manifests: an import manifest from files and a few words, and from that the signed deployment for devices."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...transports import clock, named_files, plugins, private_files
from ..errors import ManifestRule, PayloadMissing
from . import device_manifest as dm
from . import manifest as mf
from .resolved_update import Update
from .signing import PrivateKey

FLASH, SCRIPT = "proxyflash/flash:1", "microsoft/script:1"
"""The handlers of most updates."""
SCHEMA = "https://json.schemastore.org/azure-deviceupdate-import-manifest-{version}.json"
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Draft:
    """What an author says. `select`: which components a child update is for; empty: an update that is deployed itself.

    `host`: which hosts the latter is for; empty: those whose manufacturer and model are the provider and the name.
    `files`: for one step, carried out by `handler`. `children`: manifests of child updates, in their order.
    """

    provider: str
    name: str
    version: str
    description: str = ""
    select: tuple[Mapping[str, str], ...] = ()
    host: tuple[Mapping[str, str], ...] = ()
    files: tuple[Path, ...] = ()
    handler: str = FLASH
    properties: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Path, ...] = ()
    manifest_version: str = "5.0"


def import_manifest(draft: Draft, made: datetime | None = None) -> tuple[str, mf.ImportManifest]:
    """The import manifest's text, and the same parsed. Reads every file. Raises UpdateError."""
    steps: list[dict[str, Any]] = []
    if draft.files:
        steps.append(_inline(draft))
    for path in draft.children:
        child = mf.read(path)
        if child.isDeployable:
            raise ManifestRule(
                f"{path}: isDeployable is true, so that no other update can refer to it",
                remedy="Create it with --group, --model or --select: an update of components.",
            )
        steps.append({"type": "reference", "updateId": child.updateId.model_dump()})
    host = draft.host or ({"manufacturer": draft.provider, "model": draft.name},)
    document: dict[str, Any] = {
        "$schema": SCHEMA.format(version=draft.manifest_version),
        "updateId": {"provider": draft.provider, "name": draft.name, "version": draft.version},
        "isDeployable": not draft.select,
        **({"description": draft.description} if draft.description else {}),
        "compatibility": [dict(pairs) for pairs in draft.select or host],
        "instructions": {"steps": steps},
        "files": [_file(path) for path in draft.files],
        "createdDateTime": _time(made),
        "manifestVersion": draft.manifest_version,
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return text, mf.parse(text, "the new manifest")


def _inline(draft: Draft) -> dict[str, Any]:
    names = [path.name for path in draft.files]
    properties = dict(draft.properties)
    if draft.handler in plugins.names(plugins.STEPS):
        properties = plugins.load(plugins.STEPS, draft.handler).draft(draft.version, names) | properties
    return {"type": "inline", "handler": draft.handler, "files": names, "handlerProperties": properties}


def _file(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0
    try:
        with named_files.opened(path) as stream:
            while size <= mf.MAX_BYTES and (block := stream.read(BLOCK)):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise PayloadMissing(f"{path}: {error.strerror}", remedy="Name a file that is there.") from error
    if not size:
        raise ManifestRule(f"{path} is empty", remedy="Did the build that made it go well?")
    if size > mf.MAX_BYTES:
        raise ManifestRule(f"{path} has more than the {mf.MAX_BYTES:,} bytes of a file of an update")
    return {"filename": path.name, "sizeInBytes": size, "hashes": {"sha256": _base64(digest.digest())}}


def _time(made: datetime | None) -> str:
    return (made or clock.now()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def file_name(update: mf.UpdateId, ending: str) -> str:
    """As the service and its tools name manifests: provider.name.version.ending."""
    return f"{update.provider}.{update.name}.{update.version}.{ending}"


@dataclass(frozen=True, slots=True)
class Signed:
    """A deployment, and the child manifests that go beside it: by file name."""

    name: str
    documents: Mapping[str, bytes]


def signed(update: Update, key: PrivateKey, sjwk: str, *, workflow_id: str = "", base_url: str = "") -> Signed:
    """The deployment of an update, signed. `base_url`: where its files will be; empty: beside it.

    It names each child manifest by its hash: what is signed is the whole update. Raises ManifestRule, ManifestField.
    """
    if not update.manifest.isDeployable:
        raise ManifestRule(
            f"{update.path}: isDeployable is false: it is not deployed on its own",
            remedy="Sign the update that refers to it.",
        )
    documents: dict[str, bytes] = {}
    ids: dict[str, str] = {}
    child_files = {}
    for name, child in update.children.items():
        text = _compact(_device(child.manifest, {}))
        file = file_name(child.manifest.updateId, "updatemanifest.json")
        documents[file] = text.encode()
        entry = {"fileName": file, "sizeInBytes": len(text.encode()), "hashes": {"sha256": _sha256(text.encode())}}
        ids[name] = _id(entry)
        child_files[ids[name]] = entry
    manifest = _device(update.manifest, ids)
    manifest["files"] |= child_files
    text = _compact(manifest)
    # What is signed must be what is taken: the schema of what a device receives has limits of its own.
    dm.device_manifest(mf.json_object(text, "the new update manifest"), "the new update manifest")
    urls = {}
    for member in (manifest, *(json.loads(data) for data in documents.values())):
        for file_id, entry in member["files"].items():
            urls[file_id] = base_url + quote(entry["fileName"])
    deployment = {
        "workflow": {"action": dm.PROCESS, "id": workflow_id or str(update.manifest.updateId).replace(" ", "/")},
        "updateManifest": text,
        "updateManifestSignature": key.sign(text, sjwk),
        "fileUrls": urls,
    }
    name = file_name(update.manifest.updateId, "deployment.json")
    return Signed(name, {**documents, name: (json.dumps(deployment, indent=2) + "\n").encode()})


def _device(manifest: mf.ImportManifest, children: Mapping[str, str]) -> dict[str, Any]:
    """The update manifest of an import manifest. `children`: the file ids of child manifests, by updateId."""
    files = {_id(entry): entry for entry in map(_device_file, manifest.files)}
    ids = {entry["fileName"]: file_id for file_id, entry in files.items()}
    steps: list[dict[str, Any]] = []
    for step in manifest.instructions.steps:
        if isinstance(step, mf.ReferenceStep):
            steps.append({"type": "reference", "detachedManifestFileId": children[str(step.updateId)]})
        else:
            properties = {"handlerProperties": step.handlerProperties} if step.handlerProperties else {}
            steps.append({"handler": step.handler, "files": [ids[name] for name in step.files], **properties})
    return {
        "manifestVersion": manifest.manifestVersion.partition(".")[0],
        "updateId": manifest.updateId.model_dump(),
        "compatibility": [dict(pairs) for pairs in manifest.compatibility],
        "instructions": {"steps": steps},
        "files": files,
        "createdDateTime": manifest.createdDateTime,
    }


def _device_file(file: mf.PayloadFile) -> dict[str, Any]:
    properties = {"properties": file.properties} if file.properties else {}
    return {"fileName": file.filename, "sizeInBytes": file.sizeInBytes, "hashes": dict(file.hashes), **properties}


def _id(entry: Mapping[str, Any]) -> str:
    named = f"{entry['fileName']}\0{entry['hashes']['sha256']}"
    return f"f{hashlib.sha256(named.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _sha256(data: bytes) -> str:
    return _base64(hashlib.sha256(data).digest())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def one_folder(paths: Iterable[Path], folder: Path) -> None:
    """A manifest's files lie beside it. Raises ManifestRule."""
    for path in paths:
        if path.resolve().parent != folder.resolve():
            raise ManifestRule(
                f"{path} does not lie beside the manifest, in {folder}",
                remedy="Put all files of an update into one folder.",
            )


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """A whole file or none: what was there stays until all is written. Raises OSError."""
    with private_files.whole(path, mode) as stream:
        stream.write(data)


def selectors(texts: Sequence[str], option: str) -> tuple[dict[str, str], ...]:
    """ "group=motors,model=Wheel" as pairs, for each text. Raises ValueError."""
    found = []
    for text in texts:
        pairs = {}
        for part in text.split(","):
            key, equals, value = part.partition("=")
            if not equals or not key or not value or key in pairs:
                raise ValueError(f"{option} {text!r} is not KEY=VALUE,KEY=VALUE")
            pairs[key] = value
        found.append(pairs)
    return tuple(found)
