"""Import manifests: what the published schemas accept is accepted, everything else is refused with its place."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates.errors import (
    ManifestField,
    ManifestMissing,
    ManifestRule,
    ManifestSyntax,
    PayloadHash,
    PayloadKind,
    PayloadMissing,
    PayloadSize,
    UpdateError,
)
from proxyflash.updates.handlers.script import ScriptHandler
from proxyflash.updates.manifests import manifest as mf
from proxyflash.updates.manifests import resolved_update as update_module
from proxyflash.updates.manifests.resolved_update import load

PAYLOAD = b"firmware"

MINIMAL: dict[str, Any] = {
    "updateId": {"provider": "Contoso", "name": "Toaster", "version": "1.0"},
    "compatibility": [{"manufacturer": "Contoso", "model": "Toaster"}],
    "instructions": {
        "steps": [
            {
                "handler": "microsoft/swupdate:1",
                "files": ["firmware.swu"],
                "handlerProperties": {"installedCriteria": "1.0"},
            }
        ]
    },
    "files": [
        {
            "filename": "firmware.swu",
            "sizeInBytes": 7558,
            "hashes": {"sha256": "4oLXY7iz2vMkUtBrEWHLgDyJkdkeAWJeYCd/IPgBrW0="},
        }
    ],
    "createdDateTime": "2022-01-19T06:23:52.6996916Z",
    "manifestVersion": "5.0",
}
"""Shaped like the first example of Azure Device Update's import manifest documentation."""


def changed(path: str, value: Any) -> dict[str, Any]:
    """MINIMAL with one value replaced; "files.0.filename"."""
    document = copy.deepcopy(MINIMAL)
    *parents, last = [int(item) if item.isdigit() else item for item in path.split(".")]
    place: Any = document
    for item in parents:
        place = place[item]
    place[last] = value
    return document


def parsed(document: dict[str, Any]) -> mf.ImportManifest:
    return mf.parse(json.dumps(document), "m.json")


def test_a_plain_manifest() -> None:
    manifest = parsed(MINIMAL)
    assert str(manifest.updateId) == "Contoso/Toaster 1.0"
    assert manifest.isDeployable
    step = manifest.instructions.steps[0]
    assert isinstance(step, mf.InlineStep)
    assert step.handler == "microsoft/swupdate:1"


def test_a_manifest_with_everything() -> None:
    document = changed("instructions.steps.0.type", "inline")
    document |= {"$schema": "https://json.schemastore.org/azure-deviceupdate-import-manifest-5.0.json"}
    document |= {"isDeployable": False, "description": "d" * 512}
    document["instructions"]["steps"].append(
        {
            "type": "reference",
            "description": "the motors",
            "updateId": {"provider": "Contoso", "name": "Motors", "version": "2.0.1.10"},
        }
    )
    document["files"][0] |= {
        "properties": {"a": "b"},
        "relatedFiles": [{"filename": "d.diff", "sizeInBytes": 1, "hashes": MINIMAL["files"][0]["hashes"]}],
        "downloadHandler": {"id": "microsoft/delta:1"},
    }
    manifest = parsed(document)
    assert isinstance(manifest.instructions.steps[1], mf.ReferenceStep)
    assert manifest.files[0].relatedFiles[0].filename == "d.diff"


