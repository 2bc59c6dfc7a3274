"""What a device receives: the deployment, and in it the update manifest, versions 4 and 5.

The deployment (the desired properties that Azure Device Update's agent gets) carries the update manifest as a text, which
its signature is for. Follows the published update manifest schemas (azure-deviceupdate-update-manifest-4 and -5) and what
the service sends: a file's name is `fileName` or `filename`, `relatedFiles` a list or a map. As in the schema, further
fields may stand beside a manifest's and a file's own, but in no step.

Such a manifest is made into an `ImportManifest`, the one form that all else works with: file ids become file names, the
ids of child manifests become the child's updateId.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from ...transports.plain import meant, quoted
from ..errors import ManifestField, ManifestRule
from . import manifest as mf

PROCESS, CANCEL = 3, 255
"""Workflow actions: carry out this deployment; call it off."""

FileId = Annotated[str, Field(min_length=1, max_length=255)]
DeviceVersion = Literal["4", "5", "4.0", "5.0"]
_NAMES = AliasChoices("fileName", "filename")


class _Open(mf.Strict):
    """Further fields may stand here."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, defer_build=True)


class Workflow(_Open):
    """Which deployment it is, and what is to be done with it."""

    action: Literal[3, 255]
    id: Annotated[str, Field(min_length=1, max_length=256)]
    retryTimestamp: str | None = None


class Deployment(_Open):
    """What the device receives. `updateManifest`: the manifest as a text."""

    workflow: Workflow
    updateManifest: str | None = None
    updateManifestSignature: str | None = None
    fileUrls: dict[FileId, Annotated[str, Field(min_length=1)]] | None = None
    rootKeyPackageUrl: str | None = None


class DeviceRelatedFile(_Open):
    filename: mf.FileName = Field(validation_alias=_NAMES)
    sizeInBytes: mf.Size
    hashes: mf.Hashes
    properties: dict[str, Any] = Field(default_factory=dict)


def _related(value: object) -> object:
    """By their ids, as the service sends them, or in a list, as the schema has them."""
    return tuple(value.values()) if isinstance(value, dict) else mf.as_tuple(value)


class DeviceFile(_Open):
    filename: mf.FileName = Field(validation_alias=_NAMES)
    sizeInBytes: mf.Size
    hashes: mf.Hashes
    properties: dict[str, Any] = Field(default_factory=dict)
    relatedFiles: Annotated[tuple[DeviceRelatedFile, ...], BeforeValidator(_related), Field(max_length=4)] = ()
    downloadHandler: mf.DownloadHandler | None = None

    def payload(self) -> mf.PayloadFile:
        """Its form in an import manifest. What only a download needs stays behind: files lie beside the manifest."""
        return mf.PayloadFile(
            filename=self.filename, sizeInBytes=self.sizeInBytes, hashes=self.hashes, properties=self.properties
        )


class DeviceInlineStep(mf.Strict):
    type: Literal["inline"] = "inline"
    description: mf.Description | None = None
    handler: mf.Handler
    files: Annotated[tuple[FileId, ...], BeforeValidator(mf.as_tuple), Field(min_length=1, max_length=10)]
    handlerProperties: dict[str, Any] = Field(default_factory=dict)


class DeviceReferenceStep(mf.Strict):
    type: Literal["reference"]
    description: mf.Description | None = None
    detachedManifestFileId: FileId
    updateId: mf.UpdateId | None = None


DeviceStep = Annotated[
    Annotated[DeviceInlineStep, Tag("inline")] | Annotated[DeviceReferenceStep, Tag("reference")],
    Discriminator(mf.step_type),
]


class DeviceInstructions(_Open):
    steps: Annotated[tuple[DeviceStep, ...], BeforeValidator(mf.as_tuple), Field(min_length=1, max_length=10)]


class MiniManifest(_Open):
    """Stands for a manifest that is too large for the deployment, and names the file that has it."""

    manifestVersion: DeviceVersion
    updateId: mf.UpdateId
    detachedManifestFileId: FileId
    files: Annotated[dict[FileId, DeviceFile], Field(min_length=1, max_length=1)]

    @property
    def file(self) -> DeviceFile:
        return self.files[self.detachedManifestFileId]


