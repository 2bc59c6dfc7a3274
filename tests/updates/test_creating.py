"""Manifests that are made here: an import manifest from a few words, a deployment from that; and what is said of them."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from proxyflash.tests.updates.authoring import Publisher, changed
from proxyflash.updates.errors import ManifestField, ManifestRule, PayloadMissing
from proxyflash.updates.manifests import creating
from proxyflash.updates.manifests.creating import Draft, import_manifest
from proxyflash.updates.manifests.explaining import explain
from proxyflash.updates.manifests.resolved_update import load, read

MADE = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def test_an_update_of_components(tmp_path: Path) -> None:
    (tmp_path / "motor.hex").write_bytes(b"firmware")
    draft = Draft("Contoso", "motors", "1.2", select=({"group": "motors"},), files=(tmp_path / "motor.hex",))
    text, manifest = import_manifest(draft, MADE)
    # By hand, from the schema; the digest is `printf firmware | openssl dgst -sha256 -binary | base64`.
    assert json.loads(text) == {
        "$schema": "https://json.schemastore.org/azure-deviceupdate-import-manifest-5.0.json",
        "updateId": {"provider": "Contoso", "name": "motors", "version": "1.2"},
        "isDeployable": False,
        "compatibility": [{"group": "motors"}],
        "instructions": {
            "steps": [
                {
                    "type": "inline",
                    "handler": "proxyflash/flash:1",
                    "files": ["motor.hex"],
                    "handlerProperties": {"installedCriteria": "1.2"},
                }
            ]
        },
        "files": [
            {
                "filename": "motor.hex",
                "sizeInBytes": 8,
                "hashes": {"sha256": "w79H6h9KSmBUcDE8rLOkT0pGH2jG+uqwfnN2EMtayDU="},
            }
        ],
        "createdDateTime": "2026-02-03T04:05:06Z",
        "manifestVersion": "5.0",
    }
    assert creating.file_name(manifest.updateId, "importmanifest.json") == "Contoso.motors.1.2.importmanifest.json"


def test_an_update_of_a_host_refers_to_its_children_in_order(publisher: Publisher) -> None:
    first = publisher.component_update("motors", "1.2", motor=b"m")
    second = publisher.component_update("cameras", "2.0", camera=b"c")
    text, _ = import_manifest(Draft("Contoso", "gateway", "3.0", children=(second, first)), MADE)
    document = json.loads(text)
    assert document["isDeployable"] is True
    assert document["compatibility"] == [{"manufacturer": "Contoso", "model": "gateway"}]
    assert [step["updateId"]["name"] for step in document["instructions"]["steps"]] == ["cameras", "motors"]


def test_a_script_s_name_is_that_of_its_first_file(tmp_path: Path) -> None:
    for name in ("run.sh", "data.bin"):
        (tmp_path / name).write_bytes(b"x")
    files = (tmp_path / "run.sh", tmp_path / "data.bin")
    draft = Draft("C", "n", "1.0", files=files, handler="microsoft/script:1", properties={"arguments": "--now"})
    step = json.loads(import_manifest(draft)[0])["instructions"]["steps"][0]
    assert step["handlerProperties"] == {"arguments": "--now", "scriptFileName": "run.sh"}
    assert step["files"] == ["run.sh", "data.bin"]


@pytest.mark.parametrize(
    ("draft", "kind"),
    [
        (Draft("Contoso Ltd", "n", "1.0", files=(Path("x"),)), ManifestField),
        (Draft("C", "n", "1", files=(Path("x"),)), ManifestField),
        (Draft("C", "n", "1.0", files=(Path("empty"),)), ManifestRule),
        (Draft("C", "n", "1.0"), ManifestField),
        (Draft("C", "n", "1.0", files=(Path("none"),)), PayloadMissing),
        (Draft("C", "n", "1.0", files=(Path(),)), PayloadMissing),
    ],
)
def test_what_no_manifest_can_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draft: Draft, kind: type) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "empty").touch()
    with pytest.raises(kind):
        import_manifest(draft)


def test_a_child_that_is_deployed_itself(publisher: Publisher) -> None:
    child = publisher.component_update("motors", "1.2", motor=b"m")
    parent = publisher.update("gateway", "1.2", child)
    with pytest.raises(ManifestRule, match="isDeployable is true"):
        import_manifest(Draft("C", "n", "1.0", children=(parent,)))
    with pytest.raises(ManifestRule, match="isDeployable is false"):
        load(child)
    with pytest.raises(ManifestRule, match="isDeployable is false"):
        publisher.sign(child)


@pytest.mark.parametrize("text", ["group", "group=", "=motors", "group=a,group=b", ""])
def test_what_selects_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="KEY=VALUE"):
        creating.selectors([text], "--select")
    assert creating.selectors(["a=b,c=d=e", "f=g"], "") == ({"a": "b", "c": "d=e"}, {"f": "g"})


# The deployment.


def signed(publisher: Publisher, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A deployment of two children, and its manifest."""
    first = publisher.component_update("motors", "1.2", motor=b"m")
    second = publisher.component_update("cameras", "2.0", camera=b"c")
    update = read(publisher.update("gateway", "3.0", first, second))
    made = creating.signed(update, publisher.key, publisher.root.sign_key(publisher.key.public), **more)
    for name, data in made.documents.items():
        (publisher.folder / name).write_bytes(data)
    deployment = json.loads(made.documents["Contoso.gateway.3.0.deployment.json"])
    return deployment, json.loads(deployment["updateManifest"])


