"""The emulated STM32 loader, flashed by programs that nobody here wrote, over a pseudo-terminal.

stm32flash (Debian) and stm32loader (PyPI) are GPL: they are run, never imported. stm32loader is installed into an
environment of its own under build/peers, once.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bincopy
import pytest
from proxyflash.benchmarks.peers import NO_MODEM_LINES, STM32LOADER
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.stm32.device import Stm32UartDevice
from proxyflash.flashers.formats import load
from proxyflash.flashers.programmer import Programmer
from proxyflash.flashers.stm32.parts import families
from proxyflash.flashers.stm32.profile import Stm32Address, Stm32Profile
from proxyflash.flashers.stm32.uart import Stm32UartFlasher
from proxyflash.tests.peers import environment, installed
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.serial.port import SerialPort

pytestmark = pytest.mark.real_time("peer programs at pseudo-terminals")

PARTS = ("stm32f103xb", "stm32f405xg", "stm32l073xz", "stm32l476xg", "stm32g071xb", "stm32g474xe", "stm32h743xi")
IMAGE = application.make("1.5.0", "imu", "acme", 9_000) + b"\xff" * 3000 + bytes(range(1, 256)) * 4
"""With a long blank stretch in it, and a size that is not a multiple of a block."""


@dataclass(frozen=True)
class Served:
    """A part behind a path."""

    device: Stm32UartDevice
    path: str


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    closers: list[Callable[[], None]] = []

    def make(part: str, *, pace: float = 0, **table: Any) -> Served:
        wire = UartWire(uuid.uuid4().hex, pace=pace)
        spec = DeviceSpec("imu", settings={"part": part, "boot0": True, **table}, pace=pace)
        device = Stm32UartDevice.attach(spec, wire)
        path, close = serve_pty(wire)
        closers.extend([close, device.close, wire.close])
        return Served(device, path)

    yield make
    for close in closers:
        close()


def flash_ours(served: Served, file: Path) -> None:
    """Our flasher, through the same pseudo-terminal, from the same file."""
    with SerialPort.open("imu", {"url": served.path, "baudrate": 115_200}) as port:
        flasher = Stm32UartFlasher.attach(port, Stm32Address(), Stm32Profile(boot="go"))
        programmer = Programmer(flasher, "imu")
        programmer.flash(programmer.plan(load(file, address=None)))
        flasher.close()


def contents(served: Served) -> bytes:
    flash = served.device.flash
    return flash.read(flash.base, flash.size)


@pytest.fixture(params=["bin", "hex"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"image.{request.param}"
    if request.param == "bin":
        path.write_bytes(IMAGE)
    else:
        binary = bincopy.BinFile()
        binary.add_binary(IMAGE, address=0x08000000)
        path.write_text(binary.as_ihex())
    return path


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def stm32flash() -> str:
    return installed("stm32flash")


@pytest.fixture(scope="session")
def stm32loader() -> Path:
    """The interpreter of the environment that stm32loader is in."""
    return environment(STM32LOADER)


class TestStm32flash:
    @pytest.mark.parametrize("part", PARTS)
    def test_write_verify_go_and_read_back(
        self, serve: Callable[..., Served], stm32flash: str, tmp_path: Path, part: str
    ) -> None:
        served = serve(part)
        image = application.make("1.5.0", "imu", "acme", 20_004)
        (tmp_path / "image.bin").write_bytes(image)
        served.device.flash.load(served.device.flash.base, b"\x5a" * 30_000)
        line = ("-m", "8n1", "-b", "115200")
        run(stm32flash, *line, "-w", tmp_path / "image.bin", "-v", "-g", "0x0", served.path)
        assert served.device.flash.read(served.device.flash.base, len(image)) == image
        served.device.settle()
        # stm32flash ends with the loader's acknowledgement; the jump comes after it.
        until = Deadline.after(30)
        while served.device.board.stage is not Stage.APPLICATION:
            assert not until.expired
            time.sleep(0.01)
        assert served.device.application_version == "1.5.0"
        served.device.board.reset()
        run(stm32flash, *line, "-r", tmp_path / "back.bin", "-S", f"0x08000000:{len(image)}", served.path)
        assert (tmp_path / "back.bin").read_bytes() == image
        assert served.device.board.fault is None

    def test_it_knows_the_part(self, serve: Callable[..., Served], stm32flash: str) -> None:
        told = run(stm32flash, "-m", "8n1", "-b", "57600", serve("stm32f405xg").path)
        assert "0x0413 (STM32F40" in told
        assert "Version      : 0x31" in told

    def test_protections(self, serve: Callable[..., Served], stm32flash: str, tmp_path: Path) -> None:
        served = serve("stm32f103xb", write_protected=[0])
        (tmp_path / "image.bin").write_bytes(bytes(range(256)))
        write = (stm32flash, "-m", "8n1", "-w", tmp_path / "image.bin", "-v", "-n", "0")
        done = subprocess.run([*map(str, write), served.path], capture_output=True, text=True, timeout=600)
        assert done.returncode == 1
        assert "Failed to verify" in done.stderr
        served.device.board.reset()
        run(stm32flash, "-m", "8n1", "-u", served.path)
        run(*write, served.path)
        served.device.board.reset()
        run(stm32flash, "-m", "8n1", "-j", served.path)
        assert served.device.memory.options.rdp == 1
        run(stm32flash, "-m", "8n1", "-k", served.path)
        assert served.device.memory.options.rdp == 0
        assert served.device.flash.read(served.device.flash.base, 256) == b"\xff" * 256

    def test_at_the_pace_of_the_line(self, serve: Callable[..., Served], stm32flash: str, tmp_path: Path) -> None:
        served = serve("stm32g071xb", pace=1.0)
        (tmp_path / "image.bin").write_bytes(bytes(range(256)) * 2)
        run(stm32flash, "-m", "8n1", "-b", "460800", "-w", tmp_path / "image.bin", "-v", served.path)
        assert served.device.flash.read(served.device.flash.base, 512) == bytes(range(256)) * 2


class TestSameContents:
    """From one file our flasher and the other program leave the same flash, each byte of it."""

    @pytest.mark.parametrize("part", PARTS)
    def test_stm32flash(self, serve: Callable[..., Served], stm32flash: str, file: Path, part: str) -> None:
        theirs, ours = serve(part), serve(part)
        for served in (theirs, ours):
            served.device.flash.load(served.device.flash.base, b"\x5a" * served.device.flash.size)
        run(stm32flash, "-m", "8n1", "-b", "115200", "-w", file, "-v", theirs.path)
        flash_ours(ours, file)
        assert contents(ours) == contents(theirs)

    @pytest.mark.parametrize(("part", "family"), [("stm32f103xb", "F1"), ("stm32f405xg", "F4"), ("stm32l476xg", "L4")])
    def test_stm32loader(
        self, serve: Callable[..., Served], stm32loader: Path, tmp_path: Path, part: str, family: str
    ) -> None:
        """Raw binary alone: of Intel HEX it takes only what begins at address 0, and ours what is linked for the part."""
        file = tmp_path / "image.bin"
        file.write_bytes(IMAGE)
        theirs, ours = serve(part), serve(part)
        run(stm32loader, "-c", NO_MODEM_LINES, "-n", "-P", "none", "-p", theirs.path, "-f", family, "-w", "-v", file)
        flash_ours(ours, file)
        assert contents(ours) == contents(theirs)


OTHER_REGISTERS = {0x452: (0x1FF07A10, 0x1FF07A22), 0x480: (0x08FFF800, 0x08FFF80C)}
"""UID_BASE and FLASHSIZE_BASE of STM32F72x/F73x and STM32H7A3/B3 in ST's CMSIS headers; stm32loader takes those of F74x and
H74x for all F7 and H7."""


class TestStm32loader:
    def test_its_tables(self, stm32loader: Path) -> None:
        """What it knows of the families' registers and blocks, and what we do."""
        script = """
import json, stm32loader.bootloader as b
kind = b.Stm32Bootloader
print(json.dumps({"ids": b.CHIP_IDS, "uid": kind.UID_ADDRESS, "size": kind.FLASH_SIZE_ADDRESS,
                  "block": kind.DATA_TRANSFER_SIZE}))
"""
        tables = json.loads(run(stm32loader, "-c", script))
        compared = 0
        for product, name in tables["ids"].items():
            known = families().get(int(product))
            line = re.match(r"STM32(F0|F1|F3|F4|F7|H7|L0|L4|G0|WL)", name)
            if known is None or line is None:
                continue
            compared += 1
            assert line[1] in known.name, name
            if int(product) in OTHER_REGISTERS:
                assert (known.uid, known.size) == OTHER_REGISTERS[int(product)], name
                continue
            assert known.size == tables["size"][line[1]], name
            if tables["uid"][line[1]]:
                assert known.uid == tables["uid"][line[1]], name
            assert known.block == tables["block"][line[1]], name
        assert compared >= 20

    @pytest.mark.parametrize(("part", "family"), [("stm32f103xb", "F1"), ("stm32f405xg", "F4"), ("stm32l073xz", "L0")])
    def test_erase_write_verify_and_read_back(
        self, serve: Callable[..., Served], stm32loader: Path, tmp_path: Path, part: str, family: str
    ) -> None:
        served = serve(part)
        image = application.make("2.0.0", "imu", "acme", 4096)
        (tmp_path / "image.bin").write_bytes(image)
        served.device.flash.load(served.device.flash.base, b"\x5a" * 8192)
        command = (stm32loader, "-c", NO_MODEM_LINES, "-n", "-P", "none", "-p", served.path, "-f", family)
        told = run(*command, "-e", "-w", "-v", tmp_path / "image.bin")
        assert "Verification OK" in told
        assert served.device.flash.read(served.device.flash.base, len(image)) == image
        served.device.board.reset()
        run(*command, "-r", "-a", "0x08000000", "-l", str(len(image)), tmp_path / "back.bin")
        assert (tmp_path / "back.bin").read_bytes() == image
        assert served.device.board.fault is None
