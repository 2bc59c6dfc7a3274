"""The ring, what the transports put into it, and the file that is loaded again."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import can
import pytest
import usb.core
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.wire import UsbWire
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus, CanId
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import SerialGone, UsbStall
from proxyflash.transports.recording.formats import BadRecording, load, save
from proxyflash.transports.recording.recorder import RECORD_BYTES, Recorder
from proxyflash.transports.recording.records import (
    Answer,
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

STALL = -32
"""-EPIPE, Linux."""


def soon() -> Deadline:
    return Deadline.after(30)


# The ring.


def test_a_ring_of_a_million_records_stays_small() -> None:
    recorder = Recorder(limit_records=1000)
    message = can.Message(arbitration_id=0x123, is_extended_id=False, data=b"12345678")
    for _ in range(2000):
        recorder.can("powertrain", False, message)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            recorder.can("powertrain", False, message)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for _ in range(978_000):
        recorder.can("powertrain", False, message)
    assert grown < 1_000_000
    assert len(recorder.records()) == 1000
    assert recorder.dropped == 999_000


def test_a_ring_is_bounded_by_bytes_too_and_keeps_the_newest() -> None:
    recorder = Recorder(limit_bytes=10 * (RECORD_BYTES + 1000))
    for number in range(25):
        recorder.serial("uart", True, bytes([number]) * 1000)
    kept = recorder.records()
    assert [record.data[0] for record in kept if isinstance(record, SerialBytes)] == list(range(15, 25))
    assert recorder.dropped == 15


def test_what_is_larger_than_the_ring_is_dropped_too() -> None:
    recorder = Recorder(limit_bytes=1000)
    recorder.serial("uart", True, bytes(2000))
    assert (recorder.records(), recorder.dropped) == ([], 1)


def test_what_is_younger_than_a_moment(tmp_path: Path) -> None:
    """It has lost nothing where the ring still holds something older."""
    recorder = Recorder(limit_records=3)
    for number in range(4):
        recorder.note("usb", str(number))
    moment = clock.monotonic()
    recorder.note("usb", "4")
    assert [record.text for record in recorder.records(moment) if isinstance(record, Note)] == ["4"]
    recorder.save(tmp_path, moment)
    young = load(tmp_path / "recording.jsonl")
    assert [record.text for record in young.records if isinstance(record, Note)] == ["4"]
    assert young.dropped == 0
    recorder.save(tmp_path)
    assert load(tmp_path / "recording.jsonl").dropped == 2


def test_one_clock_for_all_and_a_transfer_stands_where_it_began() -> None:
    recorder = Recorder()
    before = clock.time()
    started = clock.monotonic()
    recorder.serial("uart", True, b"a")
    recorder.usb("usb", 1, 2, bytes(8), b"", 0, started)
    after = clock.time()
    transfer, written = recorder.records()
    assert isinstance(transfer, UsbControl)
    assert isinstance(written, SerialBytes)
    # The wall clock may be set in between, but by no more than a machine's ordinary correction.
    assert before - 1 < transfer.time <= written.time < after + 1
    assert transfer.seconds >= written.time - transfer.time - 1e-6


def test_threads_add_to_it_at_once() -> None:
    recorder = Recorder(limit_records=5000)
    message = can.Message(arbitration_id=1, data=b"1")

    def add() -> None:
        for _ in range(4000):
            recorder.can("a", True, message)

    threads = [clock.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(recorder.records()), recorder.dropped) == (5000, 11_000)


# What the transports put into it.


def test_a_can_bus(tmp_path: Path) -> None:
    wire = CanWire("recorded", bitrate=500_000, data_bitrate=2_000_000, pace=0)
    answered = clock.Event()

    def answer(message: can.Message) -> None:
        if not answered.is_set():
            answered.set()
            node.send(can.Message(arbitration_id=0x1ABCDEF0, is_extended_id=True, data=b"\x05"))
            node.send(can.Message(arbitration_id=0x7E8, is_extended_id=False, is_remote_frame=True, dlc=4))
            reply = can.Message(
                arbitration_id=0x7E8, is_extended_id=False, is_fd=True, bitrate_switch=True, data=bytes(12)
            )
            node.send(reply)

    node = wire.attach("part", answer)
    try:
        with CanBus.open("powertrain", {"interface": "proxyflash", "channel": "recorded", "fd": True}) as bus:
            channel = bus.channel(CanId(0x7E0), CanId(0x7E8), fd=False)
            bus.recorder = recorder = Recorder()
            channel.send(b"\x01\x02", soon())
            assert channel.recv(soon()) is not None
            bus.recorder = None
            channel.send(b"\x03", soon())
    finally:
        wire.close()
    frames = [record for record in recorder.records() if isinstance(record, CanFrame)]
    assert [(frame.outgoing, frame.can_id, frame.flags, frame.data) for frame in frames] == [
        (True, 0x7E0, 0, b"\x01\x02"),
        (False, 0x1ABCDEF0, CanFlag.EXTENDED, b"\x05"),
        (False, 0x7E8, CanFlag.REMOTE, bytes(4)),
        (False, 0x7E8, CanFlag.FD | CanFlag.BIT_RATE_SWITCH, bytes(12)),
    ]
    assert {frame.bus for frame in frames} == {"powertrain"}


def test_an_adapter_that_is_unplugged_is_noted() -> None:
    wire = CanWire("leaves", bitrate=500_000, pace=0)
    bus = CanBus.open("powertrain", {"interface": "proxyflash", "channel": "leaves"})
    bus.recorder = recorder = Recorder()
    channel = bus.channel(CanId(1), CanId(2))
    wire.close()
    with pytest.raises(Exception, match="unplugged"):
        channel.recv(soon())
    bus.close()
    [note] = recorder.records()
    assert isinstance(note, Note)
    assert note.text.startswith("E-CAN-GONE")


def test_a_serial_port() -> None:
    wire = UartWire("recorded-uart", pace=0)
    try:
        with SerialPort.open("imu", {"url": "emulated://recorded-uart", "baudrate": 9600}) as port:
            port.recorder = recorder = Recorder()
            port.set_line(baudrate=115_200, parity="E")
            port.set_modem(dtr=True)
            port.write(b"\x7f", soon())
            port.write(b"VER?\r", soon())
            wire.device.line = wire.host.line
            wire.device.send(b"\x79\x1f")
            assert port.read_exactly(1, soon()) == b"\x79"
            assert port.drain() == b"\x1f"
    finally:
        wire.close()
    shown = [
        record.changes if isinstance(record, SerialLine) else (record.outgoing, record.data, record.drained)
        for record in recorder.records()
        if isinstance(record, (SerialLine, SerialBytes))
    ]
    assert shown == [
        (("baudrate", 115_200),),
        (("parity", "E"),),
        (("dtr", True),),
        (True, b"\x7f", False),
        (True, b"VER?\r", False),
        (False, b"\x79", False),
        (False, b"\x1f", True),
    ]


def test_a_serial_port_that_vanishes_is_noted() -> None:
    wire = UartWire("leaving-uart", pace=0)
    with SerialPort.open("imu", {"url": "emulated://leaving-uart"}) as port:
        port.recorder = recorder = Recorder()
        wire.close()
        with pytest.raises(SerialGone):
            port.read_some(soon())
    [note] = recorder.records()
    assert isinstance(note, Note)
    assert "reading" in note.text


def test_usb_devices_and_their_transfers() -> None:
    wire = UsbWire("recorded-usb", pace=0)
    try:
        part = DfuDevice.attach(DeviceSpec("imu", settings={"part": "stm32f405-dfu", "serial": "A1"}), wire)
        bus = UsbBus.open("usb", {"backend": EmulatedUsbBackend(wire)})
        bus.recorder = recorder = Recorder()
        device = bus.open_device(UsbMatch(0x0483, 0xDF11))
        device.claim(0)
        assert device.control_in(0xA1, 3, 0, 0, 6, soon())[4] == 2
        with pytest.raises(UsbStall):
            device.control_out(0x21, 0x77, 1, 0, b"\x01\x02\x03", soon())
        device.close()
        part.supply.off()
        assert bus.list() == []
        assert bus.list() == []
        bus.close()
    finally:
        wire.close()
    records = recorder.records()
    transfers = [record for record in records if isinstance(record, UsbControl)]
    # GETSTATUS (DFU 1.1, 6.1.2): bStatus, bwPollTimeout, bState (dfuIDLE: 2), iString.
    status, refused = transfers[-2:]
    assert (status.setup.hex(), status.data[4], status.status) == ("a10300000000" + "0600", 2, 0)
    assert (refused.setup.hex(), refused.data.hex(), refused.status) == ("217701000000" + "0300", "010203", STALL)
    # Strings are asked for with GET_DESCRIPTOR (USB 2.0, 9.4.3), the alternate setting with SET_INTERFACE (9.4.10).
    assert {item.setup[:2].hex() for item in transfers[:-2]} == {"8006", "010b"}
    looks = [record.devices for record in records if isinstance(record, UsbDevices)]
    assert [len(look) for look in looks] == [1, 0], "the same result is kept once"
    [seen] = looks[0]
    assert (seen.root, seen.ports, seen.device[:4].hex()) == (1, (1,), "12010002")
    assert seen.device[8:12].hex() == "830411df"
    [configuration] = seen.configurations
    assert int.from_bytes(configuration[2:4], "little") == len(configuration)


def test_a_recorded_backend_is_used_as_the_one_inside() -> None:
    """pyusb itself goes through it, with the emulated back end's errors."""
    wire = UsbWire("pyusb-recorded", pace=0)
    try:
        DfuDevice.attach(DeviceSpec("imu", settings={"part": "stm32f405-dfu", "serial": "A1"}), wire)
        bus = UsbBus.open("usb", {"backend": EmulatedUsbBackend(wire)})
        bus.recorder = recorder = Recorder()
        device = usb.core.find(idVendor=0x0483, backend=bus._backend)
        assert device is not None
        device.set_configuration(1)
        assert usb.util.get_string(device, device.iSerialNumber) == "A1"
        with pytest.raises(usb.core.USBError):
            device.ctrl_transfer(0x21, 0x77, 1, 0, b"\x01")
        usb.util.dispose_resources(device)
    finally:
        wire.close()
    setups = [record.setup.hex() for record in recorder.records() if isinstance(record, UsbControl)]
    # SET_CONFIGURATION 1 (USB 2.0, 9.4.7).
    assert setups[0] == "0009010000000000"


