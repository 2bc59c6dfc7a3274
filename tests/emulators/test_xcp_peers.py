"""pyxcp as the master of the emulated XCP slaves: it flashes and reads back what they then start.

pyxcp is LGPL: it is run in an environment of its own under build/peers, never imported. It reaches the emulated wires over the
socket that `proxyflash emulate` serves, and over a pseudo-terminal.
"""

from __future__ import annotations

import subprocess
import uuid
import zlib
from pathlib import Path

import pytest
from proxyflash.emulators.can.server import serve_can
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.xcp.can import XcpCanDevice
from proxyflash.emulators.xcp.uart import XcpUartDevice
from proxyflash.tests.peers import environment

pytestmark = pytest.mark.real_time("the master is a program of its own")

ROOT = Path(__file__).parents[2]
PYXCP = "pyxcp==0.29.20"
SCRIPT = """
import sys
from pyxcp.config import create_application_from_config
from pyxcp.master import Master

layer, place, start, unit, path, read, checksum = sys.argv[1:]
start, unit, data = int(start), int(unit), open(path, "rb").read()
general = {"seed_n_key_function": lambda resource, seed: bytes(a ^ 0x5A for a in seed), "max_retries": 3}
bus = None
if layer == "CAN":
    import can
    bus = can.Bus(interface="proxyflash", channel=place)
    wire = {"CAN": {"interface": "custom", "can_id_master": 0x667, "can_id_slave": 0x7E1, "bitrate": 500000}}
else:
    wire = {"SxI": {"port": place, "bitrate": 57600, "header_format": "HEADER_LEN_BYTE", "tail_format": checksum}}
app = create_application_from_config({"General": general, "Transport": wire}, log_level=50)
app.transport.layer = layer
master = Master(layer, config=app, transport_layer_interface=bus)
master.transport.connect()
for left in range(100):
    try:
        master.connect()
        break
    except Exception:
        if left == 99:
            raise
print(master.identifier(1))
master.cond_unlock("PGM")
master.programStart()
units = range(start, start + len(data), unit)
for at in units:
    master.setMta(at)
    master.programClear(0, unit)
pgm = master.slaveProperties.pgmProcessor
if pgm.masterBlockMode:
    master.flash_program(start, data)
else:
    # Without block mode pyxcp's own order does not wait for the answers: this is LibOpenBLT's order.
    most = pgm.maxCtoPgm - 1
    over = len(data) % most
    master.setMta(start)
    if over:
        master.program(data[:over], over, last=True)
    for at in range(over, len(data), most):
        master.programMax(data[at:at + most])
master.program(b"", 0, last=True)
master.setMta(start)
held = master.fetch(len(data)) if read == "read" else b""
open(path + ".held", "wb").write(held)
master.setMta(start)
print("checksum", master.buildChecksum(0x4000).checksum)
try:
    master.programReset(wait_for_optional_response=False)
except Exception:
    pass
master.transport.close()
print("done")
"""


@pytest.fixture(scope="session")
def pyxcp() -> Path:
    return environment(PYXCP)


def run(python: Path, folder: Path, *arguments: str | int | Path) -> str:
    (folder / "proxyflash").symlink_to(ROOT)
    installed = folder / "proxyflash-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: proxyflash\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(
        "[can.interface]\nproxyflash = proxyflash.emulators.can.python_can:EmulatedCanBus\n"
    )
    done = subprocess.run(
        [str(python), "-c", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(folder), "HOME": str(folder)},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("part", "unit", "name", "secret"),
    [
        ("openblt-f103", 0x2000, "OpenBLT", ""),
        ("openblt-f103", 0x2000, "OpenBLT", "5a"),
        ("ecu-block", 0x4000, "RADAR-7 R1", "5a"),
    ],
)
def test_pyxcp_on_can(part: str, unit: int, name: str, secret: str, pyxcp: Path, tmp_path: Path) -> None:
    wire = CanWire(uuid.uuid4().hex, pace=0)
    spec = DeviceSpec("part", {"request": 0x667, "response": 0x7E1}, settings={"part": part, "secret": secret}, pace=0)
    device = XcpCanDevice.attach(spec, wire)
    close = serve_can(wire, tmp_path / "can.sock")
    try:
        data = device.make_firmware("1.5.0", "part", "Acme", 20_777)
        (tmp_path / "new.bin").write_bytes(data)
        said = run(
            pyxcp,
            tmp_path,
            "CAN",
            f"unix:{tmp_path / 'can.sock'}",
            device.flash.base,
            unit,
            tmp_path / "new.bin",
            "read",
            "-",
        )
        assert name in said
        first = data[:0x4000]
        assert f"checksum {zlib.crc32(first) if part == 'ecu-block' else sum(first) & 0xFF}\n" in said
        assert (tmp_path / "new.bin.held").read_bytes() == data
        device.settle()
        assert device.application_version == "1.5.0"
    finally:
        close()
        device.close()
        wire.close()


@pytest.mark.parametrize("tail", ["NO_CHECKSUM", "CHECKSUM_BYTE"])
def test_pyxcp_on_a_serial_line(tail: str, pyxcp: Path, tmp_path: Path) -> None:
    wire = UartWire(uuid.uuid4().hex, pace=0)
    settings = {"part": "openblt-f103-uart", "secret": "5a", "checksum": tail != "NO_CHECKSUM"}
    device = XcpUartDevice.attach(DeviceSpec("part", settings=settings, pace=0), wire)
    path, close = serve_pty(wire)
    try:
        data = device.make_firmware("1.5.0", "part", "Acme", 20_777)
        (tmp_path / "new.bin").write_bytes(data)
        run(pyxcp, tmp_path, "SXI", path, device.flash.base, 0x2000, tmp_path / "new.bin", "read", tail)
        assert (tmp_path / "new.bin.held").read_bytes() == data
        device.settle()
        assert device.application_version == "1.5.0"
    finally:
        close()
        device.close()
        wire.close()
