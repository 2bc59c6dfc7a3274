"""MBoot's flashers: each emulated part, what they refuse before anything is erased, recordings, a whole bus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.mboot import loader
from proxyflash.emulators.mboot.parts import parts
from proxyflash.emulators.replay.session import Replay
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.described import describers
from proxyflash.flashers.describing import described
from proxyflash.flashers.errors import ImageWrongPart, PartProtected, PartRefused, ProfileWrong
from proxyflash.flashers.image import Segment
from proxyflash.testing.part import NEW, OLD
from proxyflash.testing.rig import Rig, settled
from proxyflash.tests.flashers.test_contract import KINDS
from proxyflash.tests.flashers.test_contract import TestMbootCan as Kind
from proxyflash.transports import clock
from proxyflash.transports.recording.formats import Recording
from proxyflash.transports.recording.recorder import Recorder

START = 0xA000


def rig_of(kind: str, folder: Path, *, emulated: dict[str, Any] | None = None, **profile: Any) -> Rig:
    part = KINDS[kind]()
    changed = type("Changed", (KINDS[kind],), {"emulated": {**part.emulated, **(emulated or {})}})()
    return Rig(changed, folder, profile=profile)


@pytest.mark.parametrize("kind", ["mboot-can", "mboot-uart"])
@pytest.mark.parametrize("part", parts())
def test_each_part(part: str, kind: str, tmp_path: Path) -> None:
    """With a program that ends within a unit, and that is longer than one WRITE MEMORY."""
    row = parts()[part]
    rig = Rig(
        type("Changed", (KINDS[kind],), {"emulated": {**KINDS[kind].emulated, "part": part}})(), tmp_path, size=9001
    )
    with rig.powered() as bench:
        before = bench.emulated_device("part").flash.read(0, START)
        assert rig.flash(bench, expect_version=NEW).version == NEW
        device = bench.emulated_device("part")
        assert rig.holds_the_new_image(bench)
        assert device.flash.read(0, START) == before, "the bootloader itself was changed"
        identity = rig.flash(bench).identity
        assert (identity.part, identity.bootloader) == (f"0x{row['device']:08X}", row["version"])


def test_a_secured_part_is_refused(tmp_path: Path) -> None:
    rig = rig_of("mboot-uart", tmp_path, emulated={"secured": True})
    with rig.powered() as bench:
        error = rig.error(bench)
        assert isinstance(error, PartProtected)
        assert "flash security is on" in str(error)
        assert bench.emulated_device("part").supply.operations == 0
        assert settled(bench) == OLD


def test_a_part_that_does_not_report_its_flash_needs_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    respond = loader.Loader._get_property

    def without(self: loader.Loader, tag: int, *rest: int) -> None:
        respond(self, 0xFF if tag in (3, 4, 5, 12) else tag, *rest)

    monkeypatch.setattr(loader.Loader, "_get_property", without)
    rig = rig_of("mboot-uart", tmp_path)
    with rig.powered() as bench:
        error = rig.error(bench)
        assert isinstance(error, ProfileWrong)
        assert "memory = [" in str(error)
        assert bench.emulated_device("part").supply.operations == 0
    run = {"start": START, "size": 0x16000, "erase_unit": 0x400}
    (tmp_path / "given").mkdir()
    rig = rig_of("mboot-uart", tmp_path / "given", memory=[run])
    with rig.powered() as bench:
        rig.ends_with_the_new_image(bench)


def test_a_range_that_the_bootloader_refuses_ends_at_once(tmp_path: Path) -> None:
    """`memory` of the profile goes over the bootloader's own region: one FLASH ERASE REGION, no further erase."""
    run = {"start": 0x8000, "size": 0x18000, "erase_unit": 0x400}
    rig = rig_of("mboot-uart", tmp_path, memory=[run])
    with rig.powered() as bench:
        device = bench.emulated_device("part")
        low = Segment(0x8000, rig.image.segments[0].data)
        error = rig.error(bench, replace(rig.image, segments=(low,)))
        assert isinstance(error, PartRefused)
        assert "MEMORY_RANGE_INVALID (10200)" in str(error)
        assert device.supply.operations == 0


def test_what_is_not_an_sb_file_is_refused(tmp_path: Path) -> None:
    rig = Rig(KINDS["mboot-sb"](), tmp_path)
    with rig.powered() as bench:
        error = rig.error(bench, replace(rig.image, segments=(Segment(0, bytes(64)),)))
        assert isinstance(error, ImageWrongPart)
        assert bench.emulated_device("part").supply.operations == 0


@pytest.mark.parametrize("protocol", ["mboot-can", "mboot-uart"])
def test_a_recorded_flash_replays(protocol: str, tmp_path: Path) -> None:
    rig = Rig(KINDS[protocol](), tmp_path, size=3000, pace=1)
    recorder = Recorder()
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "recorded", recorder=recorder) as bench:
        settled(bench)
        assert rig.flash(bench).version == NEW
    replay = Replay(Recording(tuple(recorder.records())))
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "replayed", replay=replay) as bench:
        bench.component("part").await_version()
        assert rig.flash(bench).version == NEW
    replay.finish()
    replay.close()
    words = [line.words for line in described(recorder.records(), describers(load(tmp_path / "bench.toml")))]
    assert "FLASH ERASE REGION 0x0000A000, 1,024 bytes" in words
    assert "response to RESET: SUCCESS" in words


def test_eight_parts_on_one_bus_at_once(tmp_path: Path) -> None:
    text = '[bus.b]\nkind = "can"\nbitrate = 500_000\nemulated = true\npace = 1\n'
    for number in range(8):
        ids = f"request = {0x321 + number}, response = {0x123 + number}"
        asked = f"version_request = {0x400 + 2 * number}, version_response = {0x401 + 2 * number}"
        text += f"""
[[component]]
name = "part{number}"
bus = "b"
protocol = "mboot-can"
address = {{{ids}, {asked}}}
profile = {{enter = {{id = {0x500 + number}}}, version = {{match = "FW ([0-9.]+)"}}}}
emulated = {{part = "tower-kv46f", firmware = "old.bin", detect = 0.2}}
"""
    (tmp_path / "bench.toml").write_text(text.replace(', firmware = "old.bin"', ""))
    kind = Kind()
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "made") as bench:
        device = bench.emulated_device("part0")
        (tmp_path / "old.bin").write_bytes(kind.firmware(device, OLD, 1000))
        (tmp_path / "new.bin").write_bytes(kind.firmware(device, NEW, 6000))
    (tmp_path / "bench.toml").write_text(text)
    versions: dict[str, str | None] = {}
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        for number in range(8):
            bench.emulated_device(f"part{number}").settle()

        def flash(name: str) -> float:
            began = clock.monotonic()
            versions[name] = bench.component(name).flash(tmp_path / "new.bin", address=START).version
            return clock.monotonic() - began

        alone = flash("part0")
        began = clock.monotonic()
        threads = [clock.Thread(target=flash, args=(f"part{number}",)) for number in range(1, 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = clock.monotonic() - began
    assert versions == {f"part{number}": NEW for number in range(8)}
    # What one part's flash takes is another part's time on the bus.
    assert together < 0.8 * 7 * alone
