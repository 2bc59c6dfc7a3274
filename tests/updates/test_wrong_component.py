"""A step for a component that its handler can't work on: an error of planning, whatever the component reports."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Component, Presence
from proxyflash.transports import plugins
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.errors import ManifestField
from proxyflash.updates.manifests.resolved_update import Update, load

from .lab import FileHandler, Lab, all_new, cancel, reference, serve

pytestmark = pytest.mark.simulated_time
BENCH = """
[bus.wire]
kind = "can"
interface = "virtual"
[[component]]
name = "radar"
bus = "wire"
protocol = "uds"
address = {request = 0x7E0, response = 0x7E8}
[[component]]
name = "rootfs"
version_from = {file = "version"}
partition = {slots = {a = "a", b = "b"}, active = "echo a", switch = "true"}
[[component]]
name = "planner"
version_from = {file = "version"}
app = {folder = "."}
[[component]]
name = "plain"
version_from = {file = "version"}
"""
COMPONENTS = {"radar": "wire", "rootfs": "", "planner": "", "plain": ""}
FOR = {"proxyflash/flash:1": "radar", "proxyflash/partition:1": "rootfs", "proxyflash/app:1": "planner"}
"""What each of the handlers that don't take any component is for."""
PROPERTIES = {
    "proxyflash/check:1": {"condition": {"version": {"component": "radar", "min": "1.0"}}},
    "microsoft/script:1": {"scriptFileName": "payload"},
    "microsoft/swupdate:2": {"scriptFileName": "payload", "swuFileName": "payload"},
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "version").write_text("1.1\n")
    (tmp_path / "bench.toml").write_text(BENCH)
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        yield opened


def update(folder: Path, handler: str) -> Update:
    data = b"#!/bin/true\n"
    (folder / "payload").write_bytes(data)
    properties = PROPERTIES.get(handler, {"installedCriteria": "1.1"})
    own = {"handler": handler, "description": "it", "files": ["payload"], "handlerProperties": properties}
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    for name, steps in (("child", [own]), ("parent", [reference("child")])):
        document = {
            "updateId": {"provider": "Contoso", "name": name, "version": "1.1"},
            "isDeployable": name == "parent",
            "compatibility": [{"group": "all"}],
            "instructions": {"steps": steps},
            "files": [{"filename": "payload", "sizeInBytes": len(data), "hashes": {"sha256": digest}}]
            if name == "child"
            else [],
            "createdDateTime": "2026-01-01T00:00:00Z",
            "manifestVersion": "4.0",
        }
        (folder / f"{name}.importmanifest.json").write_text(json.dumps(document))
    return load(folder / "parent.importmanifest.json")


def seen(name: str) -> Component:
    """It is there, and reports the wanted version: what the record says must not hide what it is."""
    return Component(name, name, "all", "", "", "1.1", Presence.OK, COMPONENTS[name], "", "")


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("handler", sorted(plugins.names(plugins.STEPS)))
def test_a_handler_takes_its_own_kind_and_no_other(tmp_path: Path, bench: Bench, handler: str, component: str) -> None:
    engine = Engine(bench)
    made = update(tmp_path, handler)
    if FOR.get(handler, component) == component:
        assert [task.target for task in engine.plan(made, [seen(component)]).tasks] == [component]
        return
    with pytest.raises(ManifestField, match=rf"child.*step 1\.1 for {component}: {handler} ") as caught:
        engine.plan(made, [seen(component)])
    assert caught.value.exit_status == 12
    assert engine.store.latest() is None


def test_the_wrong_one_keeps_the_right_ones_from_being_begun(tmp_path: Path, bench: Bench) -> None:
    with pytest.raises(ManifestField, match="for plain"):
        Engine(bench).plan(update(tmp_path, "proxyflash/app:1"), [seen("planner"), seen("plain")])


def test_a_bench_file_that_calls_it_otherwise_since_is_told_by_the_resume(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is begun; with the bench file as it was it goes on."""
    made = lab.bundle()
    lab.fault("left two", Action.INSTALL, cancel)
    lab.apply(made)
    lab.fault("left two", Action.INSTALL, lambda: None)
    before = lab.log, lab.journal().read_bytes()

    class Choosy(FileHandler):
        @classmethod
        def check_component(cls, step: object, component: object, place: str) -> None:
            raise ManifestField(f"{place}: no")

    with monkeypatch.context() as patched:
        serve(patched, Choosy)
        with pytest.raises(ManifestField, match="for left: no"):
            lab.resume()
    assert before == (lab.log, lab.journal().read_bytes())
    assert lab.resume().succeeded
    assert lab.holds() == all_new()
