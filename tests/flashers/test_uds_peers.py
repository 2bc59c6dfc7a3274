"""The UDS flasher against ECUs that nobody here wrote: scapy's answering machine, ISO-TP and UDS dissectors, the server of
python-uds-server, which refuses a block that comes again, and the simulated ECU of xaloqi-tester, whose key is made by AES.

They run in environments of their own under build/peers; scapy is GPL: it is run, never imported. What the scripts below add
is the memory behind their services. They reach the emulated wire over the socket that `proxyflash emulate` serves.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from proxyflash.emulators.can.server import serve_can
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.flashers.errors import SecurityDenied
from proxyflash.flashers.events import Event, Phase, Progress, Retrying, RunContext
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.uds.flasher import UdsFlasher
from proxyflash.flashers.uds.profile import UdsAddress, UdsProfile
from proxyflash.tests.peers import environment
from proxyflash.transports.can.bus import CanBus

pytestmark = pytest.mark.real_time("the ECU is a program of its own")

ROOT = Path(__file__).parents[2]
SCAPY = "scapy==2.8.0"
START, SIZE = 0x10000, 0x8000

SCRIPT = """
import sys, zlib
from scapy.config import conf
conf.contribs["ISOTP"] = {"use-can-isotp-kernel-module": False}
conf.contribs["CANSocket"] = {"use-python-can": True}
from scapy.packet import Raw
from scapy.contrib.cansocket_python_can import PythonCANSocket
from scapy.contrib.isotp import ISOTPSoftSocket
from scapy.contrib.automotive.uds import *
import scapy.contrib.automotive.uds_ecu_states
from scapy.contrib.automotive.ecu import EcuAnsweringMachine, EcuResponse, EcuState

channel, fd, kept = sys.argv[1], sys.argv[2] == "1", sys.argv[3]
START, SIZE = 0x10000, 0x8000
memory = bytearray(b"\\x5a" * SIZE)
place, counter, downloaded = 0, 0, []


def unlocked():
    return getattr(machine.state, "session", 1) == 2 and getattr(machine.state, "security_level", 0) == 2


def load(req):
    return req[Raw].load if Raw in req else b""


def seed_matches(resp, req):
    return is_key(resp, req) and req.securityKey == b"\\xc9\\xa9"


def is_key(resp, req):
    return req.service == 0x27 and req.securityAccessType == 2 and machine.state.session == 2


def routine(number, action):
    def answers(resp, req):
        ours = req.service == 0x31 and req.routineControlType == 1 and req.routineIdentifier == number
        return ours and unlocked() and action(req)
    return answers


def erase(req):
    parameters = load(req)
    start, size = int.from_bytes(parameters[1:5], "big"), int.from_bytes(parameters[5:9], "big")
    if len(parameters) != 9 or parameters[0] != 0x44 or not START <= start < start + size <= START + SIZE:
        return False
    memory[start - START:start - START + size] = b"\\xff" * size
    return True


def holds(req):
    crc = 0
    for start, size in downloaded:
        crc = zlib.crc32(memory[start:start + size], crc)
    return load(req) == crc.to_bytes(4, "big")


def download(resp, req):
    global place, counter
    if req.service != 0x34 or not unlocked() or req.dataFormatIdentifier != 0:
        return False
    if req.memoryAddressLen != 4 or req.memorySizeLen != 4:
        return False
    place, counter = req.memoryAddress4 - START, 0
    downloaded.append((place, req.memorySize4))
    return True


def transfer(resp, req):
    global place, counter
    if req.service != 0x36 or not unlocked() or req.blockSequenceCounter != (counter + 1) & 0xFF:
        return False
    data = req.transferRequestParameterRecord
    if memory[place:place + len(data)] != b"\\xff" * len(data):
        return False
    memory[place:place + len(data)] = data
    place, counter = place + len(data), req.blockSequenceCounter
    resp.blockSequenceCounter = counter
    return True


def reset(resp, req):
    if req.service != 0x11 or req.resetType != 1:
        return False
    with open(kept, "wb") as file:
        file.write(memory)
    return True


def refusal(service, nrc, answers):
    return EcuResponse(None, UDS() / UDS_NR(requestServiceId=service, negativeResponseCode=nrc), answers)


def passed(number, status=0):
    return UDS() / UDS_RCPR(routineControlType=1, routineIdentifier=number) / Raw(bytes([status]))