# The file.

times = st.integers(0, 4_000_000_000_000_000).map(lambda micro: round(micro / 1e6, 6))
buses = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,19}", fullmatch=True)
bytes_of = st.binary(max_size=64)


@st.composite
def frames(draw: st.DrawFn) -> CanFrame:
    flags = draw(st.sampled_from([0, 1, 2, 3, 5, 8, 9, 24, 40, 56]))
    can_id = draw(st.integers(0, 0x1FFF_FFFF if flags & 1 else 0x7FF))
    data = draw(st.binary(max_size=64 if flags & CanFlag.FD else 8))
    return CanFrame(draw(times), draw(buses), draw(st.booleans()), can_id, flags, data)


seen = st.builds(
    UsbSeen,
    st.integers(0, 255),
    st.integers(0, 127),
    st.lists(st.integers(1, 15), max_size=5).map(tuple),
    st.integers(0, 6),
    st.binary(min_size=18, max_size=18),
    st.lists(st.binary(min_size=9, max_size=64), max_size=3).map(tuple),
)
changes = st.dictionaries(st.sampled_from(["dtr", "rts"]), st.booleans()).flatmap(
    lambda lines: st.just(tuple({**lines, "baudrate": 9600, "parity": "E"}.items()))
)
records = st.one_of(
    frames(),
    st.builds(SerialBytes, times, buses, st.booleans(), bytes_of, st.booleans()),
    st.builds(SerialLine, times, buses, changes),
    st.builds(
        UsbControl, times, buses, st.integers(0, 255), st.integers(0, 127), st.binary(min_size=8, max_size=8), bytes_of,
        st.integers(-200, 0), st.integers(0, 10**7).map(lambda micro: micro / 1e6),
    ),
    st.builds(UsbDevices, times, buses, st.lists(seen, max_size=3).map(tuple)),
    st.builds(Note, times, buses | st.just(""), st.text(max_size=30)),
    st.builds(Answer, times, st.just(""), st.text(max_size=30), st.text(max_size=30), st.booleans()),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(records, max_size=8), st.integers(0, 5))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, kept: list[Record], dropped: int) -> None:
    path = tmp_path_factory.mktemp("saved") / "a.jsonl"
    save(kept, path, head={"arguments": ["scan"]}, dropped=dropped)
    loaded = load(path)
    assert (list(loaded.records), loaded.dropped, loaded.head) == (kept, dropped, {"arguments": ["scan"]})


