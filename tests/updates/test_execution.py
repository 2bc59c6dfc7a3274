"""What the engine does beyond the agent's order: backups, failures, conditions, attempts, restarts, rollbacks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from proxyflash.flashers.errors import Cancelled
from proxyflash.report_page import updates
from proxyflash.report_page.story import Mood
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.engine.store import Store
from proxyflash.updates.engine.verdict import verdict
from proxyflash.updates.errors import (
    AttemptsExhausted,
    BelowFloor,
    ConditionFailed,
    DowngradeRefused,
    ManifestField,
    RestartPending,
    StepFailed,
    Unfinished,
    UpdateUnknown,
)
from proxyflash.updates.events import Status

from .kills import KILLED
from .lab import COMPONENTS, NEW, OLD, Lab, all_new, all_old, cancel, kill

pytestmark = pytest.mark.simulated_time

FAILURE = ActionResult(ResultCode.FAILURE, 0x30500001, "it broke")
ATTEMPTS = Store(Path()).attempts.name
ORDER = [f"{name} {item}" for name in COMPONENTS for item in ("one", "two")]


def statuses(outcome: object) -> list[Status]:
    return [item.task.status for item in outcome.results]  # type: ignore[attr-defined]


def test_each_step_has_its_actions_in_order(lab: Lab) -> None:
    outcome = lab.apply(lab.bundle())
    assert (outcome.succeeded, outcome.ending) == (True, Ending.SUCCEEDED)
    assert lab.holds() == all_new()
    actions = (Action.IS_INSTALLED, Action.BACKUP, Action.INSTALL, Action.APPLY)
    begun = [line for line in lab.log if not line.endswith("ended")]
    assert begun[:12] == [f"{action} {where}" for where in ORDER for action in ("asked", "download")]
    assert begun[12:] == [f"{action} {where}" for where in ORDER for action in actions]


def test_for_what_is_installed_there_is_nothing_to_download(lab: Lab) -> None:
    """The agent's code for it; the step is asked again at its turn, and is then as it is."""
    update = lab.bundle()
    (lab.world / "right.one").write_text(NEW)
    (lab.world / "camera.two").write_text(NEW)

    def lost() -> None:
        (lab.world / "camera.two").write_text(OLD)

    lab.fault("left one", Action.APPLY, lost)
    outcome = lab.apply(update)
    assert outcome.succeeded
    codes = {f"{item.task.target} {item.task.label}": item.actions[Action.DOWNLOAD].code for item in outcome.results}
    assert {where for where, code in codes.items() if code == 503} == {"right 1.1", "camera 2.2"}
    assert set(lab.began(Action.DOWNLOAD)) == {*ORDER} - {"right one", "camera two"}
    assert statuses(outcome) == [Status.DONE, Status.DONE, Status.INSTALLED, *[Status.DONE] * 3]
    assert lab.holds() == all_new()


@pytest.mark.parametrize("action", [Action.INSTALL, Action.APPLY])
def test_a_failed_step_is_restored_and_ends_the_update(lab: Lab, action: Action) -> None:
    update = lab.bundle()
    lab.fault("left two", action, FAILURE)
    outcome = lab.apply(update)
    assert outcome.ending is Ending.FAILED
    assert isinstance(outcome.error, StepFailed)
    assert statuses(outcome) == [Status.DONE, Status.FAILED, *[Status.NOT_RUN] * 4]
    assert lab.holds() == all_old() | {"left.one": NEW}
    assert outcome.report()["componentResults"][1]["restore"]["resultCode"] == ResultCode.RESTORE_SUCCESS