def test_leading_zeros_of_a_version_are_dropped() -> None:
    assert parsed(changed("updateId.version", "01.002.0")).updateId.version == "1.2.0"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("updateId.provider", ""),
        ("updateId.provider", "x" * 65),
        ("updateId.provider", "Contoso/Ltd"),
        ("updateId.name", "Toast er"),
        ("updateId.version", "1"),
        ("updateId.version", "1.2.3.4.5"),
        ("updateId.version", "1.x"),
        ("updateId.version", "1.2147483648"),
        ("updateId.version", 1.0),
        ("updateId.extra", "x"),
        ("isDeployable", "yes"),
        ("description", ""),
        ("description", "d" * 513),
        ("compatibility", []),
        ("compatibility", [{"a": "b"}] * 11),
        ("compatibility", [{}]),
        ("compatibility", [{str(i): "x" for i in range(6)}]),
        ("compatibility", [{"k" * 33: "x"}]),
        ("compatibility", [{"k": "v" * 65}]),
        ("compatibility", [{"k": ""}]),
        ("compatibility", [{"k": 1}]),
        ("instructions.steps", []),
        ("instructions.steps", MINIMAL["instructions"]["steps"] * 11),
        ("instructions.steps.0.type", "magic"),
        ("instructions.steps.0.description", "d" * 65),
        ("instructions.steps.0.handler", "swupdate"),
        ("instructions.steps.0.handler", "microsoft/swupdate:123456"),
        ("instructions.steps.0.handler", "microsoft/" + "x" * 30 + ":1"),
        ("instructions.steps.0.files", []),
        ("instructions.steps.0.files", ["other.bin"]),
        ("instructions.steps.0.updateId", MINIMAL["updateId"]),
        ("files.0.filename", "../firmware.swu"),
        ("files.0.filename", "a/b"),
        ("files.0.filename", "a\\b"),
        ("files.0.filename", ".."),
        ("files.0.filename", "f" * 256),
        ("files.0.sizeInBytes", 0),
        ("files.0.sizeInBytes", 2147483649),
        ("files.0.sizeInBytes", "7558"),
        ("files.0.hashes", {}),
        ("files.0.hashes", {"sha256": "not base64!"}),
        ("files.0.hashes", {"sha256": "AAAA"}),
        ("files.0.hashes", {"md5": "AAAA"}),
        ("files.0.relatedFiles", [{"filename": "d", "sizeInBytes": 1, "hashes": MINIMAL["files"][0]["hashes"]}] * 5),
        ("files.0.downloadHandler", {"id": "microsoft/other:1"}),
        ("files.0.url", "x"),
        ("createdDateTime", "yesterday"),
        # A date in truth, so that its length alone is wrong.
        ("createdDateTime", "2022-01-19T06:23:52." + "0" * 100_000 + "Z"),
        ("updateId.version", "1." + "0" * 100 + "2"),
        ("files.0.hashes", MINIMAL["files"][0]["hashes"] | {"other": "x" * 129}),
        ("files.0.hashes", MINIMAL["files"][0]["hashes"] | {"x" * 33: "AAAA"}),
        ("$schema", "s" * 2049),
        ("manifestVersion", "3.0"),
        ("manifestVersion", 5.0),
        ("surprise", 1),
    ],
)
def test_what_the_schema_forbids_is_told_with_its_place(path: str, value: Any) -> None:
    with pytest.raises(ManifestField) as caught:
        parsed(changed(path, value))
    place = path.split(".")
    assert place[0] in caught.value.cause
    assert len(caught.value.cause) < 500
    assert caught.value.exit_status == ExitStatus.BAD_FILE


@pytest.mark.parametrize(
    ("path", "value", "meant"),
    [
        ("isDeployabel", True, "isDeployable"),
        ("files.0.sizeInByte", 7, "sizeInBytes"),
        ("instructions.steps.0.handlerProperty", {}, "handlerProperties"),
        ("instructions.steps.0.files", ["firmwear.swu"], "firmware.swu"),
    ],
)
def test_a_misspelt_name_is_refused_with_what_is_meant(path: str, value: Any, meant: str) -> None:
    with pytest.raises(ManifestField) as caught:
        parsed(changed(path, value))
    assert f"(did you mean {meant!r}?)" in caught.value.cause


LONG = "\x1b" * 100_000


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("manifestVersion", LONG),
        (LONG, 1),
        ("files.0.filename", LONG),
        ("instructions.steps.0.handlerProperties", {"scriptFileName": LONG}),
        ("instructions.steps.0.handlerProperties", {"scriptFileName": "firmware.swu", "apiVersion": LONG}),
        ("instructions.steps.0.handlerProperties", {"scriptFileName": [LONG]}),
    ],
    ids=range(6),
)
def test_an_error_quotes_the_start_of_a_long_value(path: str, value: Any) -> None:
    def read() -> None:
        step = parsed(changed(path, value)).instructions.steps[0]
        assert isinstance(step, mf.InlineStep)
        ScriptHandler.check(step, on_component=False, place="steps[0]")

    with pytest.raises(ManifestField) as caught:
        read()
    assert len(caught.value.cause) < 1000
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("key", ["updateId", "compatibility", "instructions", "createdDateTime", "manifestVersion"])
def test_each_required_field_is_missed(key: str) -> None:
    document = copy.deepcopy(MINIMAL)
    del document[key]
    with pytest.raises(ManifestField, match=f"{key} is missing"):
        parsed(document)


