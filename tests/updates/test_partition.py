"""`proxyflash/partition:1`: two slots, in files and on loop devices; the one in use is never written to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import Phase, Progress, RunContext
from proxyflash.tests.users import NOBODY, needs_root
from proxyflash.updates.engine.results import ResultCode
from proxyflash.updates.errors import ManifestField, StepFailed
from proxyflash.updates.handlers import backup_store, partition
from proxyflash.updates.handlers.partition import PartitionHandler

from .kills import forked, kill
from .steps import Stage, inline

# The bootloader's choice is `next`; `running` follows it at a restart of the host, or at once without one.
BENCH = """
[[component]]
name = "rootfs"
version_from = {{command = "head -c 3 slot-$(cat running)"}}

[component.partition]
slots = {{a = "slot-a", b = "slot-b"}}
active = "cat running"
switch = "echo {{slot}} > next {at_once}"
reboot = {reboot}

[[component]]
name = "plain"
version_from = {{file = "running"}}
"""
OLD = b"1.0" + b"old" * 1_000_000
NEW = b"1.1" + b"new" * 900_000


def made_bench(folder: Path, *, reboot: bool) -> Bench:
    at_once = "" if reboot else "&& cp next running"
    (folder / "bench.toml").write_text(BENCH.format(at_once=at_once, reboot=str(reboot).lower()))
    (folder / "slot-a").write_bytes(OLD)
    (folder / "slot-b").write_bytes(b"0.9, and longer than what comes" * 200_000)
    for name in ("running", "next"):
        (folder / name).write_text("a\n")
    (folder / "new.img").write_bytes(NEW)
    return Bench.open(folder / "bench.toml", state=folder / "state")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with made_bench(tmp_path, reboot=True) as opened:
        yield opened


def stage(bench: Bench, component: str = "rootfs") -> Stage:
    step = inline("proxyflash/partition:1", "new.img", installedCriteria="1.1")
    return Stage(bench, PartitionHandler, step, bench.file.path.parent, component)


def restart(folder: Path) -> None:
    (folder / "running").write_bytes((folder / "next").read_bytes())


def test_the_other_slot_is_written_and_used_from_the_next_start_on(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench)
    assert made.rollback_blocker() == ""
    for action in ("download", "backup", "install"):
        assert made.act(action).succeeded
    assert (tmp_path / "slot-a").read_bytes() == OLD
    assert (tmp_path / "slot-b").read_bytes() == NEW
    assert (tmp_path / "next").read_text() == "a\n"  # not before Apply
    assert made.act("apply").code == ResultCode.APPLY_REBOOT
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED
    assert made.act("apply").code == ResultCode.APPLY_REBOOT  # again, after a cut: the same slot
    restart(tmp_path)
    assert made.act("is_installed").code == ResultCode.INSTALLED
    restored = made.act("restore")
    assert (restored.code, restored.details) == (ResultCode.RESTORE_REBOOT, "slot a from the next start on")
    restart(tmp_path)
    assert made.act("restore").code == ResultCode.RESTORE_SUCCESS
    assert bench.find("rootfs").look().version == "1.0"


def test_restored_before_the_restart_nothing_has_to_be_restarted(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench)
    for action in ("backup", "install", "apply"):
        made.act(action)
    assert made.act("restore").code == ResultCode.RESTORE_SUCCESS
    assert (tmp_path / "next").read_text() == "a\n"


def test_a_backup_that_names_no_slot_of_the_bench_file_switches_nothing(bench: Bench, tmp_path: Path) -> None:
    """The name goes into a shell command."""
    made = stage(bench)
    for action in ("backup", "install", "apply"):
        made.act(action)
    backup_store.keep(made.backup, {"slot": "a; touch pwned; true", "version": ""})
    with pytest.raises(StepFailed, match="'a; touch pwned; true', and the bench file has a, b"):
        made.act("restore")
    assert (tmp_path / "next").read_text() == "b\n"
    assert not (tmp_path / "pwned").exists()


def test_a_switch_without_a_restart(tmp_path: Path) -> None:
    with made_bench(tmp_path, reboot=False) as bench:
        made = stage(bench)
        made.act("backup")
        made.act("install")
        for _ in range(2):  # a cut after the switch: it is not switched back
            assert made.act("apply").code == ResultCode.APPLY_SUCCESS
            assert bench.find("rootfs").look().version == "1.1"
        assert made.act("restore").code == ResultCode.RESTORE_SUCCESS
        assert bench.find("rootfs").look().version == "1.0"


def test_another_version_than_wanted_has_failed(tmp_path: Path) -> None:
    with made_bench(tmp_path, reboot=False) as bench:
        (tmp_path / "new.img").write_bytes(b"1.2" + NEW)
        made = stage(bench)
        for action in ("backup", "install"):
            made.act(action)
        applied = made.act("apply")
        assert (applied.code, applied.details) == (ResultCode.FAILURE, "rootfs reports 1.2, wanted 1.1")


def test_apply_needs_to_know_which_slot_was_in_use(bench: Bench) -> None:
    with pytest.raises(StepFailed, match="Backup comes first"):
        stage(bench).act("apply")
    assert stage(bench).act("restore").code == ResultCode.RESTORE_UNSUPPORTED


def test_killed_at_each_block(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "BLOCK", 1 << 19)
    made = stage(bench)
    made.act("backup")
    before = (tmp_path / "slot-b").read_bytes()
    blocks = -(-len(NEW) // partition.BLOCK)
    for number in range(1, blocks + 1):
        (tmp_path / "slot-b").write_bytes(before)
        assert forked(lambda: dying(made, number)) == -9  # noqa: B023 - called at once
        assert (tmp_path / "slot-a").read_bytes() == OLD
        found = (tmp_path / "slot-b").read_bytes()
        written = min(len(NEW), number * partition.BLOCK)
        assert found[:written] == NEW[:written]
        assert len(found) == len(before)
        done = made.act("install")
        assert done.details == f"slot b: {len(NEW) - written:,} of {len(NEW):,} bytes written, read back"
        assert (tmp_path / "slot-b").read_bytes() == NEW


def dying(made: Stage, number: int) -> None:
    """Killed after `number` blocks."""

    def count(event: object) -> None:
        made.events.append(event)  # type: ignore[arg-type]
        if sum(isinstance(one, Progress) and one.phase is Phase.WRITE for one in made.events) == number:
            kill()

    handler = made.made()
    object.__setattr__(handler.context, "run", RunContext(count))
    made.events.clear()
    handler.install()


def test_a_cancelled_install_tells_that_it_can_go_on(bench: Bench) -> None:
    made = stage(bench)
    made.cancelled = lambda: any(isinstance(event, Progress) for event in made.events)
    with pytest.raises(Cancelled) as caught:
        made.act("install")
    assert caught.value.touched


def test_a_slot_that_forgets_is_found_by_reading_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def forgets(number: int, data: Any, offset: int) -> int:
        flipped = bytearray(data)
        flipped[len(flipped) // 2] ^= 1
        return write(number, flipped, offset)

    monkeypatch.setattr(os, "pwrite", forgets)
    with pytest.raises(StepFailed, match="slot b does not hold what was written"):
        stage(bench).act("install")


def a_pipe(folder: Path) -> None:
    (folder / "slot-b").unlink()
    os.mkfifo(folder / "slot-b")


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda folder: (folder / "running").write_text("c"), "'c'"),
        (lambda folder: (folder / "running").unlink(), "ended with"),
        (lambda folder: (folder / "slot-b").unlink(), "No such file"),
        (a_pipe, "neither"),
        (lambda folder: [(folder / "slot-b").unlink(), (folder / "slot-b").symlink_to("slot-a")], "both slots are"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_touched(bench: Bench, tmp_path: Path, do: Any, message: str) -> None:
    do(tmp_path)
    for action in ("download", "install"):
        with pytest.raises(StepFailed, match=message):
            stage(bench).act(action)
    assert (tmp_path / "slot-a").read_bytes() == OLD


@pytest.mark.parametrize(
    ("files", "properties", "on_component", "place"),
    [
        (("a",), {"installedCriteria": "1"}, False, "reference step|names none"),
        (("a", "b"), {"installedCriteria": "1"}, True, "files"),
        (("a",), {"installedCriteria": ""}, True, "installedCriteria"),
        (("a",), {}, True, "installedCriteria"),
        (("a",), {"installedCriteria": "1", "device": "/dev/sda"}, True, "handlerProperties.device"),
    ],
)
def test_properties(files: tuple[str, ...], properties: dict[str, Any], on_component: bool, place: str) -> None:
    with pytest.raises(ManifestField, match=place):
        PartitionHandler.check(
            inline("proxyflash/partition:1", *files, **properties), on_component=on_component, place="steps[0]"
        )


def test_other_components_are_refused_in_the_plan(bench: Bench) -> None:
    with pytest.raises(ManifestField, match=r"^steps\[0\]: .*doesn't call plain one"):
        stage(bench, "plain").check_component()


@needs_root
@pytest.mark.parametrize("owner", [0, NOBODY])
def test_a_slot_behind_a_link(bench: Bench, tmp_path: Path, owner: int) -> None:
    """Root's links name devices. Where another user made the link, root would write to what that user chose."""
    (tmp_path / "slot-b").rename(tmp_path / "elsewhere")
    (tmp_path / "slot-b").symlink_to("elsewhere")
    os.chown(tmp_path / "slot-b", owner, owner, follow_symlinks=False)
    before = (tmp_path / "elsewhere").read_bytes()
    made = stage(bench)
    if owner == 0:
        assert made.act("install").succeeded
        assert (tmp_path / "elsewhere").read_bytes() == NEW
        return
    for action in ("download", "install"):
        with pytest.raises(StepFailed, match=rf"slot b: .*slot-b: the link belongs to user \w+ \({NOBODY}\)"):
            made.act(action)
    assert (tmp_path / "elsewhere").read_bytes() == before


