"""What a device receives: accepted as the service and the schema have it, refused with its place, one form with the rest."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.tests.updates.authoring import MICROSOFT
from proxyflash.updates.errors import (
    DeploymentCancelled,
    ManifestField,
    ManifestMissing,
    ManifestRule,
    ManifestSyntax,
    PayloadHash,
    PayloadSize,
    UpdateError,
)
from proxyflash.updates.manifests import device_manifest as dm
from proxyflash.updates.manifests import manifest as mf
from proxyflash.updates.manifests.resolved_update import load, read

SCRIPT = b"#!/bin/sh\n"
HASHES = {"sha256": base64.b64encode(hashlib.sha256(SCRIPT).digest()).decode()}
FILE: dict[str, Any] = {"fileName": "configure.sh", "sizeInBytes": len(SCRIPT), "hashes": HASHES}
INLINE: dict[str, Any] = {"handler": "microsoft/script:1", "files": ["f0"], "handlerProperties": {"arguments": "--pre"}}
PLAIN: dict[str, Any] = {
    "manifestVersion": "5",
    "updateId": {"provider": "Contoso", "name": "Toaster", "version": "1.0"},
    "compatibility": [{"deviceManufacturer": "Contoso", "deviceModel": "Toaster"}],
    "instructions": {"steps": [INLINE]},
    "files": {"f0": FILE},
    "createdDateTime": "2021-09-28T18:32:01.8404544Z",
}
"""Shaped like the schema's example."""
CHILD = PLAIN | {
    "updateId": {"provider": "Contoso", "name": "Sensor", "version": "1.0"},
    "compatibility": [{"group": "sensors"}],
}
REFERENCE = {"type": "reference", "detachedManifestFileId": "f1"}


def changed(path: str, value: Any, of: dict[str, Any] = PLAIN) -> dict[str, Any]:
    document = copy.deepcopy(of)
    *parents, last = [int(item) if item.isdigit() else item for item in path.split(".")]
    place: Any = document
    for item in parents:
        place = place[item]
    place[last] = value
    return document


def parsed(document: dict[str, Any]) -> dm.DeviceManifest:
    found = dm.device_manifest(document, "m.json")
    assert isinstance(found, dm.DeviceManifest)
    return found


def entry(name: str, data: bytes) -> dict[str, Any]:
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return {"fileName": name, "sizeInBytes": len(data), "hashes": {"sha256": digest}}


def with_child(folder: Path, child: dict[str, Any] = CHILD, **fields: Any) -> dict[str, Any]:
    """A manifest that refers to a child, whose files are written into the folder."""
    (folder / "configure.sh").write_bytes(SCRIPT)
    data = json.dumps(child).encode()
    (folder / "sensor.updatemanifest.json").write_bytes(data)
    files = {"f0": FILE, "f1": entry("sensor.updatemanifest.json", data)}
    return PLAIN | {"instructions": {"steps": [INLINE, REFERENCE]}, "files": files, **fields}


def deployment(folder: Path, manifest: dict[str, Any], **fields: Any) -> Path:
    document = {
        "workflow": {"action": 3, "id": "one"},
        "updateManifest": json.dumps(manifest),
        "fileUrls": {},
        **fields,
    }
    path = folder / "deployment.json"
    path.write_text(json.dumps(document))
    return path


def test_the_deployment_of_azure_s_service() -> None:
    """Its files aren't published with it: the child's manifest is the first that is missed."""
    with pytest.raises(ManifestMissing, match=r"contoso\.contoso-virtual-motors\.1\.1\.updatemanifest\.json"):
        load(MICROSOFT / "deployment.json")
    raw = json.loads((MICROSOFT / "deployment.json").read_text())
    found = dm.deployment(raw, "d")
    assert (found.workflow.action, found.workflow.id) == (dm.PROCESS, "test-workflow-id")
    manifest = parsed(json.loads(found.updateManifest or ""))
    normal = manifest.normal({"f222b9ffefaaac577": mf.UpdateId(**CHILD["updateId"])}, deployable=True)
    assert str(normal.updateId) == "Contoso/Virtual-Vacuum 20.0"
    inline, reference = normal.instructions.steps
    assert isinstance(inline, mf.InlineStep)
    assert (inline.handler, inline.files) == ("microsoft/apt:1", ("apt-manifest-tree-1.0.json",))
    assert isinstance(reference, mf.ReferenceStep)
    assert [file.filename for file in normal.files] == ["apt-manifest-tree-1.0.json"]


