"""Two recordings: the first difference on each bus, and what is none."""

from __future__ import annotations

import pytest
from proxyflash.emulators.replay.comparing import first_differences
from proxyflash.transports.recording.records import CanFrame, Record, SerialBytes, UsbControl, UsbDevices, UsbSeen


def frame(time: float, data: str, can_id: int = 0x7E0, *, out: bool = True) -> CanFrame:
    return CanFrame(time, "can0", out, can_id, 0, bytes.fromhex(data))


def sent(time: float, data: bytes, *, out: bool = True, drained: bool = False) -> SerialBytes:
    return SerialBytes(time, "line", out, data, drained)


def seen(address: int, vendor: int = 0x0483) -> UsbDevices:
    device = bytes(8) + vendor.to_bytes(2, "little") + (0xDF11).to_bytes(2, "little") + bytes(6)
    return UsbDevices(1.0, "usb", (UsbSeen(1, address, (1,), 2, device, ()),))


def transfer(address: int, setup: str, data: str = "") -> UsbControl:
    return UsbControl(2.0, "usb", 1, address, bytes.fromhex(setup), bytes.fromhex(data), 0, 0.001)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # ISO 14229-1: TesterPresent with suppressPosRspMsgIndicationBit is sent by a clock.
        ([frame(1, "0210030000000000")], [frame(2, "0210030000000000"), frame(3, "023e800000000000")]),
        # Two parts on one bus, served in another order.
        ([frame(1, "01"), frame(2, "02", 0x7E1)], [frame(1, "02", 0x7E1), frame(2, "01")]),
        ([sent(1, b"abc")], [sent(1, b"a"), sent(2, b"bc"), sent(3, b"noise", out=False, drained=True)]),
        # Another address on the bus, and a descriptor that was read (USB 2.0, 9.4.3).
        (
            [seen(5), transfer(5, "2101000000000200", "2100")],
            [seen(9), transfer(9, "8006000100001200", "00" * 18), transfer(9, "2101000000000200", "2100")],
        ),
    ],
)
def test_what_is_no_difference(one: list[Record], other: list[Record]) -> None:
    assert first_differences(one, other) == []


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            [frame(1, "0210"), frame(2, "0650", out=False, can_id=0x7E8)],
            [frame(1, "0210"), frame(2, "037f1078", out=False, can_id=0x7E8)],
            "can0: frame 1 received with id 7E8 differs: 7E8#0650; in the other one 7E8#037F1078",
        ),
        (
            [frame(1, "0210"), frame(2, "01")],
            [frame(1, "0210")],
            "can0: frame 2 sent with id 7E0 differs: 7E0#01; in the other one nothing more",
        ),
        (
            [sent(1, b"\x31\xce")],
            [sent(1, b"\x31"), sent(2, b"\xcf")],
            "line: byte 2 sent differs: 31 CE; in the other one 31 CF",
        ),
        (
            [seen(5), transfer(5, "2101000000000200", "2100")],
            [seen(5), transfer(5, "2101000000000200", "4100")],
            (
                "usb: transfer 1 with 0483:df11 differs: 21 01 00 00 00 00 02 00 -> 21 00; "
                "in the other one 21 01 00 00 00 00 02 00 -> 41 00"
            ),
        ),
    ],
)
def test_the_first_difference(one: list[Record], other: list[Record], said: str) -> None:
    (found,) = first_differences(one, other)
    assert str(found) == said


def test_each_bus_has_its_own_and_the_first_of_all_is_first() -> None:
    one: list[Record] = [sent(1, b"a"), sent(2, b"b"), frame(1.5, "01"), frame(3, "02")]
    other: list[Record] = [sent(1, b"a"), sent(2, b"x"), frame(1.5, "ff"), frame(3, "ff")]
    found = first_differences(one, other)
    assert [(item.bus, item.number, item.time) for item in found] == [("can0", 1, 1.5), ("line", 2, 2)]
    assert found[1].records == (one[1], other[1])