@needs_root
def test_a_slot_that_is_exchanged_while_it_is_opened(bench: Bench, tmp_path: Path) -> None:
    """Right before it is opened for writing, a link lies in its place: only what was looked at is written."""
    (tmp_path / "precious").write_bytes(b"precious")

    def work() -> None:
        done: list[object] = []

        def hook(name: str, arguments: tuple[Any, ...]) -> None:
            # The first open of the slot that may write, whichever path it is by.
            slot = str(arguments[0]).startswith(("/proc/self/fd/", str(tmp_path))) if name == "open" else False
            if slot and arguments[2] & os.O_ACCMODE == os.O_RDWR and not done:
                done.append(arguments)
                (tmp_path / "slot-b").rename(tmp_path / "moved")
                (tmp_path / "slot-b").symlink_to("precious")

        sys.addaudithook(hook)
        assert stage(bench).act("install").succeeded
        assert done

    assert forked(work) == 0
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "moved").read_bytes() == NEW


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop device of 2 MiB."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(2 << 20))
    done = subprocess.run(["losetup", "--show", "-f", disk], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this host has no loop device: {done.stderr.strip()}")
    yield done.stdout.strip()
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


def test_a_block_device(bench: Bench, tmp_path: Path, device: str) -> None:
    bench.file.path.write_text(bench.file.path.read_text().replace('"slot-b"', f'"{device}"'))
    with Bench.open(bench.file.path, state=tmp_path / "state2") as opened:
        made = stage(opened)
        with pytest.raises(StepFailed, match="slot b has 2,097,152 bytes, and the file has 2,700,003"):
            made.act("download")
        (tmp_path / "new.img").write_bytes(NEW[:1_500_000])
        assert made.act("download").succeeded
        assert made.act("install").code == ResultCode.INSTALL_SUCCESS
        assert Path(device).read_bytes() == NEW[:1_500_000] + bytes((2 << 20) - 1_500_000)