responses = [
    EcuResponse(None, UDS() / UDS_DSCPR(diagnosticSessionType=kind, sessionParameterRecord=b"\\x00\\x32\\x01\\xf4"))
    for kind in (1, 2, 3)
] + [
    EcuResponse(None, UDS() / UDS_RDBIPR(dataIdentifier=0xF186) / Raw(bytes([kind])),
                lambda resp, req: resp.answers(req) and bytes([machine.state.session]) == resp.load) for kind in (1, 2, 3)
] + [
    EcuResponse(None, UDS() / UDS_RDBIPR(dataIdentifier=0xF197) / Raw(b"scapy")),
    EcuResponse(None, UDS() / UDS_RDBIPR(dataIdentifier=0xF18C) / Raw(b"a serial number that needs two frames")),
    EcuResponse(None, UDS() / UDS_SAPR(securityAccessType=1, securitySeed=b"\\x36\\x57")),
    EcuResponse(None, UDS() / UDS_SAPR(securityAccessType=2), seed_matches),
    refusal(0x27, 0x35, is_key),
    EcuResponse(None, UDS() / UDS_RCPR(routineControlType=1, routineIdentifier=0x0203) / Raw(b"\\0")),
] + [
    EcuResponse(None, UDS() / UDS_CDTCSPR(DTCSettingType=kind),
                lambda resp, req: req.service == 0x85 and req.DTCSettingType == resp.DTCSettingType) for kind in (1, 2)
] + [
    EcuResponse(None, UDS() / UDS_CCPR(controlType=kind),
                lambda resp, req: req.service == 0x28 and req.controlType == resp.controlType) for kind in (0, 3)
] + [
    EcuResponse(None, [UDS() / UDS_NR(requestServiceId=0x31, negativeResponseCode=0x78), passed(0xFF00)],
                routine(0xFF00, erase)),
    EcuResponse(None, UDS() / UDS_RDPR(memorySizeLen=2, maxNumberOfBlockLength=b"\\x00\\x52"), download),
    EcuResponse(None, UDS() / UDS_TDPR(), transfer),
    refusal(0x36, 0x73, lambda resp, req: req.service == 0x36),
    EcuResponse(None, UDS() / UDS_RTEPR(), lambda resp, req: req.service == 0x37),
    EcuResponse(None, passed(0x0202), routine(0x0202, holds)),
    EcuResponse(None, passed(0x0202, 1), routine(0x0202, lambda req: True)),
    EcuResponse(None, passed(0xFF01), routine(0xFF01, lambda req: True)),
    EcuResponse(None, UDS() / UDS_ERPR(resetType=1), reset),
]
wire = PythonCANSocket(interface="proxyflash", channel=channel, fd=fd)
with ISOTPSoftSocket(wire, tx_id=0x7E8, rx_id=0x7E0, basecls=UDS, padding=True, fd=fd) as socket:
    machine = EcuAnsweringMachine(
        supported_responses=responses, main_socket=socket, basecls=UDS, verbose=False, timeout=None,
        initial_ecu_state=EcuState(session=1),
    )
    print("ready", flush=True)
    machine()
"""


SERVER = "python-uds-server==0.1.0"
SERVER_SCRIPT = """
import sys, zlib
import can, isotp
from uds_server import (
    DiagnosticSession, EcuResetDefinition, MemoryRegionDefinition, RoutineDefinition, SecurityLevel, UdsServer,
)
from uds_server.transport import IsoTpTransport

channel, _, kept = sys.argv[1:4]
START, SIZE = 0x10000, 0x8000
memory = bytearray(b"\\x5a" * SIZE)


def write(address, data):
    place = address - START
    if memory[place:place + len(data)] != b"\\xff" * len(data):
        raise ValueError("not erased")
    memory[place:place + len(data)] = data


def erase(parameters):
    start, size = int.from_bytes(parameters[1:5], "big") - START, int.from_bytes(parameters[5:9], "big")
    memory[start:start + size] = b"\\xff" * size
    return b"\\0"


def check(parameters):
    size = int.from_bytes(parameters[5:9], "big")
    start = int.from_bytes(parameters[1:5], "big") - START
    return bytes([zlib.crc32(memory[start:start + size]) != int.from_bytes(parameters[9:13], "big")])


def keep():
    with open(kept, "wb") as file:
        file.write(memory)


