"""State and report, case by case, as Azure Device Update's agent documents its result codes.

The codes are those of the agent's adu_core.h, written out here as numbers; the states those of its ADUCITF_State.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from proxyflash.enumerators.component import Component
from proxyflash.flashers.errors import NoResponse
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.progress import RESTARTS
from proxyflash.updates.engine.results import ActionResult, ResultCode, extended_code
from proxyflash.updates.manifests.resolved_update import load

from .lab import Lab, cancel, reference

NAMES = ("one", "two")


@dataclass(frozen=True)
class Case:
    """What each action of "left one" answers, and what is to be reported.

    `code`, `extended`: of the whole. `steps`: the codes of the parent's steps, `parts`: of left's two tasks.
    """

    name: str
    answers: dict[Action, ActionResult | int]
    state: int
    code: int
    steps: tuple[int, int]
    parts: tuple[int, int]
    extended: str = "00000000"
    details: str = ""
    options: dict[str, Any] = field(default_factory=dict)


BROKEN = ActionResult(0, 0x30500042, "no good")
FAILED: dict[str, Any] = {"extended": "30500042", "details": "no good"}
OPEN = -1
"""Nothing was done: neither a success nor a failure of its own."""
WAITS = 601
"""ADUC_Result_Install_InProgress: it has yet to begin, after the restart."""

CASES = [
    Case("all is well", {}, 0, 700, (700, 700), (700, 700)),
    Case("installed already", {Action.IS_INSTALLED: 900}, 0, 700, (700, 700), (603, 700)),
    Case("not installed", {Action.IS_INSTALLED: 901}, 0, 700, (700, 700), (700, 700)),
    Case("plain success", dict.fromkeys((Action.DOWNLOAD, Action.INSTALL, Action.APPLY), 1), 0, 700, (700, 700), (1, 700)),
    Case("downloaded before", {Action.DOWNLOAD: 503}, 0, 700, (700, 700), (700, 700)),
    Case("nothing to download for", {Action.DOWNLOAD: 504}, 0, 700, (700, 700), (700, 700)),
    Case("found installed by Install", {Action.INSTALL: 603}, 0, 700, (700, 700), (603, 700)),
    Case("no component by Install", {Action.INSTALL: 604}, 0, 700, (700, 700), (604, 700)),
    Case("backup", {Action.BACKUP: 1000}, 0, 700, (700, 700), (700, 700)),
    Case("no backup supported", {Action.BACKUP: 1001}, 0, 700, (700, 700), (700, 700)),
    Case("download fails", {Action.DOWNLOAD: BROKEN}, 255, 0, (0, OPEN), (0, OPEN), **FAILED),
    Case("is-installed fails", {Action.IS_INSTALLED: BROKEN}, 0, 700, (700, 700), (700, 700)),
    Case("backup fails", {Action.BACKUP: BROKEN}, 255, 0, (0, OPEN), (0, OPEN), **FAILED),
    Case("install fails", {Action.INSTALL: BROKEN}, 255, 0, (0, OPEN), (0, OPEN), **FAILED),
    Case("apply fails", {Action.APPLY: BROKEN}, 255, 0, (0, OPEN), (0, OPEN), **FAILED),
    Case("and so does restore", {Action.APPLY: BROKEN, Action.RESTORE: 0}, 255, 0, (0, OPEN), (0, OPEN), **FAILED),
    Case("no restore supported", {Action.APPLY: BROKEN, Action.RESTORE: 1101}, 255, 0, (0, OPEN), (0, OPEN), **FAILED),
    Case("any code below 1 is a failure", {Action.INSTALL: ActionResult(-7, 1, "x")}, 255, -7, (-7, OPEN), (-7, OPEN),
         "00000001", "x"),
    Case("install wants a reboot now", {Action.INSTALL: 605}, 6, 605, (605, WAITS), (605, WAITS)),
    Case("install wants a reboot", {Action.INSTALL: 606}, 6, 700, (700, WAITS), (700, WAITS)),
    Case("install wants a restart now", {Action.INSTALL: 607}, 6, 607, (607, WAITS), (607, WAITS)),
    Case("install wants a restart", {Action.INSTALL: 608}, 6, 700, (700, WAITS), (700, WAITS)),
    Case("apply wants a reboot now", {Action.APPLY: 705}, 6, 705, (705, WAITS), (705, WAITS)),
    Case("apply wants a reboot", {Action.APPLY: 706}, 6, 706, (706, WAITS), (706, WAITS)),
    Case("apply wants a restart now", {Action.APPLY: 707}, 6, 707, (707, WAITS), (707, WAITS)),
    Case("apply wants a restart", {Action.APPLY: 708}, 6, 708, (708, WAITS), (708, WAITS)),
    *(
        Case(f"restore answers {code}", {Action.APPLY: BROKEN, Action.RESTORE: code}, 255, 0, (0, OPEN), (0, OPEN), **FAILED)
        for code in (1100, 1105, 1106, 1107, 1108)
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_reported(lab: Lab, case: Case) -> None:
    update = lab.bundle()
    for action, answer in case.answers.items():
        lab.fault("left one", action, answer if isinstance(answer, ActionResult) else ActionResult(answer))
    outcome = lab.apply(update, **case.options)
    report = outcome.report()
    last = report["lastInstallResult"]
    assert report["state"] == case.state
    assert (last["resultCode"], last["extendedResultCodes"], last["resultDetails"]) == (
        case.code, case.extended, case.details,
    )  # fmt: skip
    assert tuple(last["stepResults"][f"step_{number}"]["resultCode"] for number in (0, 1)) == case.steps
    assert tuple(item["resultCode"] for item in report["componentResults"][:2]) == case.parts
    # The report agrees with the journal.
    with lab.engine() as engine:
        (entry,) = engine.store.entries()
        assert engine.outcome(entry).report() == report
    installed = json.loads(report["installedUpdateId"]) if report["installedUpdateId"] else None
    wanted = {"provider": "Contoso", "name": "bundle", "version": "1.1"}
    assert installed == (wanted if case.state == 0 else None)


def test_every_code_of_the_agent_is_in_the_table_or_answers_nothing_here() -> None:
    answers = [answer for case in CASES for answer in case.answers.values()]
    tried = {answer.code if isinstance(answer, ActionResult) else answer for answer in answers}
    elsewhere = {-1, 500, 600, WAITS, 700, 800, 801}
    """The plain successes, which every step without a fault has, those of a cancellation, below, and of what waits."""
    assert tried | elsewhere >= {int(code) for code in ResultCode}


def test_what_the_codes_ask_for() -> None:
    """605 to 608 and their like: whether of the host, and whether at once."""
    for base in (600, 700, 1100):
        found = [(RESTARTS[base + offset].host, RESTARTS[base + offset].immediate) for offset in (5, 6, 7, 8)]
        assert found == [(True, True), (True, False), (False, True), (False, False)]
    assert len(RESTARTS) == 12


def test_a_cancellation_before_anything_was_changed(lab: Lab) -> None:
    update = lab.bundle()
    lab.cancelled = lambda: True
    report = lab.apply(update).report()
    assert (report["state"], report["lastInstallResult"]["resultCode"], report["installedUpdateId"]) == (0, -1, "")


def test_one_that_can_be_gone_on_from_is_in_progress(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left two", Action.INSTALL, cancel)
    report = lab.apply(update).report()
    assert (report["state"], report["lastInstallResult"]["resultCode"]) == (6, -1)


def test_a_step_without_a_component(lab: Lab) -> None:
    lab.bundle()
    lab.write("steamers", [], {"group": "steamers"})
    path = lab.folder / "steamers.importmanifest.json"
    document = json.loads((lab.folder / "motors.importmanifest.json").read_text())
    document["updateId"]["name"] = "steamers"
    document["compatibility"] = [{"group": "steamers"}]
    path.write_text(json.dumps(document))
    outcome = lab.apply(load(lab.write("bundle", [reference("steamers"), reference("motors")])))
    steps = outcome.report()["lastInstallResult"]["stepResults"]
    assert [steps[f"step_{number}"]["resultCode"] for number in (0, 1)] == [604, 700]


def test_all_components_installed_already_is_the_step_s_result(lab: Lab) -> None:
    update = lab.bundle()
    for name in ("camera.one", "camera.two"):
        (lab.world / name).write_text("1.1")
    steps = lab.apply(update).report()["lastInstallResult"]["stepResults"]
    assert [steps[f"step_{number}"]["resultCode"] for number in (0, 1)] == [700, 603]


def test_a_rolled_back_update_reports_what_failed(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("right one", Action.APPLY, BROKEN)
    report = lab.apply(update, on_failure="rollback").report()
    assert (report["state"], report["lastInstallResult"]["resultCode"]) == (255, 0)
    assert report["lastInstallResult"]["extendedResultCodes"] == "30500042"
    assert [item["status"] for item in report["componentResults"]][:3] == ["restored", "restored", "failed"]


def test_each_component_s_part_says_what_was_tried_and_what_it_holds(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("right two", Action.APPLY, BROKEN)
    lab.fault("right two", Action.RESTORE, BROKEN)
    (lab.world / "left.two").write_text("1.1")
    items = {f"{item['component']} {item['step'][-1]}": item for item in lab.apply(update).report()["componentResults"]}
    tried = {"download": 500, "is-installed": 901, "backup": 1000, "install": 600, "apply": 700}
    assert items["left 1"]["actions"] == tried
    assert items["left 2"]["actions"] == {"download": 503, "is-installed": 900}
    assert items["right 2"]["actions"] == tried | {"apply": 0, "restore": 0}
    assert items["camera 1"]["actions"] == {"download": 500}
    assert {item["before"] for item in items.values()} == {"1.0"}
    assert {item["wanted"] for item in items.values()} == {"1.1"}
    holds = {name: item["holds"] for name, item in items.items()}
    assert holds == {
        "left 1": "1.1",
        "left 2": "1.1",
        "right 1": "",
        "right 2": "",
        "camera 1": "1.0",
        "camera 2": "1.0",
    }


def test_what_it_holds_is_what_it_tells(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The criteria say one thing of a component, which reports another, or nothing."""
    update = lab.bundle()
    versions = {"left": "1.1-rc2", "right": "", "camera": "1.1"}
    seen = lab.look

    def told(name: str) -> Component:
        if name == "camera":
            raise NoResponse("mute")
        return replace(seen(name), version=versions[name])

    monkeypatch.setattr(lab, "look", told)
    report = lab.apply(update).report()
    assert [item["holds"] for item in report["componentResults"]] == ["1.1-rc2"] * 2 + [""] * 4
    with lab.engine() as engine:
        (entry,) = engine.store.entries()
        assert engine.outcome(entry).report() == report


