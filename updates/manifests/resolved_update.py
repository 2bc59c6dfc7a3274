"""`Update`: a manifest with its files and the child updates that it refers to, all there, all right, and to be trusted.

Loading one reads every byte of every file once. Nothing that is wrong is left to be found while a component is flashed.
`load` takes an import manifest as well as what a device receives, and makes the same of both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from ...transports import clock, private_files
from ...transports.plain import meant, quoted
from ..engine import disk
from ..engine.store import Seen
from ..errors import (
    DeploymentCancelled,
    ManifestExpired,
    ManifestFuture,
    ManifestMissing,
    ManifestRule,
    SignatureMissing,
    UpdateError,
)
from . import device_manifest as dm
from . import files, signing
from . import manifest as mf
from .policy import Policy

MANIFEST_PATTERN = "*.importmanifest.json"
FUTURE = timedelta(days=1)
"""How much later than now a manifest may have been made: clocks differ, and a time without a zone is taken for UTC."""
MOST_BESIDE = 1000
"""Manifests in the folder of a manifest that refers to others."""
MOST_BYTES_BESIDE = 64 << 20
"""Of all these manifests together."""


@dataclass(frozen=True, slots=True)
class Update:
    """One checked update. `files`: name to path. `children`: the updates that its reference steps name.

    `documents`: the manifests as they were read, by file name: what stands for it, its children's not among them.
    `workflow_id`: the deployment's, "" where there is none. `signer`: whose signature was verified.
    """

    path: Path
    manifest: mf.ImportManifest
    files: Mapping[str, Path]
    children: Mapping[str, Update]
    documents: Mapping[str, bytes] = field(default_factory=dict)
    workflow_id: str = ""
    signer: signing.Signer | None = None
    signature_unverified: bool = False
    """Whether it bears a signature that there was no root key to verify by."""

    def child(self, step: mf.ReferenceStep) -> Update:
        return self.children[str(step.updateId)]

    @property
    def digest(self) -> str:
        """The identity of an update: the SHA-256 of its manifests, in hex."""
        digest = hashlib.sha256()
        for member in (self, *self.children.values()):
            for name, data in sorted(member.documents.items()):
                digest.update(f"{name} {len(data)} ".encode() + data)
        return digest.hexdigest()

    @property
    def created(self) -> datetime:
        """When its manifest was made; a time without a zone is UTC."""
        made = datetime.fromisoformat(self.manifest.createdDateTime)
        return made if made.tzinfo else made.replace(tzinfo=UTC)


def load(path: Path, policy: Policy | None = None, *, seen: Seen | None = None) -> Update:
    """Reads an update, checks size and SHA-256 of every file, and whether `policy` takes it; None: the default one.

    `seen`: the latest time that this host is known to have had. A clock that was set back behind it is not believed.
    Raises UpdateError, each fault by a class of its own; DeploymentCancelled for a manifest that calls a deployment off.
    """
    found = read(path, policy, seen=seen)
    if not found.manifest.isDeployable:
        raise ManifestRule(
            f"{path}: isDeployable is false: it is for components that another update selects",
            remedy="Name the update that refers to it.",
        )
    _each_file(found, files.check)
    return found


def read(path: Path, policy: Policy | None = None, *, seen: Seen | None = None) -> Update:
    """As `load`, but looks at no file of the update except manifests."""
    return _Reader(path, policy or Policy(), seen).read()


def staged(update: Update, folder: Path) -> Update:
    """Copies an update's manifests and files into `folder`, each file checked in the same pass; the copy.

    The copy is on the disk when this returns. Raises UpdateError for a file that has changed, StateFolder when it can't be
    written.
    """
    with private_files.told(folder):
        private_files.folder(folder)
        for member in (update, *update.children.values()):
            for name, data in member.documents.items():
                with private_files.created(folder / name) as target:
                    target.write(data)
                    target.flush()
                    os.fsync(target.fileno())
    _each_file(update, lambda there, file: files.check(there, file, folder / file.filename))
    with private_files.told(folder):
        disk.sync_folder(folder)
    return _moved(update, folder)


def _each_file(update: Update, action: Callable[[Path, mf.PayloadFile], None]) -> None:
    """Once for each file, however many updates name it, if they say the same of it."""
    done: set[tuple[Path, int, bytes]] = set()
    for member in (update, *update.children.values()):
        for file in member.manifest.files:
            there = member.files[file.filename]
            known = (there, file.sizeInBytes, file.sha256)
            if known not in done:
                action(there, file)
                done.add(known)


def _moved(update: Update, folder: Path) -> Update:
    return Update(
        folder / update.path.name,
        update.manifest,
        {name: folder / name for name in update.files},
        {name: _moved(child, folder) for name, child in update.children.items()},
        update.documents,
        update.workflow_id,
        update.signer,
        update.signature_unverified,
    )


class _Reader:
    """Reads one update, of either kind."""

    def __init__(self, path: Path, policy: Policy, seen: Seen | None) -> None:
        self.path = path
        self.folder = path.parent
        self.policy = policy
        self.seen = seen

    def read(self) -> Update:
        data = mf.read_bytes(self.path)
        raw = mf.json_object(mf.decoded(data, str(self.path)), str(self.path))
        if dm.is_deployment(raw):
            found = self._deployment(dm.deployment(raw, str(self.path)), data)
        else:
            self._unsigned()
            if dm.is_device_manifest(raw):
                found = self._device(dm.device_manifest(raw, str(self.path)), str(self.path), {self.path.name: data})
            else:
                found = self._imported(mf.checked(raw, str(self.path)), data)
        self._fresh(found)
        return found

    def _deployment(self, deployment: dm.Deployment, data: bytes) -> Update:
        workflow = deployment.workflow
        # The signature comes first: of a deployment that is not to be trusted nothing is believed.
        text = deployment.updateManifest or ""
        signer = self._signer(text, deployment.updateManifestSignature)
        if workflow.action == dm.CANCEL:
            raise DeploymentCancelled(
                f"{self.path} calls the deployment {quoted(workflow.id)} off; there is nothing to carry out in it",
                workflow_id=workflow.id,
            )
        source = f"{self.path}: updateManifest"
        manifest = dm.device_manifest(mf.json_object(text, source), source)
        found = self._device(manifest, source, {self.path.name: data}, workflow.id, signer)
        unverified = signer is None and bool(deployment.updateManifestSignature)
        return replace(found, signature_unverified=unverified)

    def _signer(self, manifest: str, signature: str | None) -> signing.Signer | None:
        if not signature:
            self._unsigned()
            return None
        if not self.policy.roots:
            # There is nothing to verify it by; a policy that refuses unsigned updates has roots.
            return None
        trust = signing.Trust.of(self.policy.roots, self.policy.revoked)
        return signing.verify(manifest, signature, trust, str(self.path))

    def _unsigned(self) -> None:
        if self.policy.signed_only:
            beside = self.path.with_name(self.path.name.removesuffix(".importmanifest.json") + ".deployment.json")
            raise SignatureMissing(
                f"{self.path} is not signed, and this bench takes signed updates only",
                remedy=f"Name the deployment beside it instead: {beside}" if beside.is_file() else None,
            )

    def _fresh(self, update: Update) -> None:
        """Raises ManifestExpired, ManifestFuture."""
        if self.policy.max_age_days is None:
            return
        host = clock.now()
        now = max(host, self.seen.time) if self.seen else host
        if update.created - now > FUTURE:
            raise ManifestFuture(
                f"{self.path} was made on {update.created:%Y-%m-%d}, and for this host it is {now:%Y-%m-%d}"
            )
        if now - update.created > timedelta(days=self.policy.max_age_days):
            remedy = ManifestExpired.default_remedy
            if self.seen and self.seen.time - host > FUTURE:
                remedy = (
                    f"This host's clock says {host:%Y-%m-%d}; update {self.seen.number} of its history was made at that "
                    f"later time. If the clock was wrong then, leave that update out of the history: {self.seen.leave_out}"
                )
            raise ManifestExpired(
                f"{self.path} was made on {update.created:%Y-%m-%d}, more than "
                f"{self.policy.max_age_days:g} days before {now:%Y-%m-%d}",
                remedy=remedy,
            )

    def _device(
        self,
        manifest: dm.DeviceManifest | dm.MiniManifest,
        source: str,
        documents: Mapping[str, bytes],
        workflow_id: str = "",
        signer: signing.Signer | None = None,
    ) -> Update:
        if isinstance(manifest, dm.MiniManifest):
            path, data, whole = self._detached(manifest.file)
            if whole.updateId != manifest.updateId:
                raise ManifestRule(f"{path} is {whole.updateId}, but {source} names it as {manifest.updateId}")
            manifest, source, documents = whole, str(path), {**documents, path.name: data}
        children = {file_id: self._child(manifest, file_id) for file_id in manifest.references()}
        normal = manifest.normal({i: child.manifest.updateId for i, child in children.items()}, deployable=True)
        by_update: dict[str, Update] = {}
        for child in children.values():
            if by_update.setdefault(str(child.manifest.updateId), child).path != child.path:
                raise ManifestRule(f"{source}: files: two child manifests have the updateId {child.manifest.updateId}")
        return Update(self.path, normal, self._paths(normal), by_update, documents, workflow_id, signer)

    def _child(self, parent: dm.DeviceManifest, file_id: str) -> Update:
        path, data, manifest = self._detached(parent.files[file_id])
        for step in parent.instructions.steps:
            if isinstance(step, dm.DeviceReferenceStep) and step.detachedManifestFileId == file_id:
                dm.check_child(manifest, step.updateId, str(path))
        normal = manifest.normal({}, deployable=False)
        return Update(path, normal, self._paths(normal), {}, {path.name: data})

    def _detached(self, file: dm.DeviceFile) -> tuple[Path, bytes, dm.DeviceManifest]:
        """A manifest in a file of its own, with the hash that the naming manifest gives. Read once."""
        path = self.folder / file.filename
        try:
            data = mf.read_bytes(path)
        except ManifestMissing as error:
            raise ManifestMissing(error.cause, remedy=f"Put it beside {self.path.name}.") from error
        files.check_bytes(path, data, file.payload())
        manifest = dm.device_manifest(mf.json_object(mf.decoded(data, str(path)), str(path)), str(path))
        if isinstance(manifest, dm.MiniManifest):
            raise ManifestRule(f"{path} stands for a manifest in another file, and another manifest names it itself")
        return path, data, manifest

    def _paths(self, manifest: mf.ImportManifest) -> dict[str, Path]:
        return {file.filename: self.folder / file.filename for file in manifest.files}

    def _imported(self, parent: mf.ImportManifest, data: bytes) -> Update:
        children: dict[str, Update] = {}
        beside: _Neighbours | None = None
        for step in parent.instructions.steps:
            if isinstance(step, mf.ReferenceStep):
                beside = beside or _Neighbours(self.path)
                child = beside.find(step.updateId)
                _check_child(self.path, child)
                children[str(step.updateId)] = child
        return Update(self.path, parent, self._paths(parent), children, {self.path.name: data})


class _Neighbours:
    """The other manifests in a manifest's folder. A broken one matters only if the wanted manifest may be in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, list[Update]] = {}
        self._broken: list[UpdateError] = []
        others = list(islice(path.parent.glob(MANIFEST_PATTERN), MOST_BESIDE + 1))
        if len(others) > MOST_BESIDE:
            raise self._too_much(f"more than {MOST_BESIDE:,} manifests")
        total = 0
        for other in sorted(others):
            if other.resolve() == path.resolve():
                continue
            try:
                data = mf.read_bytes(other)
                total += len(data)
                if total > MOST_BYTES_BESIDE:
                    break
                manifest = mf.parse(mf.decoded(data, str(other)), str(other))
            except UpdateError as error:
                self._broken.append(error)
            else:
                paths = {file.filename: path.parent / file.filename for file in manifest.files}
                found = Update(other, manifest, paths, {}, {other.name: data})
                self._found.setdefault(str(manifest.updateId), []).append(found)
        if total > MOST_BYTES_BESIDE:
            raise self._too_much(f"manifests of more than {MOST_BYTES_BESIDE:,} bytes")

    def _too_much(self, what: str) -> ManifestRule:
        return ManifestRule(
            f"{self._path}: instructions.steps refers to another update, and {self._path.parent} has {what}",
            remedy="Put the update's manifests into a folder of their own.",
        )

    def find(self, wanted: mf.UpdateId) -> Update:
        """Raises ManifestMissing, ManifestRule when two claim to be it, and what is wrong with a broken one."""
        found = self._found.get(str(wanted), [])
        if len(found) > 1:
            names = " and ".join(str(update.path) for update in found)
            raise ManifestRule(f"{names} both have the updateId {wanted}", remedy="Leave one of them there.")
        if found:
            return found[0]
        if self._broken:
            raise self._broken[0]
        raise ManifestMissing(
            f"{self._path}: instructions.steps: the child update {wanted} has no manifest in {self._path.parent}"
            f"{meant(str(wanted), self._found)}",
            remedy=f"Put its {MANIFEST_PATTERN} into that folder.",
        )


def _check_child(path: Path, child: Update) -> None:
    if child.manifest.isDeployable:
        raise ManifestRule(
            f"{child.path}: isDeployable is true, but {path} refers to it",
            remedy="An update that others refer to has isDeployable false.",
        )
    if any(isinstance(step, mf.ReferenceStep) for step in child.manifest.instructions.steps):
        raise ManifestRule(
            f"{child.path}: instructions.steps has a reference step, but {path} refers to this update",
            remedy="A child update refers to no other: put its steps into the parent.",
        )
