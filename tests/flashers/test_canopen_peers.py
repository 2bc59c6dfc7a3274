"""The CANopen flasher against nodes that nobody here wrote: durand's SDO server, NMT and LSS.

durand runs in an environment of its own under build/peers. What the script below adds is the program behind its objects.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.flashers.canopen import lss
from proxyflash.flashers.canopen.discovery import CanopenDiscovery
from proxyflash.flashers.canopen.flasher import CanopenFlasher
from proxyflash.flashers.canopen.profile import CanopenAddress, CanopenProfile
from proxyflash.flashers.errors import Unsupported, VerifyMismatch
from proxyflash.flashers.events import Event, Phase, Retrying, RunContext
from proxyflash.flashers.flasher import State
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.tests.flashers.test_uds_peers import foreign_ecu
from proxyflash.tests.peers import environment
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline

pytestmark = pytest.mark.real_time("the node is a program of its own")

DURAND = "durand==0.5.0"
SCRIPT = """
import sys, threading, zlib
import can
from durand import CANBusNetwork, MinimalNode
from durand.datatypes import DatatypeEnum as DT
from durand.object_dictionary import Record, Variable
from durand.services.sdo.download import BaseDownloadHandler

channel, _, kept = sys.argv[1:4]
NODE, BLOCKS, PROGRAM = OPTIONS
network = CANBusNetwork(can.Bus(interface="proxyflash", channel=channel))
node = MinimalNode(network, NODE)
od = node.object_dictionary
held, control, status, taken = bytearray(b"old"), 1, 0, []

od.write(0x1008, 0, b"durand")
od.write(0x100A, 0, b"0.5.0")
for sub, value in enumerate((0x2E5, 0x10022, 3, 0x1E240), 1):
    od.write(0x1018, sub, value)
for index, kind, access in ((0x1F50, DT.DOMAIN, "rw"), (0x1F51, DT.UNSIGNED8, "rw"), (0x1F56, DT.UNSIGNED32, "ro"),
                            (0x1F57, DT.UNSIGNED32, "ro")):
    od[index] = Record()
    od[index][PROGRAM] = Variable(kind, access)
od.set_read_callback(0x1F51, PROGRAM, lambda: control)
od.set_read_callback(0x1F56, PROGRAM, lambda: zlib.crc32(held))
od.set_read_callback(0x1F57, PROGRAM, lambda: status)


def controlled(value):
    global control, status
    assert int(node.nmt.state) == 127
    if value == 3:
        assert control == 0
        held.clear()
        status = 0
    if value == 1:
        with open(kept, "wb") as file:
            file.write(held)
    control = value


class Program(BaseDownloadHandler):
    def on_receive(self, data):
        held.extend(data)

    def on_finish(self):
        global control
        control = 0

    def on_abort(self):
        global status
        status = 3 << 1


def downloaded(own, index, sub, size):
    global status
    if index != 0x1F50:
        return None
    if control != 3:
        status = 4 << 1
        raise ValueError("not cleared")
    return Program()


od.update_callbacks[(0x1F51, PROGRAM)].add(controlled)
node.sdo_servers[0].download_manager.set_handler_callback(downloaded)
if not BLOCKS:
    node.sdo_servers[0]._handle_cs_dict.pop(6)
