"""The emulated MBoot, flashed by programs that nobody here wrote: blhost of NXP's spsdk, and pyblhost (GPL: run, never
imported), over a pseudo-terminal.
"""

from __future__ import annotations

import copy
import os
import select
import subprocess
import threading
import time
import tty
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import can
import pytest
from can.interfaces.serial.serial_can import SerialBus
from proxyflash.benchmarks.peers import PEERS
from proxyflash.emulators import application
from proxyflash.emulators.can.bridge import bridge
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.mboot import sb
from proxyflash.emulators.mboot.can import MbootCanDevice
from proxyflash.emulators.mboot.parts import parts
from proxyflash.emulators.mboot.uart import MbootUartDevice
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.flashers.formats import load
from proxyflash.flashers.mboot.profile import MbootUartAddress, MbootUartProfile
from proxyflash.flashers.mboot.uart import MbootUartFlasher
from proxyflash.flashers.programmer import Programmer
from proxyflash.tests.peers import environment
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.serial.port import SerialPort

pytestmark = pytest.mark.real_time("peer programs at pseudo-terminals")

SPSDK, PYBLHOST = "spsdk==3.12.0", "pyblhost==1.8.0"
START = 0xA000
IMAGE = application.make("1.5.0", "imu", "acme", 9_001, start=START)
QUIET = {"SPSDK_TELEMETRY_DISABLED": "1", "HOME": str(PEERS / "spsdk")}
"""It writes a log below HOME."""
KEEPING = """
import sys, serial
from spsdk.apps.blhost import safe_main
serial.Serial.reset_output_buffer = lambda port: None
sys.argv[0] = "blhost"
safe_main()
"""
"""Runs blhost, which empties the transmitter before each packet. Of a line it has waited until all has left; a pseudo-terminal
does not wait, and loses the acknowledgement before the packet."""


@dataclass(frozen=True)
class Served:
    """A part behind a path."""

    device: MbootUartDevice
    path: str

    def runs(self, version: str) -> bool:
        until = Deadline.after(60)
        while self.device.board.stage is not Stage.APPLICATION:
            assert not until.expired
            time.sleep(0.01)
        return self.device.application_version == version


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    closers: list[Callable[[], None]] = []

    # A busy machine may let a pseudo-terminal pause for longer than the bootloader allows.
    def make(part: str, *, pace: float = 0, **table: Any) -> Served:
        wire = UartWire(uuid.uuid4().hex, pace=pace)
        device = MbootUartDevice.attach(
            DeviceSpec("imu", settings={"part": part, "byte_timeout": 10, **table}, pace=pace), wire
        )
        path, close = serve_pty(wire)
        closers.extend([close, device.close, wire.close])
        return Served(device, path)

    yield make
    for close in closers:
        close()


@pytest.fixture(scope="session")
def blhost() -> tuple[object, ...]:
    return environment(SPSDK), "-c", KEEPING


@pytest.fixture(scope="session")
def pyblhost() -> Path:
    return environment(PYBLHOST).parent / "pyblhost"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image.bin"
    path.write_bytes(IMAGE)
    return path


def run(*command: object, status: int = 0) -> str:
    words = [*map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=QUIET, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


class TestBlhost:
    @pytest.mark.parametrize("part", parts())
    def test_erase_write_read_and_reset(
        self, part: str, serve: Callable[..., Served], blhost: tuple[object, ...], file: Path, tmp_path: Path
    ) -> None:
        served = serve(part)
        served.device.flash.load(START, b"\x5a" * 20_000)
        ask = (*blhost, "-p", f"{served.path},57600")
        run(*ask, "flash-erase-region", hex(START), hex(0x4000), "0")
        run(*ask, "write-memory", hex(START), file, "0")
        run(*ask, "read-memory", hex(START), len(IMAGE), tmp_path / "back.bin", "0")
        assert (tmp_path / "back.bin").read_bytes() == IMAGE
        run(*ask, "reset")
        assert served.runs("1.5.0")
        assert served.device.board.fault is None

    def test_an_sb_file(self, serve: Callable[..., Served], blhost: tuple[object, ...], tmp_path: Path) -> None:
        served = serve("frdm-k22f")
        (tmp_path / "image.sb").write_bytes(sb.make(START, IMAGE, 2048, reset=False))
        ask = (*blhost, "-p", f"{served.path},57600")
        run(*ask, "receive-sb-file", tmp_path / "image.sb")
        assert served.device.flash.read(START, len(IMAGE)) == IMAGE

    def test_it_knows_the_part(self, serve: Callable[..., Served], blhost: tuple[object, ...]) -> None:
        ask = (*blhost, "-p", f"{serve('frdm-k22f').path},57600", "get-property")
        assert "K1.2.0" in run(*ask, "1")
        assert "512.0 KiB" in run(*ask, "4").replace("kiB", "KiB")
        assert "Unknown Property" in run(*ask, "25", status=1)

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (("flash-erase-region", "0xA001", "0x400", "0"), "Alignment Error"),
            (("flash-erase-region", "0x8000", "0x800", "0"), "Memory Range Invalid"),
            (("read-memory", "0xFFFFF", "32", "back.bin", "0"), "Memory Range Invalid"),
            (("write-memory", "0xA000", "{{1122334455667788}}", "0"), "Command Failure"),
        ],
    )
    def test_refusals(
        self,
        command: tuple[str, ...],
        said: str,
        serve: Callable[..., Served],
        blhost: tuple[object, ...],
        tmp_path: Path,
    ) -> None:
        served = serve("frdm-k22f")
        served.device.flash.load(START, bytes(64))
        words = [str(tmp_path / word) if word == "back.bin" else word for word in command]
        assert said in run(*blhost, "-p", f"{served.path},57600", *words, status=1)