class DeviceManifest(_Open):
    """The whole update manifest. `files`: by id."""

    manifestVersion: DeviceVersion
    updateId: mf.UpdateId
    isDeployable: bool | None = None
    description: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    compatibility: mf.CompatibilityList
    instructions: DeviceInstructions
    files: Annotated[dict[FileId, DeviceFile], Field(min_length=1, max_length=20)]
    createdDateTime: mf.DateTime

    def references(self) -> dict[str, DeviceFile]:
        """The files of the child manifests, by their ids."""
        ids = [s.detachedManifestFileId for s in self.instructions.steps if isinstance(s, DeviceReferenceStep)]
        return {file_id: self.files[file_id] for file_id in ids}

    def normal(self, children: Mapping[str, mf.UpdateId], *, deployable: bool) -> mf.ImportManifest:
        """Its import manifest; `children`: the updateId of each child manifest, by the id of its file."""
        payloads = {i for s in self.instructions.steps if isinstance(s, DeviceInlineStep) for i in s.files}
        return mf.ImportManifest.model_construct(
            schema_url=None,
            updateId=self.updateId,
            isDeployable=deployable,
            description=self.description,
            compatibility=self.compatibility,
            instructions=mf.Instructions(steps=tuple(self._step(step, children) for step in self.instructions.steps)),
            files=tuple(file.payload() for i, file in self.files.items() if i in payloads or i not in children),
            createdDateTime=self.createdDateTime,
            manifestVersion="4.0" if self.manifestVersion in ("4", "4.0") else "5.0",
        )

    def _step(
        self, step: DeviceInlineStep | DeviceReferenceStep, children: Mapping[str, mf.UpdateId]
    ) -> mf.InlineStep | mf.ReferenceStep:
        if isinstance(step, DeviceReferenceStep):
            child = children[step.detachedManifestFileId]
            return mf.ReferenceStep(type="reference", description=step.description, updateId=child)
        return mf.InlineStep(
            description=step.description,
            handler=step.handler,
            files=tuple(self.files[file_id].filename for file_id in step.files),
            handlerProperties=step.handlerProperties,
        )


def is_deployment(raw: Mapping[str, Any]) -> bool:
    return "workflow" in raw or "updateManifest" in raw


def is_device_manifest(raw: Mapping[str, Any]) -> bool:
    """Whether it is an update manifest, or stands for one, and no import manifest."""
    return (
        raw.get("manifestVersion") in ("4", "5")
        or isinstance(raw.get("files"), dict)
        or "detachedManifestFileId" in raw
    )


def deployment(raw: dict[str, Any], source: str) -> Deployment:
    """Raises ManifestField."""
    found = mf.validated(Deployment, raw, source)
    if found.workflow.action == PROCESS and not found.updateManifest:
        raise ManifestField(f"{source}: updateManifest is missing")
    return found


def device_manifest(raw: dict[str, Any], source: str) -> DeviceManifest | MiniManifest:
    """An update manifest, or what stands for one. Raises ManifestField."""
    if "detachedManifestFileId" in raw:
        mini = mf.validated(MiniManifest, raw, source)
        if mini.detachedManifestFileId not in mini.files:
            raise ManifestField(
                f"{source}: detachedManifestFileId: {quoted(mini.detachedManifestFileId)} is not in files"
                f"{meant(mini.detachedManifestFileId, mini.files)}"
            )
        return mini
    manifest = mf.validated(DeviceManifest, raw, source)
    _check(manifest, source)
    return manifest


def _check(manifest: DeviceManifest, source: str) -> None:
    """The rules that span fields. Raises ManifestField."""
    names: dict[str, str] = {}
    for file_id, file in manifest.files.items():
        if (other := names.setdefault(file.filename, file_id)) != file_id:
            raise ManifestField(
                f"{source}: files.{file_id}.fileName: {quoted(file.filename)} is that of {quoted(other)} too"
            )
    mf.check_total((file.sizeInBytes for file in manifest.files.values()), source)
    for index, step in enumerate(manifest.instructions.steps):
        place = f"{source}: instructions.steps[{index}]"
        if isinstance(step, DeviceReferenceStep):
            _check_id(manifest, step.detachedManifestFileId, f"{place}.detachedManifestFileId")
        else:
            for position, file_id in enumerate(step.files):
                _check_id(manifest, file_id, f"{place}.files[{position}]")


def _check_id(manifest: DeviceManifest, file_id: str, place: str) -> None:
    if file_id not in manifest.files:
        raise ManifestField(f"{place}: {quoted(file_id)} is not listed in files{meant(file_id, manifest.files)}")


def check_child(manifest: DeviceManifest, expected: mf.UpdateId | None, source: str) -> None:
    """A child update has no children of its own, and the ID that its step names. Raises ManifestRule."""
    if manifest.references():
        raise ManifestRule(
            f"{source}: instructions.steps has a reference step, but another update refers to this one",
            remedy="A child update refers to no other: put its steps into the parent.",
        )
    if expected is not None and manifest.updateId != expected:
        raise ManifestRule(f"{source} is {manifest.updateId}, but is referred to as {expected}")
