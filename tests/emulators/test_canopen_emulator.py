"""The emulated CANopen device, frame by frame, as a program of somebody else's speaks to it."""

from __future__ import annotations

import binascii
import struct
import zlib
from collections.abc import Iterator

import can
import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.canopen.device import CanopenDevice
from proxyflash.emulators.device import BadDevice, DeviceSpec
from proxyflash.transports import clock

pytestmark = pytest.mark.simulated_time
PROGRAM = application.make("1.5.0", "encoder", "Acme", 5003, start=0x08004000)
FULL = {"vendor": 0x2E5, "product": 0x10022, "revision": 3, "serial": 7}


class Bus:
    def __init__(self, part: str = "encoder", address: dict[str, object] | None = None, **settings: object) -> None:
        self.wire = CanWire("canopen-emulator", pace=0)
        self.heard: list[can.Message] = []
        self.host = self.wire.attach("host", self.heard.append, host=True)
        spec = DeviceSpec("part", address or {"node": 5}, {}, {"part": part, **settings}, pace=0)
        self.device = CanopenDevice(spec, self.wire)
        self.device.flash.load(self.device.flash.base, application.make("1.4.2", "encoder", "Acme", 800))
        self.device.reset()
        clock.sleep(0.01)
        self.heard.clear()

    def said(self, identifier: int, data: str) -> str:
        """What is answered within 10 ms, in hexadecimal."""
        self.heard.clear()
        self.host.send(can.Message(arbitration_id=identifier, data=bytes.fromhex(data), is_extended_id=False))
        clock.sleep(0.01)
        return " ".join(bytes(message.data).hex() for message in self.heard)

    def close(self) -> None:
        self.device.close()
        self.wire.close()


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    yield bus
    bus.close()


def prepared(bus: Bus) -> None:
    assert bus.said(0x605, "2f511f0100000000") == "60511f0100000000 00"
    assert bus.device.application_version is None
    assert bus.said(0x605, "2f511f0103000000") == "60511f0100000000"


def test_the_sequence_of_an_independent_master(bus: Bus) -> None:
    """Frames of other people's implementations, but for the values of this device."""
    assert bus.said(0x000, "8200") == "00"
    assert bus.heard[0].arbitration_id == 0x705
    assert bus.said(0x605, "4000100000000000") == "4300100096010100"
    assert bus.said(0x605, "40511f0100000000") == "4f511f0101000000"
    prepared(bus)
    assert bus.said(0x605, "c6501f018b130000") == "a4501f017f000000"
    answers = []
    for number, start in enumerate(range(0, len(PROGRAM), 7)):
        last = start + 7 >= len(PROGRAM)
        head = last << 7 | (number % 127 + 1)
        answers += bus.said(0x605, bytes((head,)).hex() + PROGRAM[start : start + 7].ljust(7, b"\0").hex()).split()
    assert answers == ["a27f7f0000000000"] * 5 + [f"a2{5003 // 7 + 1 - 5 * 127:02x}7f0000000000"]
    crc = struct.pack("<H", binascii.crc_hqx(PROGRAM, 0)).hex()
    assert bus.said(0x605, f"c9{crc}0000000000") == "a100000000000000"
    assert bus.said(0x605, "40571f0100000000") == "43571f0100000000"
    assert bus.said(0x605, "40561f0100000000") == "43561f01" + struct.pack("<I", zlib.crc32(PROGRAM)).hex()
    assert bus.said(0x605, "2f511f0101000000") == "60511f0100000000 00"
    assert bus.said(0x605, "40511f0100000000") == "4f511f0101000000"
    assert bus.device.application_version == "1.5.0"


def test_a_segment_that_is_missing_is_asked_for_at_once(bus: Bus) -> None:
    """CiA 301, 7.2.4.3.10: ackseq is the last segment in order, 0 for none; the next sub-block begins with the one behind it."""
    prepared(bus)
    assert bus.said(0x605, "c6501f0164000000") == "a4501f017f000000"
    assert bus.said(0x605, "0131323334353637") == ""
    assert bus.said(0x605, "0131323334353637") == "", "the same again"
    assert bus.said(0x605, "0331323334353637") == "a2017f0000000000"
    assert bus.said(0x605, "0431323334353637") == "", "the rest of what was on its way"
    assert bus.said(0x605, "0131323334353637") == ""