def test_what_fails_before_anything_was_touched_is_not_restored(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left one", Action.BACKUP, FAILURE)
    outcome = lab.apply(update)
    assert outcome.ending is Ending.FAILED
    assert not outcome.changed
    assert lab.began(Action.RESTORE) == []
    assert lab.holds() == all_old()


def test_a_handler_without_backup_goes_on(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left one", Action.BACKUP, ActionResult(ResultCode.BACKUP_UNSUPPORTED))
    assert lab.apply(update).succeeded


@pytest.mark.parametrize("code", [ResultCode.INSTALL_ALREADY_INSTALLED, ResultCode.INSTALL_NO_MATCHING_COMPONENTS])
def test_an_install_that_finds_nothing_to_do_is_not_applied(lab: Lab, code: ResultCode) -> None:
    update = lab.bundle()
    lab.fault("left one", Action.INSTALL, ActionResult(code))
    outcome = lab.apply(update)
    assert outcome.succeeded
    assert statuses(outcome)[0] is Status.INSTALLED
    assert "left one" not in lab.began(Action.APPLY)


def test_a_handler_s_own_mistake_is_a_failure_of_its_step(lab: Lab) -> None:
    update = lab.bundle()

    def mistake() -> None:
        raise KeyError("x")

    lab.fault("left one", Action.INSTALL, mistake)
    outcome = lab.apply(update)
    assert outcome.ending is Ending.FAILED
    assert "KeyError" in str(outcome.error)
    assert lab.holds() == all_old()


class TestOnFailure:
    def test_the_other_components_go_on(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.fault("left one", Action.APPLY, FAILURE)
        outcome = lab.apply(update, on_failure="continue")
        assert outcome.ending is Ending.FAILED
        assert statuses(outcome) == [Status.FAILED, Status.NOT_RUN, *[Status.DONE] * 4]
        assert lab.holds() == all_new() | {"left.one": OLD, "left.two": OLD}

    def test_everything_is_rolled_back_in_reverse_order(self, lab: Lab) -> None:
        lab.policy = {"on_failure": "rollback"}
        update = lab.bundle()
        lab.fault("right two", Action.APPLY, FAILURE)
        outcome = lab.apply(update)
        assert outcome.ending is Ending.ROLLED_BACK
        assert not outcome.succeeded
        assert lab.holds() == all_old()
        assert lab.began(Action.RESTORE) == ["right two", "right one", "left two", "left one"]
        assert statuses(outcome) == [*[Status.RESTORED] * 3, Status.FAILED, *[Status.NOT_RUN] * 2]

    def test_what_can_t_be_rolled_back_is_told(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.fault("right one", Action.APPLY, FAILURE)
        lab.fault("left one", Action.RESTORE, ActionResult(ResultCode.RESTORE_UNSUPPORTED))
        lab.fault("left two", Action.RESTORE, FAILURE)
        outcome = lab.apply(update, on_failure="rollback")
        assert outcome.ending is Ending.PARTLY_ROLLED_BACK
        assert statuses(outcome)[:3] == [Status.NOT_RESTORED, Status.NOT_RESTORED, Status.FAILED]
        assert outcome.report()["componentResults"][1]["restore"]["resultDetails"] == "it broke"

    def test_a_step_says_it_for_itself(self, lab: Lab) -> None:
        update = lab.bundle(one={"onFailure": "continue"}, two={"onFailure": "rollback"})
        lab.fault("left one", Action.APPLY, FAILURE)
        lab.fault("camera two", Action.APPLY, FAILURE)
        assert lab.apply(update).ending is Ending.ROLLED_BACK
        assert lab.holds() == all_old()


class TestConditions:
    CHECK = '[check.parked]\ncommand = "test -e parked"\n'

    def bundle(self, lab: Lab) -> object:
        text = (lab.folder / "bench.toml").read_text()
        (lab.folder / "bench.toml").write_text(text + self.CHECK)
        return lab.bundle(two={"conditions": [{"check": "parked"}]})

    def test_a_step_s_condition_keeps_it_from_being_touched(self, lab: Lab) -> None:
        outcome = lab.apply(self.bundle(lab))  # type: ignore[arg-type]
        assert isinstance(outcome.error, ConditionFailed)
        assert outcome.error.component == "left"
        assert lab.holds() == all_old() | {"left.one": NEW}
        assert "left two" not in lab.began(Action.IS_INSTALLED)

    @pytest.mark.real_time("it runs a program or opens a bus of python-can's")
    def test_one_that_holds(self, lab: Lab) -> None:
        (lab.folder / "parked").touch()
        assert lab.apply(self.bundle(lab)).succeeded  # type: ignore[arg-type]

    def test_the_policy_s_are_asked_before_the_start(self, lab: Lab) -> None:
        update = self.bundle(lab)
        lab.policy = {"conditions": ({"check": "parked"},)}
        with pytest.raises(ConditionFailed, match="parked"):
            lab.apply(update)  # type: ignore[arg-type]
        assert lab.log == []
        with lab.engine() as engine:
            assert engine.unfinished() is None

    @pytest.mark.real_time("it runs a program or opens a bus of python-can's")
    def test_each_of_the_policy_s_is_asked_once_for_a_start(self, lab: Lab) -> None:
        """An apply is one start, a resume another; between them, and by a rollback, none is asked."""
        for name in ("parked", "awake"):
            text = f'[check.{name}]\ncommand = "echo asked >> {name}-asked"\n'
            (lab.folder / "bench.toml").write_text((lab.folder / "bench.toml").read_text() + text)
        lab.policy = {"conditions": ({"check": "parked"}, {"check": "awake"})}

        def asked() -> set[int]:
            return {len((lab.folder / f"{name}-asked").read_text().splitlines()) for name in ("parked", "awake")}

        update = lab.bundle()
        lab.fault("left two", Action.INSTALL, cancel)
        assert lab.apply(update).ending is Ending.UNFINISHED
        assert asked() == {1}
        lab.fault("left two", Action.INSTALL, lambda: None)
        assert lab.resume().succeeded
        assert asked() == {2}
        assert lab.rollback().succeeded
        assert asked() == {2}

    def test_one_that_the_bench_file_lacks_is_told_by_the_plan(self, lab: Lab) -> None:
        update = lab.bundle(one={"conditions": [{"check": "parked"}]})
        with lab.engine() as engine, pytest.raises(ManifestField, match=r"step 1\.1 for left: .*parked"):
            engine.plan(update, lab.components())

    @pytest.mark.real_time("it runs a program or opens a bus of python-can's")
    def test_a_cut_step_whose_condition_does_not_hold_waits(self, lab: Lab) -> None:
        (lab.folder / "parked").touch()
        update = self.bundle(lab)
        lab.fault("left two", Action.INSTALL, cancel)
        assert lab.apply(update).ending is Ending.UNFINISHED  # type: ignore[arg-type]
        (lab.folder / "parked").unlink()
        waiting = lab.resume()
        assert (type(waiting.error), waiting.ending) == (ConditionFailed, Ending.UNFINISHED)
        (lab.folder / "parked").touch()
        lab.fault("left two", Action.INSTALL, lambda: None)
        assert lab.resume().succeeded


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"onFailure": "panic"}, "onFailure"),
        ({"surprise": 1}, "surprise"),
        ({"attempts": 0}, "attempts"),
        ({"allowDowngrade": "yes"}, "allowDowngrade"),
        ({"conditions": [{"moon": "full"}]}, r"conditions\[0\]\.moon"),
        ({"conditions": "parked"}, "conditions"),
    ],
)
def test_options_that_do_not_hold_are_told_with_their_place(lab: Lab, options: dict[str, object], place: str) -> None:
    update = lab.bundle(two=options)
    with (
        lab.engine() as engine,
        pytest.raises(ManifestField, match=rf"steps\[1\]\.handlerProperties\.proxyflash\.{place}"),
    ):
        engine.plan(update, lab.components())


