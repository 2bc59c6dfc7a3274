"""Our flasher with serial recovery on a Cortex-M3, whose loader picks the higher version, and with Zephyr on the host."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Presence
from proxyflash.flashers.errors import ImageWrongPart
from proxyflash.hil_tests.boot_session import running
from proxyflash.hil_tests.real import zephyr_firmware as firmware
from proxyflash.hil_tests.real.native_sim import NativeSim
from proxyflash.hil_tests.real.zephyr import Mps2

pytestmark = pytest.mark.timeout(600)
BENCH = """
[bus.line]
{bus}

[[component]]
name = "part"
bus = "line"
protocol = "{protocol}"
boot_timeout = 60
profile = {{{profile}}}
"""
BUILD = "serial_recovery_buf2048"
APPLICATION = "_mps2_an385_serial_recovery_buf2048.signed.bin"


def bench_on(folder: Path, url: str, profile: str = "") -> Bench:
    path = folder / "bench.toml"
    path.write_text(BENCH.format(bus=f'kind = "serial"\nurl = "{url}"', protocol="smp", profile=profile))
    return Bench.open(path)


def test_a_part_without_an_image_gets_one_in_serial_recovery(tmp_path: Path) -> None:
    """The build whose recovery has the larger buffer."""
    image = firmware.find("_27c54835_mps2_an385_serial_recovery.signed.bin")
    with Mps2("_27c54835_mps2_an385_serial_recovery") as part, bench_on(tmp_path, part.url) as bench:
        component = bench.component("part")
        assert component.look().presence is Presence.BOOTLOADER
        result = component.flash(image)
        assert result is not None
        assert result.verified
        assert part.holds(image.read_bytes())
        assert running(component).presence is Presence.OK


def test_the_loader_that_picks_the_higher_version_gets_one(tmp_path: Path) -> None:
    """It swaps nothing, and refuses to try or to confirm; what it would pass over is not sent."""
    old = firmware.find(APPLICATION).read_bytes()
    newer, older = tmp_path / "newer.bin", tmp_path / "older.bin"
    newer.write_bytes(firmware.remade(old, (2, 1, 0)))
    older.write_bytes(firmware.remade(old, (1, 0, 0)))
    with Mps2(f"_mps2_an385_{BUILD}", application=True) as part, bench_on(tmp_path, part.url) as bench:
        component = bench.component("part")
        running(component)
        result = component.flash(newer)
        assert result is not None
        assert result.version == "2.1.0"
        assert part.holds(old)
        with pytest.raises(ImageWrongPart, match=r"runs 2\.1\.0"):
            component.flash(older)
        assert running(component).version == "2.1.0"


@pytest.mark.parametrize(
    ("build", "profile", "buffers"),
    [
        ("serial", "", "4 x 384"),
        ("serial_buf96", "", "4 x 96"),
        ("serial_buf1024", "", "4 x 1024"),
        ("serial_line512", "line_length = 511", "4 x 2048"),
        ("serial_noparams", "", "1 x 384"),
        ("serial_raw", 'framing = "raw"', "4 x 384"),
    ],
)
def test_zephyr_on_a_terminal_tells_its_buffers(tmp_path: Path, build: str, profile: str, buffers: str) -> None:
    with NativeSim(build) as part, bench_on(tmp_path, part.path, profile) as bench:
        component = bench.component("part")
        found = running(component)
        assert found.presence is Presence.OK
        assert found.properties["buffers"] == buffers


def test_zephyr_on_udp_tells_its_buffers(tmp_path: Path) -> None:
    with NativeSim("udp") as part:
        path = tmp_path / "bench.toml"
        bus = f'kind = "udp"\nhost = "127.0.0.1"\nport = {part.port}'
        path.write_text(BENCH.format(bus=bus, protocol="smp-udp", profile=""))
        with Bench.open(path) as bench:
            found = running(bench.component("part"))
            assert found.presence is Presence.OK
            assert found.properties["buffers"] == "2 x 2048"
