"""`proxyflash/app:1` in a folder that another user owns: whatever that user exchanges meanwhile, nothing outside of it is
reached, neither by what is written nor by what a backup reads."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.tests.users import NOBODY, exchange, meanwhile_as_nobody, needs_root, shared_folder
from proxyflash.updates.engine.results import ResultCode
from proxyflash.updates.errors import StepFailed
from proxyflash.updates.handlers.app import AppHandler

from .kills import forked
from .steps import Stage, inline

BENCH = """
[[component]]
name = "planner"
version_from = {file = "running"}
[component.app]
folder = "opt"
restart = "cp version running"
"""
OLD, NEW, SECRET = b"old" * 1000, b"new" * 1000, b"secret" * 1000
ROUNDS = 200


@dataclass
class Place:
    """`opt/share/maps` is the application's; `outside/maps` is root's alone, and has files of the same names."""

    folder: Path
    bench: Bench

    @property
    def real(self) -> Path:
        return self.folder / "opt/share"

    @property
    def link(self) -> Path:
        """Of the application's user: leads outside."""
        return self.folder / "opt/link"

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    def stage(self) -> Stage:
        names = ("map.dat", "new.dat")
        targets = {name: f"share/maps/{name}" for name in names}
        step = inline("proxyflash/app:1", *names, installedCriteria="1.0", targets=targets)
        (self.folder / "update").mkdir(exist_ok=True)
        for name in names:
            (self.folder / "update" / name).write_bytes(NEW)
        return Stage(self.bench, AppHandler, step, self.folder / "update", "planner")

    def round(self, *actions: str) -> None:
        """One update, or as much of it as isn't refused."""
        made = self.stage()
        shutil.rmtree(made.backup, ignore_errors=True)
        with suppress(StepFailed):
            for action in actions:
                made.act(action)

    def foreign_link(self) -> None:
        """The application's folder is reached through a link of its user."""
        (self.folder / "opt").rename(self.folder / "real")
        (self.folder / "opt").symlink_to("real")
        os.chown(self.folder / "opt", NOBODY, NOBODY, follow_symlinks=False)

    def instead(self, make: Callable[[Path], object]) -> None:
        """Something else in the place of a file."""
        there = self.folder / "opt/share/maps/map.dat"
        there.unlink()
        make(there)

    def check(self) -> None:
        found = {str(path.relative_to(self.outside)): path for path in self.outside.rglob("*")}
        assert sorted(found) == ["maps", "maps/map.dat"]
        assert found["maps/map.dat"].read_bytes() == SECRET
        assert (found["maps/map.dat"].stat().st_uid, found["maps"].stat().st_uid) == (0, 0)
        assert not any(SECRET[:6] in path.read_bytes() for path in self.stage().backup.glob("*"))


@pytest.fixture
def place() -> Iterator[Place]:
    with shared_folder() as folder:
        (folder / "bench.toml").write_text(BENCH)
        for name in ("running", "version"):
            (folder / name).write_text("1.0")
        (folder / "outside/maps").mkdir(parents=True)
        (folder / "outside/maps/map.dat").write_bytes(SECRET)
        (folder / "outside/maps/map.dat").chmod(0o600)
        (folder / "opt/share/maps").mkdir(parents=True)
        (folder / "opt/share/maps/map.dat").write_bytes(OLD)
        (folder / "opt/link").symlink_to(folder / "outside")
        for path in (folder / "opt", *(folder / "opt").rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        with Bench.open(folder / "bench.toml", state=folder / "state") as bench:
            yield Place(folder, bench)


@needs_root
@pytest.mark.timeout(300)
def test_a_race_wins_nothing(place: Place) -> None:
    """The folder's owner exchanges a folder and a link as fast as it can."""
    with meanwhile_as_nobody(lambda: exchange(place.real, place.link)):
        for _ in range(ROUNDS):
            place.round("download", "backup", "install", "apply", "restore")
            place.check()


@needs_root
@pytest.mark.parametrize(
    ("actions", "event"),
    [
        (("backup",), "map.dat"),
        (("backup", "install"), ".map.dat.partial"),
        (("backup", "install"), ".new.dat.partial"),
        (("backup", "install", "restore"), ".map.dat.partial"),
    ],
)
@pytest.mark.parametrize("which", range(1, 5))
def test_what_is_exchanged_between_check_and_use(
    place: Place, actions: tuple[str, ...], event: str, which: int
) -> None:
    """The folder is exchanged right before a file in it is opened, for the first time, the second, and so on."""

    def work() -> None:
        left = [which]

        def hook(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "open" and str(arguments[0]).rpartition("/")[2] == event and "backup" not in str(arguments[0]):
                left[0] -= 1
                if left[0] == 0:
                    exchange(place.real, place.link)

        sys.addaudithook(hook)
        place.round(*actions)

    assert forked(work) == 0
    assert place.real.is_symlink() or which > 1
    place.check()


@needs_root
@pytest.mark.parametrize("action", ["install", "restore"])
def test_the_owner_and_mode_of_what_was_there_stay(place: Place, action: str) -> None:
    there = place.folder / "opt/share/maps/map.dat"
    there.chmod(0o640)
    for name in ("backup", "install", "restore"):
        place.stage().act(name)
        status = there.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (NOBODY, NOBODY, 0o640)
        if name == action:
            break
    assert there.read_bytes() == (NEW if action == "install" else OLD)


@needs_root
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda place: (place.folder / "opt").rename(place.folder / "real"), "is not there"),
        (lambda place: place.foreign_link(), "the link belongs to user"),
        (lambda place: exchange(place.real, place.link), "share is a link or no folder"),
        (lambda place: place.instead(os.mkfifo), "map.dat is a link or no file"),
        (lambda place: place.instead(lambda path: path.symlink_to("/etc/passwd")), "map.dat is a link or no file"),
        (lambda place: place.instead(lambda path: path.mkdir()), "map.dat is a link or no file"),
    ],
    ids=["gone", "link of the user", "link below", "FIFO", "link", "folder"],
)
@pytest.mark.parametrize("action", ["download", "backup", "install"])
def test_what_stands_in_the_way_is_told(place: Place, make: Callable[[Place], None], told: str, action: str) -> None:
    made = place.stage()
    make(place)
    with pytest.raises(StepFailed, match=told):
        made.act(action)
    place.check()


@needs_root
def test_a_link_of_root_to_the_application_s_folder_is_followed(place: Place) -> None:
    (place.folder / "opt").rename(place.folder / "opt-1.0")
    (place.folder / "opt").symlink_to("opt-1.0")
    assert place.stage().act("install").code == ResultCode.INSTALL_SUCCESS
    assert (place.folder / "opt-1.0/share/maps/new.dat").read_bytes() == NEW