def test_an_older_manifest_is_told_by_its_version() -> None:
    """As the public preview's, bundles too: everything else in it is of another form."""
    with pytest.raises(ManifestField, match=r"manifestVersion: '2\.0'; of import manifests 4\.0 and 5\.0 are known"):
        parsed({"manifestVersion": "2.0", "updateType": "microsoft/bundle:1", "updateId": MINIMAL["updateId"]})


def test_version_4_knows_no_related_files() -> None:
    document = changed("manifestVersion", "4.0")
    assert parsed(document).manifestVersion == "4.0"
    document["files"][0]["downloadHandler"] = {"id": "microsoft/delta:1"}
    with pytest.raises(ManifestField, match="version 5"):
        parsed(document)


def test_a_file_listed_twice_and_files_above_the_sum() -> None:
    document = copy.deepcopy(MINIMAL)
    document["files"] = document["files"] * 2
    with pytest.raises(ManifestField, match="listed twice"):
        parsed(document)
    document["files"][1] = document["files"][0] | {"filename": "b", "sizeInBytes": 2147483648}
    with pytest.raises(ManifestField, match="together"):
        parsed(document)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"a": 1, "a": 2}', "[" * 100_000], ids=repr)
def test_what_is_no_json_object(text: str) -> None:
    with pytest.raises(ManifestSyntax):
        mf.parse(text, "m.json")


def files(count: int) -> list[dict[str, Any]]:
    return [MINIMAL["files"][0] | {"filename": f"f{number}"} for number in range(count)]


def steps_on(document: dict[str, Any], count: int) -> dict[str, Any]:
    """The document with that many files, all of which its one step names."""
    step = document["instructions"]["steps"][0] | {"files": [f"f{number}" for number in range(count)]}
    return document | {"files": files(count), "instructions": {"steps": [step]}}


REFERENCE = {"type": "reference", "updateId": MINIMAL["updateId"]}


@pytest.mark.parametrize(
    "document",
    [
        changed("updateId.version", "0.0"),
        changed("updateId.version", "2147483647.2147483647.2147483647.2147483647"),
        changed("updateId.version", "2021.11.8"),
        changed("updateId.provider", "x" * 64),
        changed("updateId.name", "Toaster.Heating-Element.2"),
        changed("description", "d"),
        changed("description", "\u00e9" * 512),
        changed("instructions.steps.0.description", "d" * 64),
        changed("compatibility", [{str(number): "x" for number in range(5)}] * 10),
        changed("compatibility", [{"k" * 32: "v" * 64}]),
        changed("instructions.steps", MINIMAL["instructions"]["steps"] * 10),
        changed("instructions.steps.0.handler", "a/b:1"),
        changed("instructions.steps.0.handler", "microsoft/script:99999"),
        changed("instructions.steps.0.handler", "acme/" + "x" * 25 + ":1"),
        changed("instructions.steps.0.handlerProperties", {"any": ["thing", {"at": "all"}]}),
        changed("files.0.filename", "f" * 255),
        changed("files.0.sizeInBytes", 2147483648),
        changed("files.0.hashes", MINIMAL["files"][0]["hashes"] | {"sha512": "AAAA"}),
        changed("createdDateTime", "2020-10-02T22:18:04.9446744Z"),
        changed("createdDateTime", "2020-10-02T22:18:04+02:00"),
        steps_on(MINIMAL, 10),
        MINIMAL | {"instructions": {"steps": [REFERENCE] * 10}, "files": []},
        MINIMAL | {"instructions": {"steps": [REFERENCE]}, "files": None},
        {key: value for key, value in MINIMAL.items() if key != "files"} | {"instructions": {"steps": [REFERENCE]}},
    ],
)
def test_each_limit_itself_is_allowed(document: dict[str, Any]) -> None:
    named = document.get("files")
    for step in document["instructions"]["steps"]:
        if named and len(named) == 1 and "files" in step:
            step["files"] = [named[0]["filename"]]
    parsed(document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (steps_on(MINIMAL, 11), "files: "),
        (MINIMAL | {"files": files(11)}, "files: "),
        (changed("instructions.steps.0.handler", "a/b:"), r"steps\[0\]\.handler"),
        (changed("instructions.steps.0.handler", "a/b"), r"steps\[0\]\.handler"),
        (changed("instructions.steps.0.handler", "a b/c:1"), r"steps\[0\]\.handler"),
        (changed("instructions.steps.0.handler", "a/b:1\n"), r"steps\[0\]\.handler"),
        (changed("updateId.name", "Toaster\n"), r"updateId\.name"),
        (changed("updateId.version", "1.0\n"), r"updateId\.version"),
        (changed("updateId.version", "1." + "9" * 5000), r"updateId\.version"),
        (changed("files.0.filename", ""), r"files\[0\]\.filename"),
        (changed("files.0.filename", "."), "plain name"),
        (changed("files.0.filename", "a\0b"), "plain name"),
        (changed("files.0.sizeInBytes", True), r"files\[0\]\.sizeInBytes"),
        (changed("files.0.sizeInBytes", -1), r"files\[0\]\.sizeInBytes"),
        (changed("files.0.hashes", MINIMAL["files"][0]["hashes"] | {"md5": "A", "sha1": "A"}), r"files\[0\]\.hashes"),
        (changed("instructions.steps", [REFERENCE | {"handler": "a/b:1"}]), r"steps\[0\]\.handler"),
        (changed("instructions.steps", [REFERENCE | {"description": "d" * 65}]), r"steps\[0\]\.description"),
        (changed("instructions.steps", [{"type": "reference"}]), r"steps\[0\]\.updateId is missing"),
        (changed("instructions.steps", [7]), r"steps\[0\]"),
        (changed("instructions", {"steps": MINIMAL["instructions"]["steps"], "more": 1}), r"instructions\.more"),
    ],
)
def test_one_beyond_a_limit_is_not(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestField, match=words):
        parsed(document)


