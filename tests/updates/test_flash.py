"""`proxyflash/flash:1`: what Install replaces is read and kept, and can be flashed back; cut anywhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.enumerators.component import Component, Presence
from proxyflash.enumerators.errors import StateFolder
from proxyflash.flashers.errors import Cancelled, ImageFormat, ImageMisplaced, ImageTooLarge, VersionMismatch
from proxyflash.flashers.events import Phase, Progress
from proxyflash.flashers.formats import load, save
from proxyflash.flashers.image import Segment
from proxyflash.transports.errors import ProxyflashError
from proxyflash.updates.engine.results import ResultCode
from proxyflash.updates.errors import ManifestField
from proxyflash.updates.handlers import backup_store
from proxyflash.updates.handlers.flash import FlashHandler

from .steps import Stage, inline

pytestmark = pytest.mark.simulated_time

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors"
NEW = {"imu": "imu-1.5.0.hex", "front-radar": "radar-1.5.0.bin", "camera": "camera-1.5.0.dfu"}
HOST = '[[component]]\nname = "app"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The example's bench, as fast as it can be, with the other kind of radar: its memory can be read."""
    folder = tmp_path / "desk"
    shutil.copytree(EXAMPLE, folder)
    file = folder / "bench.toml"
    text = re.sub(r"^(emulated = true)$", r"\1\npace = 0.0", file.read_text(), flags=re.MULTILINE)
    for old, new in (
        ('part = "acme-r77"', 'part = "acme-r88"'),
        ('part = "R77"', 'part = "R88"\nread = "memory"'),
        (
            "0x0001_0000, size = 0x7_0000, erase_unit = 4096",
            "0x0002_0000, size = 0x8_0000, erase_unit = 8192, write_alignment = 8",
        ),
    ):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text + HOST)
    (segment,) = load(folder / "update" / "radar-1.5.0.s19").segments
    (folder / "update" / "radar-1.5.0.bin").write_bytes(segment.data)
    return file


@pytest.fixture
def bench(file: Path) -> Iterator[Bench]:
    with Bench.open(file, state=file.parent / "state") as opened:
        yield opened


def stage(bench: Bench, name: str) -> Stage:
    where = {"address": "0x20000"} if name == "front-radar" else {}
    step = inline("proxyflash/flash:1", NEW[name], installedCriteria="1.5.0", **where)
    return Stage(bench, FlashHandler, step, bench.file.path.parent / "update", name)


def memory(bench: Bench, name: str) -> bytes:
    flash = bench.emulated_device(name).flash
    return bytes(flash.read(flash.base, flash.size))


def version(bench: Bench, name: str) -> str | None:
    return bench.emulated_device(name).application_version


@pytest.mark.parametrize("name", list(NEW))
def test_what_was_there_before_comes_back_to_the_byte(bench: Bench, name: str) -> None:
    made = stage(bench, name)
    assert made.rollback_blocker() == ""
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED
    assert made.act("download").code == ResultCode.DOWNLOAD_SUCCESS
    before = memory(bench, name)
    assert made.act("backup").code == ResultCode.BACKUP_SUCCESS
    assert (memory(bench, name), version(bench, name)) == (before, "1.4.2")  # it was only read, and runs again
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS
    assert made.act("apply").code == ResultCode.APPLY_SUCCESS
    assert made.act("is_installed").code == ResultCode.INSTALLED
    assert memory(bench, name) != before
    for _ in range(2):
        restored = made.act("restore")
        assert (restored.code, restored.details.startswith("-> 1.4.2, verified")) == (ResultCode.RESTORE_SUCCESS, True)
        assert (memory(bench, name), version(bench, name)) == (before, "1.4.2")


