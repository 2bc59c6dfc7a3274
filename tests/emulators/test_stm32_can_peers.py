"""The emulated STM32 loader on CAN, flashed by a program that nobody here wrote: canprog (PyPI, MIT).

canprog opens socketcan alone, and wants a python-can below 4, so it is in an environment of its own under build/peers, made once.
There `BUS` stands in for its bus: it carries canprog's frames, as they are, to an emulated wire behind a Unix socket.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can.server import serve_can
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.stm32.can import Stm32CanDevice
from proxyflash.flashers.formats import load
from proxyflash.flashers.programmer import Programmer
from proxyflash.flashers.stm32.can import Stm32CanFlasher
from proxyflash.flashers.stm32.profile import Stm32CanAddress, Stm32CanProfile
from proxyflash.tests.peers import environment
from proxyflash.transports.can.bus import CanBus

pytestmark = pytest.mark.real_time("a peer program at a served wire")

CANPROG = ("canprog==0.2.1", "python-can==3.3.4", "intelhex==2.3.0", "setuptools<80")
BUS = """
import socket, struct, sys
import can, can.interface
RECORD = struct.Struct(">IBBHd64s")

class Bus(can.BusABC):
    def __init__(self, channel, **keys):
        super().__init__(channel=channel)
        self.channel_info = channel
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(channel)
        self._socket.sendall(RECORD.pack(0, 32, 0, 0, 0.0, b""))

    def send(self, message, timeout=None):
        data = bytes(message.data)
        flags = 1 if message.is_extended_id else 0
        self._socket.sendall(RECORD.pack(message.arbitration_id, flags, len(data), 0, 0.0, data))

    def recv(self, timeout=None):
        # It polls without a pause.
        self._socket.settimeout(max(timeout or 0.0, 0.05))
        try:
            record = self._socket.recv(RECORD.size, socket.MSG_WAITALL)
        except socket.timeout:
            return None
        identifier, flags, size, _, _, data = RECORD.unpack(record)
        if flags & 32:
            return None
        return can.Message(arbitration_id=identifier, is_extended_id=bool(flags & 1), data=data[:size], dlc=size)

can.interface.Bus = lambda channel, bustype: Bus(channel)
from canprog.main import main
sys.argv[0] = "canprog"
main()
sys.exit(1)
"""
START = 0x08000000
IMAGE = application.make("1.5.0", "motor", "acme", 3_008)
WITH_REST = application.make("1.5.0", "motor", "acme", 3_004)
"""Not whole frames. canprog does not take the rest in single bytes, as OpenBL sends it."""


@dataclass(frozen=True)
class Served:
    device: Stm32CanDevice
    wire: CanWire
    path: Path


@pytest.fixture(scope="session")
def canprog() -> Path:
    """The interpreter of the environment that canprog is in."""
    return environment(*CANPROG)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    closers: list[Callable[[], None]] = []

    def make(part: str, **table: Any) -> Served:
        wire = CanWire(uuid.uuid4().hex, pace=0)
        spec = DeviceSpec("motor", settings={"part": part, "boot0": True, **table}, pace=0)
        device = Stm32CanDevice.attach(spec, wire)
        device.flash.load(START, b"\x5a" * 0x3000)
        path = tmp_path / f"{len(closers)}.sock"
        closers.extend([serve_can(wire, path), device.close, wire.close])
        return Served(device, wire, path)

    yield make
    for close in closers:
        close()


def run(canprog: Path, served: Served, *arguments: object) -> str:
    """What canprog says; it fails the test when it ends with an error."""
    command = [canprog, "-c", BUS, "-n", served.path, "-f", "bin", "stm32", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert served.device.node.fault is None
    return said


SHAPES = pytest.mark.parametrize("shape", ["rom", "openbl"])


@SHAPES
@pytest.mark.parametrize("part", ["stm32f405xg", "stm32f103xb"])
def test_write_verify_and_go(
    serve: Callable[..., Served], canprog: Path, tmp_path: Path, part: str, shape: str
) -> None:
    served = serve(part, shape=shape)
    image = IMAGE if shape == "openbl" else WITH_REST
    (tmp_path / "image.bin").write_bytes(image)
    said = run(canprog, served, "write", "-e", "-v", "-g", tmp_path / "image.bin")
    assert f"Chip ID: 0x{served.device.memory.part.product_id:04X}" in said
    assert served.device.flash.read(START, 0x3000) == image.ljust(0x3000, b"\xff")
    assert served.device.application_version == "1.5.0"


@SHAPES
def test_erasing_pages_alone(serve: Callable[..., Served], canprog: Path, shape: str) -> None:
    """Pages of 1 KiB; others stay."""
    served = serve("stm32f103xb", shape=shape)
    run(canprog, served, "erase", "-P", "1", "3")
    data = served.device.flash.read(START, 0x3000)
    erased = [page for page in range(12) if data[page * 1024 : (page + 1) * 1024] == b"\xff" * 1024]
    assert erased == [1, 3]
    assert data.count(0x5A) == 10 * 1024


@SHAPES
def test_reading_back(serve: Callable[..., Served], canprog: Path, tmp_path: Path, shape: str) -> None:
    served = serve("stm32f405xg", shape=shape)
    served.device.flash.load(START, IMAGE)
    run(canprog, served, "read", "-s", "3000", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == IMAGE[:3000]


def test_protections(serve: Callable[..., Served], canprog: Path) -> None:
    served = serve("stm32f405xg")
    run(canprog, served, "lock")
    assert served.device.memory.options.rdp == 1
    run(canprog, served, "unlock")
    assert served.device.memory.options.rdp == 0
    assert served.device.flash.read(START, 256) == b"\xff" * 256


@SHAPES
def test_our_flasher_leaves_the_same_flash(
    serve: Callable[..., Served], canprog: Path, tmp_path: Path, shape: str
) -> None:
    """From one file, into flash whose every byte was something else."""
    theirs, ours = (serve("stm32f405xg", shape=shape) for _ in range(2))
    file = tmp_path / "image.bin"
    file.write_bytes(IMAGE)
    for served in (theirs, ours):
        served.device.flash.load(START, b"\x5a" * 0x4000)
    run(canprog, theirs, "write", "-e", "-P", "0", "-v", "-a", hex(START), file)
    bus = CanBus.open("b", ours.wire.host_settings())
    flasher = Stm32CanFlasher.attach(bus, Stm32CanAddress(), Stm32CanProfile())
    programmer = Programmer(flasher, "motor")
    programmer.flash(programmer.plan(load(file, address=START)))
    flasher.close()
    bus.close()
    assert ours.device.flash.read(START, 0x20000) == theirs.device.flash.read(START, 0x20000)
