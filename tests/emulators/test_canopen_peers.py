"""The emulated CANopen device, updated by a client that nobody here wrote: the PyPI package `canopen`, in an environment of its
own under build/peers, over the socket that `proxyflash emulate` serves."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can.server import serve_can
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.canopen.device import CanopenDevice
from proxyflash.emulators.device import DeviceSpec
from proxyflash.tests.peers import environment

pytestmark = pytest.mark.real_time("the client is a program of its own")

ROOT = Path(__file__).parents[2]
CANOPEN = "canopen==2.4.1"
SCRIPT = """
import sys, time
import canopen
from canopen.objectdictionary import ODVariable, ODRecord, datatypes

channel, file, number, blocks = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "blocks"
network = canopen.Network()
network.connect(interface="proxyflash", channel=channel)
if number == 90:
    network.lss.RESPONSE_TIMEOUT = 0.2
    found, ident = network.lss.fast_scan()
    assert found and ident == [0x2E5, 0x10022, 3, 7], (found, ident)
    network.lss.configure_node_id(number)
    network.lss.send_switch_state_global(network.lss.WAITING_STATE)
    time.sleep(0.3)
node = network.add_node(number, canopen.ObjectDictionary())
node.sdo.RESPONSE_TIMEOUT = 5
for index, sub in ((0x1000, 0), (0x1018, 4)):
    print(hex(index), int.from_bytes(node.sdo.upload(index, sub), "little"))
print(node.sdo.upload(0x1008, 0).decode(), node.sdo.upload(0x100A, 0).decode())
node.nmt.state = "PRE-OPERATIONAL"
try:
    node.sdo.download(0x1F51, 1, b"\\0")
except canopen.SdoCommunicationError:
    time.sleep(0.5)
time.sleep(0.3)
assert node.sdo.upload(0x1F51, 1) == b"\\0"
print(node.sdo.upload(0x1008, 0).decode())
node.sdo.download(0x1F51, 1, b"\\3")
variable = ODVariable("program", 0x1F50, 1)
variable.data_type = datatypes.DOMAIN
record = ODRecord("programs", 0x1F50)
record.add_member(variable)
node.object_dictionary.add_object(record)
data = open(file, "rb").read()
with node.sdo[0x1F50][1].open("wb", size=len(data), block_transfer=blocks) as out:
    out.write(data)
print("status", int.from_bytes(node.sdo.upload(0x1F57, 1), "little"))
print("id", node.sdo.upload(0x1F56, 1).hex())
try:
    node.sdo.download(0x1F51, 1, b"\\1")
except canopen.SdoCommunicationError:
    pass
time.sleep(0.5)
print("runs", node.sdo.upload(0x1F51, 1)[0], node.sdo.upload(0x100A, 0).decode())
network.disconnect()
"""


@pytest.mark.parametrize(
    ("part", "node", "way"), [("encoder", 5, "blocks"), ("encoder", 90, "blocks"), ("valve", 5, "segments")]
)
def test_the_client_loads_a_program(part: str, node: int, way: str, tmp_path: Path) -> None:
    python = environment(CANOPEN)
    wire = CanWire(uuid.uuid4().hex, pace=0)
    close = serve_can(wire, tmp_path / "can.sock")
    (tmp_path / "proxyflash").symlink_to(ROOT)
    # What an installation would leave: by it python-can knows the emulated wire.
    installed = tmp_path / "proxyflash-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: proxyflash\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(
        "[can.interface]\nproxyflash = proxyflash.emulators.can.python_can:EmulatedCanBus\n"
    )
    start = 0x08004000
    (tmp_path / "old.bin").write_bytes(application.make("1.4.2", part, "Acme", 900, start=start))
    new = application.make("1.5.0", part, "Acme", 5003, start=start)
    (tmp_path / "new.bin").write_bytes(new)
    address: dict[str, object] = {"node": node, "serial": 7}
    if node == 90:
        address |= {"lss": True, "vendor": 0x2E5, "product": 0x10022, "revision": 3}
    settings = {"part": part, "firmware": "old.bin"}
    device = CanopenDevice(DeviceSpec("part", address, {}, settings, firmware_folder=tmp_path, pace=0), wire)
    try:
        done = subprocess.run(
            [python, "-c", SCRIPT, f"unix:{tmp_path / 'can.sock'}", tmp_path / "new.bin", str(node), way],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "runs 1 1.5.0"
        assert "status 0" in done.stdout
        assert device.flash.read(start, len(new)) == new
        assert device.application_version == "1.5.0"
    finally:
        device.close()
        close()
        wire.close()