@pytest.mark.parametrize("path", sorted(MICROSOFT.glob("*.importmanifest.json")), ids=lambda path: path.name)
def test_microsoft_s_sample_manifests(path: Path) -> None:
    manifest = mf.read(path)
    assert manifest.updateId.name.startswith("Virtual-Vacuum")
    assert manifest.manifestVersion == "4.0"


def test_a_deployment_is_the_same_update_as_the_import_manifest(tmp_path: Path) -> None:
    update = load(deployment(tmp_path, with_child(tmp_path)))
    assert str(update.manifest.updateId) == "Contoso/Toaster 1.0"
    assert (update.workflow_id, update.manifest.manifestVersion, update.manifest.isDeployable) == ("one", "5.0", True)
    assert update.files == {"configure.sh": tmp_path / "configure.sh"}
    step = update.manifest.instructions.steps[1]
    assert isinstance(step, mf.ReferenceStep)
    child = update.child(step)
    assert str(child.manifest.updateId) == "Contoso/Sensor 1.0"
    assert child.manifest.compatibility == ({"group": "sensors"},)
    assert child.files == {"configure.sh": tmp_path / "configure.sh"}
    assert not child.manifest.isDeployable
    # What it was made into is a manifest that its author could have written.
    again = mf.checked(json.loads(update.manifest.model_dump_json(exclude_none=True, exclude={"schema_url"})), "again")
    assert again.instructions == update.manifest.instructions


def test_a_bare_update_manifest(tmp_path: Path) -> None:
    path = tmp_path / "toaster.updatemanifest.json"
    path.write_text(json.dumps(with_child(tmp_path)))
    update = load(path)
    assert list(update.children) == ["Contoso/Sensor 1.0"]
    assert update.workflow_id == ""


def test_a_manifest_in_a_file_of_its_own(tmp_path: Path) -> None:
    data = json.dumps(with_child(tmp_path)).encode()
    (tmp_path / "whole.json").write_bytes(data)
    mini = {key: PLAIN[key] for key in ("manifestVersion", "updateId")}
    mini |= {"detachedManifestFileId": "f9", "files": {"f9": entry("whole.json", data)}}
    update = load(deployment(tmp_path, mini))
    assert list(update.children) == ["Contoso/Sensor 1.0"]
    assert set(update.documents) == {"deployment.json", "whole.json"}
    with pytest.raises(ManifestRule, match=r"whole\.json is Contoso/Toaster 1\.0"):
        load(deployment(tmp_path, changed("updateId.version", "1.1", mini)))
    with pytest.raises(ManifestField, match=r"detachedManifestFileId: 'f8'"):
        load(deployment(tmp_path, mini | {"detachedManifestFileId": "f8"}))
    (tmp_path / "whole.json").write_bytes(data.replace(b"Toaster", b"Toastet"))
    with pytest.raises(PayloadHash):
        load(deployment(tmp_path, mini))
    (tmp_path / "whole.json").write_bytes(json.dumps(mini).encode())
    nested = mini | {"files": {"f9": entry("whole.json", json.dumps(mini).encode())}}
    with pytest.raises(ManifestRule, match="stands for a manifest"):
        load(deployment(tmp_path, nested))


RELATED = FILE | {"fileName": "delta.dat", "properties": {"microsoft.sourceFileHashAlgorithm": "sha256"}}


