"""The CANopen flasher: how a program is loaded, what passes on the bus, what is refused, and who is found there."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import can
import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.canopen.device import CanopenDevice
from proxyflash.emulators.canopen.sdo import Refused, Server
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.faults import FaultPlan
from proxyflash.emulators.replay.session import Replay
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.component import Presence
from proxyflash.enumerators.described import describers
from proxyflash.flashers.canopen.discovery import CanopenDiscovery
from proxyflash.flashers.canopen.flasher import CanopenFlasher
from proxyflash.flashers.canopen.profile import CanopenAddress, CanopenProfile
from proxyflash.flashers.describing import described
from proxyflash.flashers.errors import (
    ImageWrongPart,
    NoResponse,
    OperationFailed,
    PartError,
    PartRefused,
    ProtocolError,
    RebootFailed,
    VerifyMismatch,
    WrongPart,
)
from proxyflash.flashers.events import Event, Preparing, RunContext
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.testing.rig import Rig, settled
from proxyflash.tests.flashers.test_contract import KINDS
from proxyflash.tests.flashers.test_contract import TestCanopen as Kind
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError
from proxyflash.transports.recording.formats import Recording
from proxyflash.transports.recording.recorder import Recorder

pytestmark = pytest.mark.simulated_time
SLOT = b"\x3d\xb8\xf3\x96" + bytes(8) + struct.pack("<I", 1000) + bytes(16) + bytes(range(200)) * 6
"""An MCUboot image of 1000 bytes behind a header, and what follows it."""


class Node:
    """A node on a bus of its own. It has the objects of a test, and keeps what is written to them."""

    def __init__(self, objects: dict[tuple[int, int], bytes], *, block: int = 127) -> None:
        self.wire = CanWire("canopen-node", pace=0)
        self.objects = objects
        self.written: list[tuple[int, bytes]] = []
        self.sent: list[tuple[int, str]] = []
        self.program = bytearray()
        self.refusals: dict[tuple[int, bytes], int] = {}
        """Abort codes of writes; 0: no answer."""
        self.on_write: Callable[[int, bytes], None] = lambda index, data: None
        self._server = Server(self._read, self._begin, self._write, block=block, crc=True)
        self._mute = False
        self._node = self.wire.attach("node", self._received)
        self.bus = CanBus.open("b", self.wire.host_settings())

    def _read(self, index: int, sub: int) -> bytes:
        if (index, sub) not in self.objects:
            raise Refused(0x0602_0000)
        return self.objects[index, sub]

    def _begin(self, index: int, sub: int, size: int | None) -> None:
        if index == 0x1F50:
            self.program.clear()

    def _write(self, index: int, sub: int, data: bytes, last: bool) -> None:
        if index == 0x1F50:
            self.program += data
        else:
            self.written.append((index, data))
            refusal = self.refusals.get((index, data))
            if refusal:
                raise Refused(refusal)
            self._mute = refusal == 0
        if last:
            self.on_write(index, data)

    def _received(self, message: can.Message) -> None:
        if message.is_error_frame:
            return
        self.sent.append((message.arbitration_id, bytes(message.data).hex()))
        if message.arbitration_id == 0x605 and (answer := self._server.answer(bytes(message.data))):
            if not self._mute:
                self._node.send(can.Message(arbitration_id=0x585, data=answer, is_extended_id=False), 0.0)
            self._mute = False

    def flash(self, image: bytes = SLOT, context: RunContext | None = None, **profile: Any) -> FlashResult:
        keys = {"answer": 0.2, "work": 1.0, "start": 1.0, **profile}
        address = CanopenAddress(node=5)
        node = CanopenFlasher(self.bus, address, CanopenProfile.model_validate(keys))
        with Programmer(node, "part", context or RunContext()) as engine:
            return engine.flash(engine.plan(FirmwareImage((Segment(0, image),), format="bin", relocatable=True)))

    def close(self) -> None:
        self.bus.close()
        self.wire.close()


@pytest.fixture
def node() -> Iterator[Node]:
    """It has a program that runs; 1F51 reads as what was written to it last."""
    made = Node(
        {
            (0x1000, 0): bytes(4),
            (0x1018, 4): struct.pack("<I", 7),
            (0x1F51, 1): b"\1",
            (0x1F56, 1): bytes(4),
            (0x1F57, 1): bytes(4),
        }
    )

    def written(index: int, data: bytes) -> None:
        if index == 0x1F51:
            made.objects[0x1F51, 1] = data

    made.on_write = written
    yield made
    made.close()


def controls(node: Node) -> list[int]:
    return [data[0] for index, data in node.written if index == 0x1F51]


# The order.


def test_the_order_of_a_download(node: Node) -> None:
    steps: list[str] = []

    def heard(event: Event) -> None:
        if isinstance(event, Preparing):
            steps.append(event.what)

    result = node.flash(context=RunContext(heard))
    assert controls(node) == [0, 3, 1]
    assert steps == ["stops program 1", "erases program 1"]
    assert bytes(node.program) == SLOT
    assert result.verified == "flash status 0x1F57 of the device: no error"
    assert (0, "8005") in node.sent


def test_a_program_that_has_to_be_declared_valid(node: Node) -> None:
    """And an application that starts its bootloader by a value of its own."""

    def written(index: int, data: bytes) -> None:
        if index == 0x1F51:
            node.objects[0x1F51, 1] = b"\1" if data == b"\1" else b"\0"

    node.on_write = written
    node.flash(stop=0x80, validation=0x83)
    assert controls(node) == [0x80, 3, 0x83, 1]


def test_nothing_is_stopped_that_is_stopped_already(node: Node) -> None:
    node.objects[0x1F51, 1] = b"\0"
    node.flash()
    assert controls(node) == [3, 1]


@pytest.mark.parametrize("value", [0, 1])
def test_silence_is_an_answer_to_stop_and_start(node: Node, value: int) -> None:
    node.refusals[0x1F51, bytes((value,))] = 0
    assert node.flash().attempts == 1


def test_a_program_on_trial_is_confirmed_before_and_after(node: Node) -> None:
    """Zephyr refuses stop and start (0x08000022) while the running program is on trial."""
    node.objects[0x1F51, 1] = b"\x80"

    def written(index: int, data: bytes) -> None:
        if index == 0x1F51:
            # What is started runs on trial; what is confirmed runs.
            node.objects[0x1F51, 1] = {1: b"\x80", 0x80: b"\1"}.get(data[0], data)
        elif index == 0x1F50:
            node.objects[0x1F56, 1] = struct.pack("<I", zlib.crc32(SLOT[:1000]))

    node.on_write = written
    result = node.flash(identification="mcuboot")
    assert controls(node) == [0x80, 0, 3, 1, 0x80]
    assert "CRC-32 of the first 1,000 of 1,232 bytes" in result.verified


def test_a_program_that_was_turned_back_is_not_confirmed(node: Node) -> None:
    def written(index: int, data: bytes) -> None:
        if index == 0x1F50:
            node.objects[0x1F56, 1] = struct.pack("<I", zlib.crc32(SLOT[:1000]))
        elif data == b"\1":
            node.objects[0x1F51, 1] = b"\x80"
            node.objects[0x1F56, 1] = b"old."
        else:
            node.objects[0x1F51, 1] = data

    node.on_write = written
    with pytest.raises(VerifyMismatch, match="0x1F56:1 of the device is 0x2E646C6F"):
        node.flash(identification="mcuboot")
    assert controls(node) == [0, 3, 1]


def test_an_identification_that_is_stored_in_the_file(node: Node) -> None:
    node.objects[0x1F56, 1] = SLOT[32:36]
    result = node.flash(identification="stored", identification_offset=32)
    assert "which program it is, not that it is whole; flash status 0x1F57" in result.verified


@pytest.mark.parametrize(
    "keys", [{"identification": "mcuboot"}, {"identification": "stored", "identification_offset": 9000}]
)
def test_a_file_without_the_identification_is_refused_before_anything_is_stopped(
    node: Node, keys: dict[str, Any]
) -> None:
    with pytest.raises(ImageWrongPart):
        node.flash(b"no image" * 20, **keys)
    assert controls(node) == []


# What a device answers.


@pytest.mark.parametrize(
    ("status", "error", "words", "attempts"),
    [
        (1 << 1, OperationFailed, "0x00000002, no valid program", 3),
        (4 << 1, OperationFailed, "0x00000008, not cleared before it was written", 3),
        (7 << 1, PartRefused, "0x0000000E, flash secured", 1),
        (0x0007_0080, OperationFailed, "0x00070080, the maker's code 64, the maker's detail 0x0007", 3),
        (1, OperationFailed, "still works on the program after 1 s", 3),
    ],
)
def test_the_flash_status(node: Node, status: int, error: type[PartError], words: str, attempts: int) -> None:
    node.objects[0x1F57, 1] = struct.pack("<I", status)
    with pytest.raises(error, match=words):
        node.flash()
    assert controls(node).count(3) == attempts


def test_without_a_flash_status_the_acknowledgement_is_the_word(node: Node) -> None:
    del node.objects[0x1F57, 1]
    assert node.flash().verified == "the device's acknowledgement of all bytes: it has no 0x1F57"


@pytest.mark.parametrize(
    ("code", "error", "words", "erases"),
    [
        (0x0606_0000, OperationFailed, "0x06060000, access failed due to a hardware error", 3),
        (0x0601_0002, PartRefused, "0x06010002, attempt to write a read only object", 1),
        (0x0503_0000, ProtocolError, "0x05030000, toggle bit not alternated", 3),
        (0x0F0F_0F0F, PartRefused, "0x0F0F0F0F, a code of its maker", 1),
    ],
)
def test_aborts_of_the_erase(node: Node, code: int, error: type[PartError], words: str, erases: int) -> None:
    node.refusals[0x1F51, b"\3"] = code
    with pytest.raises(error, match=words):
        node.flash()
    assert controls(node).count(3) == erases


def test_a_device_that_is_not_yet_pre_operational_is_asked_again(node: Node) -> None:
    node.refusals[0x1F51, b"\0"] = 0x0800_0022
    clock.Timer(0.5, node.refusals.clear).start()
    assert node.flash().attempts == 1
    assert controls(node).count(0) > 3


def test_a_program_that_the_device_refuses_to_start(node: Node) -> None:
    """As a bootloader does that finds no header, or a wrong signature; what else talks on the bus has no part in it."""
    node.refusals[0x1F51, b"\1"] = 0x0800_0022
    with pytest.raises(RebootFailed, match="0x08000022") as caught:
        node.flash()
    assert "signature" in caught.value.remedy
    assert caught.value.boots is False


def test_a_program_that_does_not_start(node: Node) -> None:
    written = node.on_write
    node.on_write = lambda index, data: None if data == b"\1" else written(index, data)
    with pytest.raises(RebootFailed, match="0x1F51 reads 3") as caught:
        node.flash()
    assert caught.value.boots is False


def test_another_device_after_the_stop_is_not_erased(node: Node) -> None:
    def written(index: int, data: bytes) -> None:
        node.objects[0x1F51, 1] = data
        node.objects[0x1018, 4] = struct.pack("<I", 8)

    node.on_write = written
    with pytest.raises(WrongPart, match="00000008, not 00000007"):
        node.flash()
    assert controls(node) == [0]


def test_a_server_without_blocks_gets_segments_at_once() -> None:
    made = Node({(0x1000, 0): bytes(4), (0x1F51, 1): b"\0", (0x1F57, 1): bytes(4)}, block=0)
    try:
        made.on_write = lambda index, data: made.objects.update({(0x1F51, 1): data}) if index == 0x1F51 else None
        assert made.flash().attempts == 1
        assert bytes(made.program) == SLOT
        assert controls(made) == [3, 1]
    finally:
        made.close()


# The wire.


def test_a_lost_segment_is_sent_again_and_no_more(tmp_path: Path) -> None:
    rig = Rig(Kind(), tmp_path)
    with rig.powered() as bench:
        wire = bench.emulated_wire("b")
        whole = rig.course()
    with rig.powered() as bench:
        wire = bench.emulated_wire("b")
        seen: list[can.Message] = []
        wire.attach("ear", seen.append)

        def heard(event: Event) -> None:
            if isinstance(event, Preparing) and "erases" in event.what:
                wire.faults.plan = FaultPlan(first=wire.faults.units + 40, last=wire.faults.units + 40, drop=1.0)

        result = rig.flash(bench, context=RunContext(heard))
        assert result.attempts == 1
        assert rig.holds_the_new_image(bench)
        # The segments of one sub-block behind the lost one, at most, come again.
        assert len(seen) < len(whole.writes) + 130


def test_a_device_that_was_operational_is_so_again(tmp_path: Path) -> None:
    part: Any = Kind()
    part.emulated = {**Kind.emulated, "heartbeat": 200}
    rig = Rig(part, tmp_path)
    with rig.powered() as bench:
        device = bench.emulated_device("part")
        assert isinstance(device, CanopenDevice)
        device.node.state = 0x05
        rig.flash(bench)
        clock.sleep(0.1)
        assert device.node.state == 0x05
        device.node.state = 0x7F
        clock.sleep(0.3)
        rig.flash(bench, rig.old_image)
        assert device.node.state == 0x7F


def test_another_serial_number_is_refused_before_anything_is_stopped(tmp_path: Path) -> None:
    rig = Rig(Kind(), tmp_path)
    with rig.powered() as bench:
        bus = bench.transport("b")
        assert isinstance(bus, CanBus)
        node = CanopenFlasher(bus, CanopenAddress(node=5, serial=0x99), CanopenProfile())
        with pytest.raises(WrongPart, match="0001E240, not 00000099"):
            node.connect()
        node.close()
        assert bench.emulated_device("part").application_version == "1.4.2"


def test_a_text_without_an_end_is_given_up(node: Node) -> None:
    """Segments that hold nothing, and never the last."""
    answered = node._server.answer

    def endless(data: bytes) -> bytes:
        if data[:4] == b"\x40\x08\x10\0":
            return b"\x41\x08\x10\0\xff\xff\xff\xff"
        return bytes((0x0E | data[0] & 0x10,)) + bytes(7) if data[0] & 0xE0 == 0x60 else answered(data)

    node._server.answer = endless  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match="more than 150 segments"):
        node.flash()


def test_a_node_that_babbles_is_given_up(node: Node) -> None:
    """Frames under its id that answer nothing come without a pause."""
    frame = can.Message(arbitration_id=0x585, data=bytes(8), is_extended_id=False)
    babbling = clock.Event()

    def babble() -> None:
        while not babbling.wait(0.001):
            node._node.send(frame, 0.0)

    node._server.answer = lambda data: b""  # type: ignore[method-assign]
    thread = clock.Thread(target=babble)
    thread.start()
    began = clock.monotonic()
    with pytest.raises(NoResponse):
        node.flash()
    assert clock.monotonic() - began < 5
    babbling.set()
    thread.join()


@pytest.mark.parametrize("kind", ["canopen", "canopen-segments"])
def test_a_recorded_flash_replays(kind: str, tmp_path: Path) -> None:
    rig = Rig(KINDS[kind](), tmp_path, size=3000, pace=1)
    recorder = Recorder()
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "recorded", recorder=recorder) as bench:
        settled(bench)
        assert rig.flash(bench).version == "1.5.0"
    replay = Replay(Recording(tuple(recorder.records())))
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "replayed", replay=replay) as bench:
        bench.component("part").await_version()
        assert rig.flash(bench).version == "1.5.0"
    replay.finish()
    replay.close()
    words = [line.words for line in described(recorder.records(), describers(load(tmp_path / "bench.toml")))]
    program = 1 if kind == "canopen" else 2
    assert f"write 0x1F51:{program} (program control): 03" in words
    assert f"0x1F57:{program} (flash status) is 00 00 00 00" in words
    if kind == "canopen":
        assert "127 segments acknowledged, 127 are next" in words
        assert "block download complete" in words
    else:
        assert "abort 0x1F50:2 (program data): 0x05040001, command specifier not valid or unknown" in words
        assert "begin download to 0x1F50:2 (program data), 3,000 bytes" in words
    assert "NMT pre-operational" in words


# Who is there.


@pytest.fixture
def shared() -> Iterator[tuple[CanBus, list[CanopenDevice], list[can.Message]]]:
    """Three nodes: two that have their node ids, one of which sends heartbeats, and one without."""
    wire = CanWire("canopen-shared", pace=1)
    address = {"node": 90, "lss": True, "vendor": 0x2E5, "product": 0x10022, "revision": 3, "serial": 0x80000001}
    devices = [
        CanopenDevice(DeviceSpec("a", {"node": 5, "serial": 1}, {}, {"heartbeat": 500}), wire),
        CanopenDevice(DeviceSpec("b", {"node": 17, "serial": 2}, {}, {"part": "valve"}), wire),
        CanopenDevice(DeviceSpec("c", address, {}, {}), wire),
    ]
    heard: list[can.Message] = []
    wire.attach("ear", heard.append)
    bus = CanBus.open("b", wire.host_settings())
    clock.sleep(0.1)
    heard.clear()
    yield bus, devices, heard
    bus.close()
    for device in devices:
        device.close()
    wire.close()


def test_without_leave_only_heartbeats_are_heard(shared: tuple[CanBus, list[CanopenDevice], list[can.Message]]) -> None:
    bus, _, heard = shared
    found = CanopenDiscovery.discover(bus, [], active=False, deadline=Deadline.after(10))
    assert [(item.address, item.title) for item in found] == [("node = 5", "CANopen node 5  pre-operational")]
    assert {message.arbitration_id for message in heard} == {0x705}


def test_all_nodes_are_found_and_left_as_they_were(
    shared: tuple[CanBus, list[CanopenDevice], list[can.Message]],
) -> None:
    bus, devices, _ = shared
    for _ in range(2):
        found = CanopenDiscovery.discover(bus, [CanopenAddress(node=6)], active=True, deadline=Deadline.after(30))
        assert [item.address for item in found] == [
            "node = 5, serial = 0x00000001",
            "node = 17, serial = 0x00000002",
            "node = 127, lss = true, vendor = 0x000002E5, product = 0x00010022, revision = 0x00000003, serial = 0x80000001",
        ]
    assert [device.node.active for device in devices] == [5, 17, 0xFF]
    listed = [CanopenAddress(node=5), CanopenAddress(node=17)]
    (left,) = CanopenDiscovery.discover(bus, listed, active=True, deadline=Deadline.after(30))
    assert "80000001" in left.title


def test_a_node_without_a_node_id_is_flashed_and_gives_it_back(tmp_path: Path) -> None:
    part: Any = Kind()
    keys = {"lss": True, "vendor": 0x2E5, "product": 0x10022, "revision": 3, "serial": 9}
    part.component = {**Kind.component, "address": {"node": 90, **keys}}
    rig = Rig(part, tmp_path)
    with rig._open() as bench:
        device = bench.emulated_device("part")
        assert isinstance(device, CanopenDevice)
        assert rig.flash(bench, expect_version="1.5.0").attempts == 1
        clock.sleep(0.1)
        assert device.node.active == 0xFF
        assert device.application_version == "1.5.0"
        (component,) = bench.scan().components
        assert (component.presence, component.version) == (Presence.OK, "1.5.0")
        clock.sleep(0.1)
        assert device.node.active == 0xFF


# Eight at once.

ERASE_SECONDS = 56 * 0.02


def test_eight_nodes_on_one_bus_at_once(tmp_path: Path) -> None:
    text = '[bus.b]\nkind = "can"\nemulated = true\nbitrate = 500_000\npace = 1\n'
    for number in range(1, 9):
        text += f"""
