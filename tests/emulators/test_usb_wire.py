"""The emulated USB bus itself: ports and addresses, the time that transfers take, faults, and a device's own requests."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.supply import PowerLost
from proxyflash.emulators.usb.device import Descriptors, InterfaceDescriptor, Stall, UsbFunction
from proxyflash.emulators.usb.wire import DeviceGone, TransferTimeout, UsbWire
from proxyflash.transports import clock

ABOUT = Descriptors(
    0x1209, 0x0001, 0x0150, "Acme", "Sensor", "A1",
    (InterfaceDescriptor(0, 0, 0xFE, 1, 2, "Slot"), InterfaceDescriptor(0, 1, 0xFE, 1, 2, "Other", b"\x09\x21")),
    "FW 1.5.0",
)  # fmt: skip


class Echo:
    """Keeps what comes, and gives back the last of it."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.resets = 0
        self.function = UsbFunction(ABOUT, self.request, self.reset)

    def request(self, kind: int, request: int, value: int, index: int, data: bytes, length: int) -> bytes:
        if kind & 0x80:
            return (self.got[-1] if self.got else b"")[:length]
        self.got.append(data)
        return b""

    def reset(self) -> None:
        self.resets += 1


def setup(kind: int, request: int, value: int, index: int, length: int) -> bytes:
    """USB 2.0, table 9-2."""
    return struct.pack("<BBHHH", kind, request, value, index, length)


def make(faults: Faults | None = None, pace: float = 0.0) -> UsbWire:
    return UsbWire(f"wire-{time.monotonic_ns()}", faults=faults, pace=pace)


@pytest.fixture
def wire() -> Iterator[UsbWire]:
    wire = make()
    yield wire
    wire.close()


def test_a_device_gets_an_address_of_its_own_each_time(wire: UsbWire) -> None:
    one, two = wire.new_port(), wire.new_port()
    wire.plug(one, Echo().function)
    wire.plug(two, Echo().function)
    first = one.address
    assert (one.number, two.number) == (1, 2)
    wire.unplug(one)
    assert one.function is None
    wire.plug(one, Echo().function)
    assert len({first, one.address, two.address}) == 3


def test_addresses_begin_again_after_the_last_one(wire: UsbWire) -> None:
    """USB 2.0, 9.4.6: an address is 1 to 127. A device that stays keeps its own."""
    stays, comes = wire.new_port(), wire.new_port()
    wire.plug(stays, Echo().function)
    given = []
    for _ in range(300):
        wire.plug(comes, Echo().function)
        given.append(comes.address)
        wire.unplug(comes)
    assert stays.address == 1
    assert set(given) == set(range(2, 128))
    assert all(before != after for before, after in pairwise(given))


def test_each_change_is_told(wire: UsbWire) -> None:
    port = wire.new_port()
    told = clock.Event()

    def watch() -> None:
        with wire.changed:
            if wire.changed.wait_for(lambda: port.function is not None, 30):
                told.set()

    watcher = clock.Thread(target=watch)
    watcher.start()
    wire.plug(port, Echo().function)
    watcher.join()
    assert told.is_set()
    changes = wire.changes
    wire.unplug(port)
    wire.unplug(port)
    assert wire.changes == changes + 1


def test_a_device_that_left_is_gone_also_when_another_took_its_port(wire: UsbWire) -> None:
    port, old, new = wire.new_port(), Echo(), Echo()
    wire.plug(port, old.function)
    wire.control(port, old.function, setup(0x21, 1, 0, 0, 2), b"hi")
    wire.plug(port, new.function)
    with pytest.raises(DeviceGone):
        wire.control(port, old.function, setup(0x21, 1, 0, 0, 2), b"hi")
    assert new.got == []


def test_a_part_that_loses_its_supply_is_gone(wire: UsbWire) -> None:
    def die(*request: object) -> bytes:
        raise PowerLost

    port = wire.new_port()
    function = UsbFunction(ABOUT, die, lambda: None)
    wire.plug(port, function)
    with pytest.raises(DeviceGone):
        wire.control(port, function, setup(0x21, 1, 0, 0, 0), b"")