def test_a_wrong_crc_is_refused(bus: Bus) -> None:
    prepared(bus)
    bus.said(0x605, "c6501f0107000000")
    assert bus.said(0x605, "8131323334353637") == "a2017f0000000000"
    assert bus.said(0x605, "c100000000000000") == "80501f0104000405"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ("4000200000000000", "8000200000000206"),
        ("4018100500000000", "8018100511000906"),
        ("2f00100001000000", "8000100002000106"),
        ("40501f0100000000", "80501f0101000106"),
        ("2f511f0103000000", "80511f0122000008"),
        ("c6501f018b130000", "80501f0122000008"),
        ("e000000000000000", "8000000001000405"),
    ],
)
def test_refusals(bus: Bus, data: str, answer: str) -> None:
    """CiA 301, table 22: no object, no sub-index, read only, write only, the device's state, unknown command."""
    assert bus.said(0x605, data) == answer


def test_a_download_that_was_not_cleared_sets_the_status(bus: Bus) -> None:
    bus.said(0x605, "c6501f018b130000")
    assert bus.said(0x605, "40571f0100000000") == "43571f0108000000"


def test_nmt(bus: Bus) -> None:
    bus.said(0x000, "0205")
    assert bus.said(0x605, "4000100000000000") == "", "a node that is stopped answers nothing but NMT"
    bus.said(0x000, "8006")
    assert bus.said(0x605, "4000100000000000") == ""
    bus.said(0x000, "8000")
    assert bus.said(0x605, "4000100000000000") != ""


def test_segments_and_restarts_without_an_answer() -> None:
    bus = Bus("valve")
    try:
        assert bus.said(0x605, "c6501f018b130000") == "80501f0101000405"
        assert bus.said(0x605, "2f511f0100000000") == "00", "a boot-up, and no answer"
        assert bus.said(0x605, "2f511f0103000000") == "60511f0100000000"
        assert bus.said(0x605, "21501f0109000000") == "60501f0100000000"
        assert bus.said(0x605, "0031323334353637") == "2000000000000000"
        assert bus.said(0x605, "0031323334353637") == "80501f0100000305", "the toggle bit"
    finally:
        bus.close()


def test_lss() -> None:
    """CiA 305: fastscan of who has no node id, selection, a node id, and the way back."""
    bus = Bus(address={"node": 90, "lss": True, **FULL})
    try:
        assert bus.said(0x65A, "4000100000000000") == ""
        assert bus.said(0x7E5, "5100000000800000") == "4f00000000000000"
        assert bus.said(0x7E5, "51000000001f0000") == "4f00000000000000"
        assert bus.said(0x7E5, "5100000080070000") == ""
        for number, value in enumerate(FULL.values()):
            answer = bus.said(0x7E5, bytes((0x40 + number,)).hex() + struct.pack("<I", value).hex() + "000000")
        assert answer == "4400000000000000"
        assert bus.said(0x7E5, "1180000000000000") == "1101000000000000"
        assert bus.said(0x7E5, "115a000000000000") == "1100000000000000"
        assert bus.said(0x7E5, "0400000000000000") == "00"
        assert bus.said(0x65A, "4000100000000000") != ""
        assert bus.said(0x7E5, "5100000000800000") == "", "it has a node id"
    finally:
        bus.close()


def test_heartbeats() -> None:
    bus = Bus(heartbeat=100)
    try:
        bus.heard.clear()
        clock.sleep(1)
        assert {(message.arbitration_id, bytes(message.data)) for message in bus.heard} == {(0x705, b"\x7f")}
        assert 9 <= len(bus.heard) <= 11
    finally:
        bus.close()


@pytest.mark.parametrize("settings", [{"part": "x"}, {"heartbeat": -1}, {"heartbeat": True}, {"mute": True}])
def test_settings_that_do_not_hold(settings: dict[str, object]) -> None:
    wire = CanWire("canopen-settings", pace=0)
    with pytest.raises(BadDevice):
        CanopenDevice(DeviceSpec("part", {"node": 5}, {}, settings), wire)
    wire.close()