RELATED = {
    "filename": "in1_in2_delta.dat",
    "sizeInBytes": 102910752,
    "hashes": {"sha256": "2MIldV8LkdKenjJasgTHuYi+apgtNQ9FeL2xsV3ikHY="},
    "properties": {
        "microsoft.sourceFileHashAlgorithm": "sha256",
        "microsoft.sourceFileHash": "YmFYwnEUddq2nZsBAn5v7gCRKdHx+TUntMz5tLwU+24=",
    },
}
"""Of the article on related files."""


def test_related_files_as_their_article_has_them() -> None:
    document = changed("files.0.downloadHandler", {"id": "microsoft/delta:1"})
    document["files"][0]["relatedFiles"] = [RELATED, RELATED | {"further": "fields are allowed here"}]
    assert parsed(document).files[0].relatedFiles[0].properties == RELATED["properties"]


NAMES = st.sampled_from([*MINIMAL, "steps", "type", "files"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)


@settings(max_examples=200, deadline=None)
@given(JSON_VALUES)
def test_any_json_is_accepted_or_refused_by_name(value: Any) -> None:
    with contextlib.suppress(UpdateError):
        mf.parse(json.dumps(value), "m.json")


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of each value in a document, by the names and numbers that lead there."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


ODD: st.SearchStrategy[Any] = st.sampled_from(
    ["", "\0", "\ud800", "a" * 300, "../x", -1, 0, 2**63, 1e308, float("nan"), True, None, [], {}]
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(places(MINIMAL))), JSON_VALUES | ODD, st.text(st.characters(), max_size=5))
def test_a_manifest_with_one_value_or_key_changed(path: tuple[str | int, ...], value: Any, key: str) -> None:
    for replace in (True, False):
        document = copy.deepcopy(MINIMAL)
        place: Any = document
        for step in path[:-1]:
            place = place[step]
        if replace:
            place[path[-1]] = value
        elif isinstance(place, dict):
            place[key] = value
        try:
            parsed(document)
        except (ManifestField, ManifestSyntax) as error:
            # Whatever it is, it can be printed.
            str(error).encode("utf-8", "backslashreplace")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.integers(0, 700).map(lambda cut: json.dumps(MINIMAL).encode()[:cut]))