def test_a_step_names_the_format_and_the_memory_that_is_meant(bench: Bench) -> None:
    folder = bench.file.path.parent / "update"
    image = replace(load(folder / NEW["imu"]), format="ihex")
    more = Segment(0x1FFFC000, b"\x01\x02\x03\x04")  # the option bytes of an STM32F4
    save(replace(image, segments=(*image.segments, more)), folder / "all.hex")

    def staged(**properties: object) -> Stage:
        step = inline("proxyflash/flash:1", "all.hex", installedCriteria="1.5.0", **properties)
        return Stage(bench, FlashHandler, step, folder, "imu")

    with pytest.raises(ImageMisplaced, match="option bytes"):
        staged().act("install")
    assert staged(only=["flash"], format="ihex").act("install").code == ResultCode.INSTALL_SUCCESS
    assert staged(only="flash").act("install").code == ResultCode.INSTALL_SUCCESS
    with pytest.raises(ImageFormat):
        staged(format="srec").act("download")
    for key, value in (("only", 1), ("only", [1]), ("format", ["ihex"]), ("format", "hex")):
        step = inline("proxyflash/flash:1", "all.hex", installedCriteria="1.5.0", **{key: value})
        with pytest.raises(ManifestField, match=rf"handlerProperties\.{key}"):
            FlashHandler.check(step, on_component=True, place="steps[0]")
    with pytest.raises(ManifestField, match=r"'hex'.* One of bin, dfu, dfuse, elf, ihex, mcuboot, srec"):
        FlashHandler.check(step, on_component=True, place="steps[0]")
    with pytest.raises(ImageMisplaced, match=r"no memory .*'rom'.* One of .*flash"):
        staged(only="rom").act("install")


@pytest.mark.parametrize("name", list(NEW))
def test_an_install_that_was_cut_goes_on_or_is_undone(bench: Bench, name: str) -> None:
    made = stage(bench, name)
    before = memory(bench, name)
    assert made.act("backup").code == ResultCode.BACKUP_SUCCESS
    made.cancelled = lambda: any(isinstance(event, Progress) and event.phase is Phase.WRITE for event in made.events)
    with pytest.raises(Cancelled) as caught:
        made.act("install")
    assert caught.value.touched
    assert memory(bench, name) != before
    assert made.act("is_complete").code == ResultCode.NOT_INSTALLED
    made.cancelled = lambda: False
    # A backup that is asked for again keeps what was there at first, not what is half written.
    assert made.act("backup").code == ResultCode.BACKUP_SUCCESS
    assert made.act("restore").code == ResultCode.RESTORE_SUCCESS
    assert (memory(bench, name), version(bench, name)) == (before, "1.4.2")
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS
    assert version(bench, name) == "1.5.0"


def test_a_backup_that_was_cut_is_made_again(bench: Bench) -> None:
    made = stage(bench, "imu")
    made.cancelled = lambda: any(isinstance(event, Progress) and event.phase is Phase.READ for event in made.events)
    with pytest.raises(Cancelled) as caught:
        made.act("backup")
    assert not caught.value.touched
    assert not made.backup.exists()
    made.cancelled = lambda: False
    bench.component("imu").power_cycle()
    assert made.act("backup").code == ResultCode.BACKUP_SUCCESS


@pytest.mark.parametrize(
    ("moved", "error"),
    [
        (lambda address, size: [[address, size - 4], [address + 4, 4]], StateFolder),
        (lambda address, size: [[(1 << 64) - size, size]], ImageMisplaced),
        (lambda address, size: [[0x1000_0000, size]], ImageMisplaced),
        # From within the memory to beyond its end.
        (lambda address, size: [[0x0810_0000 - 4, size]], ImageTooLarge),
    ],
    ids=["overlap", "last address", "no memory", "beyond the end"],
)
def test_a_backup_is_flashed_into_the_part_s_memory_alone(
    bench: Bench, moved: Callable[[int, int], list[list[int]]], error: type[ProxyflashError]
) -> None:
    made = stage(bench, "imu")
    made.act("backup")
    made.act("install")
    facts = json.loads((made.backup / backup_store.NAME).read_text())
    facts["segments"] = moved(facts["segments"][0][0], sum(size for _, size in facts["segments"]))
    (made.backup / backup_store.NAME).write_text(json.dumps(facts))
    before = memory(bench, "imu")
    with pytest.raises(error):
        made.act("restore")
    assert (memory(bench, "imu"), version(bench, "imu")) == (before, "1.5.0")


