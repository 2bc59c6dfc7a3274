"""A plan in a file: it comes back as it was, names what changed since, and is bounded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.component import Component, Presence
from proxyflash.updates.engine.kept_plan import KeptPlan, read
from proxyflash.updates.errors import PlanChanged, PlanFile
from proxyflash.updates.manifests.manifest import MAX_MANIFEST
from proxyflash.updates.manifests.resolved_update import load

from .lab import Lab

pytestmark = pytest.mark.simulated_time


def planned(lab: Lab, *components: Component) -> KeptPlan:
    path = lab.folder / "bundle.importmanifest.json"
    with lab.engine() as engine:
        return KeptPlan.of(engine.bench, engine.plan(load(path), components or lab.components()), path)


@pytest.fixture
def kept(lab: Lab, tmp_path: Path) -> KeptPlan:
    lab.bundle()
    path = tmp_path / "plan.json"
    path.write_text(planned(lab).text())
    found = read(path)
    assert found is not None
    return found


def test_it_holds_while_nothing_changes(lab: Lab, kept: KeptPlan) -> None:
    assert kept == planned(lab)
    assert Path(kept.manifest) == lab.folder / "bundle.importmanifest.json"
    kept.check(planned(lab))


def test_a_component_that_has_changed_is_named(lab: Lab, kept: KeptPlan) -> None:
    left, right, camera = lab.components()
    for now, said in (
        ((replace(left, version="1.0.1"), right, camera), "'left' had version '1.0' and has '1.0.1'"),
        ((left, replace(right, id="another"), camera), "'right' had id 'right' and has 'another'"),
        (
            (left, right, replace(camera, presence=Presence.BOOTLOADER)),
            "'camera' had presence 'ok' and has 'bootloader'",
        ),
        ((left, right), "the update no longer selects 'camera'"),
    ):
        changed = planned(lab, *now)
        with pytest.raises(PlanChanged) as caught:
            kept.check(changed)
        assert said in caught.value.cause
        assert caught.value.exit_status == 9
    with pytest.raises(PlanChanged, match="the update now selects 'camera'"):
        planned(lab, left, right).check(kept)


def test_another_bench_file_and_another_manifest_are_named(lab: Lab, kept: KeptPlan) -> None:
    (lab.folder / "bench.toml").write_text((lab.folder / "bench.toml").read_text() + "# again\n")
    with pytest.raises(PlanChanged, match="the bench file has changed"):
        kept.check(planned(lab))
    manifest = lab.folder / "motors.importmanifest.json"
    document = json.loads(manifest.read_text())
    document["instructions"]["steps"][1]["handlerProperties"]["installedCriteria"] = "1.2"
    manifest.write_text(json.dumps(document))
    with pytest.raises(
        PlanChanged, match=r"the manifest, or a manifest that it refers to, has changed.*step 1.2 for left"
    ):
        kept.check(planned(lab))


PROFILE = """
profile.memory = [{start = 0, size = 0x10000, signature = "region.sig"}]
profile.driver = {file = "{image}.drv", start = 0x20000, size = 4096, signature = "driver.sig"}
profile.security = {key = "library", library = {file = "keys.so"}}
profile.steps = [{name = "own", level = 3, key = "ours.keys:front"}]
profile.order = ["programming", "key", "own", "driver", "erase", "download", "check"]
"""


@pytest.mark.parametrize("name", ["region.sig", "driver.sig", "keys.so", "ours/keys.py"])
def test_another_file_of_a_profile_is_named(lab: Lab, name: str) -> None:
    bench = lab.folder / "bench.toml"
    bench.write_text(bench.read_text() + PROFILE)
    (lab.folder / "ours").mkdir()
    for file in ("region.sig", "driver.sig", "keys.so", "ours/keys.py"):
        (lab.folder / file).write_text("one")
    lab.bundle()
    kept = planned(lab)
    kept.check(planned(lab))
    for change in (lambda file: file.write_text("two"), Path.unlink):
        change(lab.folder / name)
        with pytest.raises(PlanChanged, match=rf"/{name}, which a profile names, has changed\."):
            kept.check(planned(lab))


def test_what_is_no_plan(lab: Lab, kept: KeptPlan, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    assert read(path) is None
    assert read(lab.folder / "bundle.importmanifest.json") is None
    good = json.loads(kept.text())
    for text in ("[]", "{", "\x00", json.dumps(good) + " " * MAX_MANIFEST):
        path.write_text(text)
        assert read(path) is None
    changes: list[dict[str, Any]] = [
        {"schema": 2},
        {"more": 1},
        {"bench": "00"},
        {"manifest": "a\x00b"},
        {"tasks": {}},
        {"components": [1]},
    ]
    for change in changes:
        path.write_text(json.dumps(good | change))
        with pytest.raises(PlanFile):
            read(path)