def test_a_file_with_any_bytes_is_read_or_refused_by_name(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ManifestSyntax, ManifestField):
            mf.read(Path(file.name))


@pytest.mark.parametrize("text", ['{"\\ud800": 1}', '{"description": "\\udfff"}', '{"a": ' + "9" * 5000 + "}"])
def test_text_that_is_none(text: str) -> None:
    with pytest.raises((ManifestField, ManifestSyntax)):
        mf.parse(text, "m.json")


def test_a_byte_order_mark_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode())
    assert mf.read(path).updateId.name == "Toaster"


def test_what_is_no_manifest_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("pipe", "not a regular file"), (".", "Is a directory")):
        with pytest.raises(ManifestMissing, match=why):
            mf.read(tmp_path / name)
    (tmp_path / "utf16").write_bytes(json.dumps(MINIMAL).encode("utf-16"))
    with pytest.raises(ManifestSyntax, match="not UTF-8 at byte 0"):
        mf.read(tmp_path / "utf16")
    for text, remedy in ((":00000001FF\n", "proxyflash flash NAME FILE"), ('{"manifestVersion"', "copied whole")):
        (tmp_path / "other").write_text(text)
        with pytest.raises(ManifestSyntax, match=remedy):
            mf.read(tmp_path / "other")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(mf.MAX_MANIFEST + 1)
    with pytest.raises(ManifestSyntax, match="not a manifest"):
        mf.read(tmp_path / "large")


# Updates: the manifest with its files.


def write_update(folder: Path, document: dict[str, Any], name: str = "update") -> Path:
    document = copy.deepcopy(document)
    for file in document.get("files", []):
        (folder / file["filename"]).write_bytes(PAYLOAD)
        digest = hashlib.sha256(PAYLOAD).digest()
        file |= {"sizeInBytes": len(PAYLOAD), "hashes": {"sha256": base64.b64encode(digest).decode()}}
    path = folder / f"{name}.importmanifest.json"
    path.write_text(json.dumps(document))
    return path


def test_every_file_is_checked(tmp_path: Path) -> None:
    path = write_update(tmp_path, MINIMAL)
    assert load(path).files["firmware.swu"].read_bytes() == PAYLOAD
    (tmp_path / "firmware.swu").write_bytes(b"firmwarE")
    with pytest.raises(PayloadHash) as wrong:
        load(path)
    assert wrong.value.exit_status == ExitStatus.POLICY
    (tmp_path / "firmware.swu").write_bytes(b"firmware and more")
    with pytest.raises(PayloadSize, match="17 bytes, the manifest says 8"):
        load(path)
    (tmp_path / "firmware.swu").unlink()
    with pytest.raises(PayloadMissing):
        load(path)


PARENT = MINIMAL | {
    "instructions": {"steps": [{"type": "reference", "updateId": MINIMAL["updateId"]}]},
    "updateId": {"provider": "Contoso", "name": "Host", "version": "1.0"},
    "files": [],
}


def test_child_updates_are_found_beside_their_parent(tmp_path: Path) -> None:
    write_update(tmp_path, MINIMAL | {"isDeployable": False}, "child")
    update = load(write_update(tmp_path, PARENT))
    step = update.manifest.instructions.steps[0]
    assert isinstance(step, mf.ReferenceStep)
    assert update.child(step).files["firmware.swu"].name == "firmware.swu"


def test_what_a_child_update_may_not_be(tmp_path: Path) -> None:
    parent = write_update(tmp_path, PARENT)
    with pytest.raises(ManifestMissing, match=r"Contoso/Toaster 1\.0"):
        load(parent)
    write_update(tmp_path, MINIMAL, "child")
    with pytest.raises(ManifestRule, match="isDeployable"):
        load(parent)
    child = MINIMAL | {"isDeployable": False, "instructions": PARENT["instructions"], "files": []}
    write_update(tmp_path, child, "child")
    with pytest.raises(ManifestRule, match="reference step"):
        load(parent)


