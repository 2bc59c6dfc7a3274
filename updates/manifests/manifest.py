"""Import manifests of Azure Device Update, versions 4.0 and 5.0: what an update's author writes.

Follows the published import manifest schemas (azure-deviceupdate-import-manifest-4.0 and -5.0). Every field is checked,
additional ones are refused, and each error names its place in the document.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from ...enumerators.benchfile.validation import faults_of, first_of, keys_beside
from ...flashers.settings import in_words
from ...transports import json_text, named_files
from ...transports.plain import meant, quoted, word
from ..errors import ManifestField, ManifestMissing, ManifestSyntax, UpdateError

MAX_BYTES = 2 * 1024**3
"""Of one file, and of all files of an update together."""
MAX_MANIFEST = 4 << 20
"""Bytes of a manifest. What the limits on its fields leave room for is far below, but for handlerProperties."""
NO_MANIFEST = "A manifest is a JSON object in UTF-8. To flash a firmware file: proxyflash flash NAME FILE"
"""What to do where a file is of another kind."""


M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Unknown fields are refused, and no value is made into one of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


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
        raise ValueError("sha256 is not base64") from None
    if len(digest) != 32:
        raise ValueError(f"sha256 has {len(digest)} bytes, not 32")
    return hashes


def _date_text(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("no date and time of ISO 8601") from None
    return text


def as_tuple(value: object) -> object:
    """JSON's lists as what a frozen model holds."""
    return tuple(value) if isinstance(value, list) else value


def _files(value: object) -> object:
    """No files may be said by an empty list, by null, or by leaving them away."""
    return () if value is None else as_tuple(value)


Identifier = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z0-9.-]+$", min_length=1, max_length=64),
    in_words("letters a-z and A-Z, digits, dots and hyphens"),
]
Version = Annotated[str, Field(max_length=64), AfterValidator(_version)]
DateTime = Annotated[str, Field(max_length=64), AfterValidator(_date_text)]
Description = Annotated[str, Field(min_length=1, max_length=64)]
FileName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_plain_name)]
Handler = Annotated[
    str,
    Field(pattern=r"^\S+/\S+:\d{1,5}$", min_length=5, max_length=32),
    in_words("PROVIDER/NAME:VERSION, as proxyflash/flash:1"),
]
Pair = Annotated[str, Field(min_length=1, max_length=64)]
PairName = Annotated[str, Field(min_length=1, max_length=32)]
Compatibility = Annotated[dict[PairName, Pair], Field(min_length=1, max_length=5)]
CompatibilityList = Annotated[tuple[Compatibility, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=10)]
Size = Annotated[int, Field(ge=1, le=MAX_BYTES)]
Hash = Annotated[str, Field(max_length=128)]
Hashes = Annotated[dict[PairName, Hash], Field(max_length=2), AfterValidator(_sha256)]


class UpdateId(Strict):
    """Which update; together the three are unique."""

    provider: Identifier
    name: Identifier
    version: Version

    def __str__(self) -> str:
        return f"{self.provider}/{self.name} {self.version}"


class InlineStep(Strict):
    """A step that a handler carries out."""

    type: Literal["inline"] = "inline"
    description: Description | None = None
    handler: Handler
    files: Annotated[tuple[FileName, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=10)]
    handlerProperties: dict[str, Any] = Field(default_factory=dict)


class ReferenceStep(Strict):
    """A step that carries out a child update on the components that it selects."""

    type: Literal["reference"]
    description: Description | None = None
    updateId: UpdateId


def step_type(value: object) -> str:
    kind = value.get("type", "inline") if isinstance(value, dict) else getattr(value, "type", "inline")
    return kind if isinstance(kind, str) else "?"


Step = Annotated[
    Annotated[InlineStep, Tag("inline")] | Annotated[ReferenceStep, Tag("reference")], Discriminator(step_type)
]


class Instructions(Strict):
    steps: Annotated[tuple[Step, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=10)]