[[component]]
name = "node{number}"
bus = "b"
protocol = "canopen"
address = {{node = {number}}}
profile = {{identification = "crc32"}}
emulated = {{part = "encoder", firmware = "old.bin"}}
"""
    (tmp_path / "bench.toml").write_text(text)
    (tmp_path / "old.bin").write_bytes(application.make("1.4.2", "encoder", "Acme", 1000, start=0x08004000))
    (tmp_path / "new.bin").write_bytes(application.make("1.5.0", "encoder", "Acme", 60_000, start=0x08004000))
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        errors: list[ProxyflashError] = []

        def flash(name: str) -> None:
            try:
                assert bench.component(name).flash(tmp_path / "new.bin", expect_version="1.5.0").attempts == 1
            except ProxyflashError as error:
                errors.append(error)

        clock.sleep(0.1)
        wire = bench.emulated_wire("b")
        busy = wire.busy_seconds
        flash("node1")
        alone = wire.busy_seconds - busy
        began = clock.monotonic()
        threads = [clock.Thread(target=flash, args=(f"node{number}",)) for number in range(2, 9)]
        busy = wire.busy_seconds
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = clock.monotonic() - began
        assert errors == []
        assert {bench.emulated_device(f"node{number}").application_version for number in range(1, 9)} == {"1.5.0"}
        # The bus limits them: seven times what one needs of it, and a tenth more; while all erase at once nothing is sent.
        assert wire.busy_seconds - busy < 7 * alone * 1.02
        assert together < 7 * alone * 1.1 + ERASE_SECONDS