HEAD = b'{"format": "proxyflash recording", "schema": 1}\n'
GOOD = HEAD + b'{"time": 1.5, "bus": "b", "kind": "can", "out": true, "id": "7E0", "data": "0102"}\n'


def test_the_format_as_it_is_written(tmp_path: Path) -> None:
    """By hand, as docs/recordings.md describes it: other programs may write it too."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    assert load(path).records == (CanFrame(1.5, "b", True, 0x7E0, 0, b"\x01\x02"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ":1: the file ends in the middle of a line"),
        (b"PK\x03\x04\n", ":1: no JSON"),
        (b"[]\n", ":1: no JSON object"),
        (b"{}\n", ":1: this is not a recording"),
        (HEAD.replace(b"1}", b"2}"), ":1: schema 2"),
        (HEAD.replace(b"1}", b'1, "dropped": -1}'), ":1: dropped = -1"),
        (GOOD[:-5], ":2: the file ends in the middle"),
        (GOOD + b"\xff\n", ":3: no JSON"),
        (GOOD + b"[" * 200_000 + b"\n", ":3: no JSON"),
        (GOOD + b"1" * 5000 + b"\n", ":3: no JSON"),
        (GOOD.replace(b'"can"', b'"lin"'), ":2: no record: kind"),
        (GOOD.replace(b"7E0", b"800"), ":2: no record: id"),
        (GOOD.replace(b"7E0", b"-1"), ":2: no record: id"),
        (GOOD.replace(b"0102", b"01" * 9), ":2: no record: data"),
        (GOOD.replace(b"0102", b"0"), ":2: no record"),
        (GOOD.replace(b"true", b"1"), ":2: no record: out"),
        (GOOD.replace(b"1.5", b"NaN"), ":2: no JSON: NaN is not a number"),
        (GOOD.replace(b"1.5", b"-1"), ":2: no record: time"),
        (GOOD.replace(b'"out"', b'"ouch": 1, "out"'), ":2: no record: 'ouch'"),
        (GOOD.replace(b'"bus": "b", ', b""), ":2: no record: bus"),
    ],
    ids=range(20),
)
def test_broken_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadRecording) as caught:
        load(path)
    assert f"{path}{said}" in str(caught.value)


def test_a_line_without_end_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(HEAD)
        file.truncate(1 << 29)
    tracemalloc.start()
    try:
        with pytest.raises(BadRecording, match=r":2: .*line is too long"):
            load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir], ids=["missing", "folder"])
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a")
    with pytest.raises(BadRecording):
        load(tmp_path / "a")


def refused_at(path: Path) -> str:
    """File and line of what is wrong with a recording; "" of a recording that loads."""
    refused: list[BadRecording] = []
    try:
        load(path)
    except BadRecording as error:
        refused.append(error)
    return ":".join(refused[0].cause.split(":")[:2]) if refused else ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(record=records, key=st.integers(0, 12), value=json_values)
def test_a_wrong_value_is_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, record: Record, key: int, value: object
) -> None:
    path = tmp_path_factory.mktemp("wrong") / "a.jsonl"
    save([record], path)
    head, line = path.read_text(encoding="utf-8").splitlines()
    fields = json.loads(line)
    fields[list(fields)[key % len(fields)]] = value
    if isinstance(record, UsbDevices) and record.devices and key > 3:
        fields = json.loads(line)
        inner = fields["devices"][0]
        inner[list(inner)[key % len(inner)]] = value
    path.write_text(f"{head}\n{json.dumps(fields)}\n", encoding="utf-8")
    assert refused_at(path) in ("", f"{path}:2")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b'{"time":1,"bus":"b","kind":"devices","devices":[[]]}\n')
@example(b'{"time":1e400,"bus":"b","kind":"note","text":""}\n')
def test_garbage_is_a_named_error(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "a.jsonl"
    path.write_bytes(HEAD + garbage)
    assert refused_at(path).startswith(("", f"{path}:"))