def test_a_deployment_is_what_the_agent_takes(publisher: Publisher) -> None:
    deployment, manifest = signed(publisher, workflow_id="w-1", base_url="https://example.org/u/")
    assert deployment["workflow"] == {"action": 3, "id": "w-1"}
    assert manifest["manifestVersion"] == "5"
    steps = manifest["instructions"]["steps"]
    assert [set(step) for step in steps] == [{"type", "detachedManifestFileId"}] * 2
    files: dict[str, Any] = {}
    for step in steps:
        entry = manifest["files"][step["detachedManifestFileId"]]
        data = (publisher.folder / entry["fileName"]).read_bytes()
        assert entry["sizeInBytes"] == len(data)
        assert base64.b64decode(entry["hashes"]["sha256"]) == hashlib.sha256(data).digest()
        files |= {**json.loads(data)["files"], step["detachedManifestFileId"]: entry}
    # The agent looks for the URLs of the children's files in the parent's deployment.
    assert deployment["fileUrls"] == {i: f"https://example.org/u/{file['fileName']}" for i, file in files.items()}
    assert len(files) == 4


def test_a_file_s_address_is_quoted(publisher: Publisher) -> None:
    (publisher.folder / "a b#%.bin").write_bytes(b"m")
    child = publisher.component_update("motors", "1.2", given=(publisher.folder / "a b#%.bin",))
    deployment = json.loads(publisher.sign(publisher.update("gateway", "1.2", child)).read_text())
    assert "a%20b%23%25.bin" in deployment["fileUrls"].values()


def test_what_was_signed_is_the_update_that_was_written(publisher: Publisher) -> None:
    signed(publisher)
    written = load(publisher.folder / "Contoso.gateway.3.0.importmanifest.json")
    found = load(publisher.folder / "Contoso.gateway.3.0.deployment.json", publisher.policy())
    assert found.manifest.instructions == written.manifest.instructions
    assert found.manifest.compatibility == written.manifest.compatibility
    assert found.manifest.createdDateTime == written.manifest.createdDateTime
    assert {name: child.manifest.files for name, child in found.children.items()} == {
        name: child.manifest.files for name, child in written.children.items()
    }


def test_a_deployment_can_be_signed_anew(publisher: Publisher) -> None:
    signed(publisher)
    old = publisher.folder / "Contoso.gateway.3.0.deployment.json"
    before = load(old, publisher.policy())
    again = load(publisher.sign(old), publisher.policy())
    assert again.manifest == before.manifest


# In plain words.


def test_an_explanation(publisher: Publisher) -> None:
    signed(publisher)
    told = explain(read(publisher.folder / "Contoso.gateway.3.0.deployment.json", publisher.policy()))
    text = "\n".join(told.lines)
    assert told.faults == ()
    for words in (
        "Contoso/gateway 3.0",
        "by release, under the root key root",
        "hosts with manufacturer Contoso and model gateway",
        "Contoso/motors 1.2, on each component with group motors",
        "1.1  proxyflash/flash:1 with motor.bin",
        "camera.bin",
    ):
        assert words in text


def test_everything_that_is_wrong_is_told(publisher: Publisher) -> None:
    child = publisher.component_update("motors", "1.2", motor=b"firmware")
    other = publisher.component_update("cameras", "1.2", camera=b"c")
    document = json.loads(other.read_text())
    document["instructions"]["steps"][0]["handler"] = "acme/magic:1"
    changed(other, **document)
    document = json.loads(child.read_text())
    document["instructions"]["steps"][0]["handlerProperties"] = {}
    changed(child, **document)
    (publisher.folder / "motor.bin").write_bytes(b"firmwarE")
    (publisher.folder / "camera.bin").unlink()
    told = explain(read(publisher.update("gateway", "1.2", child, other)))
    assert [fault.code for fault in told.faults] == ["E-FILE-HASH", "E-MANIFEST-FIELD", "E-FILE-MISSING", "E-HANDLER"]


@pytest.mark.parametrize(("asked", "codes"), [({"attempts": 3}, []), ({"attempts": -1}, ["E-MANIFEST-FIELD"])])
def test_what_a_step_asks_of_the_engine_is_looked_at(publisher: Publisher, asked: Any, codes: list[str]) -> None:
    child = publisher.component_update("motors", "1.2", motor=b"firmware")
    document = json.loads(child.read_text())
    document["instructions"]["steps"][0]["handlerProperties"]["proxyflash"] = asked
    told = explain(read(publisher.update("gateway", "1.2", changed(child, **document))))
    assert [fault.code for fault in told.faults] == codes


def test_a_manifest_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    creating.write(tmp_path / "m.json", b"one")
    with pytest.raises(OSError, match="No such file"):
        creating.write(tmp_path / "none" / "m.json", b"two")
    creating.write(tmp_path / "m.json", b"three", mode=0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]
    assert (tmp_path / "m.json").read_bytes() == b"three"
    assert (tmp_path / "m.json").stat().st_mode & 0o777 == 0o600
