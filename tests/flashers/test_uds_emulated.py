"""The UDS flasher against the emulated ECU: addressing, memories of several kinds, and ways into the bootloader."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import can
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.emulators import application
from proxyflash.emulators.can.isotp import IsoTpNode
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.uds.device import UdsDevice
from proxyflash.flashers.errors import (
    NoResponse,
    OperationFailed,
    PartRefused,
    RebootFailed,
    SecurityDenied,
    VerifyMismatch,
)
from proxyflash.flashers.flasher import Capability, State
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.uds.client import UdsClient
from proxyflash.flashers.uds.flasher import UdsFlasher
from proxyflash.flashers.uds.profile import UdsAddress, UdsProfile
from proxyflash.tests.flashers.doing import Doing
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import IsoTpContested, IsoTpTimeout, ProxyflashError

pytestmark = pytest.mark.simulated_time

BASES = {"acme-r77": 0x10000, "acme-r88": 0x20000}
SIZES = {"acme-r77": 0x70000, "acme-r88": 0x80000}
UNITS = {"acme-r77": 0x1000, "acme-r88": 0x2000}
LONG = 30.0
"""Seconds that no test is meant to wait."""


class Rig:
    def __init__(
        self,
        folder: Path,
        *,
        part: str = "acme-r77",
        address: dict[str, Any] | None = None,
        profile: dict[str, Any] | None = None,
        fd: bool = False,
        pace: float = 0,
        wire_pace: float = 0,
        faults: FaultPlan | None = None,
        **table: Any,
    ) -> None:
        self.base = BASES[part]
        self.old = application.make("1.4.2", "radar", "Acme", 2000, start=self.base)
        self.new = application.make("1.5.0", "radar", "Acme", 5003, start=self.base)
        (folder / "old.bin").write_bytes(self.old)
        where = address or {"request": 0x7E0}
        self.faults = Faults(faults)
        self.wire = CanWire(
            uuid.uuid4().hex, pace=wire_pace, data_bitrate=2_000_000 if fd else None, faults=self.faults
        )
        spec = DeviceSpec(
            "radar", address=where, settings={"firmware": "old.bin", "part": part, **table}, firmware_folder=folder,
            pace=pace,
        )  # fmt: skip
        self.device = UdsDevice.attach(spec, self.wire)
        self.bus = CanBus.open("b", {"interface": "proxyflash", "channel": self.wire.channel, "fd": fd})
        self.address = UdsAddress.model_validate(where)
        base = {
            "memory": [{"start": self.base, "size": SIZES[part], "erase_unit": UNITS[part], "write_alignment": 8}],
            "security": {"key": "xor", "secret": "5a5a5a5a"},
            "timings": {"latency": 0.3, "reset_gap": 2, "retries": 3},
        }
        self.profile = UdsProfile.model_validate(base | (profile or {}))
        self.flashers: list[UdsFlasher] = []
        if not table.get("boot_window"):
            self.device.settle()

    def programmer(self, *, attempts: int = 1) -> Programmer:
        self.flashers.append(UdsFlasher.attach(self.bus, self.address, self.profile))
        return Programmer(self.flashers[-1], "radar", attempts=attempts)

    def flash(self, *segments: tuple[int, bytes], attempts: int = 1) -> FlashResult:
        programmer = self.programmer(attempts=attempts)
        parts = segments or ((self.base, self.new),)
        return programmer.flash(programmer.plan(FirmwareImage(tuple(Segment(*part) for part in parts), "bin")))

    def runs(self, version: str | None) -> bool:
        self.device.settle()
        return self.device.application_version == version

    def close(self) -> None:
        for flasher in self.flashers:
            flasher.close()
        self.bus.close()
        self.device.close()
        self.wire.close()
        assert self.device.board.fault is None


Make = Callable[..., Rig]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Make]:
    made: list[Rig] = []

    def make(**keys: Any) -> Rig:
        made.append(Rig(tmp_path, **keys))
        return made[-1]

    yield make
    for item in made:
        item.close()


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
@pytest.mark.parametrize(
    "address",
    [
        {"request": 0x7E3},
        {"request": 0x18DA00F1, "response": 0x18DAF100},
        {"request": 0x123, "response": 0x456, "extended_ids": True},
        {"addressing": "normal-fixed", "target": 0x28},
        {"addressing": "normal-fixed", "target": 0x28, "source": 0xF9},
        {"addressing": "extended", "request": 0x6F1, "response": 0x612, "target": 0x12},
        {"addressing": "extended", "request": 0x18000001, "response": 0x18000002, "target": 0x12, "source": 0xF4},
    ],
    ids=lambda address: "-".join(str(value) for value in address.values()),
)
def test_each_addressing(rig: Make, address: dict[str, Any], fd: bool) -> None:
    made = rig(address=address, fd=fd, profile={"iso_tp": {"tx_dl": 64 if fd else 8}})
    result = made.flash()
    assert (result.identity.part, result.identity.manufacturer, result.identity.bootloader) == ("R77", "Acme", "2.1")
    assert result.identity.version == "1.4.2"
    assert made.runs("1.5.0")
    assert made.device.flash.read(made.base, 5003) == made.new


@pytest.mark.parametrize("tx_dl", [12, 20, 48])
def test_each_length_of_fd_frames(rig: Make, tx_dl: int) -> None:
    made = rig(fd=True, profile={"iso_tp": {"tx_dl": tx_dl}})
    made.flash()
    assert made.runs("1.5.0")


def test_classic_frames_on_an_fd_bus(rig: Make) -> None:
    """As long as the profile doesn't ask for longer ones, an ECU that knows no FD is not disturbed by any."""
    made = rig(fd=True, profile={"functional": True})
    seen: list[can.Message] = []
    made.wire.attach("listener", seen.append)
    made.flash()
    asked = [message for message in seen if message.arbitration_id in (0x7E0, 0x7DF)]
    assert {message.arbitration_id for message in asked} == {0x7E0, 0x7DF}
    assert not any(message.is_fd for message in asked)
    assert made.runs("1.5.0")