stack = isotp.CanStack(
    can.Bus(interface="proxyflash", channel=channel), params={"tx_padding": 0xCC, "blocksize": 0},
    address=isotp.Address(isotp.AddressingMode.Normal_11bits, txid=0x7E8, rxid=0x7E0),
)
server = UdsServer(
    transport=IsoTpTransport(stack),
    sessions=[DiagnosticSession(1), DiagnosticSession(2), DiagnosticSession(3)],
    security_levels=[SecurityLevel(1, lambda: b"\\x36\\x57", key_validator=lambda seed, key: key == b"\\xc9\\xa9")],
    routines=[RoutineDefinition(0xFF00, erase), RoutineDefinition(0x0202, check),
              RoutineDefinition(0xFF01, lambda parameters: b"\\0")],
    memory_regions=[MemoryRegionDefinition(START, SIZE, write_callback=write)],
    resets=[EcuResetDefinition(1, keep)],
)
server.start()
print("ready", flush=True)
server._thread.join()
"""


XALOQI = "xaloqi-tester==1.5.8"
XALOQI_SCRIPT = """
import asyncio, sys
import can
from xaloqi import sim

channel, _, kept = sys.argv[1:4]
START, SIZE = 0x10000, 0x8000
memory = bytearray(b"\\x5a" * SIZE)
place = 0
answered = sim.handle_request


def remembered(pdu, state, verbose):
    global place
    answer = answered(pdu, state, verbose)
    if answer is None or answer[0] == 0x7F:
        return answer
    if pdu[:4] == b"\\x31\\x01\\xff\\x00":
        start, size = int.from_bytes(pdu[5:9], "big") - START, int.from_bytes(pdu[9:13], "big")
        memory[start:start + size] = b"\\xff" * size
    elif pdu[0] == 0x34:
        place = int.from_bytes(pdu[3:7], "big") - START
    elif pdu[0] == 0x36:
        assert memory[place:place + len(pdu) - 2] == b"\\xff" * (len(pdu) - 2)
        memory[place:place + len(pdu) - 2] = pdu[2:]
        place += len(pdu) - 2
    elif pdu[0] == 0x11:
        with open(kept, "wb") as file:
            file.write(memory)
    return answer


class Bus:
    wire = can.Bus(interface="proxyflash", channel=channel)

    async def recv(self, timeout):
        message = self.wire.recv(timeout)
        return (0x7E0, bytes(message.data)) if message is not None and message.arbitration_id == 0x7E0 else None

    async def send(self, identifier, data):
        self.wire.send(can.Message(arbitration_id=identifier, data=data, is_extended_id=False))


