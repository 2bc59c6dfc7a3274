"""The proof of an update in a zip file: what is in it, and that nothing else is taken for it."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from proxyflash.transports.errors import ProxyflashError
from proxyflash.transports.recording import formats
from proxyflash.transports.recording.formats import BadRecording
from proxyflash.updates.engine import bundle
from proxyflash.updates.errors import BundleBroken, BundleChanged, SignatureForm, SignatureMissing, SignatureWrong
from proxyflash.updates.manifests.signing import PrivateKey, read_public_key

from .authoring import private_key
from .lab import Lab

KEY, OTHER = private_key("root"), private_key("release")


@pytest.fixture
def proof(lab: Lab, tmp_path: Path) -> Path:
    """A bundle that is signed."""
    return written(lab, tmp_path / "proof.zip", KEY)


def written(lab: Lab, out: Path, key: PrivateKey | None, recorded: list[Path] | None = None) -> Path:
    if not (lab.state / "benches").exists():
        assert lab.apply(lab.bundle()).succeeded
    with lab.engine() as engine:
        entry = engine.store.entry(1)
        manifests = [entry.files / name for name in entry.progress().begin["documents"]]
        bundle.write(out, engine.outcome(entry), entry, manifests, recorded or [], key)
    return out


def test_what_it_holds_by_other_programs_means(lab: Lab, proof: Path) -> None:
    files = contents_of(proof)
    index = json.loads(files.pop("bundle.json"))
    header, payload, signature = files.pop("bundle.jws").decode().split(".")
    assert {one["name"]: one["sha256"] for one in index["files"]} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert {one["name"]: one["size"] for one in index["files"]} == {name: len(data) for name, data in files.items()}
    assert (index["number"], index["update"], index["ending"]) == (1, "Contoso/bundle 1.1", "succeeded")
    assert files["journal.jsonl"] == lab.journal().read_bytes()
    assert [json.loads(files[f"manifests/{n}.json"])["updateId"]["name"] for n in (1, 2, 3)].count("motors") == 1
    # The signature by RFC 7515: over header and payload as they stand.
    key: Any = load_pem_private_key(KEY.pem(), None)
    padded = base64.urlsafe_b64decode(signature + "==")
    key.public_key().verify(padded, f"{header}.{payload}".encode(), PKCS1v15(), SHA256())
    with zipfile.ZipFile(proof) as archive:
        digest = base64.b64encode(hashlib.sha256(archive.read("bundle.json")).digest()).decode()
    assert json.loads(base64.urlsafe_b64decode(payload + "==")) == {"sha256": digest}


def test_what_each_component_held_before_and_after(proof: Path) -> None:
    with zipfile.ZipFile(proof) as archive:
        found = json.loads(archive.read("components.json"))["components"]
    left = next(one for one in found if one["name"] == "left")
    assert (left["group"], left["before"], left["after"]) == ("motors", {"version": "1.0"}, {"version": "1.1"})
    payload = {"name": "payload", "size": 17, "sha256": hashlib.sha256(b"what is installed").hexdigest()}
    assert [(step["step"], step["status"], step["files"]) for step in left["steps"]] == [
        ("1.1", "done", [payload]),
        ("1.2", "done", [payload]),
    ]


def test_the_same_update_gives_the_same_bytes_for_its_owner_alone(lab: Lab, proof: Path, tmp_path: Path) -> None:
    again = written(lab, tmp_path / "again.zip", KEY)
    assert again.read_bytes() == proof.read_bytes()
    assert stat.S_IMODE(proof.stat().st_mode) == 0o600


def test_a_recording_is_kept_and_nothing_else_is_taken_for_one(lab: Lab, tmp_path: Path) -> None:
    recorded = tmp_path / "r.jsonl"
    recorded.write_text('{"format":"proxyflash recording","schema":1,"dropped":0}\n')
    proof = written(lab, tmp_path / "with.zip", None, [recorded])
    assert next(one.of for one in bundle.check(proof).index.files if one.name == "recordings/1.jsonl") == "r.jsonl"
    recorded.write_text("not one")
    with pytest.raises(BadRecording):
        written(lab, tmp_path / "other.zip", None, [recorded])
    assert not (tmp_path / "other.zip").exists()


@pytest.mark.parametrize("mode", ["ab", "wb"])
def test_a_recording_that_is_still_written_leaves_no_bundle(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    recorded, head = tmp_path / "r.jsonl", b'{"format":"proxyflash recording","schema":1,"dropped":0}\n'
    recorded.write_bytes(head)
    load = formats.load

    def grows(path: Path) -> formats.Recording:
        found = load(path)
        with path.open(mode) as file:
            file.write(head.replace(b"0", b"7"))
        return found

    monkeypatch.setattr(formats, "load", grows)
    with pytest.raises(BadRecording, match="was changed while"):
        written(lab, tmp_path / "with.zip", None, [recorded])
    assert not (tmp_path / "with.zip").exists()


def test_who_has_signed_it(lab: Lab, proof: Path, tmp_path: Path) -> None:
    assert bundle.check(proof, KEY.public).verified
    found = bundle.check(proof)
    assert (found.signer, found.verified) == (KEY.public.thumbprint, False)
    (tmp_path / "key.jwk").write_text(json.dumps(OTHER.public.jwk()))
    with pytest.raises(ProxyflashError, match="is not made by the key") as wrong:
        bundle.check(proof, read_public_key(tmp_path / "key.jwk"))
    unsigned = written(lab, tmp_path / "unsigned.zip", None)
    assert bundle.check(unsigned).signer == ""
    with pytest.raises(ProxyflashError, match="not signed") as missing:
        bundle.check(unsigned, KEY.public)
    assert [(one.value.code, one.value.exit_status) for one in (wrong, missing)] == [
        ("E-SIGNATURE", 9),
        ("E-SIGNATURE-MISSING", 9),
    ]


def test_the_signature_of_a_manifest_is_none_of_a_bundle(lab: Lab, proof: Path) -> None:
    def other(files: dict[str, bytes]) -> None:
        files["bundle.jws"] = KEY.sign(files["bundle.json"].decode(), KEY.sign_key(KEY.public)).encode()

    packed(proof, other)
    with pytest.raises(ProxyflashError) as refused:
        bundle.check(proof, KEY.public)
    assert refused.value.code == "E-SIGNATURE-FORM"


def packed(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """The bundle again with other files in it."""
    files = contents_of(path)
    change(files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def indexed(files: dict[str, bytes], /, **changes: Any) -> None:
    files["bundle.json"] = json.dumps(json.loads(files["bundle.json"]) | changes).encode()


def listed(files: dict[str, bytes], which: str, /, **changes: Any) -> None:
    rows = json.loads(files["bundle.json"])["files"]
    indexed(files, files=[row | changes if row["name"] == which else row for row in rows])


CHANGED: dict[str, tuple[Callable[[dict[str, bytes]], Any], str, str]] = {
    "another byte": (lambda f: f.update({"report.json": f["report.json"] + b" "}), "E-BUNDLE-CHANGED", "report.json"),
    "as many bytes": (
        lambda f: f.update({"report.json": b"x" * len(f["report.json"])}), "E-BUNDLE-CHANGED", "is not what bundle.json says",
    ),
    "a file is missing": (lambda f: f.pop("journal.jsonl"), "E-BUNDLE-CHANGED", "journal.jsonl is missing"),
    "a file more": (lambda f: f.update({"manifests/9.json": b"{}"}), "E-BUNDLE-CHANGED", "and not in bundle.json"),
    "the index": (lambda f: indexed(f, ending="failed"), "E-BUNDLE-CHANGED", "is not what was signed"),
    "no index": (lambda f: f.pop("bundle.json"), "E-BUNDLE", "bundle.json is missing"),
    "no signature": (lambda f: f.pop("bundle.jws"), "E-SIGNATURE-MISSING", "not signed"),
    "no JWS": (lambda f: f.update({"bundle.jws": b"a.b"}), "E-SIGNATURE-FORM", "not three"),
    "a path": (lambda f: f.update({"../../etc/cron.d/x": b""}), "E-BUNDLE-CHANGED", "etc/cron.d"),
    "a root": (lambda f: f.update({"/etc/passwd": b""}), "E-BUNDLE-CHANGED", "/etc/passwd"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_was_changed_is_refused(proof: Path, name: str) -> None:
    change, code, said = CHANGED[name]
    packed(proof, change)
    with pytest.raises(ProxyflashError) as refused:
        bundle.check(proof, KEY.public)
    assert (refused.value.code, refused.value.exit_status) == (code, 12 if code == "E-BUNDLE" else 9)
    assert said in refused.value.cause


UNSIGNED: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "a path in the index": (lambda f: listed(f, "report.json", name="../report.json"), "name"),
    "a number without end": (lambda f: listed(f, "report.json", size=1 << 60), "size"),
    "no report": (
        lambda f: indexed(f, files=[r for r in json.loads(f["bundle.json"])["files"] if r["name"] != "report.json"]),
        "does not list report.json",
    ),
    "listed twice": (lambda f: indexed(f, files=json.loads(f["bundle.json"])["files"] * 2), "twice"),
    "no JSON": (lambda f: f.update({"bundle.json": b"{"}), "bundle.json"),
    "a later schema": (lambda f: indexed(f, schema=2), "schema"),
}


@pytest.mark.parametrize("name", UNSIGNED)
def test_an_index_is_believed_in_nothing(lab: Lab, tmp_path: Path, name: str) -> None:
    proof = written(lab, tmp_path / "proof.zip", None)
    change, said = UNSIGNED[name]
    packed(proof, change)
    with pytest.raises(ProxyflashError, match=said) as refused:
        bundle.check(proof)
    assert refused.value.code == "E-BUNDLE"


def test_a_bomb_is_left_where_it_is_longer_than_it_says(lab: Lab, tmp_path: Path) -> None:
    proof = written(lab, tmp_path / "proof.zip", None)
    packed(proof, lambda files: files.update({"report.json": bytes(300 << 20)}))
    assert proof.stat().st_size < 1 << 20
    with pytest.raises(ProxyflashError, match="unpacks to more than") as refused:
        bundle.check(proof)
    assert refused.value.code == "E-BUNDLE-CHANGED"
    packed(proof, lambda files: files.update({"bundle.json": bytes(300 << 20)}))
    with pytest.raises(ProxyflashError, match="more than 4,194,304 bytes"):
        bundle.check(proof)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"#!/bin/sh\n" + data,
        lambda data: data + b"x",
        lambda data: data[:-22],
        lambda data: data[: len(data) // 2] + data[-22:],
        lambda data: data[:-2] + b"\x05\x00note!",
        # The size of the directory (APPNOTE 4.3.16): such a directory would have to be read into memory.
        lambda data: data[:-10] + struct.pack("<L", 2 << 20) + data[-6:],
    ],
)
def test_what_is_no_zip_file_of_ours_is_refused(proof: Path, change: Callable[[bytes], bytes]) -> None:
    proof.write_bytes(change(proof.read_bytes()))
    with pytest.raises(ProxyflashError) as refused:
        bundle.check(proof, KEY.public)
    assert (refused.value.code, refused.value.exit_status) == ("E-BUNDLE", 12)


def test_a_directory_of_zip64_is_not_read(tmp_path: Path) -> None:
    """Its records (APPNOTE 4.3.14, 4.3.15) say how much of the file is the directory, and the last record another number."""
    proof, size = tmp_path / "proof.zip", 256 << 20
    records = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, 0)
    records += struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    with proof.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(records + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(records), size, 0))
    tracemalloc.start()
    try:
        with pytest.raises(BundleBroken, match="ZIP64"):
            bundle.check(proof)
        assert tracemalloc.get_traced_memory()[1] < size // 8
    finally:
        tracemalloc.stop()


def test_a_byte_that_was_changed_changes_no_content_that_is_taken(proof: Path) -> None:
    """Some bits of a packed file mean nothing (RFC 1951): with these changed the contents are the same, and only then."""
    data, contents = proof.read_bytes(), contents_of(proof)
    refused = 0
    for at in range(30, len(data) - 22, len(data) // 40):
        proof.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            bundle.check(proof, KEY.public)
        except (BundleBroken, BundleChanged, SignatureForm, SignatureMissing, SignatureWrong):
            refused += 1
        else:
            assert contents_of(proof) == contents
    assert refused > 20


def contents_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
