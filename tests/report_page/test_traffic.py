"""What a recording says of its buses: limits from the specifications, loads, and what passed around a moment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from proxyflash.report_page import page, traffic
from proxyflash.report_page.story import Message, Mood, Story
from proxyflash.transports.recording.records import (
    CanFlag,
    CanFrame,
    Record,
    SerialBytes,
    SerialLine,
    UsbDevices,
    UsbSeen,
)


def seen(speed: int) -> UsbDevices:
    return UsbDevices(1.0, "bus", (UsbSeen(1, 2, (1,), speed, bytes(18), ()),))


@pytest.mark.parametrize(
    ("kind", "settings", "records", "carries"),
    [
        # ISO 11898-1: 47 bits with interframe space and 64 bits of data; ISO 15765-2: a consecutive frame has 7 bytes.
        ("can", {"bitrate": 500_000}, [], 500_000 / 111 * 7),
        ("serial", {"baudrate": 115_200}, [], 11_520),
        ("serial", {"baudrate": 115_200, "parity": "E"}, [], 115_200 / 11),
        ("serial", {"baudrate": 57_600, "stopbits": 2}, [], 57_600 / 11),
        # USB 2.0, tables 5-1 to 5-3.
        ("usb", {}, [seen(1)], 24_000),
        ("usb", {}, [seen(2)], 832_000),
        ("usb", {}, [seen(2), seen(3)], 15_872_000),
        ("can", {}, [], 0),
        ("udp", {}, [], 0),
    ],
)
def test_what_a_wire_carries(kind: str, settings: Mapping[str, Any], records: list[Record], carries: float) -> None:
    assert traffic.wires(records, {"bus": (kind, settings)})["bus"].carries == pytest.approx(carries)


def test_can_fd_carries_more_at_a_higher_data_rate() -> None:
    settings = {"bitrate": 500_000, "fd": True, "data_bitrate": 2_000_000}
    (wire,) = traffic.wires([], {"bus": ("can", settings)}).values()
    # 64 bytes of data take 256 us at 2 Mbit/s, and the rest of the frame at least 60 us at 500 kbit/s.
    assert 150_000 < wire.carries < 63 / 316e-6


def test_a_line_has_the_rate_with_which_most_of_its_bytes_passed() -> None:
    """A touch at 1200 bit/s is not a rate of a flash."""
    records: list[Record] = [
        SerialLine(1.0, "line", (("baudrate", 1200),)),
        SerialBytes(1.1, "line", True, b"?"),
        SerialLine(1.2, "line", (("baudrate", 57_600), ("parity", "E"))),
        SerialBytes(1.3, "line", True, bytes(100)),
        SerialLine(1.4, "line", (("baudrate", 9600), ("parity", "N"))),
    ]
    assert traffic.wires(records, {})["line"].carries == pytest.approx(57_600 / 11)


def test_the_load_of_a_line() -> None:
    records: list[Record] = [SerialBytes(0.5, "line", True, bytes(1152))]
    wires = traffic.wires(records, {"line": ("serial", {"baudrate": 115_200})})
    (load,) = traffic.loads(records, wires, 0.0, 1.0)
    # 1,152 bytes of 10 bits take 0.1 s: a tenth of the second, from its middle on.
    assert sum(load.shares) / len(load.shares) == pytest.approx(0.1, abs=0.001)
    assert load.peak == pytest.approx(1.0)
    assert load.shares[0] == 0.0


def test_the_load_of_a_can_bus_counts_the_bits_of_its_frames() -> None:
    # A frame of 8 bytes 0x55 with id 0x555 has no stuff bits but in its CRC: 111 bits and at most 4.
    records: list[Record] = [CanFrame(place / 1000, "can0", True, 0x555, 0, b"\x55" * 8) for place in range(1000)]
    wires = traffic.wires(records, {"can0": ("can", {"bitrate": 500_000})})
    (load,) = traffic.loads(records, wires, 0.0, 1.0)
    assert 0.222 <= sum(load.shares) / len(load.shares) <= 0.23


def test_what_passed_around_a_moment() -> None:
    messages = [Message(place, "a" if place % 2 else "b", True, str(place)) for place in range(200)]
    found = traffic.around("here", messages, 99.5, "a")
    assert found is not None
    assert [message.words for message in found.messages][-6:] == ["99", "101", "103", "105", "107", "109"]
    assert (len(found.messages), found.left_out) == (35, 20)
    assert found.messages[0].time == pytest.approx(41 - 99.5)
    assert traffic.around("nothing", [], 1.0) is None


def test_error_frames_in_a_row_take_two_lines() -> None:
    def frame(time: float, bus: str, flags: CanFlag) -> CanFrame:
        return CanFrame(time, bus, False, 0x123, int(flags), b"\1")

    records: list[Record] = [frame(1 + number / 8, "a", CanFlag.ERROR) for number in range(9)]
    records[3:3] = [frame(1.3, "b", CanFlag(0))]
    records += [frame(2.5, "b", CanFlag(0)), frame(3.0, "a", CanFlag(0)), frame(4.0, "a", CanFlag.ERROR)]
    assert [(one.time, one.bus, one.words) for one in traffic.messages(records, None)] == [
        (1.0, "a", "error frame 0x00000123 01"),
        (1.3, "b", "123 [1] 01"),
        (2.0, "a", "error frames within 1.000 s: 9"),
        (2.5, "b", "123 [1] 01"),
        (3.0, "a", "123 [1] 01"),
        (4.0, "a", "error frame 0x00000123 01"),
    ]


def test_a_can_bus_without_a_bitrate_has_no_load() -> None:
    records: list[Record] = [CanFrame(0.5, "can0", True, 0x7E0, 0, bytes(8))]
    loads = tuple(traffic.loads(records, traffic.wires(records, {"can0": ("can", {})}), 0.0, 1.0))
    made = page.render(Story("", "", Mood.GOOD, 0.0, 1.0, loads=loads))
    assert "load not known: no bitrate is given" in made
    assert not re.search('peak [0-9]|class="(curve|area)"', made)
    known = traffic.loads(records, traffic.wires(records, {"can0": ("can", {"bitrate": 500_000})}), 0.0, 1.0)
    assert "peak" in page.render(Story("", "", Mood.GOOD, 0.0, 1.0, loads=tuple(known)))
