"""`proxyflash/app:1`: files of an application of this host, its restart and its health; cut between any two of them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.errors import BenchKey, StateFolder
from proxyflash.flashers.errors import Cancelled
from proxyflash.updates.engine.results import ResultCode
from proxyflash.updates.errors import ManifestField, StepFailed
from proxyflash.updates.handlers.app import AppHandler

from .kills import forked, kill
from .steps import Stage, inline

# The service reports the version that it was started with, whatever lies in its folder by then.
BENCH = """
[[component]]
name = "planner"
version_from = {file = "running"}
[component.app]
folder = "opt"
restart = "cat opt/version > running && echo restarted >> log"
health = "test ! -e sick && opt/bin/planner"
health_seconds = 0

[[component]]
name = "plain"
version_from = {file = "running"}

[bus.wire]
kind = "can"
interface = "virtual"

[[component]]
name = "radar"
bus = "wire"
protocol = "uds"
address = {request = 0x7E0, response = 0x7E8}
"""
NAMES = ("planner.bin", "version", "map.dat")
TARGETS = {"planner.bin": "bin/planner", "map.dat": "share/maps/map.dat"}
OLD = {"bin/planner": b"#!/bin/sh\n# old\n", "version": b"1.0\n"}
NEW = {"bin/planner": b"#!/bin/sh\n# new\n", "version": b"1.1\n", "share/maps/map.dat": b"a map" * 1000}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "bench.toml").write_text(BENCH)
    for path, data in OLD.items():
        (tmp_path / "opt" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "opt" / path).write_bytes(data)
    (tmp_path / "opt/bin/planner").chmod(0o750)
    (tmp_path / "running").write_text("1.0")
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        yield opened


def stage(bench: Bench, component: str = "planner", **more: Any) -> Stage:
    folder = bench.file.path.parent
    for name in NAMES:
        (folder / name).write_bytes(NEW[TARGETS.get(name, name)])
    properties = {"installedCriteria": "1.1", "targets": TARGETS, "executable": ["planner.bin"], **more}
    return Stage(bench, AppHandler, inline("proxyflash/app:1", *NAMES, **properties), folder, component)


def holds(bench: Bench) -> dict[str, bytes]:
    root = bench.file.path.parent / "opt"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def running(bench: Bench) -> str:
    return (bench.file.path.parent / "running").read_text().strip()


def test_files_are_put_into_place_and_the_service_restarted(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench)
    assert made.rollback_blocker() == ""
    assert made.act("download").code == ResultCode.DOWNLOAD_SUCCESS
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED
    assert made.act("backup").code == ResultCode.BACKUP_SUCCESS
    assert holds(bench) == OLD
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS
    assert (holds(bench), running(bench)) == (NEW, "1.0")  # not restarted before all is there
    applied = made.act("apply")
    assert (applied.code, applied.details) == (ResultCode.APPLY_SUCCESS, "-> 1.1")
    assert made.act("is_installed").code == ResultCode.INSTALLED
    # The mode of what was there, and that of a program; others as files are.
    assert stat.S_IMODE((tmp_path / "opt/bin/planner").stat().st_mode) == 0o751
    assert stat.S_IMODE((tmp_path / "opt/share/maps/map.dat").stat().st_mode) == 0o644


def test_the_old_ones_come_back(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench)
    for action in ("backup", "install", "apply", "backup"):
        made.act(action)
    for _ in range(2):
        restored = made.act("restore")
        assert (restored.code, restored.details) == (ResultCode.RESTORE_SUCCESS, "-> 1.0")
        assert (holds(bench), running(bench)) == (OLD, "1.0")
    assert stat.S_IMODE((tmp_path / "opt/bin/planner").stat().st_mode) == 0o750


def test_an_application_that_does_not_work_has_failed(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench)
    made.act("backup")
    made.act("install")
    (tmp_path / "sick").touch()
    applied = made.act("apply")
    assert applied.code == ResultCode.FAILURE
    assert "does not work within 0 s" in applied.details
    assert made.act("restore").code == ResultCode.FAILURE  # the old one doesn't work either
    (tmp_path / "sick").unlink()
    assert made.act("restore").code == ResultCode.RESTORE_SUCCESS


def test_another_version_than_wanted_has_failed(bench: Bench) -> None:
    made = stage(bench, installedCriteria="1.2")
    made.act("install")
    applied = made.act("apply")
    assert (applied.code, applied.details) == (ResultCode.FAILURE, "planner reports 1.1, wanted 1.2")


def test_a_file_that_was_changed_since_is_installed_again(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench)
    made.act("install")
    made.act("apply")
    (tmp_path / "opt/share/maps/map.dat").write_bytes(b"another map")
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED
    made.act("install")
    assert made.act("is_installed").code == ResultCode.INSTALLED


def test_killed_at_each_file_s_place(bench: Bench) -> None:
    """Before and after each rename of Backup, Install and Restore: each file is one of the two, and whole; going on and
    going back both end well."""
    ways = (("backup", "install"), ("install",), ("restore",))
    cuts = 0
    for actions in ways:
        for after in (False, True):
            for number in range(1, 20):
                made = stage(bench)
                if made.backup.exists():
                    made.act("restore")
                    shutil.rmtree(made.backup)
                if actions != ways[0]:
                    made.act("backup")
                if actions == ("restore",):
                    made.act("install")
                if forked(lambda: dying(made, actions, number, after)) == 0:  # noqa: B023 - called at once
                    break
                cuts += 1
                found = holds(bench)
                whole = {path: data for path, data in found.items() if ".partial" not in path}
                assert all(data in (OLD.get(path), NEW.get(path)) for path, data in whole.items())
                made.act("backup")
                assert made.act("is_complete").code == ResultCode.NOT_INSTALLED
                made.act("install")
                assert made.act("apply").code == ResultCode.APPLY_SUCCESS
                assert holds(bench) == NEW
                assert made.act("restore").code == ResultCode.RESTORE_SUCCESS
                assert (holds(bench), running(bench)) == (OLD, "1.0")
    assert cuts == 2 * (6 + 3 + 2)


def dying(made: Stage, actions: tuple[str, ...], number: int, after: bool) -> None:
    """Carries out actions, and is killed at the rename of that number."""
    rename = os.rename
    left = [number]

    def cut(source: str, target: str, **folders: int) -> None:
        left[0] -= 1
        if left[0] == 0 and not after:
            kill()
        rename(source, target, **folders)
        if left[0] == 0:
            kill()

    os.rename = cut  # type: ignore[assignment]
    for action in actions:
        made.act(action)


def test_after_a_cut_it_is_restarted_although_it_tells_the_wanted_version(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench)
    made.act("install")
    (tmp_path / "running").write_text("1.1")
    assert made.act("is_installed").code == ResultCode.INSTALLED
    assert made.act("is_complete").code == ResultCode.NOT_INSTALLED


def test_a_cancellation_stops_between_two_files(bench: Bench) -> None:
    made = stage(bench)
    made.cancelled = lambda: holds(bench)["bin/planner"] == NEW["bin/planner"]
    with pytest.raises(Cancelled) as caught:
        made.act("install")
    assert caught.value.touched
    assert holds(bench) == {**OLD, "bin/planner": NEW["bin/planner"]}


def test_a_backup_that_was_changed_is_not_put_back(bench: Bench) -> None:
    made = stage(bench)
    made.act("backup")
    made.act("install")
    (made.backup / "0").write_bytes(b"#!/bin/sh\nanything\n")
    assert made.act("restore").code == ResultCode.FAILURE
    assert holds(bench) == NEW


@pytest.mark.parametrize("name", ["../../victim", "victim", "/etc/victim", ""])
def test_a_backup_names_no_file_but_the_step_s(bench: Bench, tmp_path: Path, name: str) -> None:
    """Not even to take it away."""
    victim = tmp_path / "victim"
    victim.write_text("it stays")
    made = stage(bench)
    made.act("backup")
    made.act("install")
    path = made.backup / "backup.json"
    found = json.loads(path.read_bytes())
    found["files"][name] = None
    path.write_text(json.dumps(found))
    with pytest.raises(StateFolder, match="the step has no file"):
        made.act("restore")
    assert victim.read_text() == "it stays"
    assert holds(bench) == NEW


@pytest.mark.parametrize("link", ["share", "share/maps", "share/maps/map.dat"])
def test_nothing_is_written_through_a_link(bench: Bench, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    there = tmp_path / "opt" / link
    there.parent.mkdir(parents=True, exist_ok=True)
    there.symlink_to(outside)
    made = stage(bench)
    for action in ("download", "backup", "install"):
        with pytest.raises(StepFailed, match="is a link"):
            made.act(action)
    assert not list(outside.iterdir())


def test_a_pipe_in_a_file_s_place_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "opt/version").unlink()
    os.mkfifo(tmp_path / "opt/version")
    with pytest.raises(StepFailed, match="no file"):
        stage(bench).act("download")


def test_a_full_disk_leaves_the_old_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stage(bench)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StepFailed, match="No space left"):
            made.act("install")
    assert holds(bench) == OLD
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS


@pytest.mark.parametrize(
    ("properties", "place"),
    [
        ({"installedCriteria": ""}, "installedCriteria"),
        ({"restart": "reboot"}, "restart"),
        ({"targets": "x"}, "targets"),
        ({"targets": {"other": "x"}}, "'other' is none"),
        ({"targets": {"version": "/etc/passwd"}}, "targets.version"),
        ({"targets": {"version": "a/../../b"}}, "targets.version"),
        ({"targets": {"version": "a\0b"}}, "targets.version"),
        ({"targets": {"version": "."}}, "targets.version"),
        ({"targets": {"version": 7}}, "targets.version"),
        ({"targets": {"version": "map.dat"}}, "given twice"),
        ({"targets": {"version": "map.dat/x"}}, "below another"),
        ({"executable": "version"}, None),
        ({"executable": ["run.sh"]}, "'run.sh' is none"),
    ],
)
def test_properties(properties: dict[str, Any], place: str | None) -> None:
    step = inline("proxyflash/app:1", *NAMES, **{"installedCriteria": "1.1", **properties})
    if place is None:
        AppHandler.check(step, on_component=True, place="steps[0]")
        return
    with pytest.raises(ManifestField) as caught:
        AppHandler.check(step, on_component=True, place="steps[0]")
    assert place in caught.value.cause


@pytest.mark.parametrize("component", ["plain", "radar"])
def test_other_components_are_refused_in_the_plan(bench: Bench, component: str) -> None:
    with pytest.raises(ManifestField, match=rf"^steps\[0\]: .*doesn't call {component} one"):
        stage(bench, component).check_component()


def test_a_step_for_the_host_is_refused() -> None:
    with pytest.raises(ManifestField, match="reference step"):
        AppHandler.check(inline("proxyflash/app:1", "a", installedCriteria="1"), on_component=False, place="p")


@pytest.mark.parametrize("line", ['name = "a"\napp = {folder = "x"}', 'name = "a"\nbus = "wire"\napp = {folder = "x"}'])
def test_the_bench_file_s_table(tmp_path: Path, line: str) -> None:
    (tmp_path / "bench.toml").write_text(f"{BENCH}\n[[component]]\n{line}\n")
    with pytest.raises(BenchKey, match="app"):
        Bench.open(tmp_path / "bench.toml")
