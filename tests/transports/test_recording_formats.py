"""What is written for other programs, read by them: python-can and can-utils the candump log, tshark the pcapng."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import can
import pytest
from proxyflash.transports.recording.formats import load, save_all
from proxyflash.transports.recording.records import (
    CanFlag,
    CanFrame,
    Note,
    Record,
    SerialBytes,
    SerialLine,
    UsbControl,
    UsbDevices,
    UsbSeen,
)

T = 1_700_000_000.0
POWERTRAIN, CHASSIS = "powertrain", "a-chassis-with-a-long-name"
FRAMES = (
    CanFrame(T + 0.000001, POWERTRAIN, True, 0x7E0, 0, bytes.fromhex("0322F189CCCCCCCC")),
    CanFrame(T + 0.25, POWERTRAIN, False, 0x7E8, 0, b""),
    CanFrame(T + 0.5, POWERTRAIN, False, 0x18DAF140, CanFlag.EXTENDED, b"\x01"),
    CanFrame(T + 0.75, POWERTRAIN, False, 0x12, CanFlag.EXTENDED, b"\x02"),
    CanFrame(T + 1, POWERTRAIN, True, 0x123, CanFlag.REMOTE, bytes(4)),
    CanFrame(T + 1.25, CHASSIS, True, 0x7FF, CanFlag.FD | CanFlag.BIT_RATE_SWITCH, bytes(range(64))),
    CanFrame(T + 1.5, CHASSIS, False, 0x100, CanFlag.FD | CanFlag.ERROR_STATE, bytes(12)),
    CanFrame(T + 1.75, CHASSIS, False, 0x101, CanFlag.FD, b""),
)
ERROR_FRAME = CanFrame(T + 2, POWERTRAIN, False, 0xA0, CanFlag.ERROR, bytes(8))
"""A bus error, no acknowledgement (Linux, include/uapi/linux/can/error.h: CAN_ERR_BUSERROR, CAN_ERR_ACK)."""
SERIAL = (
    SerialLine(T + 0.1, "uart", (("dtr", True), ("baudrate", 9600))),
    SerialBytes(T + 0.2, "uart", True, b"\x7f"),
    SerialLine(T + 0.3, "uart", (("rts", True), ("dtr", False))),
    SerialLine(T + 0.35, "uart", (("baudrate", 115_200), ("dtr", False))),
    SerialBytes(T + 0.4, "uart", False, b"\x79\x1fA"),
)
GET_STATUS = bytes.fromhex("A103000000000600")
DNLOAD = bytes.fromhex("2101020001000500")
UPLOAD = bytes.fromhex("A102000000000008")
"""DFU 1.1, table 3.2: bmRequestType, bRequest, wValue, wIndex, wLength, little-endian."""
USB = (
    UsbDevices(T, "usb", (UsbSeen(1, 7, (2,), 2, bytes.fromhex("1201000200000040830411DF002201020301"), ()),)),
    UsbControl(T + 0.001, "usb", 1, 7, GET_STATUS, bytes.fromhex("000000000200"), 0, 0.0005),
    UsbControl(T + 0.002, "usb", 1, 7, DNLOAD, b"\x21\x00\x00\x00\x08", 0, 0.001),
    UsbControl(T + 0.004, "usb", 1, 7, UPLOAD, b"", -32, 0.002),
)
EVERYTHING: tuple[Record, ...] = tuple(
    sorted((*FRAMES, ERROR_FRAME, *SERIAL, *USB, Note(T, "usb", "opened")), key=lambda record: record.time)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("recording") / "new"
    files = save_all(EVERYTHING, made)
    names = ["recording.jsonl", "can.log", "serial.txt", "usb.txt", "recording.pcapng"]
    assert sorted(files) == sorted(made / name for name in names) == sorted(made.iterdir())
    return made


def test_all_of_it_is_loaded_again(folder: Path) -> None:
    assert load(folder / "recording.jsonl").records == EVERYTHING


def test_only_what_there_is_is_written(tmp_path: Path) -> None:
    assert save_all([Note(T, "usb", "opened")], tmp_path) == [tmp_path / "recording.jsonl"]
    assert save_all(FRAMES, tmp_path)[1:] == [tmp_path / "can.log", tmp_path / "recording.pcapng"]


def test_an_earlier_recording_leaves_nothing_behind(tmp_path: Path) -> None:
    save_all(EVERYTHING, tmp_path)
    files = save_all([Note(T, "usb", "opened")], tmp_path)
    assert sorted(tmp_path.iterdir()) == files


# candump's log.


def test_candump_log_by_python_can(folder: Path) -> None:
    with can.CanutilsLogReader(folder / "can.log") as reader:
        messages = list(reader)
    assert messages.pop().is_error_frame
    assert len(messages) == len(FRAMES)
    for message, frame in zip(messages, FRAMES, strict=True):
        assert message.timestamp == pytest.approx(frame.time, abs=1e-6)
        assert (message.arbitration_id, message.is_rx) == (frame.can_id, not frame.outgoing)
        assert message.is_extended_id == bool(frame.flags & CanFlag.EXTENDED)
        assert message.is_fd == bool(frame.flags & CanFlag.FD)
        assert message.is_remote_frame == bool(frame.flags & CanFlag.REMOTE)
        if message.is_remote_frame:
            assert message.dlc == 4
        else:
            assert bytes(message.data) == frame.data
        if message.is_fd:
            assert message.bitrate_switch == bool(frame.flags & CanFlag.BIT_RATE_SWITCH)
            assert message.error_state_indicator == bool(frame.flags & CanFlag.ERROR_STATE)
    assert {message.channel for message in messages} == {"powertrain", "can0"}


def test_candump_log_by_can_utils(folder: Path) -> None:
    """log2asc has the parser that canplayer has, and needs no CAN socket."""
    if shutil.which("log2asc") is None:
        pytest.skip("can-utils is not installed")
    done = subprocess.run(
        ["log2asc", "-I", folder / "can.log", "-4", "powertrain", "can0"],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    seconds = re.findall(r"^ *(\d+\.\d{4})", done.stdout, re.MULTILINE)
    first = FRAMES[0].time
    assert [float(at) for at in seconds] == pytest.approx(
        [record.time - first for record in (*FRAMES, ERROR_FRAME)], abs=2e-4
    )
    classic = re.findall(r"^ *\S+ +1  (\w+) +\w+ +d (\d)((?: [0-9A-F]{2})*)", done.stdout, re.MULTILINE)
    assert [(name, bytes.fromhex(data)) for name, _, data in classic] == [
        (f"{frame.can_id:X}{'x' if frame.flags & CanFlag.EXTENDED else ''}", frame.data)
        for frame in FRAMES
        if frame.bus == POWERTRAIN and not frame.flags & CanFlag.REMOTE
    ]
    fd = re.findall(r"CANFD +2 +\w+ +(\w+) +([01]) ([01]) \w+ +(\d+)((?: [0-9A-F]{2})*)", done.stdout)
    assert [
        (int(name, 16), brs, esi, int(size), bytes.fromhex(data)[: int(size)]) for name, brs, esi, size, data in fd
    ] == [
        (0x7FF, "1", "0", 64, bytes(range(64))),
        (0x100, "0", "1", 12, bytes(12)),
        (0x101, "0", "0", 0, b""),
    ]


# pcapng.


def dissected(folder: Path, wanted: str, *fields: str) -> list[list[str]]:
    """Fields of the packets that a display filter lets through, as Wireshark's dissectors have them."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    options = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", folder / "recording.pcapng", "-Y", wanted, "-T", "fields", *options],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_pcapng_is_whole(folder: Path) -> None:
    rows = dissected(folder, "frame", "frame.time_epoch", "frame.interface_name", "_ws.expert.message")
    # A change of the bit rate is not a packet; the listing of devices neither.
    assert len(rows) == len(FRAMES) + 1 + (len(SERIAL) - 1) + 2 * (len(USB) - 1)
    assert [float(row[0]) for row in rows] == sorted(float(row[0]) for row in rows)
    assert {row[1] for row in rows} == {POWERTRAIN, CHASSIS, "uart", "usb"}