@pytest.mark.parametrize(
    ("length", "byte_times"),
    [
        # USB 2.0, 5.5.4: a full-speed control transfer with one data packet has 45 bytes of overhead; each further
        # packet of 64 bytes has 13 (table 5-9's for bulk).
        (0, 45),
        (8, 45 + 8),
        (64, 45 + 64),
        (65, 45 + 65 + 13),
        (2048, 45 + 2048 + 31 * 13),
    ],
)
@pytest.mark.parametrize("inward", [False, True])
def test_a_transfer_takes_its_bytes_at_12_mbit(wire: UsbWire, length: int, byte_times: int, inward: bool) -> None:
    echo = Echo()
    echo.got.append(bytes(length))
    port = wire.new_port()
    wire.plug(port, echo.function)
    kind, data = (0xA1, b"") if inward else (0x21, bytes(length))
    wire.control(port, echo.function, setup(kind, 2, 0, 0, length), data)
    assert wire.busy_seconds == pytest.approx(byte_times * 8 / 12e6)


def test_paced_transfers_are_never_faster_than_the_wire() -> None:
    wire = make(pace=1.0)
    try:
        echo = Echo()
        port = wire.new_port()
        wire.plug(port, echo.function)
        began = clock.monotonic()
        for _ in range(40):
            wire.control(port, echo.function, setup(0x21, 1, 0, 0, 2048), bytes(2048))
        # 40 blocks of 2048 bytes at 1664 microseconds each, and 1 ms of tolerance in which sleeps may be made up for.
        assert clock.monotonic() - began >= 40 * (45 + 2048 + 31 * 13) * 8 / 12e6 - 0.002
    finally:
        wire.close()


def test_later_without_pace_is_at_once_and_on_close_not_at_all(wire: UsbWire) -> None:
    done: list[str] = []
    wire.later(3600, lambda: done.append("now"))
    assert done == ["now"]
    paced = make(pace=1.0)
    paced.later(3600, lambda: done.append("never"))
    paced.close()
    paced.later(3600, lambda: done.append("never"))
    assert done == ["now"]


def plugged(plan: FaultPlan) -> tuple[UsbWire, Echo, Faults]:
    faults = Faults(plan)
    wire = make(faults)
    echo = Echo()
    wire.plug(wire.new_port(), echo.function)
    return wire, echo, faults


def send(wire: UsbWire, echo: Echo, data: bytes) -> None:
    wire.control(wire.ports[0], echo.function, setup(0x21, 1, 0, 0, len(data)), data)


def test_a_dropped_transfer_times_out_and_never_arrives() -> None:
    wire, echo, _ = plugged(FaultPlan(drop=1.0, last=1))
    with pytest.raises(TransferTimeout):
        send(wire, echo, b"lost")
    send(wire, echo, b"kept")
    assert echo.got == [b"kept"]
    wire.close()


def test_a_corrupted_transfer_differs_in_one_bit_both_ways() -> None:
    wire, echo, _ = plugged(FaultPlan(corrupt=1.0))
    send(wire, echo, bytes(16))
    assert sum(byte.bit_count() for byte in echo.got[0]) == 1
    echo.got[0] = bytes(16)
    back = wire.control(wire.ports[0], echo.function, setup(0xA1, 2, 0, 0, 16), b"")
    assert sum(byte.bit_count() for byte in back) == 1
    wire.close()


def test_a_duplicated_transfer_arrives_twice_and_a_delayed_one_late() -> None:
    wire, echo, _ = plugged(FaultPlan(duplicate=1.0))
    send(wire, echo, b"twice")
    assert echo.got == [b"twice", b"twice"]
    wire.close()
    wire, echo, _ = plugged(FaultPlan(delay=1.0, delay_seconds=0.02))
    began = clock.monotonic()
    send(wire, echo, b"late")
    assert clock.monotonic() - began >= 0.02
    assert echo.got == [b"late"]
    wire.close()


def test_a_disconnect_takes_the_device_off_the_bus() -> None:
    wire, echo, faults = plugged(FaultPlan(disconnect_after=2))
    send(wire, echo, b"one")
    with pytest.raises(DeviceGone):
        send(wire, echo, b"two")
    assert wire.ports[0].function is None
    assert echo.got == [b"one"]
    assert [unit for unit, _ in faults.done] == [2]
    wire.close()


