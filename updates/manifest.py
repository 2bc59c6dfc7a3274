"""Import manifests of Azure Device Update, versions 4.0 and 5.0: what an update's author writes.

Follows the published import manifest schemas (azure-deviceupdate-import-manifest-4.0 and -5.0). Every field is checked,
additional ones are refused, and each fault is told with its place in the document.
"""

from __future__ import annotations

import base64
import binascii
import json
import stat
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from .errors import ManifestField, ManifestMissing, ManifestSyntax

MAX_BYTES = 2 * 1024**3
"""Of one file, and of all files of an update together."""
MAX_MANIFEST = 4 << 20
"""Bytes of a manifest. What the limits on its fields leave room for is far below, but for handlerProperties."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _version(text: str) -> str:
    """A version with its leading zeros dropped: two to four numbers, each up to 2147483647."""
    parts = text.split(".")
    if not 2 <= len(parts) <= 4 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError("a version is two to four numbers with dots between")
    if any(len(part.lstrip("0")) > 10 or int(part) > 2147483647 for part in parts):
        raise ValueError("a number of the version is above 2147483647")
    return ".".join(str(int(part)) for part in parts)


def _plain_name(text: str) -> str:
    if "/" in text or "\\" in text or text in (".", "..") or "\0" in text:
        raise ValueError("a file name is a plain name, without a path")
    return text


def _sha256(hashes: dict[str, str]) -> dict[str, str]:
    if "sha256" not in hashes:
        raise ValueError("sha256 is missing")
    try:
        digest = base64.b64decode(hashes["sha256"], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("sha256 is no base64") from None
    if len(digest) != 32:
        raise ValueError(f"sha256 has {len(digest)} bytes, not 32")
    return hashes


def _date(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("no date and time of ISO 8601") from None
    return text


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _files(value: object) -> object:
    """No files may be said by an empty list, by null, or by leaving them away."""
    return () if value is None else _tuple(value)


Identifier = Annotated[str, Field(pattern=r"^[a-zA-Z0-9.-]+$", min_length=1, max_length=64)]
Version = Annotated[str, AfterValidator(_version)]
Description = Annotated[str, Field(min_length=1, max_length=64)]
FileName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_plain_name)]
Handler = Annotated[str, Field(pattern=r"^\S+/\S+:\d{1,5}$", min_length=5, max_length=32)]
Pair = Annotated[str, Field(min_length=1, max_length=64)]
PairName = Annotated[str, Field(min_length=1, max_length=32)]
Compatibility = Annotated[dict[PairName, Pair], Field(min_length=1, max_length=5)]
Hashes = Annotated[dict[str, str], Field(max_length=2), AfterValidator(_sha256)]


class UpdateId(_Model):
    """Which update; together the three are unique."""

    provider: Identifier
    name: Identifier
    version: Version

    def __str__(self) -> str:
        return f"{self.provider}/{self.name} {self.version}"


class InlineStep(_Model):
    """A step that a handler carries out."""

    type: Literal["inline"] = "inline"
    description: Description | None = None
    handler: Handler
    files: Annotated[tuple[FileName, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=10)]
    handlerProperties: dict[str, Any] = Field(default_factory=dict)


class ReferenceStep(_Model):
    """A step that carries out a child update on the components that it selects."""

    type: Literal["reference"]
    description: Description | None = None
    updateId: UpdateId


def _step_type(value: object) -> str:
    kind = value.get("type", "inline") if isinstance(value, dict) else getattr(value, "type", "inline")
    return kind if isinstance(kind, str) else "?"


Step = Annotated[
    Annotated[InlineStep, Tag("inline")] | Annotated[ReferenceStep, Tag("reference")], Discriminator(_step_type)
]


class Instructions(_Model):
    steps: Annotated[tuple[Step, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=10)]


class RelatedFile(_Model):
    """A file beside another one, such as a delta (v5). The one place where the schema lets further fields stand."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    filename: FileName
    sizeInBytes: Annotated[int, Field(ge=1, le=MAX_BYTES)]
    hashes: Hashes
    properties: dict[str, Any] = Field(default_factory=dict)


