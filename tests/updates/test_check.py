"""`proxyflash/check:1`: a condition as a step, asked again each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.updates.engine.results import ResultCode
from proxyflash.updates.errors import ConditionFailed, ManifestField
from proxyflash.updates.handlers.check import CheckHandler

from .steps import Stage, inline

BENCH = """
[check.parked]
command = "cat parked"
match = "^yes$"

[power.app]
on = "true"
off = "true"
volts = "cat volts"

[[component]]
name = "app"
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "bench.toml").write_text(BENCH)
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        yield opened


def stage(bench: Bench, condition: dict[str, Any], component: str | None = None) -> Stage:
    return Stage(
        bench, CheckHandler, inline("proxyflash/check:1", "any", condition=condition), bench.file.path.parent, component
    )


def test_the_update_goes_on_only_while_it_holds(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench, {"check": "parked"})
    (tmp_path / "parked").write_text("no\n")
    assert made.act("download").code == ResultCode.DOWNLOAD_SUCCESS
    with pytest.raises(ConditionFailed, match="does not match"):
        made.act("install")
    (tmp_path / "parked").write_text("yes\n")
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS
    # What held then need not hold any more: it is asked again.
    for action in ("is_installed", "is_complete"):
        assert made.act(action).code == ResultCode.NOT_INSTALLED
    (tmp_path / "parked").unlink()
    with pytest.raises(ConditionFailed):
        made.act("install")


def test_nothing_is_changed_so_all_can_be_undone(bench: Bench) -> None:
    made = stage(bench, {"check": "parked"})
    assert made.rollback_blocker() == ""
    assert made.act("apply").code == ResultCode.APPLY_SUCCESS
    assert made.act("restore").code == ResultCode.RESTORE_SUCCESS
    assert not made.backup.exists()


def test_the_component_in_context_is_meant_when_none_is_named(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench, {"supply": {"min": 11.5}}, "app")
    (tmp_path / "volts").write_text("11.4")
    with pytest.raises(ConditionFailed, match=r"the supply of app is 11\.4 V, below 11\.5") as caught:
        made.act("install")
    assert caught.value.component == "app"
    (tmp_path / "volts").write_text("12")
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS


def test_what_the_bench_file_lacks_is_told_at_the_download(bench: Bench) -> None:
    with pytest.raises(ConditionFailed, match=r"no \[check\.moored\]"):
        stage(bench, {"check": "moored"}).act("download")


@pytest.mark.parametrize(
    ("properties", "place"),
    [
        ({}, "condition is missing"),
        ({"condition": {"check": "parked"}, "command": "rm -r /"}, "handlerProperties.command"),
        ({"condition": "parked"}, "handlerProperties.condition"),
        ({"condition": {"shell": "true"}}, "handlerProperties.condition.shell"),
    ],
)
def test_properties_that_do_not_hold(properties: dict[str, Any], place: str) -> None:
    with pytest.raises(ManifestField) as caught:
        CheckHandler.check(inline("proxyflash/check:1", "any", **properties), on_component=False, place="steps[0]")
    assert place in caught.value.cause
