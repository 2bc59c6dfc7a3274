"""Ordered execution: the order of actions, what a failure ends, and an account of every task."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Component, Presence
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import RunContext
from proxyflash.transports import plugins
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.engine.report import Outcome
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import ComponentAbsent, HandlerUnknown, ManifestField, StepFailed
from proxyflash.updates.events import Status
from proxyflash.updates.handlers.handler import StepHandler
from proxyflash.updates.manifests.manifest import InlineStep
from proxyflash.updates.manifests.resolved_update import Update, load

SCRIPT = """#!/bin/sh
# Keeps a log of its actions in $LOG; "$1 $2" is "--action <action>", "$3" its own name.
echo "$3 $2" >> {log}
case "$2" in
  is-installed) code={installed} ;;
  download) code={download} ;;
  install) code={install} ;;
  *) code=700 ;;
esac
while [ "$1" != --result-file ]; do shift; done
printf '{{"resultCode": %d, "extendedResultCode": 7, "resultDetails": "{name}"}}' $code > "$2"
"""


class Author:
    """Writes updates of script steps, each of which logs what it is asked to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        self.names = iter(range(1000))

    def step(self, name: str, *, installed: int = 901, download: int = 500, install: int = 600) -> dict[str, Any]:
        text = SCRIPT.format(log=self.log, name=name, installed=installed, download=download, install=install)
        file = f"{name}.sh"
        (self.folder / file).write_text(text)
        properties = {"scriptFileName": file, "apiVersion": "1.1", "arguments": name}
        return {"handler": "microsoft/script:1", "files": [file], "handlerProperties": properties}

    def write(self, name: str, steps: list[dict[str, Any]], *, child: bool = False, **selector: str) -> Path:
        files = []
        for file in [file for step in steps for file in step.get("files", [])]:
            data = (self.folder / file).read_bytes()
            digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
            files.append({"filename": file, "sizeInBytes": len(data), "hashes": {"sha256": digest}})
        document = {
            "updateId": {"provider": "Contoso", "name": name, "version": "1.0"},
            "isDeployable": not child,
            "compatibility": [selector or {"model": "host"}],
            "instructions": {"steps": steps},
            "files": files,
            "createdDateTime": "2026-01-01T00:00:00Z",
            "manifestVersion": "4.0",
        }
        path = self.folder / f"{name}.importmanifest.json"
        path.write_text(json.dumps(document))
        return path

    def done(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def reference(name: str) -> dict[str, Any]:
    return {"type": "reference", "updateId": {"provider": "Contoso", "name": name, "version": "1.0"}}


def component(name: str, presence: Presence = Presence.OK) -> Component:
    return Component(name, name, "motors", "Contoso", "motor", "1.0", presence, "bus", "uds", "uds 0x7E0/0x7E8")


@pytest.fixture
def author(tmp_path: Path) -> Author:
    return Author(tmp_path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Two motors that nothing is ever sent to: the steps are scripts."""
    (tmp_path / "bench.toml").write_text(
        '[bus.bus]\nkind = "can"\ninterface = "virtual"\n'
        + "".join(
            f'[[component]]\nname = "{name}"\nbus = "bus"\nprotocol = "uds"\n'
            f"address = {{request = 0x7E{index}, response = 0x7E{index + 8:X}}}\n"
            for index, name in enumerate(("left", "right"))
        )
    )
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        yield opened


def carried_out(bench: Bench, update: Update, components: list[Component]) -> Outcome:
    engine = Engine(bench)
    return engine.apply(engine.plan(update, components))


MOTORS = [component("left"), component("right")]


def test_each_component_in_turn_gets_the_child_s_steps_in_order(author: Author, bench: Bench) -> None:
    author.write("child", [author.step("one"), author.step("two")], child=True, group="motors")
    update = load(author.write("parent", [author.step("before"), reference("child"), author.step("after")]))
    outcome = carried_out(bench, update, MOTORS)
    assert outcome.succeeded
    actions = ("is-installed", "install", "apply")
    downloads = ["before", "one", "two", "one", "two", "after"]
    assert author.done() == [f"{name} {action}" for name in downloads for action in ("is-installed", "download")] + [
        f"{name} {action}" for name in downloads for action in actions
    ]
    assert [(item.task.label, item.task.target) for item in outcome.results] == [
        ("1", "host"),
        ("2.1", "left"),
        ("2.2", "left"),
        ("2.1", "right"),
        ("2.2", "right"),
        ("3", "host"),
    ]


def test_what_is_installed_is_skipped(author: Author, bench: Bench) -> None:
    update = load(author.write("parent", [author.step("one", installed=900), author.step("two")]))
    outcome = carried_out(bench, update, [])
    assert [item.task.status for item in outcome.results] == [Status.INSTALLED, Status.DONE]
    assert "one install" not in author.done()
    report = outcome.report()["lastInstallResult"]["stepResults"]
    assert [report[name]["resultCode"] for name in ("step_0", "step_1")] == [603, 700]


def test_the_first_failure_ends_it_and_everything_is_accounted_for(author: Author, bench: Bench) -> None:
    steps = [author.step("one"), author.step("two", install=0), author.step("three")]
    outcome = carried_out(bench, load(author.write("parent", steps)), [])
    assert [item.task.status for item in outcome.results] == [Status.DONE, Status.FAILED, Status.NOT_RUN]
    assert isinstance(outcome.error, StepFailed)
    assert author.done()[-1] == "two install"
    report = outcome.report()
    assert report["state"] == 255
    assert report["lastInstallResult"]["resultCode"] == 0
    assert report["lastInstallResult"]["extendedResultCodes"] == "00000007"
    assert [entry["status"] for entry in report["componentResults"]] == ["done", "failed", "not run"]


def test_a_failed_download_leaves_everything_uninstalled(author: Author, bench: Bench) -> None:
    update = load(author.write("parent", [author.step("one"), author.step("two", download=0)]))
    outcome = carried_out(bench, update, [])
    assert author.done() == ["one is-installed", "one download", "two is-installed", "two download"]
    assert [item.task.status for item in outcome.results] == [Status.NOT_RUN, Status.FAILED]


def test_a_step_without_a_component_is_skipped(author: Author, bench: Bench) -> None:
    author.write("child", [author.step("one")], child=True, group="cameras")
    plan = Engine(bench).plan(load(author.write("parent", [reference("child"), author.step("two")])), MOTORS)
    assert (plan.empty, plan.missed) == ((0,), ("group=cameras matches no component; groups here: motors",))
    outcome = Engine(bench).apply(plan)
    assert outcome.succeeded
    assert outcome.report()["lastInstallResult"]["stepResults"]["step_0"]["resultCode"] == 604


def test_a_selector_that_matches_nothing_is_said_beside_one_that_does(author: Author, bench: Bench) -> None:
    selectors = [
        {"group": "motors"},
        {"group": "motosr"},
        {"gruop": "motors"},
        {"group": "cameras"},
        {"group": "motors", "version": "9"},
        {"properties": "motors"},
    ]
    path = author.write("child", [author.step("one")], child=True)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"compatibility": selectors}))
    plan = Engine(bench).plan(load(author.write("parent", [reference("child")])), MOTORS)
    assert plan.unmatched == (
        (0, "group=motosr matches no component (did you mean 'motors'?)"),
        (0, "gruop=motors matches no component (did you mean 'group'?)"),
        (0, "group=cameras matches no component"),
        (0, "group=motors,version=9 matches no component"),
        (0, "properties=motors matches no component"),
    )


def test_an_absent_component_is_refused_before_anything_is_touched(author: Author, bench: Bench) -> None:
    author.write("child", [author.step("one")], child=True, group="motors")
    update = load(author.write("parent", [author.step("before"), reference("child")]))
    with pytest.raises(ComponentAbsent, match="right") as caught:
        Engine(bench).plan(update, [component("left"), component("right", Presence.ABSENT)])
    assert caught.value.component == "right"
    assert author.done() == []


def test_a_component_that_may_be_unplugged_is_passed_over(author: Author, bench: Bench) -> None:
    file = bench.file.path
    file.write_text(file.read_text() + "optional = true\n")  # the last one's, which is right
    author.write("child", [author.step("one")], child=True, group="motors")
    update = load(author.write("parent", [author.step("before"), reference("child")]))
    with Bench.open(file, state=bench.state) as opened:
        seen = [component("left"), component("right", Presence.ABSENT), replace(component("camera"), group="cameras")]
        plan = Engine(opened).plan(update, seen)
        assert plan.unselected == ("camera",)
        assert [item.name for item in plan.unplugged] == ["right"]
        assert [task.target for task in plan.tasks] == ["host", "left"]
        outcome = Engine(opened).apply(plan)
        assert outcome.succeeded
        assert outcome.report()["passedOver"] == [
            {"component": "right", "reason": "absent, and optional: passed over"},
            {"component": "camera", "reason": "no step of the update selects it"},
        ]
        assert Engine(opened).outcome(Engine(opened).store.entry(1)).report() == outcome.report()
        assert [line for line in author.done() if line.endswith("install")] == ["before install", "one install"]
        again = Engine(opened).plan(update, MOTORS)
        assert ([item.name for item in again.unplugged], len(again.tasks)) == ([], 3)
        with pytest.raises(ComponentAbsent, match="left"):
            Engine(opened).plan(update, [component("left", Presence.ABSENT), component("right")])


def test_an_unknown_handler_is_refused_with_its_place(author: Author, bench: Bench) -> None:
    step = author.step("one") | {"handler": "acme/magic:1"}
    with pytest.raises(HandlerUnknown, match=r"steps\[0\]\.handler.*acme/magic:1"):
        Engine(bench).plan(load(author.write("parent", [step])), [])


@pytest.mark.parametrize(
    ("properties", "place"),
    [
        ({}, "installedCriteria"),
        ({"installedCriteria": 1}, "installedCriteria"),
        ({"installedCriteria": "1.0", "surprise": 1}, "surprise"),
        ({"installedCriteria": "1.0", "address": "here"}, "address"),
    ],
)
def test_a_flash_step_s_properties(author: Author, bench: Bench, properties: dict[str, Any], place: str) -> None:
    step = author.step("fw") | {"handler": "proxyflash/flash:1", "handlerProperties": properties}
    author.write("child", [step], child=True, group="motors")
    with pytest.raises(ManifestField, match=place):
        Engine(bench).plan(load(author.write("parent", [reference("child")])), MOTORS)


def test_a_flash_step_needs_a_component(author: Author, bench: Bench) -> None:
    step = author.step("fw") | {"handler": "proxyflash/flash:1", "handlerProperties": {"installedCriteria": "1"}}
    with pytest.raises(ManifestField, match="reference step"):
        Engine(bench).plan(load(author.write("parent", [step])), MOTORS)


def test_the_plan_knows_what_is_installed_from_the_record(author: Author, bench: Bench) -> None:
    step = author.step("fw") | {"handler": "proxyflash/flash:1", "handlerProperties": {"installedCriteria": "1.0"}}
    author.write("child", [step], child=True, group="motors")
    update = load(author.write("parent", [reference("child")]))
    plan = Engine(bench).plan(update, [component("left"), component("right", Presence.BOOTLOADER)])
    assert [task.status for task in plan.tasks] == [Status.INSTALLED, Status.TODO]


def test_a_cancelled_update_stops_between_two_actions(author: Author, bench: Bench) -> None:
    update = load(author.write("parent", [author.step("one"), author.step("two")]))
    engine = Engine(bench, context=RunContext(cancelled=lambda: "one install" in author.done()))
    outcome = engine.apply(engine.plan(update, []))
    assert outcome.error is not None
    assert outcome.error.code == "E-CANCELLED"
    assert "two install" not in author.done()
    assert [item.task.status for item in outcome.results] == [Status.STOPPED, Status.NOT_RUN]
    assert engine.unfinished() is not None


def test_a_cancellation_before_anything_was_done_changed_nothing(author: Author, bench: Bench) -> None:
    update = load(author.write("parent", [author.step("one")]))
    engine = Engine(bench, context=RunContext(cancelled=lambda: True))
    outcome = engine.apply(engine.plan(update, []))
    assert isinstance(outcome.error, Cancelled)
    assert (outcome.error.touched, outcome.error.exit_status) == (False, ExitStatus.INTERRUPTED)
    assert author.done() == []
    assert outcome.report()["lastInstallResult"]["resultCode"] == -1


def test_a_cancellation_after_a_step_can_be_gone_on_from(author: Author, bench: Bench) -> None:
    update = load(author.write("parent", [author.step("one"), author.step("two")]))
    engine = Engine(bench, context=RunContext(cancelled=lambda: "one apply" in author.done()))
    outcome = engine.apply(engine.plan(update, []))
    assert isinstance(outcome.error, Cancelled)
    assert (outcome.error.touched, outcome.error.exit_status) == (True, ExitStatus.RESUMABLE)
    # The second step was not under way: it gets no cancellation.
    assert "two cancel" not in author.done()
    assert [item.task.status for item in outcome.results] == [Status.DONE, Status.NOT_RUN]


class Refusing(StepHandler):
    """Cancelled in the midst of its work, and failing at its clean-up."""

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None: ...

    def is_installed(self) -> ActionResult:
        return ActionResult(ResultCode.NOT_INSTALLED)

    def install(self) -> ActionResult:
        raise Cancelled("stopped", touched=True)

    def cancel(self) -> ActionResult:
        raise StepFailed("the clean-up failed too")


def test_a_clean_up_that_fails_changes_nothing(author: Author, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "load", lambda group, name: Refusing)
    outcome = carried_out(bench, load(author.write("parent", [author.step("one")])), [])
    assert isinstance(outcome.error, Cancelled)
    assert outcome.error.component == "host"


def test_a_broken_firmware_file_is_told_before_the_first_step_is_carried_out(author: Author, bench: Bench) -> None:
    flash = author.step("fw") | {"handler": "proxyflash/flash:1", "handlerProperties": {"installedCriteria": "1.1"}}
    author.write("child", [flash], child=True, group="motors")
    update = load(author.write("parent", [author.step("before"), reference("child")]))
    outcome = carried_out(bench, update, MOTORS)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.component) == ("E-IMAGE-FORMAT", "left")
    assert "before install" not in author.done()
    assert {item.task.status for item in outcome.results} == {Status.NOT_RUN, Status.FAILED}


def test_scripts_run_with_a_state_folder_named_from_here(
    author: Author, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    update = load(author.write("parent", [author.step("one")]))
    with Bench.open("bench.toml", state=Path("relative")) as opened:
        engine = Engine(opened)
        assert engine.apply(engine.plan(update, [])).succeeded


def test_every_selector_of_a_child_selects(author: Author, bench: Bench) -> None:
    """Their union, in the enumerator's order, each component once."""
    path = author.write("child", [author.step("one")], child=True)
    document = json.loads(path.read_text())
    document["compatibility"] = [{"name": "right"}, {"group": "motors", "name": "left"}, {"name": "right"}]
    path.write_text(json.dumps(document))
    plan = Engine(bench).plan(load(author.write("parent", [reference("child")])), MOTORS)
    assert [task.target for task in plan.tasks] == ["left", "right"]