print("ready", flush=True)
threading.Event().wait()
"""
IMAGE = bytes(range(256)) * 39 + b"the end"
IDENT: dict[str, Any] = {"vendor": 0x2E5, "product": 0x10022, "revision": 3, "serial": 0x1E240}


@pytest.fixture(scope="session")
def durand() -> Path:
    """The interpreter of the environment that durand is in."""
    return environment(DURAND, "python-can")


def script(node: int = 5, *, blocks: bool = True, program: int = 1) -> str:
    return SCRIPT.replace("OPTIONS", repr((node, blocks, program)))


def programmer(bus: CanBus, context: RunContext | None = None, **keys: object) -> Programmer:
    address = {"node": 5, **{name: keys.pop(name) for name in ("lss", *IDENT) if name in keys}}
    node = CanopenFlasher(
        bus,
        CanopenAddress.model_validate(address),
        CanopenProfile.model_validate({"part": "durand", "identification": "crc32", **keys}),
    )
    return Programmer(node, "part", context or RunContext())


def flash(bus: CanBus, context: RunContext | None = None, **keys: object) -> FlashResult:
    with programmer(bus, context, **keys) as engine:
        return engine.flash(engine.plan(FirmwareImage((Segment(0, IMAGE),), format="bin", relocatable=True)))


@pytest.mark.parametrize(("blocks", "program"), [(True, 1), (True, 3), (False, 1)])
def test_a_program_arrives(durand: Path, tmp_path: Path, blocks: bool, program: int) -> None:
    """Without blocks the server refuses the request for one by 0x05040001, and names no object."""
    with foreign_ecu(durand, tmp_path, fd=False, script=script(blocks=blocks, program=program)) as bus:
        result = flash(bus, program=program)
        assert (tmp_path / "kept").read_bytes() == IMAGE
        assert result.attempts == 1
        assert result.identity.part == "durand"
        assert result.identity.serial == "0001E240"
        assert result.verified.startswith(f"CRC-32 of the program, 0x1F56:{program} by the device; flash status 0x1F57")
        with programmer(bus, program=program) as engine:
            whole = FirmwareImage((Segment(0, IMAGE),), format="bin", relocatable=True)
            other = FirmwareImage((Segment(0, IMAGE[:-1]),), format="bin", relocatable=True)
            assert engine.verify(whole)
            with pytest.raises(VerifyMismatch, match=f"0x{zlib.crc32(IMAGE):08X}"):
                engine.verify(other)


def test_a_lost_segment_brings_the_program_in_segments(durand: Path, tmp_path: Path) -> None:
    """durand aborts a block transfer at the first segment that is missing (0x05040003)."""
    faults = Faults(FaultPlan())
    seen: list[Event] = []

    def heard(event: Event) -> None:
        seen.append(event)
        if getattr(event, "phase", None) is Phase.WRITE and not faults.plan.drop and not retried(seen):
            faults.plan = FaultPlan(first=faults.units + 50, last=faults.units + 50, drop=1.0)

    with foreign_ecu(durand, tmp_path, fd=False, script=script(), faults=faults) as bus:
        result = flash(bus, RunContext(heard))
        assert (tmp_path / "kept").read_bytes() == IMAGE
        assert result.attempts == 2
        assert "0x05040003" in retried(seen)[0].cause


def retried(events: list[Event]) -> list[Retrying]:
    return [event for event in events if isinstance(event, Retrying)]


def test_a_node_is_only_read_until_a_program_is_loaded(durand: Path, tmp_path: Path) -> None:
    with foreign_ecu(durand, tmp_path, fd=False, script=script()) as bus:
        near = CanopenProfile(answer=0.1)
        absent = CanopenAddress(node=6)
        assert CanopenFlasher.probe(bus, absent, near, active=False, deadline=Deadline.after(0.2)) is None
        there = CanopenAddress(node=5)
        found = CanopenFlasher.probe(bus, there, CanopenProfile(), active=False, deadline=Deadline.after(2))
        assert found is not None
        assert (found.state, found.identity.version) == (State.RUNNING, "0.5.0")
        with pytest.raises(Unsupported, match="0x1F51:7"):
            flash(bus, program=7)
        assert not (tmp_path / "kept").exists()


def test_a_node_without_a_node_id_is_found_and_gets_one(
    durand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A program on a busy machine takes longer than a node.
    monkeypatch.setattr(lss, "ANSWER_SECONDS", 0.4)
    with foreign_ecu(durand, tmp_path, fd=False, script=script(0xFF)) as bus:
        (found,) = CanopenDiscovery.discover(bus, [], active=True, deadline=Deadline.after(30))
        assert "serial number 0001E240" in found.title
        assert found.address == (
            "node = 127, lss = true, vendor = 0x000002E5, product = 0x00010022, revision = 0x00000003, serial = 0x0001E240"
        )
        flash(bus, lss=True, **IDENT)
        assert (tmp_path / "kept").read_bytes() == IMAGE
        # It has given its node id back.
        (again,) = CanopenDiscovery.discover(bus, [], active=True, deadline=Deadline.after(30))
        assert again == found
