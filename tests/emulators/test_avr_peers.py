"""The emulated AVR bootloaders, flashed by avrdude (Debian), which nobody here wrote, over a pseudo-terminal.

A pseudo-terminal has no modem lines: the parts are in their loaders from the beginning. avrdude says that it could not
move the lines, and goes on.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bincopy
import pytest
from proxyflash.emulators.avr.device import AvrDevice
from proxyflash.emulators.avr.part import parts
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.tests.emulators.avr_lab import (
    ATMEGABOOT,
    CATERINA,
    DEVICES,
    IN_LOADER,
    OPTIBOOT,
    QUESTION,
    WIRING,
    firmware,
)

pytestmark = pytest.mark.real_time("peer programs at pseudo-terminals")

MCU = {OPTIBOOT: "m328p", ATMEGABOOT: "m328p", "atmega168-atmegaboot": "m168", "atmega168-optiboot": "m168",
       WIRING: "m2560", CATERINA: "m32u4"}  # fmt: skip
PROGRAMMER = {"optiboot": "arduino", "atmegaboot": "arduino", "wiring": "wiring", "caterina": "avr109"}


@dataclass(frozen=True)
class Served:
    """A part behind a path, and avrdude for it."""

    part: str
    device: AvrDevice
    path: str
    program: str

    def avrdude(self, *operations: str, more: tuple[str, ...] = ("-D",), status: int = 0) -> str:
        facts = parts()[self.part]
        command = [self.program, "-p", MCU[self.part], "-c", PROGRAMMER[facts.loader], "-P", self.path, *more,
                   "-b", str(facts.baudrate or 57_600)]  # fmt: skip
        for operation in operations:
            command += ["-U", operation]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    program = shutil.which("avrdude")
    if program is None:
        pytest.skip("avrdude is not installed: apt-get install avrdude")
    closers: list[Callable[[], None]] = []
    devices: list[AvrDevice] = []

    def make(part: str, *, pace: float = 0.0, **table: object) -> Served:
        wire = UartWire(uuid.uuid4().hex, pace=pace)
        settings = {"part": part, **IN_LOADER, **table}
        spec = DeviceSpec("imu", settings=settings, pace=pace, version=QUESTION)
        device = DEVICES[parts()[part].loader].attach(spec, wire)
        path, close = serve_pty(wire)
        devices.append(device)
        closers.extend([close, device.close, wire.close])
        return Served(part, device, path, program)

    yield make
    for close in closers:
        close()
    assert [device.board.fault for device in devices] == [None] * len(devices)


@pytest.mark.parametrize("part", MCU)
def test_write_verify_and_read_back(serve: Callable[..., Served], tmp_path: Path, part: str) -> None:
    served = serve(part)
    flash = served.device.flash
    before = flash.read(0, flash.size)
    image = firmware("1.5.0", 9001)
    hexfile = bincopy.BinFile()
    hexfile.add_binary(image, address=0)
    (tmp_path / "image.hex").write_text(hexfile.as_ihex())
    told = served.avrdude(f"flash:w:{tmp_path / 'image.hex'}:i")
    assert "9001 bytes of flash verified" in told
    assert flash.read(0, len(image)) == image
    boot = parts()[part].boot
    assert flash.read(boot, flash.size - boot) == before[boot:], "the boot section was changed"
    served.device.board.reset()
    assert served.device.board.settle(20)
    served.avrdude(f"flash:r:{tmp_path / 'back.bin'}:r")
    back = (tmp_path / "back.bin").read_bytes()
    assert back[: len(image)] == image
    if part != WIRING:  # It reads all, of which avrdude cuts the blank end; the boot section isn't blank.
        assert back[boot:] == before[boot:]


@pytest.mark.parametrize("part", [OPTIBOOT, WIRING, CATERINA])
def test_it_starts_the_application_at_the_end(serve: Callable[..., Served], tmp_path: Path, part: str) -> None:
    """ATmegaBOOT waits until its time is over."""
    served = serve(part)
    (tmp_path / "image.bin").write_bytes(firmware("1.5.0", 5000))
    served.avrdude(f"flash:w:{tmp_path / 'image.bin'}:r")
    with served.device.board.changed:
        assert served.device.board.changed.wait_for(lambda: served.device.board.stage is Stage.APPLICATION, 20)
    assert served.device.application_version == "1.5.0"


@pytest.mark.parametrize("part", [ATMEGABOOT, WIRING, CATERINA])
def test_the_eeprom(serve: Callable[..., Served], tmp_path: Path, part: str) -> None:
    """Optiboot has none. The Mega's loader reads another place than it was asked for: its verify is left out."""
    served = serve(part)
    content = bytes(range(1, 101))
    (tmp_path / "eeprom.bin").write_bytes(content)
    more = ("-D", "-V") if part == WIRING else ("-D",)
    served.avrdude(f"eeprom:w:{tmp_path / 'eeprom.bin'}:r", more=more)
    assert served.device.memory.read_eeprom(0, 101) == content + b"\xff"


@pytest.mark.parametrize(("part", "low", "high", "lock"), [
    (WIRING, "0xff", "0xd8", "0xcf"), (CATERINA, "0xff", "0xd8", "0xef"), (ATMEGABOOT, "0x0", "0x0", "0x0"),
])  # fmt: skip
def test_fuses_and_lock_bits(serve: Callable[..., Served], part: str, low: str, high: str, lock: str) -> None:
    """ATmegaBOOT, as Optiboot, answers 0 to whatever it is asked so."""
    told = serve(part).avrdude("lfuse:r:-:h", "hfuse:r:-:h", "lock:r:-:h")
    assert [line for line in told.splitlines() if line.startswith("0x")] == [low, high, lock]


def test_writing_over_what_is_there_by_the_loaders_order(serve: Callable[..., Served], tmp_path: Path) -> None:
    """A part that was full: of the Mega's loader, which erases page after page, all pages are written in order."""
    for part in (OPTIBOOT, WIRING, CATERINA):
        served = serve(part)
        served.device.flash.load(0, bytes(16_384))
        (tmp_path / "image.bin").write_bytes(firmware("2.0.0", 16_000))
        served.avrdude(f"flash:w:{tmp_path / 'image.bin'}:r")
        assert served.device.flash.read(0, 16_000) == firmware("2.0.0", 16_000)


def test_a_locked_application_section_fails_its_verify(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(firmware("2.0.0", 2000))
    told = serve(OPTIBOOT, lock=0xFB).avrdude(f"flash:w:{tmp_path / 'image.bin'}:r", status=1)
    assert "verification error" in told or "verification mismatch" in told


def test_at_the_pace_of_the_line(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(WIRING, pace=1.0)
    (tmp_path / "image.bin").write_bytes(firmware("2.0.0", 2000))
    served.avrdude(f"flash:w:{tmp_path / 'image.bin'}:r")
    assert served.device.flash.read(0, 2000) == firmware("2.0.0", 2000)