# A device's own requests (USB 2.0, 9.4).


@pytest.fixture
def function() -> UsbFunction:
    return Echo().function


def test_device_descriptor(function: UsbFunction) -> None:
    """Table 9-8."""
    assert function.control(setup(0x80, 6, 0x0100, 0, 64), b"") == bytes.fromhex(
        "12 01 00 02 00 00 00 40 09 12 01 00 50 01 01 02 03 01"
    )
    assert function.control(setup(0x80, 6, 0x0100, 0, 8), b"") == bytes.fromhex("12 01 00 02 00 00 00 40")


def test_configuration_descriptor(function: UsbFunction) -> None:
    """Tables 9-10 and 9-12: one interface with two alternate settings, the second with 2 bytes of its class's own."""
    assert function.control(setup(0x80, 6, 0x0200, 0, 255), b"") == bytes.fromhex(
        "09 02 1d 00 01 01 04 80 32  09 04 00 00 00 fe 01 02 05  09 04 00 01 00 fe 01 02 06  09 21"
    )


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        (0, "04 03 09 04"),
        (1, "0a 03 41 00 63 00 6d 00 65 00"),
        (3, "06 03 41 00 31 00"),
    ],
)
def test_strings(function: UsbFunction, index: int, wanted: str) -> None:
    """9.6.7: UTF-16; index 0 lists the languages."""
    assert function.control(setup(0x80, 6, 0x0300 | index, 0x0409, 255), b"") == bytes.fromhex(wanted)


def test_configuration_and_alternate_settings(function: UsbFunction) -> None:
    assert function.control(setup(0x80, 8, 0, 0, 1), b"") == b"\x01"
    assert function.control(setup(0x81, 10, 0, 0, 1), b"") == b"\x00"
    assert function.control(setup(0x01, 11, 1, 0, 0), b"") == b""
    assert function.control(setup(0x81, 10, 0, 0, 1), b"") == b"\x01"
    function.control(setup(0x00, 9, 0, 0, 0), b"")
    with pytest.raises(Stall):
        # Not configured: no requests but standard ones (9.1.1.5).
        function.control(setup(0x21, 1, 0, 0, 0), b"")
    function.control(setup(0x00, 9, 1, 0, 0), b"")
    assert function.control(setup(0x81, 10, 0, 0, 1), b"") == b"\x00"


@pytest.mark.parametrize(
    "request_",
    [
        setup(0x80, 6, 0x0301 + 6, 0, 255),  # no such string
        setup(0x80, 6, 0x0201, 0, 255),  # no second configuration
        setup(0x80, 6, 0x0F00, 0, 255),  # no BOS descriptor
        setup(0x00, 9, 2, 0, 0),  # no such configuration
        setup(0x01, 11, 2, 0, 0),  # no such alternate setting
        setup(0x00, 6, 0x0100, 0, 0),  # the wrong way
        setup(0x40, 1, 0, 0, 0),  # a vendor's request
        setup(0x80, 99, 0, 0, 0),
    ],
)
def test_what_a_device_stalls(function: UsbFunction, request_: bytes) -> None:
    with pytest.raises(Stall):
        function.control(request_, b"")


@given(
    raw=st.binary(min_size=8, max_size=8),
    data=st.binary(max_size=64),
    texts=st.lists(st.text(max_size=200), min_size=4, max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_any_setup_packet_and_any_strings(raw: bytes, data: bytes, texts: list[str]) -> None:
    about = Descriptors(1, 2, 3, texts[0], texts[1], texts[2], (InterfaceDescriptor(0, 0, 255, 0, 0, texts[3]),))
    function = UsbFunction(about, lambda *request: b"x" * 100, lambda: None)
    length = int.from_bytes(raw[6:], "little")
    for packet in (raw, b"\x80\x06" + raw[:1] + b"\x03" + raw[4:]):
        try:
            answer = function.control(packet, data)
        except Stall:
            continue
        assert len(answer) <= length
        if packet[:2] == b"\x80\x06" and len(answer) >= 2:
            # bLength is right, if cut.
            assert answer[0] >= len(answer) or answer[1] == 2