@pytest.mark.parametrize(
    "document",
    [
        changed("manifestVersion", "4"),
        changed("files.f0", {("filename" if key == "fileName" else key): value for key, value in FILE.items()}),
        changed("files.f0.relatedFiles", {"r0": RELATED}),
        changed("files.f0.relatedFiles", [RELATED]),
        changed("files.f0.downloadHandler", {"id": "microsoft/delta:1"}),
        changed("files.f0.arguments", "--now"),
        changed("instructions.steps.0.type", "inline"),
        PLAIN | {"importedDateTime": "2021-11-16T14:54:55.8858676Z", "isDeployable": True, "etag": "x"},
        PLAIN | {"files": {f"f{number}": FILE | {"fileName": f"{number}"} for number in range(20)}},
        changed("instructions.steps", [INLINE] * 10),
    ],
)
def test_what_the_schema_or_the_service_have_is_accepted(document: dict[str, Any]) -> None:
    parsed(document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (changed("manifestVersion", "2.0"), r"manifestVersion: '2\.0'"),
        (changed("manifestVersion", 5), "manifestVersion"),
        (changed("updateId.version", "1"), r"updateId\.version"),
        (changed("updateId.extra", "1"), r"updateId\.extra"),
        (changed("compatibility", []), "compatibility"),
        (changed("compatibility", [{"k": ""}]), r"compatibility\[0\]\.k"),
        (changed("instructions.steps", []), r"instructions\.steps"),
        (changed("instructions.steps", [INLINE] * 11), r"instructions\.steps"),
        (changed("instructions.steps.0.type", "magic"), r"steps\[0\]"),
        (changed("instructions.steps.0.handler", "script"), r"steps\[0\]\.handler"),
        (changed("instructions.steps.0.files", []), r"steps\[0\]\.files"),
        (changed("instructions.steps.0.files", ["f0"] * 11), r"steps\[0\]\.files"),
        (changed("instructions.steps.0.files", ["f7"]), r"steps\[0\]\.files\[0\]: 'f7' is not listed"),
        (changed("instructions.steps.0.files", ["configure.sh"]), r"steps\[0\]\.files\[0\]"),
        (changed("instructions.steps.0.surprise", 1), r"steps\[0\]\.surprise"),
        (changed("instructions.steps.0", REFERENCE), r"steps\[0\]\.detachedManifestFileId: 'f1' is not listed"),
        (changed("instructions.steps.0", {"type": "reference"}), r"steps\[0\]\.detachedManifestFileId is missing"),
        (changed("instructions.steps.0", REFERENCE | {"handler": "a/b:1"}), r"steps\[0\]\.handler"),
        (changed("files", {}), "files"),
        (PLAIN | {"files": {f"f{number}": FILE | {"fileName": f"{number}"} for number in range(21)}}, "files"),
        (changed("files.f0.fileName", "../x"), r"files\.f0\.fileName: a file name is a plain name"),
        (changed("files.f0.fileName", ""), r"files\.f0\.fileName"),
        (changed("files.f0.sizeInBytes", 0), r"files\.f0\.sizeInBytes"),
        (changed("files.f0.sizeInBytes", 2147483649), r"files\.f0\.sizeInBytes"),
        (changed("files.f0.hashes", {}), r"files\.f0\.hashes"),
        (changed("files.f0.hashes", {"sha256": "AAAA"}), r"files\.f0\.hashes"),
        (changed("files.f0.relatedFiles", [RELATED] * 5), r"files\.f0\.relatedFiles"),
        (changed("files.f0.relatedFiles", {"r0": RELATED | {"fileName": "a/b"}}), r"relatedFiles\[0\]\.fileName"),
        (changed("files.f2", FILE), r"files\.f2\.fileName: 'configure\.sh' is that of 'f0' too"),
        (changed("files.f2", FILE | {"fileName": "b", "sizeInBytes": 2147483648}), "together"),
        (changed("createdDateTime", "yesterday"), "createdDateTime"),
    ],
)
def test_what_the_schema_forbids_is_told_with_its_place(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestField, match=words):
        dm.device_manifest(document, "m.json")