def test_two_children_of_one_name_are_not_chosen_between(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_update(tmp_path, MINIMAL | {"isDeployable": False}, name)
    parent = write_update(tmp_path, PARENT)
    with pytest.raises(ManifestRule, match=r"one\.importmanifest\.json and .*two\.importmanifest\.json both"):
        load(parent)


def test_a_broken_neighbour_matters_where_a_child_is_missing(tmp_path: Path) -> None:
    (tmp_path / "broken.importmanifest.json").write_text("{")
    parent = write_update(tmp_path, PARENT)
    with pytest.raises(ManifestSyntax, match="broken"):
        load(parent)
    write_update(tmp_path, MINIMAL | {"isDeployable": False}, "child")
    assert load(parent).children.keys() == {"Contoso/Toaster 1.0"}


def test_a_parent_by_another_path_is_not_its_own_child(tmp_path: Path) -> None:
    (tmp_path / "update").mkdir()
    write_update(
        tmp_path / "update", PARENT | {"instructions": {"steps": [REFERENCE | {"updateId": PARENT["updateId"]}]}}
    )
    with pytest.raises(ManifestMissing, match="Contoso/Host"):
        load(tmp_path / "update" / ".." / "update" / "update.importmanifest.json")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_payload_that_is_no_file(tmp_path: Path, kind: str) -> None:
    path = write_update(tmp_path, MINIMAL)
    payload = tmp_path / "firmware.swu"
    payload.unlink()
    payload.mkdir() if kind == "folder" else os.mkfifo(payload)
    with pytest.raises(PayloadKind):
        load(path)


def test_every_file_of_a_child_is_checked_too(tmp_path: Path) -> None:
    write_update(tmp_path, MINIMAL | {"isDeployable": False}, "child")
    parent = write_update(tmp_path, PARENT)
    (tmp_path / "firmware.swu").write_bytes(b"firmwarE")
    with pytest.raises(PayloadHash):
        load(parent)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestMissing):
        load(tmp_path / "none.json")


def test_more_manifests_in_the_folder_than_an_update_has_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module, "MOST_BESIDE", 3)
    parent = write_update(tmp_path, PARENT)
    write_update(tmp_path, MINIMAL | {"isDeployable": False}, "child")
    (tmp_path / "other.importmanifest.json").write_text("{")
    assert load(parent).children
    (tmp_path / "more.importmanifest.json").write_text("{")
    read = mf.read_bytes
    monkeypatch.setattr(mf, "read_bytes", lambda path: read(path) if path == parent else pytest.fail("it was read"))
    with pytest.raises(ManifestRule, match="more than 3 manifests"):
        load(parent)


def test_manifests_in_the_folder_are_read_up_to_a_limit_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = write_update(tmp_path, PARENT)
    write_update(tmp_path, MINIMAL | {"isDeployable": False}, "child")
    (tmp_path / "other.importmanifest.json").write_bytes(b" " * 100_000)
    assert load(parent).children
    monkeypatch.setattr(update_module, "MOST_BYTES_BESIDE", 50_000)
    with pytest.raises(ManifestRule, match="manifests of more than 50,000 bytes"):
        load(parent)


def test_a_field_given_twice_behind_many_others_is_found_at_once() -> None:
    # What a search through all earlier fields takes hours for.
    fields = ",".join(f'"{number}":0' for number in range(200_000))
    with pytest.raises(ManifestSyntax, match="'199999' is given twice"):
        mf.parse(f'{{{fields},"199999":0}}', "m.json")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("provider", "Con toso", "updateId.provider: should be letters a-z and A-Z, digits, dots and hyphens"),
        ("handler", "flash", "should be PROVIDER/NAME:VERSION, as proxyflash/flash:1"),
    ],
)
def test_a_pattern_is_said_in_words(place: str, value: str, said: str) -> None:
    step = {"handler": value if place == "handler" else "a/b:1", "files": ["f"], "handlerProperties": {}}
    raw = {
        "updateId": {"provider": value if place == "provider" else "p", "name": "n", "version": "1.0"},
        "compatibility": [{"model": "m"}],
        "instructions": {"steps": [step]},
        "files": [{"filename": "f", "sizeInBytes": 1, "hashes": {"sha256": "A" * 43 + "="}}],
        "createdDateTime": "2026-01-01T00:00:00Z",
        "manifestVersion": "5.0",
    }
    with pytest.raises(ManifestField) as caught:
        mf.checked(raw, "m")
    assert said in caught.value.cause
    assert "^" not in caught.value.cause
