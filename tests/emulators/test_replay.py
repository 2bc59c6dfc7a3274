"""Recordings written here by hand, replayed through python-can, pyserial and pyusb."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import pytest
import serial
import usb.core
import usb.util
from proxyflash.emulators.replay import protocol_replay
from proxyflash.emulators.replay.can import is_keep_alive
from proxyflash.emulators.replay.session import Replay
from proxyflash.emulators.replay.track import ReplayMismatch, both
from proxyflash.emulators.replay.usb import ReplayUsbBackend
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus, CanId
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import SerialTimeout
from proxyflash.transports.recording.formats import BadRecording, Recording, save
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
from proxyflash.transports.serial.port import SerialPort
from proxyflash.transports.usb.bus import UsbBus, UsbMatch

T = 1_700_000_000.0
LONG = 300.0
KEEP_ALIVE = bytes.fromhex("023E80CCCCCCCCCC")


def soon() -> Deadline:
    return Deadline.after(LONG)


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., str]:
    """Writes a recording; its path."""

    def write(*records: Record) -> str:
        save(records, tmp_path / "session.jsonl")
        return str(tmp_path / "session.jsonl")

    return write


# CAN.


def out(can_id: int, data: str, at: float = 0.0, flags: int = 0) -> CanFrame:
    return CanFrame(T + at, "powertrain", True, can_id, flags, bytes.fromhex(data))


def came(can_id: int, data: str, at: float = 0.0, flags: int = 0) -> CanFrame:
    return CanFrame(T + at, "powertrain", False, can_id, flags, bytes.fromhex(data))


def frame(can_id: int, data: str) -> can.Message:
    return can.Message(arbitration_id=can_id, is_extended_id=False, data=bytes.fromhex(data))


@pytest.fixture
def can_bus(recorded: Callable[..., str]) -> Iterator[Callable[..., can.BusABC]]:
    opened = []

    def open_bus(*records: Record, bus: str = ":powertrain") -> can.BusABC:
        opened.append(can.Bus(interface="proxyflash-replay", channel=recorded(*records) + bus, fd=True))
        return opened[-1]

    yield open_bus
    for bus in opened:
        bus.shutdown()


def test_answers_come_after_their_questions_in_order(can_bus: Callable[..., can.BusABC]) -> None:
    bus = can_bus(
        came(0x100, "00"),
        out(0x7E0, "0210 03"),
        came(0x7E8, "0650 03"),
        came(0x18DAF140, "0102", flags=CanFlag.EXTENDED),
        out(0x7E0, "023E00"),
        came(0x7E8, "01" * 12, flags=CanFlag.FD | CanFlag.BIT_RATE_SWITCH),
    )
    first = bus.recv(0)
    assert first is not None
    assert (first.arbitration_id, first.timestamp) == (0x100, T)
    assert bus.recv(0) is None
    bus.send(frame(0x7E0, "021003"))
    answers = [bus.recv(0), bus.recv(0)]
    assert [(item.arbitration_id, item.is_extended_id, bytes(item.data).hex()) for item in answers if item] == [
        (0x7E8, False, "065003"),
        (0x18DAF140, True, "0102"),
    ]
    assert bus.recv(0) is None
    bus.send(frame(0x7E0, "023E00"))
    last = bus.recv(0)
    assert last is not None
    assert (last.is_fd, last.bitrate_switch, last.dlc) == (True, True, 12)


@pytest.mark.parametrize(
    ("sent", "exchange", "kept", "now"),
    [
        ((0x7E0, "03 22 F1 90"), 2, "7E0#0322F189", "7E0#0322F190"),
        ((0x7E0, "03 22 F1 89 CC"), 2, "7E0#0322F189", "7E0#0322F189CC"),
        ((0x7E1, "03 22 F1 89"), 2, "7E0#0322F189", "7E1#0322F189"),
    ],
)
def test_another_frame_is_told_with_both_sides(
    can_bus: Callable[..., can.BusABC], sent: tuple[int, str], exchange: int, kept: str, now: str
) -> None:
    bus = can_bus(out(0x7E0, "021003"), came(0x7E8, "065003"), out(0x7E0, "0322F189"))
    bus.send(frame(0x7E0, "021003"))
    with pytest.raises(ReplayMismatch) as caught:
        bus.send(frame(*sent))
    assert (caught.value.bus, caught.value.exchange) == ("powertrain", exchange)
    assert (caught.value.recorded, caught.value.sent) == (kept, now)
    assert kept in str(caught.value)
    assert now in str(caught.value)
    with pytest.raises(ReplayMismatch) as again:
        bus.send(frame(0x7E0, "0322F189"))
    assert again.value is caught.value, "nothing after the first difference is a recorded session"


def test_more_than_was_recorded(can_bus: Callable[..., can.BusABC]) -> None:
    bus = can_bus(out(0x7E0, "021003"), bus="")
    bus.send(frame(0x7E0, "021003"))
    with pytest.raises(ReplayMismatch, match=r"exchange 2 .* recorded nothing more; now 7E0#021003"):
        bus.send(frame(0x7E0, "021003"))


def test_two_parts_on_one_bus_may_be_served_in_another_order(can_bus: Callable[..., can.BusABC]) -> None:
    bus = can_bus(
        out(0x700, "01"), out(0x710, "01"), came(0x708, "41"), came(0x718, "41"), out(0x710, "02"), out(0x700, "02"),
        came(0x708, "42"),
    )  # fmt: skip
    bus.send(frame(0x710, "01"))
    assert bus.recv(0) is None, "what was sent before the answer is not sent yet"
    bus.send(frame(0x700, "01"))
    assert [message.arbitration_id for message in (bus.recv(0), bus.recv(0)) if message] == [0x708, 0x718]
    bus.send(frame(0x700, "02"))
    with pytest.raises(ReplayMismatch) as caught:
        bus.send(frame(0x710, "03"))
    assert (caught.value.exchange, caught.value.recorded) == (3, "710#02")


def test_keep_alives_may_come_at_other_times_or_not_at_all(can_bus: Callable[..., can.BusABC]) -> None:
    bus = can_bus(
        out(0x7E0, "021003"), out(0x7DF, KEEP_ALIVE.hex()), came(0x7E8, "065003"), out(0x7E0, "0322F189"),
        came(0x7E8, "62"),
    )  # fmt: skip
    bus.send(frame(0x7E0, "021003"))
    assert bus.recv(0) is not None
    bus.send(frame(0x7DF, KEEP_ALIVE.hex()))
    bus.send(frame(0x7E0, KEEP_ALIVE.hex()))
    bus.send(frame(0x7E0, "0322F189"))
    assert bus.recv(0) is not None


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        ("023E80", True),
        ("023E80CCCCCCCCCC", True),
        ("023E8000000000000000000000", True),
        ("41023E80AAAAAAAA", True),
        ("023E00CCCCCCCCCC", False),
        ("033E80CCCCCCCCCC", False),
        ("023E80CCCCCC01CC", False),
        ("21023E80AAAAAAAA", False),
        ("10023E80AAAAAAAA", False),
        ("", False),
    ],
)
def test_what_a_keep_alive_is(data: str, is_one: bool) -> None:
    """ISO 15765-2: 02 is a single frame of 2 bytes, 1x a first frame, 2x a consecutive frame, which has data."""
    assert is_keep_alive(bytes.fromhex(data)) == is_one


def test_a_receiver_is_woken_by_the_sender(can_bus: Callable[..., can.BusABC]) -> None:
    bus = can_bus(out(0x7E0, "01"), came(0x7E8, "02"))
    got: list[can.Message | None] = []
    receiver = clock.Thread(target=lambda: got.append(bus.recv(LONG)))
    receiver.start()
    bus.send(frame(0x7E0, "01"))
    receiver.join(LONG)
    assert got
    assert got[0] is not None


def test_through_our_own_bus_the_mismatch_reaches_the_caller(recorded: Callable[..., str]) -> None:
    channel_name = recorded(out(0x7E0, "01"), came(0x7E8, "02"))
    with CanBus.open("powertrain", {"interface": "proxyflash-replay", "channel": channel_name}) as bus:
        channel = bus.channel(CanId(0x7E0), CanId(0x7E8))
        channel.send(b"\x01", soon())
        answer = channel.recv(soon())
        assert answer is not None
        assert bytes(answer.data) == b"\x02"
        with pytest.raises(ReplayMismatch):
            channel.send(b"\x01", soon())


def test_pace_one_brings_answers_as_late_as_they_were() -> None:
    replay = Replay(Recording((out(0x7E0, "01", 0.0), came(0x7E8, "02", 0.2))), pace=1.0)
    track = replay.track("powertrain", "can")
    started = clock.monotonic()
    track.send(out(0x7E0, "01"))
    assert track.receive(0) is None
    assert track.receive(LONG) is not None
    assert clock.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    ("bus", "said"),
    [(":chassis", "has no can bus 'chassis'"), ("", "has the can buses one, two"), (":", "has the can buses")],
)
def test_a_bus_that_is_not_in_the_recording(recorded: Callable[..., str], bus: str, said: str) -> None:
    path = recorded(CanFrame(T, "one", True, 1, 0, b""), CanFrame(T, "two", True, 1, 0, b""))
    with pytest.raises(can.CanInitializationError, match=said):
        can.Bus(interface="proxyflash-replay", channel=path + bus)


# A serial line.


def wrote(data: str, at: float = 0.0) -> SerialBytes:
    return SerialBytes(T + at, "imu-uart", True, bytes.fromhex(data))


def read(data: str, at: float = 0.0, *, drained: bool = False) -> SerialBytes:
    return SerialBytes(T + at, "imu-uart", False, bytes.fromhex(data), drained)


def changed(**lines: int | str) -> SerialLine:
    return SerialLine(T, "imu-uart", tuple(lines.items()))


def url(path: str) -> str:
    protocol_replay.make_known()
    return f"replay://{path}?bus=imu-uart"


def test_pyserial_reads_what_was_read(recorded: Callable[..., str]) -> None:
    path = recorded(wrote("7F"), read("79"), wrote("01FE"), read("79"), read("31 00 00"), read("79"))
    with serial.serial_for_url(url(path), timeout=LONG) as port:
        port.write(b"\x7f")
        assert port.in_waiting == 1
        assert port.read(1) == b"\x79"
        port.timeout = 0.01
        assert port.read(1) == b""
        port.write(b"\x01")
        assert port.read(1) == b"", "half a request has no answer"
        port.write(b"\xfe")
        port.timeout = LONG
        assert port.read(5) == bytes.fromhex("7931000079")


def test_a_write_may_be_cut_in_other_pieces(recorded: Callable[..., str]) -> None:
    path = recorded(wrote("01"), wrote("02 03"), wrote("04"), read("79"))
    with serial.serial_for_url(url(path), timeout=LONG) as port:
        port.write(b"\x01\x02")
        port.write(b"\x03\x04")
        assert port.read(1) == b"\x79"
        with pytest.raises(ReplayMismatch, match=r"exchange 4 .* recorded nothing more; now 05 06"):
            port.write(b"\x05\x06")


def test_other_bytes_are_told_with_both_sides(recorded: Callable[..., str]) -> None:
    path = recorded(wrote("7F"), read("79"), wrote("11EE"), read("79"))
    with SerialPort.open("imu-uart", {"url": url(path), "baudrate": 115_200}) as port:
        port.write(b"\x7f", soon())
        with pytest.raises(ReplayMismatch) as caught:
            port.write(b"\x11\xef", soon())
    assert (caught.value.exchange, caught.value.recorded, caught.value.sent) == (2, "11 EE", "11 EF")


def test_drained_bytes_are_only_there_to_be_drained(recorded: Callable[..., str]) -> None:
    """Our `drain` looks without waiting. What came in after it, and was read, it must not take."""
    path = recorded(
        read("FFFF", drained=True), wrote("7F"), read("79"), read("00", drained=True), wrote("01"), read("1F")
    )
    with SerialPort.open("imu-uart", {"url": url(path)}) as port:
        assert port.drain() == b"\xff\xff"
        port.write(b"\x7f", soon())
        assert port.drain() == b""
        assert port.read_exactly(1, soon()) == b"\x79"
        port.write(b"\x01", soon())
        assert port.read_exactly(1, soon()) == b"\x1f"


def test_a_banner_comes_after_the_reset_that_it_came_after(recorded: Callable[..., str]) -> None:
    path = recorded(changed(dtr=True), changed(dtr=False), read("424F4F54"))
    with SerialPort.open("imu-uart", {"url": url(path), "dtr": False, "rts": False}) as port:
        with pytest.raises(SerialTimeout):
            port.read_exactly(1, Deadline.after(0.02))
        assert port.set_modem(dtr=True)
        with pytest.raises(SerialTimeout):
            port.read_exactly(1, Deadline.after(0.02))
        assert port.set_modem(dtr=False)
        assert port.read_exactly(4, soon()) == b"BOOT"


def test_a_port_can_do_what_the_recorded_one_could(recorded: Callable[..., str]) -> None:
    """A PTY has neither parity nor modem lines, so nothing of them was recorded."""
    path = recorded(changed(baudrate=9600), wrote("7F"))
    with SerialPort.open("imu-uart", {"url": url(path), "baudrate": 115_200}) as port:
        assert not port.set_modem(dtr=True)
        assert not port.set_line(parity="E")
        assert port.set_line(baudrate=9600)
    path = recorded(changed(parity="E"), changed(rts=True))
    with SerialPort.open("imu-uart", {"url": url(path)}) as port:
        assert port.set_line(parity="E")
        assert port.set_modem(rts=True)


def test_lines_that_are_not_changed_hold_up_no_write(recorded: Callable[..., str]) -> None:
    path = recorded(changed(rts=True), wrote("7F"), read("79"))
    with serial.serial_for_url(url(path), timeout=LONG) as port:
        port.write(b"\x7f")
        assert port.read(1) == b"\x79"


def test_a_recording_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(serial.SerialException) as caught:
        serial.serial_for_url(url(str(tmp_path / "none.jsonl")))
    assert caught.value.errno == errno.ENOENT


# USB.


DEVICE = bytes.fromhex("1201000200000040830411DF002201020301")
CONFIGURATION = bytes.fromhex(
    "09022D00010100C032" + "0904000000FE010204" + "0921030004FF0100" + "01" + "0904000100FE010205"
)
"""USB 2.0, tables 9-8, 9-10, 9-12; DFU 1.1, table 4.2: two alternate settings, the functional descriptor between."""
APPLICATION = bytes.fromhex("12010002000000400912240C000101020301")


def seen(address: int, device: bytes = DEVICE) -> UsbSeen:
    return UsbSeen(1, address, (2,), 2, device, (CONFIGURATION,))


def control(setup: str, data: str = "", status: int = 0, address: int = 5) -> UsbControl:
    return UsbControl(T, "usb", 1, address, bytes.fromhex(setup), bytes.fromhex(data), status, 0.0)


SERIAL_TEXT = control("80 06 03 03 09 04 FE 00", "06 03 41 00 31 00")
LANGUAGES = control("80 06 00 03 00 00 FE 00", "04 03 09 04")
IDLE = control("A1 03 00 00 00 00 06 00", "00 00 00 00 02 00")
SELECT = control("01 0B 00 00 00 00 00 00")
DNLOAD = control("21 01 02 00 00 00 03 00", "01 02 03")


def usb_replay(*records: Record) -> tuple[Replay, ReplayUsbBackend]:
    replay = Replay(Recording(records))
    return replay, ReplayUsbBackend(replay.track("usb", "usb"))


def test_pyusb_finds_the_device_with_its_descriptors() -> None:
    _, backend = usb_replay(UsbDevices(T, "usb", (seen(5),)), LANGUAGES, SERIAL_TEXT)
    device = usb.core.find(idVendor=0x0483, idProduct=0xDF11, backend=backend)
    assert device is not None
    assert (device.bcdDevice, device.address, device.port_numbers) == (0x2200, 5, (2,))
    [configuration] = device
    assert configuration.bMaxPower == 0x32
    settings = [(item.bInterfaceNumber, item.bAlternateSetting, item.iInterface) for item in configuration]
    assert settings == [(0, 0, 4), (0, 1, 5)]
    assert bytes(configuration[0, 0].extra_descriptors) == bytes.fromhex("0921030004FF010001")[:9]
    # Descriptors are read as often as one likes.
    assert [usb.util.get_string(device, 3) for _ in range(3)] == ["A1"] * 3
    # The device hasn't got a descriptor that was not read.
    with pytest.raises(usb.core.USBError) as caught:
        usb.util.get_string(device, 4)
    assert caught.value.errno == errno.EPIPE


def test_transfers_and_what_differs() -> None:
    replay, backend = usb_replay(
        UsbDevices(T, "usb", (seen(5),)), LANGUAGES, SERIAL_TEXT, SELECT, IDLE, DNLOAD,
        control("A1 03 00 00 00 00 06 00", status=-errno.EPIPE), control("A1 03 00 00 00 00 06 00", status=-errno.ETIMEDOUT),
        control("21 01 03 00 00 00 02 00", "AABB"),
    )  # fmt: skip
    device = usb.core.find(idVendor=0x0483, backend=backend)
    assert device is not None
    device.set_interface_altsetting(0, 0)
    assert bytes(device.ctrl_transfer(0xA1, 3, 0, 0, 6)) == bytes.fromhex("000000000200")
    assert device.ctrl_transfer(0x21, 1, 2, 0, b"\x01\x02\x03") == 3
    with pytest.raises(usb.core.USBError) as stalled:
        device.ctrl_transfer(0xA1, 3, 0, 0, 6)
    # libusb.h: LIBUSB_ERROR_PIPE is -9.
    assert (stalled.value.errno, stalled.value.backend_error_code) == (errno.EPIPE, -9)
    with pytest.raises(usb.core.USBTimeoutError):
        device.ctrl_transfer(0xA1, 3, 0, 0, 6)
    with pytest.raises(ReplayMismatch) as caught:
        device.ctrl_transfer(0x21, 1, 3, 0, b"\xaa\xbc")
    assert (caught.value.exchange, caught.value.recorded, caught.value.sent) == (
        6,
        "21 01 03 00 00 00 02 00 -> AA BB",
        "21 01 03 00 00 00 02 00 -> AA BC",
    )
    with pytest.raises(ReplayMismatch):
        replay.finish()


def test_a_transfer_without_data_is_shown_as_its_setup_packet() -> None:
    _, backend = usb_replay(UsbDevices(T, "usb", (seen(5),)), control("21 04 00 00 00 00 00 00"), IDLE)
    device = usb.core.find(idVendor=0x0483, backend=backend)
    assert device is not None
    with pytest.raises(ReplayMismatch) as caught:
        device.ctrl_transfer(0xA1, 3, 0, 0, 6)
    assert (caught.value.recorded, caught.value.sent) == ("21 04 00 00 00 00 00 00", "A1 03 00 00 00 00 06 00")


def test_a_device_leaves_and_comes_back_as_another() -> None:
    detach = control("21 00 E8 03 00 00 00 00", address=4)
    replay, backend = usb_replay(
        UsbDevices(T, "usb", (seen(4, APPLICATION),)), LANGUAGES, detach,
        UsbDevices(T, "usb", ()), UsbDevices(T, "usb", (seen(5),)), LANGUAGES, SERIAL_TEXT, SELECT, IDLE,
    )  # fmt: skip
    bus = UsbBus.open("usb", {"backend": backend})
    running, loader = UsbMatch(0x1209, 0x0C24), UsbMatch(0x0483, 0xDF11)
    device = bus.open_device(running)
    device.control_out(0x21, 0, 1000, 0, b"", soon())
    assert bus.wait_gone(running, soon())
    device.close()
    found = bus.wait_for([loader], soon())
    found.claim(0)
    assert found.info.serial == "A1"
    assert found.control_in(0xA1, 3, 0, 0, 6, soon())[4] == 2
    bus.close()
    replay.finish()


def test_a_host_that_lists_less_often_passes_over_what_it_saw_then() -> None:
    replay, backend = usb_replay(
        UsbDevices(T, "usb", (seen(5),)), IDLE, UsbDevices(T, "usb", ()), UsbDevices(T, "usb", (seen(5), seen(6))), DNLOAD,
    )  # fmt: skip
    device = usb.core.find(idVendor=0x0483, backend=backend)
    assert device is not None
    device.ctrl_transfer(0xA1, 3, 0, 0, 6)
    device.ctrl_transfer(0x21, 1, 2, 0, b"\x01\x02\x03")
    assert [item.address for item in usb.core.find(find_all=True, backend=backend)] == [5, 6]
    replay.finish()


def test_two_devices_at_once() -> None:
    replay, backend = usb_replay(
        UsbDevices(T, "usb", (seen(5), seen(6))), IDLE, control("A1 03 00 00 00 00 06 00", "010203040506", address=6),
        control("21 04 00 00 00 00 00 00", address=6), DNLOAD,
    )  # fmt: skip
    one, two = usb.core.find(find_all=True, backend=backend)
    assert two.ctrl_transfer(0xA1, 3, 0, 0, 6)[0] == 1
    two.ctrl_transfer(0x21, 4, 0, 0)
    assert one.ctrl_transfer(0xA1, 3, 0, 0, 6)[0] == 0
    with pytest.raises(ReplayMismatch, match=r"exchange 4 on usb .* the host has ended"):
        replay.finish()


# The whole.


def test_a_bus_is_of_the_kind_that_was_recorded() -> None:
    replay = Replay(Recording((out(0x7E0, "01"), wrote("7F"))))
    with pytest.raises(BadRecording, match="'powertrain' was recorded with can, not serial"):
        replay.track("powertrain", "serial")
    assert replay.track("elsewhere", "usb").exchanges == 0


def test_what_was_not_sent_is_told_at_the_end() -> None:
    replay = Replay(Recording((out(0x7E0, "01"), out(0x7DF, KEEP_ALIVE.hex()), out(0x7E0, "02"), wrote("7F"))))
    track = replay.track("powertrain", "can")
    track.send(out(0x7E0, "01"))
    with pytest.raises(ReplayMismatch, match=r"exchange 2 on powertrain .*7E0#02; now the host has ended"):
        replay.finish()
    replay = Replay(Recording((out(0x7E0, "01"), wrote("7F"))))
    replay.track("powertrain", "can").send(out(0x7E0, "01"))
    replay.finish()
    replay.track("imu-uart", "serial")
    with pytest.raises(ReplayMismatch, match=r"exchange 1 on imu-uart .* recorded 7F; now the host has ended"):
        replay.finish()


def test_a_recording_that_lost_its_beginning_is_refused() -> None:
    with pytest.raises(BadRecording, match="first 3 records"):
        Replay(Recording((out(0x7E0, "01"),), dropped=3))


def test_notes_are_no_exchanges() -> None:
    replay = Replay(Recording((Note(T, "powertrain", "opened"), out(0x7E0, "01"))))
    replay.track("powertrain", "can").send(out(0x7E0, "01"))
    replay.finish()


@pytest.mark.parametrize(
    ("recorded", "sent", "shown"),
    [
        (b"", b"\x01", ("nothing", "01")),
        (b"\x01\x02", b"\x01", ("01 02", "01")),
        (
            bytes(100),
            bytes(99) + b"\x01",
            (f"{'00 ' * 13}(from byte 87 of 100)", f"{'00 ' * 12}01 (from byte 87 of 100)"),
        ),
    ],
)
def test_both_sides_are_shown_around_the_difference(recorded: bytes, sent: bytes, shown: tuple[str, str]) -> None:
    assert both(recorded, sent) == shown