@pytest.mark.parametrize(
    "key", ["manifestVersion", "updateId", "compatibility", "instructions", "files", "createdDateTime"]
)
def test_each_required_field_is_missed(key: str) -> None:
    with pytest.raises(ManifestField, match=f"{key} is missing"):
        dm.device_manifest({name: value for name, value in PLAIN.items() if name != key}, "m.json")


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"workflow": {"action": 4, "id": "one"}}, ManifestField, r"workflow\.action"),
        ({"workflow": {"action": True, "id": "one"}}, ManifestField, r"workflow\.action"),
        ({"workflow": {"action": 3}}, ManifestField, r"workflow\.id is missing"),
        ({"workflow": None}, ManifestField, "workflow"),
        ({"updateManifest": None}, ManifestField, "updateManifest is missing"),
        ({"updateManifest": ""}, ManifestField, "updateManifest is missing"),
        ({"updateManifest": {"manifestVersion": "5"}}, ManifestField, "updateManifest"),
        ({"updateManifest": "{"}, ManifestSyntax, "updateManifest"),
        ({"updateManifest": '{"a": 1, "a": 1}'}, ManifestSyntax, "given twice"),
        ({"updateManifestSignature": 7}, ManifestField, "updateManifestSignature"),
        ({"fileUrls": {"f0": 1}}, ManifestField, r"fileUrls\.f0"),
    ],
)
def test_a_deployment_of_another_form(
    tmp_path: Path, fields: dict[str, Any], kind: type[UpdateError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        read(deployment(tmp_path, PLAIN, **fields))


def test_a_deployment_that_is_called_off(tmp_path: Path) -> None:
    for manifest in (json.dumps(PLAIN), "", None):
        path = deployment(tmp_path, PLAIN, workflow={"action": 255, "id": "one"}, updateManifest=manifest)
        with pytest.raises(DeploymentCancelled, match="'one' off") as caught:
            load(path)
        assert caught.value.workflow_id == "one"


def test_a_child_s_rules(tmp_path: Path) -> None:
    nested = with_child(tmp_path)
    document = with_child(tmp_path, child=nested | {"updateId": CHILD["updateId"]})
    with pytest.raises(ManifestRule, match="has a reference step"):
        load(deployment(tmp_path, document))
    document = with_child(tmp_path)
    document["instructions"] = {"steps": [REFERENCE | {"updateId": CHILD["updateId"] | {"version": "2.0"}}]}
    with pytest.raises(ManifestRule, match=r"is Contoso/Sensor 1\.0, but is referred to as Contoso/Sensor 2\.0"):
        load(deployment(tmp_path, document))
    document["instructions"] = {"steps": [REFERENCE | {"updateId": CHILD["updateId"]}]}
    load(deployment(tmp_path, document))


def test_two_children_that_claim_to_be_the_same(tmp_path: Path) -> None:
    document = with_child(tmp_path)
    other = json.dumps(CHILD | {"createdDateTime": "2022-01-01"}).encode()
    (tmp_path / "other.json").write_bytes(other)
    document["files"]["f2"] = entry("other.json", other)
    document["instructions"] = {"steps": [REFERENCE, {"type": "reference", "detachedManifestFileId": "f2"}]}
    with pytest.raises(ManifestRule, match="two child manifests"):
        load(deployment(tmp_path, document))


def test_a_child_that_is_named_twice_is_one(tmp_path: Path) -> None:
    document = with_child(tmp_path) | {"instructions": {"steps": [REFERENCE, REFERENCE]}}
    update = load(deployment(tmp_path, document))
    assert len(update.manifest.instructions.steps) == 2
    assert len(update.children) == 1


@pytest.mark.parametrize("change", [b"", b" "])
def test_a_child_s_manifest_is_the_one_that_the_parent_names(tmp_path: Path, change: bytes) -> None:
    path = deployment(tmp_path, with_child(tmp_path))
    child = tmp_path / "sensor.updatemanifest.json"
    data = child.read_bytes()
    child.write_bytes(data + change if change else data.replace(b"sensors", b"cameras"))
    with pytest.raises(PayloadSize if change else PayloadHash, match=r"sensor\.updatemanifest\.json"):
        load(path)


NAMES = st.sampled_from([*PLAIN, "steps", "type", "f0", "workflow", "detachedManifestFileId", "updateManifest"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, JSON_VALUES))
def test_any_json_is_accepted_or_refused_by_name(raw: dict[str, Any]) -> None:
    with contextlib.suppress(UpdateError):
        dm.deployment(raw, "m.json")
    with contextlib.suppress(UpdateError):
        dm.device_manifest(raw, "m.json")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["files.f0", "files.f0.fileName", "files.f0.hashes", "instructions.steps.0", "compatibility.0"]),
    JSON_VALUES | st.sampled_from(["\0", "\ud800", 2**70, -1, float("nan"), "a" * 300]),
)
def test_a_manifest_with_one_value_changed(path: str, value: Any) -> None:
    with contextlib.suppress(UpdateError):
        parsed(changed(path, value))
