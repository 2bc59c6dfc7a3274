"""What a plan was allowed by, looked at again right before each install: by then the part, or the policy, may be another."""

from __future__ import annotations

from typing import Any

import pytest
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.enumerators.component import Component
from proxyflash.flashers.errors import NoResponse, ProtocolError
from proxyflash.transports.errors import ProxyflashError, SerialAbsent
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.journal import records
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.errors import BelowFloor, ConditionFailed, DowngradeRefused
from proxyflash.updates.events import Status

from .lab import NEW, OLD, Lab, all_new, all_old, cancel

pytestmark = pytest.mark.simulated_time

WHERE = "right one"


@pytest.fixture
def told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The version that each component reports, by name; asked for again each time."""
    versions: dict[str, str] = {}

    def look(component: BenchComponent) -> Component:
        name = component.name
        return next(one for one in lab.components(**versions) if one.name == name)

    monkeypatch.setattr(BenchComponent, "look", look)
    return versions


def changes(lab: Lab, told: dict[str, str], action: Action, version: str, *, name: str = "right") -> None:
    """During an action of the step, somebody else brings a component to another version."""
    lab.fault(WHERE, action, lambda: told.update({name: version}) or None)


@pytest.mark.parametrize("action", [Action.DOWNLOAD, Action.IS_INSTALLED, Action.BACKUP])
def test_a_part_that_has_a_newer_version_meanwhile(lab: Lab, told: dict[str, str], action: Action) -> None:
    lab.policy = {"downgrade": "on-request"}
    update = lab.bundle()
    changes(lab, told, action, "2.0")
    outcome = lab.apply(update)
    assert isinstance(outcome.results[2].error, DowngradeRefused)
    assert "the component has 2.0" in str(outcome.error)
    assert outcome.ending is Ending.FAILED
    assert lab.holds() == all_old() | {"left.one": NEW, "left.two": NEW}
    assert WHERE not in lab.began(Action.INSTALL)


def test_a_downgrade_that_the_plan_did_not_know_of_is_journalled(lab: Lab, told: dict[str, str]) -> None:
    lab.policy = {"downgrade": "on-request"}
    update = lab.bundle(one={"allowDowngrade": True})
    changes(lab, told, Action.BACKUP, "2.0")
    lab.fault("right two", Action.IS_INSTALLED, lambda: told.update(right=OLD) or None)
    assert lab.apply(update).succeeded
    found = [record for record in records(lab.journal()) if record["kind"] == "downgrade"]
    assert [(record["task"], record["version"]) for record in found] == [(2, "2.0")]
    with lab.engine() as engine:
        assert engine.outcome(engine.store.entry(1)).succeeded


@pytest.mark.parametrize("error", [SerialAbsent, NoResponse, ProtocolError])
def test_a_part_that_can_not_be_asked_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, error: type[ProxyflashError]
) -> None:
    """A missing component waits for a resume; another fault is the step's failure. Neither escapes from the engine."""
    lab.policy = {"downgrade": "on-request"}

    def look(component: BenchComponent) -> Component:
        if component.name == "right":
            raise error("no answer")
        return lab.look(component.name)

    with monkeypatch.context() as patch:
        patch.setattr(BenchComponent, "look", look)
        outcome = lab.apply(lab.bundle())
    assert isinstance(outcome.error, error)
    assert lab.holds() == all_old() | {"left.one": NEW, "left.two": NEW}
    if error is ProtocolError:
        assert (outcome.ending, outcome.results[2].task.status) == (Ending.FAILED, Status.FAILED)
        return
    assert (outcome.ending, outcome.error.exit_status) == (Ending.UNFINISHED, 10)
    assert [record for record in records(lab.journal()) if record["kind"] == "stopped"]
    assert lab.resume().succeeded


def test_a_floor_that_was_raised_before_the_resume(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left two", Action.INSTALL, cancel)
    lab.apply(update)
    lab.fault("left two", Action.INSTALL, lambda: None)
    lab.policy = {"floor": {"right": "1.2"}}
    outcome = lab.resume()
    assert isinstance(outcome.results[2].error, BelowFloor)
    assert outcome.results[2].task.status is Status.FAILED
    assert lab.holds() == all_old() | {"left.one": NEW, "left.two": NEW}


def test_a_step_that_was_cut_in_its_midst_waits(lab: Lab) -> None:
    """Half of it is there: to leave it so would be worse than either version."""
    update = lab.bundle()
    lab.fault(WHERE, Action.INSTALL, cancel)
    lab.apply(update)
    lab.fault(WHERE, Action.INSTALL, lambda: None)
    lab.policy = {"floor": {"motors": "1.2"}}
    outcome = lab.resume()
    assert (outcome.ending, type(outcome.error)) == (Ending.UNFINISHED, BelowFloor)
    lab.policy = {}
    assert lab.resume().succeeded
    assert lab.holds() == all_new()


@pytest.mark.parametrize("action", [Action.IS_INSTALLED, Action.BACKUP])
def test_a_dependency_that_does_not_hold_any_more(lab: Lab, told: dict[str, str], action: Action) -> None:
    condition: dict[str, Any] = {"version": {"component": "camera", "below": "2.0"}}
    update = lab.bundle(one={"conditions": [condition]})
    changes(lab, told, action, "2.0", name="camera")
    outcome = lab.apply(update)
    assert isinstance(outcome.results[2].error, ConditionFailed)
    assert WHERE not in lab.began(Action.INSTALL)


def test_where_nothing_would_refuse_it_the_part_is_not_asked_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(component: BenchComponent) -> Component:
        found = lab.look(component.name)
        assert found.version != OLD, "asked before it was installed"
        return found

    monkeypatch.setattr(BenchComponent, "look", look)
    assert lab.apply(lab.bundle()).succeeded
