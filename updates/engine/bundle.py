"""The proof of an update, as one zip file that its reader can check without this host.

| file in it | holds |
|---|---|
| `bundle.json` | which update it is, and size and SHA-256 of each other file |
| `bundle.jws` | the gateway's signature over `bundle.json`, where it has a key |
| `page.html` | the report as a page |
| `report.json` | the report, as `proxyflash report` prints it |
| `components.json` | what each component held before and after: identity, versions, the hashes of the files installed |
| `journal.jsonl` | the journal |
| `manifests/N.json` | the manifests that were carried out |
| `recordings/N.jsonl` | what passed on the buses, where it was recorded |

The same update gives the same bytes on the same host. A bundle that comes from elsewhere is believed in nothing: its size,
the number and the names of its files and what each unpacks to are bounded first, and nothing is unpacked onto a disk.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...enumerators.benchfile.validation import first_fault
from ...transports import json_text, named_files, private_files
from ...transports.plain import quoted
from ...transports.recording import formats as recordings
from ..errors import BundleBroken, BundleChanged, DigestWrong, SignatureMissing
from ..manifests import signing
from .report import Outcome
from .store import StoredUpdate

INDEX, SIGNATURE = "bundle.json", "bundle.jws"
REPORT, COMPONENTS, JOURNAL, PAGE = "report.json", "components.json", "journal.jsonl", "page.html"
ALWAYS = (REPORT, COMPONENTS, JOURNAL)
NAME = r"report\.json|components\.json|journal\.jsonl|page\.html|manifests/[1-9]\d{0,4}\.json|recordings/[1-9]\d{0,4}\.jsonl"
"""The files that may be in it, beside index and signature: no name leads out of a folder."""
TYPE = "proxyflash-bundle"
"""The `typ` of its signature: no signature of anything else is taken for it, and the other way round."""
MOST_BYTES = 4 << 30
"""Of the file, and of all that is in it."""
MOST_INDEX = 4 << 20
MOST_DIRECTORY = 1 << 20
"""Bytes of the index, and of the zip file's own directory."""
MOST_FILES = 10_000
CHUNK = 1 << 20
_LOCAL_HEADER = 30
"""Bytes before a file's name. Our own have no field behind the name, and no record behind the data."""
_END = struct.Struct("<4s4H2LH")
"""The last record of a zip file (PKWARE's APPNOTE, 4.3.16); with a comment after it, or for ZIP64, it is none of ours."""
_ZIP64_MARK, _ZIP64_LOCATOR = b"PK\6\7", 20
"""What stands ahead of the last record for ZIP64, and its bytes (4.3.15): other numbers count then, without a bound."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Member(_Strict):
    """A file. `of`: what it was called where it came from."""

    name: Annotated[str, Field(pattern=f"^(?:{NAME})$")]
    size: Annotated[int, Field(ge=0, le=MOST_BYTES)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    of: Annotated[str, Field(max_length=1024)] = ""


class Index(_Strict):
    """`bundle.json`. `ending`: what the update has come to; `began`, `ended`: ISO 8601, "" where it is not known."""

    format: Literal["proxyflash bundle"] = "proxyflash bundle"
    schema_number: Annotated[Literal[1], Field(alias="schema")] = 1
    number: Annotated[int, Field(ge=1)]
    update: Annotated[str, Field(max_length=4096)]
    ending: Annotated[str, Field(max_length=100)]
    began: Annotated[str, Field(max_length=100)] = ""
    ended: Annotated[str, Field(max_length=100)] = ""
    files: Annotated[tuple[Member, ...], Field(max_length=MOST_FILES)]


@dataclass(frozen=True, slots=True)
class Checked:
    """A bundle whose files are what its index says. `signer`: the thumbprint of the key that it names, "" where it is not
    signed; `verified`: whether the signature was found to be made by the key that the reader has."""

    index: Index
    signer: str
    verified: bool


def write(
    out: Path,
    outcome: Outcome,
    entry: StoredUpdate,
    manifests: Iterable[Path],
    recorded: Iterable[Path],
    key: signing.PrivateKey | None,
    page: bytes | None = None,
) -> Index:
    """Writes a bundle, whole or not at all. `page`: the report as HTML. Raises OSError, BadRecording, StateFolder."""
    sources: list[tuple[str, str, bytes | Path]] = [
        (REPORT, "", _json(outcome.report())),
        (COMPONENTS, "", _json({"components": components(outcome)})),
        (JOURNAL, "", private_files.read(entry.journal)),
    ]
    sources += [(PAGE, "", page)] if page is not None else []
    sources += [(f"manifests/{n}.json", path.name, private_files.read(path)) for n, path in enumerate(manifests, 1)]
    sources += [(f"recordings/{number}.jsonl", path.name, path) for number, path in enumerate(recorded, 1)]
    members = []
    for name, of, data in sources:
        size, digest = _copied(data)
        if isinstance(data, Path):
            recordings.load(data)
        called = of.encode("utf-8", "replace").decode()
        members.append(Member(name=name, size=size, sha256=digest, of=called))
    index = Index(
        number=entry.number,
        update=str(outcome.plan.update.manifest.updateId),
        ending=outcome.ending.value,
        began=outcome.progress.begin.get("time") or "",
        ended=outcome.progress.ended or "",
        files=tuple(members),
    )
    head = _json(index.model_dump(by_alias=True))
    with private_files.whole(out) as made, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_info(INDEX), head)
        if key is not None:
            archive.writestr(_info(SIGNATURE), key.seal(head, TYPE))
        for (name, _, data), listed in zip(sources, members, strict=True):
            with archive.open(_info(name), "w", force_zip64=False) as member:
                copied = _copied(data, member.write, listed.size)
            if copied != (listed.size, listed.sha256):
                raise recordings.BadRecording(
                    f"{name if isinstance(data, bytes) else data}: this was changed while it was put into the bundle",
                    remedy="Wait until the recording has ended, and write the bundle again.",
                )
    return index


def components(outcome: Outcome) -> list[dict[str, Any]]:
    """Each component with who it is, what it held before and after, and the files that its steps have installed."""
    found: dict[str, dict[str, Any]] = {}
    for item, said in zip(outcome.results, outcome.report()["componentResults"], strict=True):
        task = item.task
        if task.component is None:
            continue
        record = task.component.record()
        one = found.setdefault(
            task.component.name,
            {**record, "before": {"version": record["version"]}, "after": {"version": item.holds}, "steps": []},
        )
        one["after"] = {"version": item.holds}
        hashes = {file.filename: file for file in task.update.manifest.files}
        one["steps"].append(
            {
                "step": task.label,
                "handler": task.step.handler,
                "status": said["status"],
                "wanted": task.wanted,
                "details": said.get("resultDetails", ""),
                "files": [
                    {"name": name, "size": hashes[name].sizeInBytes, "sha256": hashes[name].sha256.hex()}
                    for name in task.step.files
                    if name in hashes
                ],
            }
        )
    return list(found.values())


def check(path: Path, key: signing.PublicKey | None = None) -> Checked:
    """Reads a bundle, and compares every file in it with the index, and the index with its signature.

    `key`: the gateway's; a signature that it has not made, and none, are refused then. Raises BundleBroken, BundleChanged,
    SignatureMissing, SignatureForm, SignatureAlgorithm, SignatureWrong.
    """
    try:
        with named_files.opened(path) as stream:
            data_end = _check_end(path, stream)
            with zipfile.ZipFile(stream) as archive:
                _check_gaps(path, archive, data_end)
                return _checked(path, archive, key)
    except OSError as error:
        raise BundleBroken(f"{path}: {error.strerror or error}") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        # What the library raises for files that are damaged, or encrypted, or packed in a way that it doesn't know.
        raise BundleBroken(f"{path}: {error}") from error


def _checked(path: Path, archive: zipfile.ZipFile, key: signing.PublicKey | None) -> Checked:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.orig_filename in found:
            raise BundleChanged(f"{path}: {quoted(info.orig_filename)} is in it twice")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleBroken(f"{path}: {quoted(info.orig_filename)} is packed in a way that no bundle is")
        found[info.orig_filename] = info
    for name in (INDEX, SIGNATURE):
        if name in found and found[name].file_size > MOST_INDEX:
            raise BundleBroken(f"{path}: {name} has more than {MOST_INDEX:,} bytes")
    if INDEX not in found:
        raise BundleBroken(f"{path}: {INDEX} is missing")
    head = b"".join(_unpacked(path, archive, found.pop(INDEX), MOST_INDEX))
    signature = b"".join(_unpacked(path, archive, found.pop(SIGNATURE), MOST_INDEX)) if SIGNATURE in found else b""
    signer = _signer(path, head, signature, key)
    index = _index(path, head)
    _check_files(path, archive, index, found)
    return Checked(index, signer, key is not None)


def _signer(path: Path, head: bytes, signature: bytes, key: signing.PublicKey | None) -> str:
    if not signature:
        if key is not None:
            raise SignatureMissing(
                f"{path}: it is not signed", remedy="Sign bundles: [updates] report_key in the bench file."
            )
        return ""
    try:
        return signing.check_seal(signature.decode("ascii"), head, TYPE, key, f"{path}: {SIGNATURE}")
    except DigestWrong as error:
        raise BundleChanged(f"{path}: {INDEX} is not what was signed") from error


def _index(path: Path, head: bytes) -> Index:
    try:
        index = Index.model_validate(json_text.parse(head, most=MOST_INDEX))
    except ValidationError as error:
        fault = first_fault(error)
        raise BundleBroken(f"{path}: {INDEX}: {fault.at()}: {fault.message}".replace(": : ", ": ")) from None
    except ValueError as error:
        raise BundleBroken(f"{path}: {INDEX}: {error}") from error
    names = [member.name for member in index.files]
    if len(set(names)) != len(names):
        raise BundleBroken(f"{path}: {INDEX} lists a file twice")
    if missing := [name for name in ALWAYS if name not in names]:
        raise BundleBroken(f"{path}: {INDEX} does not list {', '.join(missing)}")
    if sum(member.size for member in index.files) > MOST_BYTES:
        raise BundleBroken(f"{path}: more than {MOST_BYTES:,} bytes are in it")
    return index


def _check_files(path: Path, archive: zipfile.ZipFile, index: Index, found: dict[str, zipfile.ZipInfo]) -> None:
    listed = {member.name for member in index.files}
    if extra := [name for name in found if name not in listed]:
        raise BundleChanged(f"{path}: {quoted(extra[0])} is in it, and not in {INDEX}")
    for member in index.files:
        if member.name not in found:
            raise BundleChanged(f"{path}: {member.name} is missing")
    for member in index.files:
        digest, size = hashlib.sha256(), 0
        for chunk in _unpacked(path, archive, found[member.name], member.size):
            digest.update(chunk)
            size += len(chunk)
        if size != member.size or digest.hexdigest() != member.sha256:
            raise BundleChanged(f"{path}: {member.name} is not what {INDEX} says")


def _unpacked(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> Iterator[bytes]:
    """A file piece by piece. Stops at a file that unpacks to more than `most` bytes. Raises BundleChanged."""
    left = most
    try:
        with archive.open(info) as stream:
            while chunk := stream.read(min(CHUNK, left + 1)):
                if len(chunk) > left:
                    raise BundleChanged(f"{path}: {quoted(info.orig_filename)} unpacks to more than {most:,} bytes")
                left -= len(chunk)
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BundleChanged(f"{path}: {quoted(info.orig_filename)} is damaged") from error


def _check_gaps(path: Path, archive: zipfile.ZipFile, data_end: int) -> None:
    """Whether the files fill the zip file: nothing is hidden between them, and no two share bytes. Raises BundleBroken."""
    at = 0
    for info in sorted(archive.infolist(), key=lambda one: one.header_offset):
        if info.header_offset != at:
            break
        at += _LOCAL_HEADER + len(info.orig_filename) + info.compress_size
    if at != data_end:
        raise BundleBroken(f"{path}: something lies between its files")


def _check_end(path: Path, stream: BinaryIO) -> int:
    """Whether it is a zip file and nothing else, whose directory is small enough to be read; where the files in it end.

    Raises BundleBroken.
    """
    size = stream.seek(0, os.SEEK_END)
    if size > MOST_BYTES:
        raise BundleBroken(f"{path}: more than {MOST_BYTES:,} bytes, which is not a bundle")
    if size < _END.size:
        raise BundleBroken(f"{path}: no zip file")
    stream.seek(max(0, size - _END.size - _ZIP64_LOCATOR))
    tail = stream.read()
    mark, _, _, _, count, directory, offset, comment = _END.unpack(tail[-_END.size :])
    if mark != b"PK\5\6" or comment or offset + directory + _END.size != size:
        raise BundleBroken(f"{path}: no zip file, or one with something before or after it")
    if tail.startswith(_ZIP64_MARK):
        raise BundleBroken(f"{path}: a zip file of another form than a bundle's: ZIP64")
    if directory > MOST_DIRECTORY or count > MOST_FILES + 2:
        raise BundleBroken(f"{path}: more files than a bundle has")
    stream.seek(0)
    return int(offset)


def _copied(data: bytes | Path, write: Callable[[bytes], object] = len, most: int = MOST_BYTES) -> tuple[int, str]:
    """Copies a file of the bundle; its size and SHA-256. A file that has more than `most` bytes is left at that.

    Raises OSError.
    """
    digest, size = hashlib.sha256(), 0
    with io.BytesIO(data) if isinstance(data, bytes) else named_files.opened(data) as stream:
        while size <= most and (chunk := stream.read(CHUNK)):
            digest.update(chunk)
            size += len(chunk)
            write(chunk)
    return size, digest.hexdigest()


def _info(name: str) -> zipfile.ZipInfo:
    """Without a time, so that the same update gives the same bytes."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = private_files.FILE_MODE << 16
    return info


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