class TestPyblhost:
    def test_upload_and_read(self, serve: Callable[..., Served], pyblhost: Path, file: Path, tmp_path: Path) -> None:
        served = serve("frdm-k22f")
        ask = (pyblhost, "serial")
        line = ("-p", served.path, "-b", "57600", "-s", hex(START))
        run(*ask, "upload", *line, "-B", file, "-c", 0x4000, "--no-reset")
        run(*ask, "read", *line, "-B", tmp_path / "back.bin", "-c", len(IMAGE))
        assert (tmp_path / "back.bin").read_bytes() == IMAGE
        run(*ask, "reset", *line)
        assert served.runs("1.5.0")


def test_our_flasher_leaves_the_same_flash(
    serve: Callable[..., Served], blhost: tuple[object, ...], file: Path
) -> None:
    theirs, ours = serve("frdm-k22f"), serve("frdm-k22f")
    ask = (*blhost, "-p", f"{theirs.path},57600")
    run(*ask, "flash-erase-region", hex(START), hex(0x2800), "0")
    run(*ask, "write-memory", hex(START), file, "0")
    with SerialPort.open("imu", {"url": ours.path, "baudrate": 57_600}) as port:
        flasher = MbootUartFlasher.attach(port, MbootUartAddress(), MbootUartProfile())
        programmer = Programmer(flasher, "imu")
        programmer.flash(programmer.plan(load(file, address=START)))
        flasher.close()
    whole = theirs.device.flash.base, theirs.device.flash.size
    assert ours.device.flash.read(*whole) == theirs.device.flash.read(*whole)
    assert ours.runs("1.5.0")


@pytest.fixture
def two_ends() -> Iterator[tuple[str, str]]:
    """The paths of two pseudo-terminals; what is written to one is read from the other."""
    ours, theirs = os.openpty(), os.openpty()
    for _, slave in (ours, theirs):
        tty.setraw(slave)
    stop, stopped = os.pipe()[::-1], threading.Event()

    def relay() -> None:
        masters = {ours[0]: theirs[0], theirs[0]: ours[0]}
        while not stopped.is_set():
            for ready in select.select([*masters, stop[1]], [], [])[0]:
                if ready in masters:
                    os.write(masters[ready], os.read(ready, 4096))

    thread = threading.Thread(target=relay)
    thread.start()
    yield os.ttyname(ours[1]), os.ttyname(theirs[1])
    stopped.set()
    os.write(stop[0], b"x")
    thread.join()
    for number in (*ours, *theirs, *stop):
        os.close(number)


class Untimed(SerialBus):
    """Its frames have milliseconds in 32 bits, which the time of day is not."""

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        untimed = copy.copy(msg)
        untimed.timestamp = 0
        super().send(untimed, timeout)


def test_pyblhost_on_can(two_ends: tuple[str, str], pyblhost: Path, file: Path, tmp_path: Path) -> None:
    """Over python-can's interface for adapters on serial lines, which is the same on both sides."""
    wire = CanWire(uuid.uuid4().hex, pace=0)
    device = MbootCanDevice.attach(DeviceSpec("fan", settings={"part": "tower-kv46f"}, pace=0), wire)
    bus = Untimed(two_ends[0])
    unplug = bridge(wire, bus)
    try:
        line = ("can", "-i", "serial", "-l", two_ends[1], "-tx", "0x123", "-rx", "0x321", "-s", hex(START))
        run(pyblhost, *line[:1], "upload", *line[1:], "-B", file, "-c", 0x4000, "--no-reset")
        run(pyblhost, *line[:1], "read", *line[1:], "-B", tmp_path / "back.bin", "-c", len(IMAGE))
        assert (tmp_path / "back.bin").read_bytes() == IMAGE
        assert device.flash.read(START, len(IMAGE)) == IMAGE
        assert device.node.fault is None
    finally:
        unplug()
        bus.shutdown()
        device.close()
        wire.close()
