"""What commands keep and serve is its owner's alone, under the umask that hides nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.tests.users import NOBODY, needs_root, shared_folder
from proxyflash.transports.errors import ExitStatus

from .conftest import Desk, served

pytestmark = pytest.mark.real_time("child programs")


@pytest.fixture(autouse=True)
def _nothing_is_masked() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Of all that is not as it should be, by path."""
    wrong = {}
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != (0o700 if path.is_dir() else 0o600):
            wrong[str(path.relative_to(folder))] = mode
    return wrong


def test_what_an_update_keeps(desk: Desk) -> None:
    assert desk.run("apply", desk.manifest).status == 0
    kept = {path.name for path in desk.state.rglob("*")}
    assert {"lock", "journal.jsonl", "backup.json", "memory.bin", "imu.flash", "front-radar.json"} <= kept
    assert modes(desk.state) == {}


def test_what_emulate_serves(desk: Desk, short: Path) -> None:
    desk.state = short / "state"
    with served(desk) as wires:
        sockets = [path for path in desk.state.rglob("*") if path.is_socket()]
        assert sockets
        assert Path(wires["imu-uart"]["path"]).is_char_device()
        assert modes(desk.state) == {}


@pytest.mark.parametrize("name", ["root.pem", ".root.pem.partial"])
@pytest.mark.parametrize("target", ["precious", "missing"])
def test_a_private_key_is_new_and_its_owner_s_alone(desk: Desk, tmp_path: Path, name: str, target: str) -> None:
    """A link in the way is replaced: the key goes to no file of somebody else's choice."""
    if (name, target) == ("root.pem", "precious"):
        pytest.skip("a key that is there stays, wherever it lies")
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / name).symlink_to(tmp_path / target)
    assert desk.run("manifest", "key", tmp_path / "root.pem").status == 0
    assert stat.S_IMODE((tmp_path / "root.pem").lstat().st_mode) == 0o600
    assert (tmp_path / "root.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "missing").exists()
    assert not (tmp_path / name).is_symlink()


def test_files_for_the_agent_replace_links_in_their_way(desk: Desk, tmp_path: Path) -> None:
    update = tmp_path / "for-agent"
    update.mkdir()
    names = (desk.image("imu").name, "proxyflash-flash.sh")
    for name in names:
        (update / name).symlink_to(tmp_path / "missing")
    words: list[str | Path] = [
        "--version",
        "1.5.0",
        "--provider",
        "Contoso",
        "--name",
        "Imu",
        "--group",
        "imus",
        "--to",
        update,
    ]
    assert desk.run("adu", "script", desk.image("imu"), *words).status == 0
    assert not (tmp_path / "missing").exists()
    assert all((update / name).is_file() and not (update / name).is_symlink() for name in names)


@needs_root
def test_the_demo_is_not_run_where_another_user_could_change_it(desk: Desk) -> None:
    with shared_folder() as shared:
        (shared / "demo").mkdir()
        os.chown(shared / "demo", NOBODY, NOBODY)
        done = desk.run("demo", shared / "demo")
        assert (done.status, done.err.split()[0]) == (ExitStatus.PERMISSION, "E-STATE-UNSAFE")
        assert list((shared / "demo").iterdir()) == []
