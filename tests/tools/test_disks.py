"""The state folder on disks that are full, or can only be read: file systems of the kernel's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from proxyflash.enumerators.state import bench_folder
from proxyflash.tests.mounts import needs_mounts, read_only, small_disk
from proxyflash.updates.engine import disk

from .conftest import MANIFEST, NEW, Desk

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


CLAIMS = """
import sys
from pathlib import Path
from proxyflash.transports import private_files
from proxyflash.updates.engine import disk
with private_files.whole(Path(sys.argv[1], "one")) as one, private_files.whole(Path(sys.argv[1], "two")) as two:
    disk.claim(one, 60_000)
    disk.claim(two, 60_000)
"""


@needs_mounts
def test_two_backups_do_not_see_the_same_room(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIMS, str(tmp_path)]
    for room, status in ((25 * PAGE, 1), (2 * 15 * PAGE + disk.LEAST_LEFT, 0)):
        done = subprocess.run(
            command, preexec_fn=small_disk(tmp_path, room), capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, "No space left on device" in done.stderr) == (status, bool(status)), done.stderr


@needs_mounts
def test_components_that_are_updated_at_once_on_a_small_disk(desk: Desk) -> None:
    """One of the two backups finds no room. What else is under way goes on to its end, and what is advised helps."""
    folder = bench_folder(desk.state, desk.bench) / "updates"
    assert desk.run("scan").status == 0
    folder.mkdir(mode=0o700)
    resume = " ".join(desk.command("resume", "--json"))
    script = f"cat '{folder}'/*/journal.jsonl >'{desk.folder}/journal'; rm '{folder}/filling'; {resume}"
    command = ["sh", "-c", f'"$@" || echo " status $?" >&2; {script}', "sh", *desk.command(*APPLY, "--parallel")]
    # The copies have 84 pages, the backups 13 and 33.
    done = subprocess.run(
        command, preexec_fn=small_disk(folder, 122 * PAGE), cwd=desk.folder, capture_output=True, text=True, timeout=600
    )
    assert done.stderr.count("No space left on device") == 1
    assert "status 10" in done.stderr
    assert re.search(r"Make room on that disk \([0-9,]+ bytes are needed.*\), then go on: proxyflash", done.stderr)
    told = (desk.folder / "journal").read_text()
    assert told.count('"status":"done"') == 3  # the host's, the radar's, and that of the backup that found room
    document = json.loads(done.stdout[done.stdout.index("{") :])
    assert document["ending"] == "succeeded"
    assert desk.seen() == dict.fromkeys(NEW, "1.5.0")