class RelatedFile(Strict):
    """A file beside another one, such as a delta (v5). The one place where the schema lets further fields stand."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, defer_build=True)

    filename: FileName
    sizeInBytes: Size
    hashes: Hashes
    properties: dict[str, Any] = Field(default_factory=dict)


class DownloadHandler(Strict):
    id: Literal["microsoft/delta:1"]


class PayloadFile(Strict):
    """One file of the update."""

    filename: FileName
    sizeInBytes: Size
    hashes: Hashes
    properties: dict[str, Any] = Field(default_factory=dict)
    relatedFiles: Annotated[tuple[RelatedFile, ...], BeforeValidator(as_tuple), Field(max_length=4)] = ()
    downloadHandler: DownloadHandler | None = None

    @property
    def sha256(self) -> bytes:
        return base64.b64decode(self.hashes["sha256"])


class ImportManifest(Strict):
    """One update."""

    schema_url: Annotated[str, Field(max_length=2048)] | None = Field(default=None, alias="$schema")
    updateId: UpdateId
    isDeployable: bool = True
    description: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    compatibility: CompatibilityList
    instructions: Instructions
    files: Annotated[tuple[PayloadFile, ...], BeforeValidator(_files), Field(max_length=10)] = ()
    createdDateTime: DateTime
    manifestVersion: Literal["4.0", "5.0"]


def read(path: Path) -> ImportManifest:
    """Reads and checks one import manifest. Raises ManifestMissing, ManifestSyntax, ManifestField."""
    return checked(json_object(decoded(read_bytes(path), str(path)), str(path)), str(path))


def read_bytes(path: Path) -> bytes:
    """A manifest's bytes. Raises ManifestMissing, ManifestSyntax when there are more than a manifest has."""
    try:
        data = named_files.read(path, MAX_MANIFEST)
    except OSError as error:
        raise ManifestMissing(f"{path}: {error.strerror}") from error
    if len(data) > MAX_MANIFEST:
        raise ManifestSyntax(f"{path}: more than {MAX_MANIFEST:,} bytes, which is not a manifest")
    return data


def decoded(data: bytes, source: str) -> str:
    """Its text. Raises ManifestSyntax."""
    try:
        # Some editors put a byte order mark before UTF-8.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestSyntax(f"{source}: not UTF-8 at byte {error.start}", remedy=NO_MANIFEST) from error


def parse(text: str, source: str) -> ImportManifest:
    """An import manifest from its text. `source`: its name in errors. Raises ManifestSyntax, ManifestField."""
    return checked(json_object(text, source), source)


def json_object(text: str, source: str, wrong: type[UpdateError] = ManifestSyntax) -> dict[str, Any]:
    """A JSON object of a manifest's size at most. Raises `wrong`."""
    try:
        raw = json_text.parse(text, most=MAX_MANIFEST)
    except ValueError as error:
        other = wrong is ManifestSyntax and text.lstrip()[:1] not in ("", "{")
        raise wrong(f"{source}: {error}", remedy=NO_MANIFEST if other else None) from error
    if not isinstance(raw, dict):
        raise wrong(f"{source}: not a JSON object")
    return raw


def checked(raw: dict[str, Any], source: str) -> ImportManifest:
    """An import manifest from its JSON object. Raises ManifestField."""
    manifest = validated(ImportManifest, raw, source)
    _check(manifest, source)
    return manifest


def validated(model: type[M], raw: dict[str, Any], source: str) -> M:
    """A document by its model; the first error names its place. Raises ManifestField."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ManifestField(f"{source}: {_explain(error, model)}") from None


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    found = faults_of(error)
    # In a manifest of another version everything else is wrong too.
    fault = next((fault for fault in found if fault.place == ("manifestVersion",)), first_of(found))
    place = ""
    for item in fault.place:
        if isinstance(item, int):
            place += f"[{item}]"
        elif item not in ("inline", "reference", "[key]"):
            place += f".{item}" if place else item
    place = word(place)
    if fault.kind == "extra_forbidden":
        return f"{place}: unknown field{meant(str(fault.place[-1]), keys_beside(model, fault.place))}"
    if fault.kind == "missing":
        return f"{place} is missing"
    if place == "manifestVersion" and fault.kind == "literal_error":
        return f"{place}: {quoted(fault.value)}; of import manifests 4.0 and 5.0 are known, of a device's 4 and 5"
    return f"{place}: {fault.message}"


def _check(manifest: ImportManifest, source: str) -> None:
    """The rules that span fields. Raises ManifestField."""
    names = [file.filename for file in manifest.files]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ManifestField(f"{source}: files[{index}].filename: {quoted(name)} is listed twice")
    for index, file in enumerate(manifest.files):
        if manifest.manifestVersion == "4.0" and (file.relatedFiles or file.downloadHandler):
            raise ManifestField(f"{source}: files[{index}]: relatedFiles and downloadHandler are of version 5.0")
    check_total((file.sizeInBytes for file in manifest.files), source)
    for index, step in enumerate(manifest.instructions.steps):
        if isinstance(step, InlineStep):
            for position, name in enumerate(step.files):
                if name not in names:
                    place = f"instructions.steps[{index}].files[{position}]"
                    raise ManifestField(f"{source}: {place}: {quoted(name)} is not listed in files{meant(name, names)}")


def check_total(sizes: Iterable[int], source: str) -> None:
    """Raises ManifestField when an update's files are too much together."""
    total = sum(sizes)
    if total > MAX_BYTES:
        raise ManifestField(f"{source}: files: {total:,} bytes together, above {MAX_BYTES:,}")