class DownloadHandler(_Model):
    id: Literal["microsoft/delta:1"]


class PayloadFile(_Model):
    """One file of the update."""

    filename: FileName
    sizeInBytes: Annotated[int, Field(ge=1, le=MAX_BYTES)]
    hashes: Hashes
    properties: dict[str, Any] = Field(default_factory=dict)
    relatedFiles: Annotated[tuple[RelatedFile, ...], BeforeValidator(_tuple), Field(max_length=4)] = ()
    downloadHandler: DownloadHandler | None = None

    @property
    def sha256(self) -> bytes:
        return base64.b64decode(self.hashes["sha256"])


class ImportManifest(_Model):
    """One update."""

    schema_url: str | None = Field(default=None, alias="$schema")
    updateId: UpdateId
    isDeployable: bool = True
    description: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    compatibility: Annotated[tuple[Compatibility, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=10)]
    instructions: Instructions
    files: Annotated[tuple[PayloadFile, ...], BeforeValidator(_files), Field(max_length=10)] = ()
    createdDateTime: Annotated[str, AfterValidator(_date)]
    manifestVersion: Literal["4.0", "5.0"]


def read(path: Path) -> ImportManifest:
    """Reads and checks one manifest. Raises ManifestMissing, ManifestSyntax, ManifestField."""
    try:
        # Opening a pipe would wait for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ManifestMissing(f"{path} is no file")
        with path.open("rb") as stream:
            data = stream.read(MAX_MANIFEST + 1)
    except OSError as error:
        raise ManifestMissing(f"{path}: {error.strerror}") from error
    if len(data) > MAX_MANIFEST:
        raise ManifestSyntax(f"{path}: more than {MAX_MANIFEST:,} bytes, which is no manifest")
    try:
        # Some editors put a byte order mark before UTF-8.
        return parse(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ManifestSyntax(f"{path}: not UTF-8 at byte {error.start}") from error


def parse(text: str, source: str) -> ImportManifest:
    """A manifest from its text. `source` is what errors call it. Raises ManifestSyntax, ManifestField."""
    try:
        raw = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise ManifestSyntax(f"{source}: {error}") from error
    if not isinstance(raw, dict):
        raise ManifestSyntax(f"{source}: a manifest is a JSON object")
    try:
        manifest = ImportManifest.model_validate(raw)
    except ValidationError as error:
        raise ManifestField(f"{source}: {_explain(error)}") from None
    _check(manifest, source)
    return manifest


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the field {twice!r} is given twice")
    return found


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    place = ""
    for item in first["loc"]:
        if isinstance(item, int):
            place += f"[{item}]"
        elif item not in ("inline", "reference", "[key]"):
            place += f".{item}" if place else item
    if first["type"] == "extra_forbidden":
        return f"{place}: no field that is known here"
    if first["type"] == "missing":
        return f"{place} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message[:1].lower() + message[1:]}"


def _check(manifest: ImportManifest, source: str) -> None:
    """The rules that span fields. Raises ManifestField."""
    names = [file.filename for file in manifest.files]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ManifestField(f"{source}: files[{index}].filename: {name!r} is listed twice")
    for index, file in enumerate(manifest.files):
        if manifest.manifestVersion == "4.0" and (file.relatedFiles or file.downloadHandler):
            raise ManifestField(f"{source}: files[{index}]: relatedFiles and downloadHandler are of version 5.0")
    total = sum(file.sizeInBytes for file in manifest.files)
    if total > MAX_BYTES:
        raise ManifestField(f"{source}: files: {total:,} bytes together, above {MAX_BYTES:,}")
    for index, step in enumerate(manifest.instructions.steps):
        if isinstance(step, InlineStep):
            for position, name in enumerate(step.files):
                if name not in names:
                    place = f"instructions.steps[{index}].files[{position}]"
                    raise ManifestField(f"{source}: {place}: {name!r} is not listed in files")