class TestAttempts:
    def test_after_the_limit_it_is_not_tried_again(self, lab: Lab) -> None:
        lab.policy = {"attempts": 2}
        update = lab.bundle()
        lab.fault("left one", Action.APPLY, FAILURE)
        assert "it broke" in str(lab.apply(update).error)
        assert "it broke" in str(lab.apply(update).error)
        for _ in range(2):
            last = lab.apply(update)
            assert isinstance(last.error, AttemptsExhausted)
            assert last.ending is Ending.FAILED
        assert lab.began(Action.INSTALL) == ["left one"] * 2
        lab.fault("left one", Action.APPLY, lambda: None)
        assert isinstance(lab.apply(update).error, AttemptsExhausted)
        assert lab.apply(update, again=True).succeeded

    def test_a_success_begins_the_count_anew(self, lab: Lab) -> None:
        lab.policy = {"attempts": 1}
        update = lab.bundle()
        for _ in range(3):
            assert lab.apply(update).succeeded
            assert lab.rollback().succeeded

    @pytest.mark.parametrize(("policy", "own"), [(5, 1), (1, 5)])
    def test_the_lower_limit_counts(self, lab: Lab, policy: int, own: int) -> None:
        lab.policy = {"attempts": policy}
        update = lab.bundle(one={"attempts": own})
        lab.fault("left one", Action.INSTALL, FAILURE)
        lab.apply(update)
        assert isinstance(lab.apply(update).error, AttemptsExhausted)

    def test_the_count_is_on_the_disk_before_the_try(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        lab.policy = {"attempts": 1}
        update = lab.bundle()
        synced: list[str] = []
        fsync = os.fsync

        def keep(descriptor: int) -> None:
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            fsync(descriptor)

        def counted() -> None:
            # The counts, by whatever name they were written, their folder, and only then the start.
            assert (ATTEMPTS in synced[-3], synced[-1]) == (True, "journal.jsonl")

        monkeypatch.setattr(os, "fsync", keep)
        lab.fault("left one", Action.INSTALL, counted)
        assert lab.apply(update).succeeded

    def test_a_try_that_was_cut_counts(self, lab: Lab) -> None:
        """What brings the host down each time is not tried for ever."""
        lab.policy = {"attempts": 2}
        update = lab.bundle()
        lab.fault("left one", Action.INSTALL, kill)
        for call in (lambda: lab.apply(update), lab.resume):
            assert lab.process(call) == KILLED
        outcome = lab.resume()
        assert isinstance(outcome.error, AttemptsExhausted)
        assert lab.holds() == all_old()

    def test_other_files_are_another_matter(self, lab: Lab) -> None:
        lab.policy = {"attempts": 1}
        lab.bundle()
        lab.fault("left one", Action.INSTALL, FAILURE)
        lab.apply(lab.bundle())
        (lab.folder / "payload").write_bytes(b"something else")
        assert "it broke" in str(lab.apply(lab.bundle()).error)

    def test_a_count_that_can_t_be_read_is_not_taken_for_none(self, lab: Lab) -> None:
        with lab.engine() as engine:
            engine.store.attempts.parent.mkdir(parents=True)
            engine.store.attempts.write_text("{")
        with pytest.raises(Exception, match="can't be read") as caught:
            lab.apply(lab.bundle())
        assert caught.value.code == "E-STATE"  # type: ignore[attr-defined]


class TestVersions:
    @pytest.mark.parametrize("name", ["left", "motors"])
    def test_a_floor(self, lab: Lab, name: str) -> None:
        lab.policy = {"floor": {name: "1.2"}}
        update = lab.bundle()
        with lab.engine() as engine, pytest.raises(BelowFloor, match=r"1\.1.*1\.2") as caught:
            engine.plan(update, lab.components())
        assert caught.value.component == "left"

    def test_a_floor_that_is_met(self, lab: Lab) -> None:
        lab.policy = {"floor": {"motors": "1.1"}}
        assert lab.apply(lab.bundle()).succeeded

    @pytest.mark.real_time("it runs a program or opens a bus of python-can's")
    def test_a_downgrade_on_request(self, lab: Lab) -> None:
        lab.policy = {"downgrade": "on-request"}
        with lab.engine() as engine:
            with pytest.raises(DowngradeRefused, match=r"1\.1.*2\.0"):
                engine.plan(lab.bundle(), lab.components(left="2.0"))
            update = lab.bundle(one={"allowDowngrade": True}, two={"allowDowngrade": True})
            plan = engine.plan(update, lab.components(left="2.0"))
            assert [task.label for task in plan.tasks if task.downgrade] == ["1.1", "1.2"]
            engine.apply(plan)
        begin = json.loads(lab.journal().read_text().splitlines()[0])
        assert begin["downgrades"] == ["1.1 left", "1.2 left"]

    def test_a_plain_manifest_may_downgrade(self, lab: Lab) -> None:
        with lab.engine() as engine:
            assert engine.apply(engine.plan(lab.bundle(), lab.components(left="2.0"))).succeeded


class TestRestarts:
    """In each: what the step answers with, and the actions that were done when the update waits."""

    def waiting(self, lab: Lab, action: Action, code: ResultCode) -> list[str]:
        update = lab.bundle()
        lab.fault("left one", action, ActionResult(code))
        outcome = lab.apply(update)
        assert outcome.ending is Ending.AWAITING
        assert isinstance(outcome.error, RestartPending)
        assert outcome.report()["state"] == 6
        lab.fault("left one", action, lambda: None)
        return lab.began(Action.INSTALL)

    @pytest.mark.parametrize(
        ("action", "code"), [(Action.INSTALL, ResultCode.INSTALL_IMMEDIATE_REBOOT), (Action.APPLY, 705)]
    )
    def test_an_immediate_one_stops_there(self, lab: Lab, action: Action, code: ResultCode) -> None:
        assert self.waiting(lab, action, code) == ["left one"]

    @pytest.mark.parametrize(("action", "code"), [(Action.INSTALL, ResultCode.INSTALL_REBOOT), (Action.APPLY, 706)])
    def test_a_deferred_one_waits_for_the_child_s_other_components(
        self, lab: Lab, action: Action, code: ResultCode
    ) -> None:
        """The component's own next step comes after the restart."""
        assert self.waiting(lab, action, code) == ["left one", "right one", "right two"]
        assert "left one" in lab.began(Action.APPLY)
        (lab.world / "left.one").write_text(NEW)
        lab.boot = "second"
        assert lab.resume().succeeded
        assert lab.began(Action.INSTALL)[3:] == ["left two", "camera one", "camera two"]
        assert lab.holds() == all_new()

    def test_the_host_must_have_been_restarted(self, lab: Lab) -> None:
        self.waiting(lab, Action.INSTALL, ResultCode.INSTALL_IMMEDIATE_REBOOT)
        with pytest.raises(RestartPending, match="has not been"):
            lab.resume()
        lab.boot = "second"
        assert lab.resume().succeeded
        assert lab.holds() == all_new()
        # An action that had ended wasn't done again: the step went on with Apply.
        assert lab.began(Action.INSTALL).count("left one") == 1

    def test_for_the_service_a_new_process_will_do(self, lab: Lab) -> None:
        self.waiting(lab, Action.INSTALL, ResultCode.INSTALL_IMMEDIATE_AGENT_RESTART)
        assert lab.resume().succeeded

    def test_a_step_that_is_installed_after_it_is_done(self, lab: Lab) -> None:
        self.waiting(lab, Action.INSTALL, ResultCode.INSTALL_REBOOT)
        lab.boot = "second"
        outcome = lab.resume()
        assert outcome.succeeded
        assert statuses(outcome)[0] is Status.DONE
        assert lab.began(Action.APPLY).count("left one") == 1

    def test_one_that_was_applied_and_is_not_has_failed(self, lab: Lab) -> None:
        self.waiting(lab, Action.APPLY, ResultCode.APPLY_IMMEDIATE_REBOOT)
        (lab.world / "left.one").write_text("what the old slot has")
        lab.boot = "second"
        outcome = lab.resume()
        assert outcome.ending is Ending.FAILED
        assert "not installed after the restart" in str(outcome.error)
        assert lab.holds() == all_old()

    @pytest.mark.real_time("it runs a program or opens a bus of python-can's")
    @pytest.mark.parametrize(
        ("code", "which"), [(1105, "reboot"), (1106, "reboot"), (1107, "restart"), (1108, "restart")]
    )
    @pytest.mark.parametrize("on_failure", ["stop", "continue", "rollback"])
    def test_one_for_what_was_restored_comes_at_the_end(self, lab: Lab, code: int, which: str, on_failure: str) -> None:
        """Once, when the journal has the update's end: there is nothing to go on with."""
        lab.policy = {
            name: f"tail -n 1 {lab.folder}/state/benches/*/updates/*/j* >> {name}ed" for name in ("reboot", "restart")
        }
        update = lab.bundle()
        lab.fault("left one", Action.APPLY, FAILURE)
        lab.fault("left one", Action.RESTORE, ActionResult(code))
        outcome = lab.apply(update, on_failure=on_failure)
        assert outcome.progress.over
        assert f"has been restarted; it is being restarted by: {lab.policy[which]}" in outcome.restart
        (last,) = (lab.folder / f"{which}ed").read_text().splitlines()
        assert json.loads(last)["kind"] == "finish"
        assert not (lab.folder / ("restarted" if which == "reboot" else "rebooted")).exists()
        with lab.engine() as engine:
            assert engine.unfinished() is None
            # To look at it again asks for nothing.
            assert engine.outcome(engine.store.entry(1)).restart == ""

    def test_without_a_command_a_person_is_told(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.fault("left one", Action.APPLY, FAILURE)
        lab.fault("left one", Action.RESTORE, ActionResult(ResultCode.RESTORE_REBOOT))
        assert lab.apply(update).restart == "what was brought back counts once the host has been restarted"

    @pytest.mark.real_time("it runs a program or opens a bus of python-can's")
    def test_an_immediate_one_amid_a_rollback_halts_it(self, lab: Lab) -> None:
        lab.policy = {"reboot": "echo >> rebooted"}
        update = lab.bundle()
        lab.fault("right one", Action.APPLY, FAILURE)

        def restored() -> ActionResult:
            (lab.world / "right.one").write_text(OLD)
            return ActionResult(ResultCode.RESTORE_IMMEDIATE_REBOOT)

        lab.fault("left two", Action.RESTORE, ActionResult(ResultCode.RESTORE_IMMEDIATE_REBOOT))
        lab.fault("right one", Action.RESTORE, restored)
        outcome = lab.apply(update, on_failure="rollback")
        assert outcome.ending is Ending.AWAITING
        assert lab.began(Action.RESTORE) == ["right one", "left two"]
        with pytest.raises(RestartPending):
            lab.resume()
        lab.boot = "second"
        again = lab.resume()
        assert again.ending is Ending.ROLLED_BACK
        assert lab.began(Action.RESTORE) == ["right one", "left two", "left one"]
        # That restart has been; the end asks for no other one.
        assert again.restart == ""
        assert len((lab.folder / "rebooted").read_text().splitlines()) == 1

    @pytest.mark.real_time("it runs a program or opens a bus of python-can's")
    def test_the_policy_s_command_is_run_with_the_journal_on_the_disk(self, lab: Lab) -> None:
        lab.policy = {"reboot": "cp state/benches/*/updates/000001/journal.jsonl then.jsonl"}
        self.waiting(lab, Action.INSTALL, ResultCode.INSTALL_IMMEDIATE_REBOOT)
        last = (lab.folder / "then.jsonl").read_text().splitlines()[-1]
        assert json.loads(last)["kind"] == "restart"


class TestRollback:
    def test_an_unfinished_update(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.fault("right one", Action.INSTALL, cancel)
        assert lab.apply(update).ending is Ending.UNFINISHED
        outcome = lab.rollback()
        assert (outcome.ending, outcome.succeeded) == (Ending.ROLLED_BACK, True)
        assert lab.holds() == all_old()
        assert lab.began(Action.RESTORE) == ["right one", "left two", "left one"]

    def test_one_that_has_ended_stays_what_it_was(self, lab: Lab) -> None:
        assert lab.apply(lab.bundle()).succeeded
        assert lab.rollback().succeeded
        assert lab.holds() == all_old()
        with lab.engine() as engine:
            first, second = engine.store.entries()
            assert (first.progress().ending, second.progress().ending) == (Ending.SUCCEEDED, Ending.ROLLED_BACK)
            assert second.progress().begin["undoes"] == 1
            assert engine.outcome(first).report()["installedUpdateId"]
        with pytest.raises(UpdateUnknown, match="update 2, was rolled back already"):
            lab.rollback()

    def test_one_that_failed(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.fault("camera two", Action.APPLY, FAILURE)
        assert lab.apply(update).ending is Ending.FAILED
        assert lab.rollback().succeeded
        assert lab.holds() == all_old()

    @pytest.mark.parametrize("done_before", [True, False])
    def test_one_that_is_stopped_says_what_is_not_brought_back(self, lab: Lab, done_before: bool) -> None:
        update = lab.bundle()
        if not done_before:
            lab.fault("right one", Action.APPLY, cancel)
        lab.apply(update)
        lab.fault("left two", Action.RESTORE, cancel)
        outcome = lab.rollback()
        assert outcome.ending is Ending.UNFINISHED
        told = {(item.task.target, item.task.step.description): verdict([item]) for item in outcome.results}
        assert told["right", "one"] == "restored"
        assert told["left", "two"] == "stopped while being brought back: stopped"
        assert told["left", "one"] == "not brought back yet"
        rows = outcome.report()["componentResults"]
        left = [(row["status"], row["resultDetails"]) for row in rows if row["component"] == "left"]
        assert left == [
            ("not brought back yet", "not brought back yet"),
            ("stopped", "stopped while being brought back: stopped"),
        ]
        with lab.engine() as engine:
            entry = engine.unfinished()
            assert entry is not None
            verdicts = {one.name: one for one in updates.story(engine.outcome(entry), entry).verdicts}
        assert (verdicts["left"].text, verdicts["left"].mood) == (told["left", "two"], Mood.OPEN)
        lab.fault("left two", Action.RESTORE, lambda: None)
        assert lab.rollback().succeeded
        assert lab.holds() == all_old()

    def test_there_is_none(self, lab: Lab) -> None:
        update = lab.bundle()
        with pytest.raises(UpdateUnknown, match="no update was made"):
            lab.rollback()
        for path in lab.world.glob("*.*"):
            path.write_text(NEW)
        assert lab.apply(update).succeeded
        with pytest.raises(UpdateUnknown, match="has changed anything"):
            lab.rollback()


class TestCancelled:
    def test_before_anything_was_changed_it_is_the_end(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.cancelled = lambda: True
        outcome = lab.apply(update)
        assert (outcome.ending, outcome.report()["state"]) == (Ending.CANCELLED, 0)
        assert isinstance(outcome.error, Cancelled)
        assert (outcome.error.component, outcome.error.cause) == (None, "stopped on request before the first step")
        with pytest.raises(UpdateUnknown):
            lab.resume()

    def test_within_an_action_the_handler_is_told_once(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.fault("left two", Action.INSTALL, cancel)
        outcome = lab.apply(update)
        assert isinstance(outcome.error, Cancelled)
        assert lab.began(Action.CANCEL) == ["left two"]
        assert statuses(outcome)[:3] == [Status.DONE, Status.STOPPED, Status.NOT_RUN]
        lab.fault("left two", Action.INSTALL, lambda: None)
        assert lab.resume().succeeded

    def test_no_other_begins_meanwhile(self, lab: Lab) -> None:
        update = lab.bundle()
        lab.fault("left two", Action.INSTALL, cancel)
        lab.apply(update)
        with pytest.raises(Unfinished, match=r"update 1, Contoso/bundle 1\.1"):
            lab.apply(update)
        lab.fault("left two", Action.INSTALL, lambda: None)
        assert lab.apply(update, abandon=True).succeeded
        with lab.engine() as engine:
            assert [entry.progress().ending for entry in engine.store.entries()] == [Ending.ABANDONED, Ending.SUCCEEDED]


@pytest.mark.parametrize(
    ("after", "said", "component"),
    [
        (None, "before the first step", None),
        ("asked left one", "before the first step", None),
        ("backup left one ended", "in step 1.1, before its install", "left"),
        ("install left one ended", "in step 1.1, before its apply", "left"),
        ("apply left one ended", "before step 1.2", "left"),
        ("apply left two ended", "before step 1.1", "right"),
    ],
)
def test_where_it_was_stopped_between_two_actions(
    lab: Lab, after: str | None, said: str, component: str | None
) -> None:
    lab.cancelled = lambda: after is None or after in lab.log
    error = lab.apply(lab.bundle()).error
    assert isinstance(error, Cancelled)
    assert (error.cause, error.component) == (f"stopped on request {said}", component)


@pytest.mark.parametrize(("after", "step"), [(None, "2.2"), ("restore camera two ended", "2.1")])
def test_where_a_rollback_was_stopped(lab: Lab, after: str | None, step: str) -> None:
    assert lab.apply(lab.bundle()).succeeded
    lab.cancelled = lambda: after is None or after in lab.log
    error = lab.rollback().error
    assert isinstance(error, Cancelled)
    assert (error.cause, error.component) == (f"stopped on request before step {step} was undone", "camera")