def test_fd_frames_of_8_bytes(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """ISO 15765-2:2016, table 4: TX_DL 8 is for classic frames and for CAN FD frames. The ECU hears those with FDF only."""
    hear = IsoTpNode._received
    monkeypatch.setattr(IsoTpNode, "_received", lambda node, frame: hear(node, frame) if frame.is_fd else None)
    made = rig(fd=True, profile={"functional": True, "iso_tp": {"fd": True, "tx_dl": 8}})
    seen: list[can.Message] = []
    made.wire.attach("listener", seen.append)
    made.flash()
    asked = [message for message in seen if message.arbitration_id in (0x7E0, 0x7DF)]
    assert {message.arbitration_id for message in asked} == {0x7E0, 0x7DF}
    assert {(message.is_fd, message.bitrate_switch, len(message.data)) for message in asked} == {(True, True, 8)}
    assert made.runs("1.5.0")


def test_an_ecu_that_hears_fd_frames_only_is_said_to_be_asked_in_classic_ones(rig: Make) -> None:
    made = rig(fd=True, mute=True)
    with pytest.raises(NoResponse) as caught:
        made.flash()
    assert "tx_dl = 64" in str(caught.value)
    assert "fd = true" in str(caught.value)


def test_a_wrong_alignment_is_named_where_programming_fails(rig: Make) -> None:
    """The block length of acme-r88 less two, 4093, is not a multiple of the 8 bytes that it programs at a time."""
    made = rig(part="acme-r88", profile={"memory": [{"start": 0x20000, "size": 0x80000, "erase_unit": 0x2000}]})
    with pytest.raises(OperationFailed, match="NRC 0x72") as caught:
        made.flash()
    assert "write_alignment" in str(caught.value)


@pytest.mark.parametrize(("block_size", "st_min"), [(1, 0), (8, 0xF1), (3, 1)])
def test_the_flow_control_of_the_ecu_is_heeded(rig: Make, block_size: int, st_min: int) -> None:
    made = rig(block_size=block_size, st_min=st_min, profile={"iso_tp": {"block_size": 2, "st_min": 1}})
    made.flash()
    assert made.runs("1.5.0")


def test_nothing_sleeps_beside_the_clock(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def slept(seconds: float) -> None:
        raise AssertionError(f"{seconds} s of real time")

    monkeypatch.setattr(time, "sleep", slept)
    made = rig()
    made.flash()
    assert made.runs("1.5.0")


def test_a_second_tester_on_the_same_ids(rig: Make) -> None:
    """An unanswered TesterPresent within each long request: the ECU forgets what it had of it (ISO 15765-2, 9.8.3)."""
    made = rig(st_min=2, profile={"timings": {"latency": 0.1, "reset_gap": 2, "retries": 1}})
    talks = clock.Event()
    talks.set()

    def hears(message: can.Message) -> None:
        if talks.is_set() and message.arbitration_id == 0x7E0 and message.data[0] >> 4 == 1:
            tester.send(can.Message(arbitration_id=0x7E0, data=b"\x02\x3e\x80", is_extended_id=False))

    tester = made.wire.attach("tester", hears)
    with pytest.raises(IsoTpContested, match="another tester sends under 0x7E0"):
        made.flash()
    talks.clear()
    made.flash()
    assert made.runs("1.5.0")


@contextmanager
def flooded(wire: CanWire, identifier: int) -> Iterator[None]:
    """As many frames of a foreign node as the bus can carry."""
    node = wire.attach("flood", lambda message: None)
    frame = can.Message(arbitration_id=identifier, data=bytes(8), is_extended_id=False)
    done = clock.Event()

    def flood() -> None:
        while not done.is_set():
            node.send(frame, 0.05)

    flooding = Doing(flood)
    try:
        yield
    finally:
        done.set()
        flooding.result(LONG)


def test_a_bus_full_of_foreign_frames(rig: Make) -> None:
    """They yield to ours, which take up to one frame's time more."""
    made = rig(wire_pace=1.0)
    heard: Counter[int] = Counter()
    made.wire.attach("listener", lambda message: heard.update((message.arbitration_id,)))
    with flooded(made.wire, 0x7FF):
        made.flash()
    assert made.runs("1.5.0")
    assert heard[0x7FF] > 50


class TestMemory:
    @pytest.mark.parametrize(("address_length", "size_length"), [(3, 3), (4, 2), (5, 4), (3, 2)])
    def test_widths_of_address_and_size(self, rig: Make, address_length: int, size_length: int) -> None:
        memory = [{"start": 0x10000, "size": 0xF000, "erase_unit": 4096, "write_alignment": 8}]
        made = rig(profile={"address_length": address_length, "size_length": size_length, "memory": memory})
        made.flash()
        assert made.runs("1.5.0")

    def test_several_memories_with_segments_of_odd_sizes(self, rig: Make) -> None:
        memory = [
            {"name": "program", "start": 0x10000, "size": 0x10000, "erase_unit": 4096, "write_alignment": 8},
            {"name": "calibration", "start": 0x60000, "size": 0x8000, "write_alignment": 16},
        ]
        routines = {"check_parameters": ["alfi", "address", "size", "crc32"]}
        made = rig(profile={"memory": memory, "routines": routines, "transfer_exit": ["crc32"]})
        parts = ((0x10000, made.new), (0x18001, b"\x01"), (0x60005, bytes(range(101))), (0x67FFF, b"\x02"))
        result = made.flash(*parts)
        assert result.erased_bytes == 3 * 4096 + 0x8000
        for start, data in parts:
            assert made.device.flash.read(start, len(data)) == data
        assert made.device.flash.read(0x18000, 8) == b"\xff\x01" + b"\xff" * 6
        assert made.runs("1.5.0")

    def test_a_gap(self, rig: Make) -> None:
        made = rig()
        made.device.flash.load(0x16000, b"\x33" * 4096)
        made.flash((made.base, made.new), (0x15000, b"\x01" * 1025), (0x17008, b"\x02" * 3))
        assert made.device.flash.read(0x16000, 4096) == b"\x33" * 4096
        assert made.device.flash.read(0x17000, 16) == b"\xff" * 8 + b"\x02" * 3 + b"\xff" * 5

    @given(size=st.integers(1, 3000), start=st.integers(0, 4000))
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_size_anywhere(self, one: Rig, size: int, start: int) -> None:
        data = bytes((index * 31 + 7) & 0xFF for index in range(size))
        one.flash((one.base, one.new), (0x20000 + start, data))
        assert one.device.flash.read(0x20000 + start, size) == data
        assert one.runs("1.5.0")


@pytest.fixture
def one(rig: Make) -> Rig:
    return rig()


@pytest.mark.parametrize(
    "order", [(), ("extended", "key", "programming", "late-key", "erase", "download", "check", "dependencies")]
)
def test_a_session_outlives_a_key_that_takes_long(
    rig: Make, order: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 of ISO 14229-2 is 5 s; a maker's library may take a minute."""
    name = f"keys_{uuid.uuid4().hex}"
    text = """
from proxyflash.transports import clock
def key(seed, secret, level):
    clock.sleep(40)
    return bytes(a ^ b for a, b in zip(seed, secret))
"""
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    profile: dict[str, Any] = {"security": {"key": f"{name}:key", "secret": "5a5a5a5a"}}
    if order:
        profile |= {"order": order, "steps": [{"name": "late-key", "level": 1}]}
    made = rig(profile=profile)
    made.flash()
    assert made.runs("1.5.0")


class TestReading:
    @pytest.mark.parametrize("read", ["memory", "upload"])
    def test_reading_back(self, rig: Make, read: str) -> None:
        made = rig(part="acme-r88", profile={"read": read, "read_block": 100})
        made.device.flash.load(0x30000, bytes(range(256)) * 32)
        programmer = made.programmer()
        programmer.connect()
        assert b"".join(made.flashers[-1].read(0x30001, 8190)) == (bytes(range(256)) * 32)[1:8191]

    @pytest.mark.parametrize("read", ["memory", "upload"])
    def test_what_is_there_already_is_not_written_again(self, rig: Make, read: str) -> None:
        """Reading that found enough stops in the middle, and what comes next works."""
        made = rig(part="acme-r88", profile={"read": read, "routines": {"check": "none"}})
        large = application.make("1.5.0", "radar", "Acme", 40_000, start=made.base)
        result = made.flash((made.base, large))
        assert result.verified == "read back"
        assert made.runs("1.5.0")
        made.device.flash.load(made.base + 0x5000, b"\x00" * 64)
        assert made.flash((made.base, large)).erased_bytes > 0
        assert made.runs("1.5.0")
        again = made.flash((made.base, large))
        assert (again.erased_bytes, again.written_bytes) == (0, 0)
        assert made.runs("1.5.0")

    def test_a_read_that_is_given_up_ends_the_upload(self, rig: Make) -> None:
        made = rig(part="acme-r88", profile={"read": "upload"})
        programmer = made.programmer()
        programmer.connect()
        reading = made.flashers[-1].read(0x30000, 20_000)
        next(iter(reading))
        del reading
        assert sum(len(piece) for piece in made.flashers[-1].read(0x30000, 5000)) == 5000

    def test_an_image_that_lacks_nothing_but_its_declaration(self, rig: Make) -> None:
        """Cut after the last block: all is there, and the ECU does not boot it until its dependencies are checked."""
        made = rig(part="acme-r88", profile={"read": "memory", "routines": {"check": "none"}})
        made.programmer()
        flasher = made.flashers[-1]
        flasher.connect()
        list(flasher.erase(list(flasher.memory_map().regions[0].erase_units(made.base, made.base + 8192))))
        list(flasher.write(Segment(made.base, made.new + b"\xff" * (-len(made.new) % 8))))
        made.device.supply.off()
        made.device.supply.on()
        assert made.runs(None)
        result = made.flash()
        assert (result.erased_bytes, result.written_bytes) == (0, 0)
        assert made.runs("1.5.0")

    @pytest.mark.parametrize("running_when", ["version", "session"])
    def test_an_image_that_lacks_nothing_but_the_end_of_the_order(self, rig: Make, running_when: str) -> None:
        """Cut after the last block; the ECU has its dependencies checked only after the memory and a routine of its own."""
        order = ["extended", "programming", "key", "erase", "download", "check", "accept", "dependencies"]
        made = rig(
            part="acme-r88",
            maker={
                "rules": [
                    {"request": "31 01 FF 01", "after": ["31 01 03 04"]},
                    {"request": "31 01 03 04", "after": ["31 01 02 02"]},
                ],
                "routines": {"0x0304": []},
            },
            profile={
                "read": "memory",
                "running_when": running_when,
                "order": order,
                "steps": [{"name": "accept", "routine": 0x0304}],
            },
        )
        programmer = made.programmer()
        plan = programmer.plan(FirmwareImage((Segment(made.base, made.new),), "bin"))
        for erase, writes in made.flashers[-1].turns(plan.erase, plan.writes):
            list(made.flashers[-1].erase(erase))
            for segment in writes:
                list(made.flashers[-1].write(segment))
        made.flashers[-1].close()
        made.device.supply.off()
        made.device.supply.on()
        assert made.runs(None)
        result = made.flash()
        assert (result.erased_bytes, result.written_bytes) == (0, 0)
        assert made.runs("1.5.0")

    @pytest.mark.parametrize("running_when", ["version", "session"])
    def test_an_image_that_the_end_of_the_order_does_not_accept(self, rig: Make, running_when: str) -> None:
        """Cut after the last block, and the ECU's own check fails then: it stays in its bootloader. An ECU that is known by its
        session alone does not tell that."""
        profile = {"read": "memory", "running_when": running_when, "routines": {"dependencies": "none"}}
        made = rig(part="acme-r88", fail_check=True, profile=profile)
        programmer = made.programmer()
        plan = programmer.plan(FirmwareImage((Segment(made.base, made.new),), "bin"))
        list(made.flashers[-1].erase(plan.erase))
        for segment in plan.writes:
            list(made.flashers[-1].write(segment))
        made.flashers[-1].close()
        made.device.supply.off()
        made.device.supply.on()
        told = running_when == "version"
        with pytest.raises(RebootFailed, match=r"stays in its bootloader.*0x0202") if told else nullcontext():
            made.flash()
        assert made.runs(None)

    def test_a_part_that_can_not_be_read(self, rig: Make) -> None:
        programmer = rig().programmer()
        programmer.connect()
        assert programmer.bootloader.capabilities == Capability.CHECK | Capability.BOOT

    def test_verifying_what_was_flashed_before(self, rig: Make) -> None:
        made = rig()
        programmer = made.programmer()
        assert "0x0202" in programmer.verify(FirmwareImage((Segment(made.base, made.old),), "bin"))
        with pytest.raises(VerifyMismatch):
            programmer.verify(FirmwareImage((Segment(made.base, made.new),), "bin"))


class TestWays:
    def test_resets_without_an_answer(self, rig: Make) -> None:
        made = rig(silent_resets=True)
        made.flash()
        assert made.runs("1.5.0")

    def test_resets_that_take_their_time(self, rig: Make) -> None:
        made = rig(silent_resets=True, pace=1, profile={"timings": {"latency": 0.02, "reset_gap": 20}})
        made.flash()
        assert made.runs("1.5.0")

    def test_a_window_at_start(self, rig: Make) -> None:
        """The application knows no programming session; the bootloader is met after a reset."""
        made = rig(boot_window=2.0, profile={"stay_in_boot": True, "timings": {"latency": 0.3, "reset_gap": 20}})
        until = clock.monotonic() + 20
        while made.device.application_version is None:
            assert clock.monotonic() < until
            clock.sleep(0.01)
        made.flash()
        assert made.device.flash.read(made.base, 5003) == made.new

    def test_a_part_that_a_killed_tester_has_left_in_the_midst_of_its_answer(self, rig: Make) -> None:
        """It waits for a flow control, 1 s by ISO 15765-2, and hears nothing meanwhile."""
        made = rig(profile={"timings": {"latency": 0.1, "reset_gap": 2, "retries": 0}})
        with can.Bus(interface="proxyflash", channel=made.wire.channel) as killed:
            killed.send(can.Message(arbitration_id=0x7E0, data=bytes.fromhex("0322F189"), is_extended_id=False))
            # The first frame of "1.4.2", of 8 bytes.
            while (told := killed.recv(LONG)) is not None and told.data[:2] != b"\x10\x08":
                pass
            assert told is not None
            made.flash()
        assert made.runs("1.5.0")

    def test_a_mute_part_is_met_when_its_supply_comes(self, rig: Make) -> None:
        made = rig(boot_window=2.0, profile={"stay_in_boot": True, "timings": {"latency": 0.05, "reset_gap": 30}})
        made.device.supply.off()
        clock.Timer(1.0, made.device.supply.on).start()
        made.flash()
        assert made.device.flash.read(made.base, 5003) == made.new

    def test_a_dead_part(self, rig: Make) -> None:
        made = rig()
        made.device.supply.off()
        with pytest.raises(NoResponse):
            made.flash(attempts=3)

    def test_another_level_and_secret(self, rig: Make) -> None:
        made = rig(
            security_level=0x11, secret="0102030405060708",
            profile={"security": {"level": 0x11, "key": "xor", "secret": "01 02 03 04 05 06 07 08"}},
        )  # fmt: skip
        made.flash()
        assert made.runs("1.5.0")

    def test_no_security(self, rig: Make) -> None:
        made = rig(security_level=0, profile={"security": {"key": "none"}})
        made.flash()
        assert made.runs("1.5.0")

    def test_wrong_keys_then_a_waiting_time(self, rig: Make) -> None:
        made = rig(key_delay=1.0)
        wrong = {"key": "xor", "secret": "00000000", "wait": 0}
        right = made.profile
        made.profile = right.model_validate(right.model_dump() | {"security": wrong})
        for told in ("invalidKey", "invalidKey", "exceedNumberOfAttempts", "requiredTimeDelayNotExpired"):
            with pytest.raises(SecurityDenied, match=told):
                made.flash(attempts=3)
            assert made.runs("1.4.2")
        made.profile = right.model_validate(
            right.model_dump() | {"security": wrong | {"secret": "5a5a5a5a", "wait": 30}}
        )
        made.flash()
        assert made.runs("1.5.0")

    @pytest.mark.parametrize(("repeated", "attempts"), [(False, 1), (True, 2)])
    def test_a_mismatch_is_tried_again_where_a_block_was_sent_twice(
        self, rig: Make, monkeypatch: pytest.MonkeyPatch, repeated: bool, attempts: int
    ) -> None:
        """What was acknowledged at once was written as it came: the same file gets the same verdict."""
        made = rig(fail_check=True)
        lost = iter([b"\x36\x02"] if repeated else [])
        answer = UdsClient._answer

        def losing(self: UdsClient, request: bytes, *more: Any) -> Any:
            found = answer(self, request, *more)
            if request[:1] == b"\x36":
                for _ in lost:
                    raise IsoTpTimeout("the response was lost")
            return found

        monkeypatch.setattr(UdsClient, "_answer", losing)
        with pytest.raises(VerifyMismatch) as raised:
            made.flash(attempts=3)
        assert raised.value.left is not None
        assert raised.value.left.attempts == attempts

    @pytest.mark.parametrize(
        ("table", "error", "told", "changed"),
        [
            ({"refuse": 0x22}, PartRefused, "conditionsNotCorrect", False),
            ({"refuse": 0x93}, PartRefused, "voltageTooLow", False),
            ({"preconditions": 2}, PartRefused, "may not be programmed now", False),
            ({"locked": True}, OperationFailed, "uploadDownloadNotAccepted", True),
            ({"fail_check": True}, VerifyMismatch, "routine 0x0202", True),
        ],
    )
    def test_what_the_part_refuses(
        self, rig: Make, table: dict[str, Any], error: type[ProxyflashError], told: str, changed: bool
    ) -> None:
        made = rig(**table)
        with pytest.raises(error, match=told) as raised:
            made.flash()
        # Another run of the same file gets the same verdict: the file comes first.
        assert ("Is it the right file" in str(raised.value.remedy)) is (error is VerifyMismatch)
        assert made.runs(None if changed else "1.4.2")
        assert (made.device.flash.read(made.base, 2000) == made.old) is not changed

    @pytest.mark.parametrize(
        "routines",
        [{"erase": 0xF001, "check": 0xF002, "dependencies": 0xF003, "preconditions": 0xF004}],
    )
    def test_the_routines_of_another_maker(self, rig: Make, routines: dict[str, int]) -> None:
        table = {f"routine_{name}": number for name, number in routines.items()}
        made = rig(profile={"routines": routines | {"merge_erase": True}}, **table)
        made.flash()
        assert made.runs("1.5.0")


class TestSession:
    def test_it_outlives_a_person_who_thinks(self, rig: Make) -> None:
        made = rig(s3=1.0, profile={"timings": {"s3": 1.0}})
        programmer = made.programmer()
        plan = programmer.plan(FirmwareImage((Segment(made.base, made.new),), "bin"))
        clock.sleep(2.5)
        programmer.flash(plan)
        assert made.runs("1.5.0")

    def test_one_that_ran_out_is_begun_anew(self, rig: Make) -> None:
        made = rig(s3=0.5, profile={"timings": {"s3": 100}})
        programmer = made.programmer(attempts=2)
        plan = programmer.plan(FirmwareImage((Segment(made.base, made.new),), "bin"))
        clock.sleep(1.5)
        programmer.flash(plan)
        assert made.runs("1.5.0")

    def test_a_running_part_is_not_disturbed_by_a_look(self, rig: Make) -> None:
        made = rig()
        seen = UdsFlasher.probe(made.bus, made.address, made.profile, active=False, deadline=Deadline.after(5))
        assert seen is not None
        assert seen.state is State.RUNNING
        assert (seen.identity.version, seen.identity.serial) == ("1.4.2", "0001")
        assert made.runs("1.4.2")
        made.device.flash.load(made.base, b"\0" * 64)
        made.device.board.reset()
        assert made.runs(None)
        seen = UdsFlasher.probe(made.bus, made.address, made.profile, active=False, deadline=Deadline.after(5))
        assert seen is not None
        assert seen.state is State.BOOTLOADER
        made.device.supply.off()
        assert UdsFlasher.probe(made.bus, made.address, made.profile, active=False, deadline=Deadline.after(5)) is None


class TestPolledRoutines:
    """ISO 14229-1:2020, 14.2: a routine may run on after startRoutine was answered."""

    def test_its_result_is_asked_for_until_it_has_ended(self, rig: Make) -> None:
        made = rig(poll=3, profile={"routines": {"poll": True}})
        assert made.flash().verified

    @pytest.mark.parametrize("routine", [0xFF00, 0x0202, 0xFF01])
    def test_a_start_whose_answer_is_lost_is_not_refused_for_good(self, rig: Make, routine: int) -> None:
        """The repeated request is refused by conditionsNotCorrect, for the routine runs."""
        made = rig(poll=3, profile={"routines": {"poll": True}})
        link = made.device.board.link  # type: ignore[attr-defined]
        send = link.send
        lost: list[bytes] = []

        def answer(data: bytes) -> None:
            if data[:4] == b"\x71\x01" + routine.to_bytes(2, "big") and not lost:
                lost.append(data)
            else:
                send(data)

        link.send = answer
        assert made.flash().verified
        assert lost


class TestWire:
    @pytest.mark.parametrize("frame", [*range(1, 66, 4), 90, 150, 400, 700])
    def test_a_lost_frame_is_made_up_for(self, rig: Make, frame: int) -> None:
        made = rig(faults=FaultPlan(drop=1.0, first=frame, last=frame))
        made.flash(attempts=3)
        assert made.faults.done
        assert made.runs("1.5.0")

    @pytest.mark.parametrize("kind", ["duplicate", "drop", "delay"])
    def test_a_bad_wire(self, rig: Make, kind: str) -> None:
        chance = {"duplicate": 0.004, "drop": 0.004, "delay": 0.01}[kind]
        made = rig(faults=FaultPlan(**{kind: chance}, seed=5), profile={"timings": {"latency": 0.1, "retries": 8}})  # type: ignore[arg-type]
        made.flash(attempts=5)
        assert made.faults.done
        assert made.runs("1.5.0")