def test_what_waits_for_a_restart_is_not_cancelled(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left one", Action.INSTALL, ActionResult(605))
    report = lab.apply(update).report()
    statuses = [item["status"] for item in report["componentResults"]]
    assert statuses == ["awaits a restart", *["waiting"] * 5]


def test_what_was_restored_holds_what_it_held(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("right two", Action.APPLY, BROKEN)
    report = lab.apply(update, on_failure="rollback").report()
    assert {item["holds"] for item in report["componentResults"]} == {"1.0"}


def test_what_a_torn_component_told_before_holds_no_more(lab: Lab) -> None:
    """Neither does what it had when it was planned, for a step that was not run. Brought back, it reports again."""
    update = lab.bundle()
    for action in (Action.APPLY, Action.RESTORE):
        lab.fault("right one", action, BROKEN)
    assert [item.holds for item in lab.apply(update).results] == ["1.1", "1.1", "", "", "1.0", "1.0"]
    lab.fault("right one", Action.RESTORE, ActionResult(1100))
    (lab.world / "right.one").write_text("1.0")
    assert [item.holds for item in lab.rollback().results] == ["1.0"] * 6


def test_what_install_found_installed_is_told(lab: Lab) -> None:
    lab.fault("left one", Action.INSTALL, ActionResult(603))
    assert lab.apply(lab.bundle()).results[0].holds == "1.0"


def test_the_workflow_s_id_is_the_deployment_s(lab: Lab) -> None:
    update = replace(lab.bundle(), workflow_id="3fb2")
    assert lab.apply(update).report()["workflow"] == {"action": 3, "id": "3fb2"}


def test_an_extended_code_is_facility_component_and_value() -> None:
    assert extended_code(3, 5, 0x206) == 0x30500206
    assert ActionResult(0, extended_code(3, 5, 0x206)).report()["extendedResultCodes"] == "30500206"