sim.handle_request = remembered
print("ready", flush=True)
asyncio.run(sim.run_on_bus(Bus(), {"state": sim.EcuState()}, asyncio.Event(), 0x7E8, fc_block_size=8))
"""


@pytest.fixture(scope="session")
def scapy() -> Path:
    """The interpreter of the environment that scapy is in."""
    return environment(SCAPY, "python-can")


@contextmanager
def foreign_ecu(
    python: Path, folder: Path, *, fd: bool, script: str = SCRIPT, faults: Faults | None = None
) -> Iterator[CanBus]:
    """An ECU of somebody else's on a wire of its own; the host's end of the wire. What it holds goes to "kept" at its reset."""
    wire = CanWire(uuid.uuid4().hex, pace=0, data_bitrate=2_000_000 if fd else None, faults=faults)
    close = serve_can(wire, folder / "can.sock")
    (folder / "proxyflash").symlink_to(ROOT)
    # What an installation would leave: by it python-can knows the emulated wire, whatever folder the tests run in.
    installed = folder / "proxyflash-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: proxyflash\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(
        "[can.interface]\nproxyflash = proxyflash.emulators.can.python_can:EmulatedCanBus\n"
    )
    command = [python, "-c", script, f"unix:{folder / 'can.sock'}", str(int(fd)), folder / "kept"]
    process = subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(folder), "HOME": str(folder)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with CanBus.open("b", {"interface": "proxyflash", "channel": wire.channel, "fd": fd}) as bus:
            yield bus
    finally:
        process.kill()
        process.communicate()
        close()
        wire.close()


def flash(bus: CanBus, image: FirmwareImage, *, fd: bool, secret: str = "FF FE") -> FlashResult:
    profile = UdsProfile.model_validate(
        {
            "part": "scapy",
            "memory": [{"start": START, "size": SIZE, "erase_unit": 0x1000}],
            "security": {"key": "xor", "secret": secret},
            "timings": {"latency": 2.0},
            "iso_tp": {"tx_dl": 64 if fd else 8},
            "running_when": "session",
        }
    )
    flasher = UdsFlasher.attach(bus, UdsAddress(request=0x7E0), profile)
    try:
        programmer = Programmer(flasher, "ecu", attempts=1)
        return programmer.flash(programmer.plan(image))
    finally:
        flasher.close()


IMAGE = FirmwareImage(
    (Segment(START, bytes(range(256)) * 3 + b"odd"), Segment(START + 0x1400, b"\x5a\xa5" * 300)), "bin"
)


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
def test_scapy_is_flashed(scapy: Path, tmp_path: Path, fd: bool) -> None:
    with foreign_ecu(scapy, tmp_path, fd=fd) as bus:
        result = flash(bus, IMAGE, fd=fd)
    assert result.identity.part == "scapy"
    assert result.identity.serial == "a serial number that needs two frames"
    assert "routine 0x0202" in result.verified
    held = (tmp_path / "kept").read_bytes()
    assert held[: 256 * 3 + 3] == bytes(range(256)) * 3 + b"odd"
    assert held[0x1400 : 0x1400 + 600] == b"\x5a\xa5" * 300
    assert held[256 * 3 + 3 : 0x1400] == b"\xff" * (0x1400 - 256 * 3 - 3)
    assert held[0x2000:] == b"\x5a" * (SIZE - 0x2000)


def test_scapy_refuses_a_wrong_key(scapy: Path, tmp_path: Path) -> None:
    with foreign_ecu(scapy, tmp_path, fd=False) as bus, pytest.raises(SecurityDenied, match="invalidKey"):
        flash(bus, IMAGE, fd=False, secret="00 01")


def test_python_uds_server_is_flashed_though_a_response_is_lost(tmp_path: Path) -> None:
    """Its refusal of the repeated block (0x73) leaves open what it has: the download begins again."""
    faults = Faults()
    tried_again: list[Event] = []

    def hear(event: Event) -> None:
        if isinstance(event, Retrying):
            tried_again.append(event)
        if isinstance(event, Progress) and event.phase is Phase.WRITE and not faults.plan.drop:
            # A block of 254 bytes: its first frame, a flow control, 36 consecutive frames, and the response.
            faults.restart(FaultPlan(drop=1.0, first=faults.units + 39, last=faults.units + 39))

    profile = UdsProfile.model_validate(
        {
            "memory": [{"start": START, "size": SIZE, "erase_unit": 0x1000}],
            "security": {"key": "xor", "secret": "FF FE"},
            "routines": {"check_parameters": ["alfi", "address", "size", "crc32"]},
            "timings": {"latency": 2.0},
        }
    )
    with foreign_ecu(
        environment(SERVER, "can-isotp", "python-can"), tmp_path, fd=False, script=SERVER_SCRIPT, faults=faults
    ) as bus:
        flasher = UdsFlasher.attach(bus, UdsAddress(request=0x7E0), profile)
        try:
            programmer = Programmer(flasher, "ecu", RunContext(hear))
            programmer.flash(programmer.plan(IMAGE))
        finally:
            flasher.close()
    assert len(faults.done) == 1
    assert len(tried_again) == 1
    held = (tmp_path / "kept").read_bytes()
    for segment in IMAGE.segments:
        place = segment.address - START
        assert held[place : place + segment.size] == bytes(segment.data)
    assert held[0x2000:] == b"\x5a" * (SIZE - 0x2000)


SECRET = bytes(range(16))
"""The key of its level 1 where none is set."""


def cmac_key(seed: bytes, secret: bytes, level: int) -> bytes:
    """AES-128-CMAC (RFC 4493) of the seed, its first four bytes."""
    mac = CMAC(AES(secret))
    mac.update(seed)
    return mac.finalize()[:4]


def test_the_ecu_of_xaloqi_is_flashed(tmp_path: Path) -> None:
    """It has an ISO-TP of its own, with flow control after each eight frames, wants a key by AES, and shows no session."""
    profile = UdsProfile.model_validate(
        {
            "memory": [{"start": START, "size": SIZE, "erase_unit": 0x1000}],
            "security": {"key": f"{cmac_key.__module__}:cmac_key", "secret": SECRET},
            "timings": {"latency": 2.0},
            "running_when": "session",
        }
    )
    python = environment(XALOQI, "python-can")
    with foreign_ecu(python, tmp_path, fd=False, script=XALOQI_SCRIPT) as bus:
        flasher = UdsFlasher.attach(bus, UdsAddress(request=0x7E0), profile)
        try:
            programmer = Programmer(flasher, "ecu", attempts=1)
            result = programmer.flash(programmer.plan(IMAGE))
        finally:
            flasher.close()
    assert result.identity.serial == "SIM00000001"
    held = (tmp_path / "kept").read_bytes()
    for segment in IMAGE.segments:
        place = segment.address - START
        assert held[place : place + segment.size] == bytes(segment.data)
    assert held[0x2000:] == b"\x5a" * (SIZE - 0x2000)