def test_pcapng_can(folder: Path) -> None:
    rows = dissected(
        folder, "can or canfd", "frame.time_epoch", "frame.interface_name", "frame.packet_flags_direction", "can.id",
        "can.flags.xtd", "can.flags.rtr", "can.flags.err", "can.len", "canfd.flags.brs", "canfd.flags.esi", "data.data",
    )  # fmt: skip
    frames = sorted((*FRAMES, ERROR_FRAME), key=lambda frame: frame.time)
    assert len(rows) == len(frames)
    for row, frame in zip(rows, frames, strict=True):
        at, interface, direction, can_id, extended, remote, error, length, brs, esi, data = row
        assert float(at) == pytest.approx(frame.time, abs=1e-6)
        # pcapng's epb_flags: 1 inbound, 2 outbound.
        assert (interface, int(direction, 0)) == (frame.bus, 2 if frame.outgoing else 1)
        assert int(length) == len(frame.data)
        if frame.flags & CanFlag.ERROR:
            assert error == "1"
            continue
        assert int(can_id) == frame.can_id
        assert (extended == "1") == bool(frame.flags & CanFlag.EXTENDED)
        if frame.flags & CanFlag.FD:
            assert (brs == "1") == bool(frame.flags & CanFlag.BIT_RATE_SWITCH)
            assert (esi == "1") == bool(frame.flags & CanFlag.ERROR_STATE)
        else:
            assert (remote == "1") == bool(frame.flags & CanFlag.REMOTE)
        assert bytes.fromhex(data) == (b"" if frame.flags & CanFlag.REMOTE else frame.data)