def test_a_backup_that_was_changed_is_not_flashed(bench: Bench) -> None:
    made = stage(bench, "imu")
    made.act("backup")
    made.act("install")
    path = made.backup / "memory.bin"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    restored = made.act("restore")
    assert restored.code == ResultCode.FAILURE
    assert "memory.bin" in restored.details
    assert version(bench, "imu") == "1.5.0"


def test_a_part_without_an_application_has_nothing_to_bring_back(file: Path) -> None:
    file.write_text(re.sub(r', firmware = "[^"]+"', "", file.read_text()))
    with Bench.open(file, state=file.parent / "state") as bench:
        for name in NEW:
            made = stage(bench, name)
            backed = made.act("backup")
            assert (backed.code, backed.details) == (
                ResultCode.BACKUP_UNSUPPORTED,
                f"{name} holds nothing to bring back",
            )
            assert made.act("restore").code == ResultCode.RESTORE_UNSUPPORTED
            assert made.act("install").code == ResultCode.INSTALL_SUCCESS


def test_a_part_whose_memory_can_not_be_read(file: Path) -> None:
    file.write_text(file.read_text().replace('read = "memory"\n', ""))
    with Bench.open(file, state=file.parent / "state") as bench:
        made = stage(bench, "front-radar")
        assert "set read in its profile" in made.rollback_blocker()
        assert made.act("backup").code == ResultCode.BACKUP_UNSUPPORTED
        assert made.act("install").code == ResultCode.INSTALL_SUCCESS
        assert made.act("restore").code == ResultCode.RESTORE_UNSUPPORTED


def test_another_version_than_wanted_is_an_error_and_can_be_undone(bench: Bench) -> None:
    made = stage(bench, "imu")
    made.step = inline("proxyflash/flash:1", NEW["imu"], installedCriteria="1.5.1")
    made.act("backup")
    with pytest.raises(VersionMismatch) as caught:
        made.act("install")
    assert caught.value.component == "imu"
    assert caught.value.remedy.endswith("reports: proxyflash manifest create --installed-criteria VERSION")
    assert made.act("apply").code == ResultCode.FAILURE
    assert made.act("restore").code == ResultCode.RESTORE_SUCCESS
    assert version(bench, "imu") == "1.4.2"


def test_a_broken_file_is_told_at_the_download(bench: Bench) -> None:
    made = stage(bench, "imu")
    (made.folder / NEW["imu"]).write_text("no firmware")
    with pytest.raises(ImageFormat):
        made.act("download")


def test_a_component_of_the_host_is_refused_in_the_plan(bench: Bench) -> None:
    step = inline("proxyflash/flash:1", NEW["imu"], installedCriteria="")
    with pytest.raises(ManifestField, match=r"^p: .*app is none"):
        FlashHandler.check_component(step, bench.find("app"), "p")


def test_a_part_that_is_mute_for_a_moment_is_asked_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cut in the midst of an exchange leaves it; the sweep of components at once also finds that case."""
    made = stage(bench, "imu")
    made.act("install")
    look, looks = BenchComponent.look, []

    def mute_at_first(component: BenchComponent) -> Component:
        seen = look(component)
        looks.append(seen)
        return seen if len(looks) > 1 else replace(seen, presence=Presence.ABSENT, version="")

    handler = made.made()
    monkeypatch.setattr(BenchComponent, "look", mute_at_first)
    assert handler.apply().code == ResultCode.APPLY_SUCCESS
    assert len(looks) == 2
