"""The state folder on disks that are full, or can only be read: file systems of the kernel's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.tests.mounts import needs_mounts, read_only, small_disk

from .conftest import MANIFEST, Desk

pytestmark = pytest.mark.real_time("child programs")

APPLY = ["apply", MANIFEST]
PAGE = 4096


@needs_mounts
@pytest.mark.parametrize(
    "pages",
    [pytest.param(0, id="no lock"), pytest.param(1, id="no flash"), pytest.param(80, id="half a flash")],
)
@pytest.mark.parametrize("command", [["scan"], ["info", "camera"], APPLY], ids=lambda command: command[0])
def test_a_full_disk(desk: Desk, tmp_path: Path, command: list[str], pages: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    process = desk.start("--state", disk, *command, preexec_fn=small_disk(disk, pages * PAGE))
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err.split()[:1]) == (1, ["E-STATE"]), (out, err)
    assert "No space left on device" in err


@needs_mounts
def test_a_disk_that_can_only_be_read(desk: Desk) -> None:
    assert desk.run("apply", desk.manifest).status == 0
    for path in (desk.state, *desk.state.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # as earlier versions made them
    done = {}
    for command in (["history"], ["report"], ["scan"], APPLY):
        process = desk.start(*command, preexec_fn=read_only(desk.state))
        out, err = process.communicate(timeout=600)
        done[command[0]] = (process.returncode, out, err)
    assert [done[name][0] for name in ("history", "report", "scan", "apply")] == [0, 0, 1, 1], done
    assert "succeeded" in done["history"][1]
    for name in ("scan", "apply"):
        assert done[name][2].startswith("E-STATE "), done
        assert "Read-only file system" in done[name][2]