def test_pcapng_usb(folder: Path) -> None:
    rows = dissected(
        folder, "usb", "frame.time_epoch", "usb.src", "usb.dst", "usb.urb_type", "usb.transfer_type",
        "usb.bmRequestType", "usb.setup.bRequest", "usb.setup.wValue", "usb.setup.wIndex", "usb.setup.wLength",
        "usb.urb_status", "usb.data_len", "usb.control.Response", "usb.data_fragment",
    )  # fmt: skip
    assert [row[1:5] for row in rows] == [["host", "1.7.0", "'S'", "0x02"], ["1.7.0", "host", "'C'", "0x02"]] * 3
    starts, ends = rows[::2], rows[1::2]
    assert [[int(value, 0) for value in row[5:10]] for row in starts] == [
        [0xA1, 3, 0, 0, 6],
        [0x21, 1, 2, 1, 5],
        [0xA1, 2, 0, 0, 2048],
    ]
    # EINPROGRESS (-115) until it completes; the last one is refused with a stall (-EPIPE).
    assert [int(row[10]) for row in starts] == [-115] * 3
    assert [int(row[10]) for row in ends] == [0, 0, -32]
    assert [(start[13], end[12]) for start, end in zip(starts, ends, strict=True)] == [
        ("", "000000000200"),
        ("2100000008", ""),
        ("", ""),
    ]
    times = [float(row[0]) - T for row in rows]
    assert times == pytest.approx([0.001, 0.0015, 0.002, 0.003, 0.004, 0.006], abs=1e-6)


def test_pcapng_serial(folder: Path) -> None:
    """LINKTYPE_RTAC_SERIAL: event types 0 STATUS_CHANGE, 1 DATA_TX_START, 2 DATA_RX_START."""
    rows = dissected(
        folder, "rtacser", "frame.time_epoch", "rtacser.eventtype", "rtacser.dtr", "rtacser.rts", "rtacser.cts",
        "data.data",
    )  # fmt: skip
    assert [[int(row[1], 0), *row[2:5], row[5]] for row in rows] == [
        [0, "1", "0", "0", ""],
        [1, "1", "0", "0", "7f"],
        [0, "0", "1", "0", ""],
        [2, "0", "1", "0", "791f41"],
    ]
    assert [float(row[0]) - T for row in rows] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-6)


# For a person.


def test_the_texts(folder: Path) -> None:
    # 1,700,000,000 s after 1970 is 2023-11-14 22:13:20 UTC.
    assert (folder / "serial.txt").read_text().splitlines() == [
        "22:13:20.100000 uart :: dtr=True baudrate=9600",
        "22:13:20.200000 uart -> 7F  |.|",
        "22:13:20.300000 uart :: rts=True dtr=False",
        "22:13:20.350000 uart :: baudrate=115200 dtr=False",
        "22:13:20.400000 uart <- 79 1F 41  |y.A|",
    ]
    assert (folder / "usb.txt").read_text().splitlines() == [
        "22:13:20.000000 usb devices: 1.7 0483:df11",
        "22:13:20.001000 usb 1.7 a1 03 00 00 00 00 06 00 <- 00 00 00 00 02 00",
        "22:13:20.002000 usb 1.7 21 01 02 00 01 00 05 00 -> 21 00 00 00 08",
        "22:13:20.004000 usb 1.7 a1 02 00 00 00 00 00 08 <- Broken pipe",
    ]
