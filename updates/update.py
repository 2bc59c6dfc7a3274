"""`Update`: a manifest with its files and the child updates that it refers to, all there and all right.

Loading one reads every byte of every file once. Nothing that is wrong is left to be found while a component is flashed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import manifest as mf
from .errors import ManifestMissing, ManifestRule, PayloadHash, PayloadMissing, PayloadSize, UpdateError

MANIFEST_PATTERN = "*.importmanifest.json"
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Update:
    """One checked update. `files`: name to path. `children`: the updates that its reference steps name."""

    path: Path
    manifest: mf.ImportManifest
    files: Mapping[str, Path]
    children: Mapping[str, Update]

    def child(self, step: mf.ReferenceStep) -> Update:
        return self.children[str(step.updateId)]


def load(path: Path) -> Update:
    """Reads a manifest, the child manifests in its folder, and checks size and SHA-256 of every file.

    Raises UpdateError, each fault by a class of its own.
    """
    parent = mf.read(path)
    references = [step for step in parent.instructions.steps if isinstance(step, mf.ReferenceStep)]
    beside = _Neighbours(path) if references else None
    children = {}
    for step in references:
        assert beside is not None, "there is a reference"
        child_path, child = beside.find(step.updateId)
        _check_child(path, child_path, child)
        children[str(step.updateId)] = Update(child_path, child, _checked_files(child_path, child), {})
    return Update(path, parent, _checked_files(path, parent), children)


class _Neighbours:
    """The other manifests in a manifest's folder. One that is broken matters only if what it may be is wanted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, list[tuple[Path, mf.ImportManifest]]] = {}
        self._broken: list[UpdateError] = []
        for other in sorted(path.parent.glob(MANIFEST_PATTERN)):
            if other.resolve() == path.resolve():
                continue
            try:
                child = mf.read(other)
            except UpdateError as error:
                self._broken.append(error)
            else:
                self._found.setdefault(str(child.updateId), []).append((other, child))

    def find(self, wanted: mf.UpdateId) -> tuple[Path, mf.ImportManifest]:
        """Raises ManifestMissing, ManifestRule when two claim to be it, and what is wrong with a broken one."""
        found = self._found.get(str(wanted), [])
        if len(found) > 1:
            names = " and ".join(str(place) for place, _ in found)
            raise ManifestRule(f"{names} both have the updateId {wanted}", remedy="Leave one of them there.")
        if found:
            return found[0]
        if self._broken:
            raise self._broken[0]
        raise ManifestMissing(
            f"{self._path}: instructions.steps: the child update {wanted} has no manifest in {self._path.parent}",
            remedy=f"Put its {MANIFEST_PATTERN} into that folder.",
        )


def _check_child(path: Path, child_path: Path, child: mf.ImportManifest) -> None:
    if child.isDeployable:
        raise ManifestRule(
            f"{child_path}: isDeployable is true, but {path} refers to it",
            remedy="An update that others refer to has isDeployable false.",
        )
    if any(isinstance(step, mf.ReferenceStep) for step in child.instructions.steps):
        raise ManifestRule(
            f"{child_path}: instructions.steps has a reference step, but {path} refers to this update",
            remedy="A child update refers to no other: put its steps into the parent.",
        )


def _checked_files(path: Path, manifest: mf.ImportManifest) -> dict[str, Path]:
    found = {}
    for file in manifest.files:
        there = path.parent / file.filename
        _check_file(there, file)
        found[file.filename] = there
    return found


def _check_file(there: Path, file: mf.PayloadFile) -> None:
    digest = hashlib.sha256()
    try:
        size = there.stat().st_size
        if size != file.sizeInBytes:
            raise PayloadSize(f"{there} has {size:,} bytes, the manifest says {file.sizeInBytes:,}")
        with there.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise PayloadMissing(f"{there}: {error.strerror}") from error
    if digest.digest() != file.sha256:
        raise PayloadHash(f"{there} has the SHA-256 {digest.hexdigest()}, the manifest says {file.sha256.hex()}")
