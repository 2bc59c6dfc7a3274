"""CanBus on the emulated wire, on python-can's own interfaces, and where nothing opens."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import itertools
import os
import pty
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import can
import pytest
from proxyflash.emulators.can.server import serve_can
from proxyflash.emulators.can.wire import CanNode, CanWire
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.tests.processes import descriptors
from proxyflash.tests.transports.threads import Call, in_thread, names
from proxyflash.transports import clock
from proxyflash.transports.can import bus as can_module
from proxyflash.transports.can.bus import CanBus, CanChannel, CanId
from proxyflash.transports.can.opening import opening_error
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import (
    AdapterAbsent,
    BadSettings,
    BusOff,
    CanAbsent,
    CanBusy,
    CanDriverMissing,
    CanForbidden,
    CanGone,
    CanInterfaceUnknown,
    CanOverrun,
    CanSettings,
    CanTimeout,
    ExitStatus,
    NotAcknowledged,
    TransportError,
)

LONG = 300.0
"""Seconds that no test is meant to wait."""
REQUEST, RESPONSE = CanId(0x7E0), CanId(0x7E8)
numbers = itertools.count()


def soon() -> Deadline:
    return Deadline.after(LONG)


def waiting(channel: CanChannel) -> Call:
    """A thread that waits in recv, once it does."""
    future = in_thread(lambda: channel.recv(soon()))
    while not channel._waiting and not future.done():
        clock.sleep(0.001)
    return future


def open_files() -> set[str]:
    """This process's, as the kernel names them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # That of listing them.
            found.add(str(entry.readlink()))
    return found


def send_until_it_fails(channel: CanChannel, deadline: Deadline) -> None:
    while True:
        channel.send(bytes(8), deadline)


class Bench:
    """A host's adapter and one part on an emulated wire."""

    def __init__(self, plan: FaultPlan | None = None, *, served: Path | None = None, **keys: Any) -> None:
        self.wire = CanWire(f"can-{next(numbers)}", faults=Faults(plan), pace=0.0, **keys)
        self.heard: list[can.Message] = []
        self.part: CanNode = self.wire.attach("part", self.heard.append)
        self._end = serve_can(self.wire, served) if served else lambda: None
        settings = self.wire.host_settings()
        if served:
            settings["channel"] = f"unix:{served}"
        self.bus = CanBus.open("powertrain", settings)
        self.channel = self.bus.channel(REQUEST, RESPONSE)

    def answer(self, data: bytes, identifier: CanId = RESPONSE) -> None:
        message = can.Message(arbitration_id=identifier.value, is_extended_id=identifier.extended, data=data)
        assert self.part.send(message, LONG)

    def received(self) -> bytes:
        message = self.channel.recv(soon())
        assert message is not None
        return bytes(message.data)

    def close(self) -> None:
        self.bus.close()
        self._end()
        self.wire.close()


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(plan: FaultPlan | None = None, **keys: Any) -> Bench:
        made.append(Bench(plan, **keys))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


MakeBench = Callable[..., Bench]


# Channels.


def test_frames_go_to_the_channel_of_their_id(make_bench: MakeBench) -> None:
    bench = make_bench()
    extended = bench.bus.channel(CanId(1, True), CanId(RESPONSE.value, True))
    both = bench.bus.channel(CanId(1), (RESPONSE, CanId(0x7E9)))
    bench.answer(b"\1")
    bench.answer(b"\2", CanId(RESPONSE.value, True))
    bench.answer(b"\3", CanId(0x7E9))
    bench.answer(b"\4", CanId(0x123))
    bench.answer(b"\5")
    assert [bench.received() for _ in range(2)] == [b"\1", b"\5"]
    first = extended.recv(soon())
    assert first is not None
    assert first.data == b"\2"
    heard = [both.recv(soon()) for _ in range(3)]
    assert [bytes(message.data) for message in heard if message is not None] == [b"\1", b"\3", b"\5"]
    assert extended.recv(Deadline.after(0)) is None


def test_what_was_sent_is_on_the_wire(make_bench: MakeBench) -> None:
    bench = make_bench(data_bitrate=2_000_000)
    bench.channel.send(bytes(range(64)), soon())
    bench.channel.send(b"\1", soon(), bit_rate_switch=False)
    classic = bench.bus.channel(CanId(0x18DA00F1, True), RESPONSE, fd=False)
    classic.send(b"\2", soon())
    while len(bench.heard) < 3:
        clock.sleep(0.001)
    shown = [
        (message.arbitration_id, message.is_extended_id, message.is_fd, message.bitrate_switch, bytes(message.data))
        for message in bench.heard
    ]
    assert shown == [
        (0x7E0, False, True, True, bytes(range(64))),
        (0x7E0, False, True, False, b"\1"),
        (0x18DA00F1, True, False, False, b"\2"),
    ]


def test_remote_frames_answer_nothing(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.part.send(can.Message(arbitration_id=RESPONSE.value, is_extended_id=False, is_remote_frame=True), LONG)
    bench.answer(b"\1")
    assert bench.received() == b"\1"


def test_a_frame_that_is_there_is_read_even_when_the_deadline_has_passed(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.answer(b"\1")
    bench.answer(b"\2")
    assert bench.received() == b"\1"
    late = bench.bus.channel(REQUEST, CanId(0x700))
    while (message := bench.channel.recv(Deadline.after(-1))) is None:
        clock.sleep(0.001)
    assert message.data == b"\2"
    assert late.recv(Deadline.after(0.01)) is None


def test_drain_and_drop(make_bench: MakeBench) -> None:
    bench = make_bench()
    for number in range(4):
        bench.answer(bytes([number]))
    end = bench.bus.channel(REQUEST, CanId(0x700))
    bench.answer(b"end", CanId(0x700))
    assert end.recv(soon()) is not None
    bench.channel.drop(lambda message: message.data[0] % 2 == 0)
    assert bench.received() == b"\1"
    assert bench.channel.drain() == 1
    assert bench.channel.recv(Deadline.after(0)) is None


def test_a_channel_of_fd_needs_a_bus_of_fd(make_bench: MakeBench) -> None:
    with pytest.raises(CanSettings, match="without fd"):
        make_bench().bus.channel(REQUEST, RESPONSE, fd=True)


def test_a_closed_channel_hears_nothing_more(make_bench: MakeBench) -> None:
    bench = make_bench()
    other = bench.bus.channel(REQUEST, RESPONSE)
    waiter = waiting(bench.channel)
    bench.channel.close()
    with pytest.raises(CanGone, match="closed"):
        waiter.result(LONG)
    bench.answer(b"\1")
    assert other.recv(soon()) is not None
    bench.channel.close()


def test_frames_that_are_not_read_are_an_overrun_at_their_place(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it is whole, and what comes after it is heard."""
    monkeypatch.setattr(can_module, "QUEUE_LIMIT", 5)
    bench = make_bench()
    last = bench.bus.channel(REQUEST, CanId(0x700))
    for number in range(8):
        bench.answer(bytes([number]))
    bench.answer(b"end", CanId(0x700))
    assert last.recv(soon()) is not None
    assert [bench.received() for _ in range(5)] == [bytes([number]) for number in range(5)]
    with pytest.raises(CanOverrun, match="not read"):
        bench.channel.recv(soon())
    bench.answer(b"\x10")
    assert bench.received() == b"\x10"


def test_frames_that_the_adapter_lost_are_an_overrun(make_bench: MakeBench) -> None:
    """CAN_ERR_CRTL with CAN_ERR_CRTL_RX_OVERFLOW, as Linux' drivers report it."""
    bench = make_bench()
    host = next(node for node in bench.wire._nodes if node.name == "host")
    bench.answer(b"\1")
    assert bench.received() == b"\1"
    host.receive(can.Message(is_error_frame=True, arbitration_id=0x04, data=bytes((0, 0x01, 0, 0, 0, 0, 0, 0))))
    with pytest.raises(CanOverrun, match="lost frames"):
        bench.channel.recv(soon())
    bench.answer(b"\2")
    assert bench.received() == b"\2"


# What ends a bus, seen by who waits and by who sends.


@pytest.mark.parametrize(
    "served",
    [
        pytest.param(False, id="in process"),
        pytest.param(True, id="over a socket", marks=pytest.mark.real_time("a socket")),
    ],
)
@pytest.mark.parametrize(
    ("plan", "kind"),
    [(FaultPlan(disconnect_after=2), CanGone), (FaultPlan(bus_off_after=2), BusOff)],
    ids=["unplugged", "bus-off"],
)
def test_who_waits_is_told_within_a_second(
    make_bench: MakeBench, tmp_path: Path, plan: FaultPlan, kind: type[TransportError], served: bool
) -> None:
    bench = make_bench(plan, served=tmp_path / "s" if served else None)
    idle = bench.bus.channel(CanId(1), CanId(2))
    bench.channel.send(b"\1", soon())
    waiters = [waiting(bench.channel), waiting(idle)]
    with contextlib.suppress(kind):  # The fault may be known already.
        bench.channel.send(b"\2", soon())
    began = clock.monotonic()
    for waiter in waiters:
        with pytest.raises(kind):
            waiter.result(LONG)
    assert clock.monotonic() - began < 10.0  # Within a second on a machine with time to spare.
    with pytest.raises(kind):
        bench.channel.send(b"\3", soon())
    with pytest.raises(kind):
        bench.channel.recv(soon())
    with pytest.raises(kind):
        bench.bus.channel(CanId(3), CanId(4)).recv(soon())


def test_each_who_meets_a_failure_has_one_of_his_own(make_bench: MakeBench) -> None:
    """The layers above write their component's name into it."""
    bench = make_bench(FaultPlan(disconnect_after=1))
    bench.channel.send(b"\1", soon())
    met: list[CanGone] = []
    for _ in range(2):
        with pytest.raises(CanGone) as caught:
            bench.channel.recv(soon())
        caught.value.component = f"radar-{len(met)}"
        met.append(caught.value)
    assert [error.component for error in met] == ["radar-0", "radar-1"]
    assert met[0].cause == met[1].cause


@pytest.mark.real_time("a socket")
def test_a_server_that_ends_is_an_adapter_that_is_gone(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(served=tmp_path / "s")
    waiter = waiting(bench.channel)
    bench._end()
    bench._end = lambda: None
    with pytest.raises(CanGone):
        waiter.result(LONG)


def test_an_end_reaches_the_channels_in_the_order_of_their_opening(make_bench: MakeBench) -> None:
    """A set's order would be that of their addresses in memory, another one in each run."""
    bench = make_bench()
    channels = [bench.bus.channel(REQUEST, CanId(0x100 + number)) for number in range(30)]
    met: list[CanChannel] = []
    for channel in channels:
        channel.fail = lambda error, channel=channel: met.append(channel)  # type: ignore[method-assign, misc]
    bench.bus._end(CanGone("the adapter of powertrain is gone"))
    assert met == channels


def test_nobody_acknowledges(make_bench: MakeBench) -> None:
    """The sender gets the error, who waits for the answer gets it within a second, and once a part is there all is well."""
    bench = make_bench()
    bench.part.power(False)
    began = clock.monotonic()
    bench.channel.send(b"\1", soon())
    with pytest.raises(NotAcknowledged):
        bench.channel.recv(soon())
    assert clock.monotonic() - began < 5.0
    with pytest.raises(NotAcknowledged):
        send_until_it_fails(bench.channel, soon())
    bench.part.power(True)
    bench.answer(b"\3")
    assert bench.received() == b"\3"
    bench.channel.send(b"\4", soon())


def test_a_part_that_is_gone_for_a_moment_is_waited_for(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset: nothing is acknowledged for a shorter time than that after which a waiting channel fails."""
    monkeypatch.setattr(can_module, "UNACKNOWLEDGED_SECONDS", 20.0)
    bench = make_bench()
    bench.part.power(False)
    bench.channel.send(b"\1", soon())
    waiter = waiting(bench.channel)
    clock.sleep(0.1)
    bench.part.power(True)
    bench.answer(b"\2")
    assert bytes(waiter.result(LONG).data) == b"\2"


def test_error_passive_is_nobody_who_acknowledges(make_bench: MakeBench) -> None:
    """Most socketcan drivers say no more than this once: CAN_ERR_CRTL with CAN_ERR_CRTL_TX_PASSIVE."""
    bench = make_bench()
    host = next(node for node in bench.wire._nodes if node.name == "host")
    waiter = waiting(bench.channel)
    host.receive(can.Message(is_error_frame=True, arbitration_id=0x04, data=bytes((0, 0x20, 0, 0, 0, 0, 0, 0))))
    with pytest.raises(NotAcknowledged):
        waiter.result(LONG)
    host.receive(can.Message(is_error_frame=True, arbitration_id=0x04, data=bytes((0, 0x08, 0, 0, 0, 0, 0, 0))))
    assert bench.channel.recv(Deadline.after(0.8)) is None  # It came back below 128 errors: somebody is there.
    bench.channel.send(b"\1", soon())


def test_a_bus_that_takes_no_frame_in_time(make_bench: MakeBench) -> None:
    """The wire at 5 kbit/s is busy; the queue of the adapter is full."""
    wire = CanWire(f"can-{next(numbers)}", bitrate=5_000)
    wire.attach("part", lambda message: None)
    with CanBus.open("slow", wire.host_settings()) as bus:
        channel = bus.channel(REQUEST, RESPONSE)
        with pytest.raises(CanTimeout, match="full"):
            send_until_it_fails(channel, Deadline.after(0.2))
    wire.close()


class FullAdapter(can.BusABC):
    """As socketcan is when its device's queue is full: writable to select, and ENOBUFS at once."""

    def __init__(self, room_after: int) -> None:
        super().__init__(channel="full")
        self.tries = 0
        self.room_after = room_after

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        self.tries += 1
        if self.tries <= self.room_after:
            raise can.CanOperationError("Failed to transmit: No buffer space available", errno.ENOBUFS)

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        clock.sleep(timeout or 0)
        return None, False


def test_a_full_device_queue_is_waited_for_and_not_spun_on() -> None:
    adapter = FullAdapter(room_after=20)
    with CanBus("full", adapter, "socketcan", "can0", False) as bus:
        began = clock.monotonic()
        bus.send(can.Message(arbitration_id=1), soon())
        assert adapter.tries == 21
        assert clock.monotonic() - began >= 20 * can_module.FULL_SECONDS
        adapter.room_after = sys.maxsize
        with pytest.raises(CanTimeout):
            bus.send(can.Message(arbitration_id=1), Deadline.after(0.02))


class OddAdapter(FullAdapter):
    """A driver whose reader fails in a way of its own."""

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        raise AttributeError("'NoneType' object has no attribute 'read'")


def test_whatever_a_driver_raises_reaches_who_waits() -> None:
    with CanBus("odd", OddAdapter(0), "vendor", "0", False) as bus, pytest.raises(CanGone, match="NoneType"):
        bus.channel(REQUEST, RESPONSE).recv(soon())


class BusOffAdapter(FullAdapter):
    """A driver that says it when it is asked to send, as those of PEAK do."""

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        raise can.CanOperationError("Bus error: the CAN controller is in bus-off state")


def test_a_driver_that_tells_bus_off_in_words() -> None:
    with CanBus("peak", BusOffAdapter(0), "pcan", "PCAN_USBBUS1", False) as bus, pytest.raises(BusOff):
        bus.send(can.Message(arbitration_id=1), soon())


# Closing.


@pytest.mark.real_time("a socket")
def test_closing_wakes_who_waits_and_leaves_nothing(tmp_path: Path) -> None:
    before = len(descriptors())
    threads = names()
    bench = Bench(served=tmp_path / "s")
    waiter = waiting(bench.channel)
    bench.bus.close()
    with pytest.raises(CanGone, match="closed"):
        waiter.result(LONG)
    bench.bus.close()
    with pytest.raises(CanGone, match="closed"):
        bench.channel.recv(soon())
    with pytest.raises(CanGone, match="closed"):
        bench.channel.send(b"\1", soon())
    bench.close()
    assert [name for name in names() if name.startswith("can")] == [name for name in threads if name.startswith("can")]
    assert len(descriptors()) <= before


def test_several_send_at_a_time(make_bench: MakeBench) -> None:
    bench = make_bench()
    channels = [bench.bus.channel(CanId(number), CanId(0x100 + number)) for number in range(4)]

    def send(channel: CanChannel) -> None:
        for number in range(100):
            channel.send(bytes([number]), soon())

    for sender in [in_thread(partial(send, channel)) for channel in channels]:
        sender.result(LONG)
    while len(bench.heard) < 400:
        clock.sleep(0.001)
    for channel in channels:
        own = [message.data[0] for message in bench.heard if message.arbitration_id == channel.transmit.value]
        assert own == list(range(100))


# python-can's own interfaces.


def exchange(settings: dict[str, Any]) -> None:
    """Two buses of these settings talk to each other through CanBus."""
    with CanBus.open("a", settings) as a, CanBus.open("b", settings) as b:
        here, there = a.channel(REQUEST, RESPONSE), b.channel(RESPONSE, REQUEST)
        here.send(b"\1\2", soon())
        got = there.recv(soon())
        assert got is not None
        assert got.data == b"\1\2"
        there.send(b"\3", soon())
        back = here.recv(soon())
        assert back is not None
        assert back.data == b"\3"


@pytest.mark.real_time("a bus of python-can's own")
def test_python_cans_virtual_interface() -> None:
    exchange({"interface": "virtual", "channel": f"can-{next(numbers)}"})


@pytest.mark.real_time("a bus of python-can's own")
def test_python_cans_udp_multicast_interface() -> None:
    if importlib.util.find_spec("msgpack") is None:
        pytest.skip("msgpack is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    exchange({"interface": "udp_multicast", "channel": "239.74.163.2", "port": port, "fd": True})


# What does not open.

ABSENT_TTY = "/dev/ttyNotThere"
NEEDS_A_DRIVER = {"interface": "neovi", "channel": 1}


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({}, CanSettings, "names no interface"),
        ({"interface": "sockercan", "channel": "can0"}, CanInterfaceUnknown, "'sockercan'"),
        ({"interface": "slcan", "channel": ABSENT_TTY}, CanAbsent, ABSENT_TTY),
        ({"interface": "seeedstudio", "channel": ABSENT_TTY}, CanAbsent, ABSENT_TTY),
        ({"interface": "proxyflash", "channel": "nowhere"}, CanAbsent, "nowhere"),
        ({"interface": "proxyflash", "channel": "unix:/nowhere/s"}, CanAbsent, "/nowhere/s"),
        ({"interface": "virtual", "channel": "x", "bitrate": "fast"}, CanSettings, "bitrate = 'fast'"),
        ({"interface": "virtual", "channel": "x", "bitrate": -500_000}, CanSettings, "bitrate"),
        ({"interface": "virtual", "channel": "x", "bitrate": True}, CanSettings, "bitrate"),
        ({"interface": "virtual", "channel": "x", "data_bitrate": 2.5}, CanSettings, "data_bitrate"),
        ({"interface": "virtual", "channel": "x", "fd": "yes"}, CanSettings, "fd = 'yes'"),
        ({"interface": "virtual", "channel": "x", "bitrat": 500_000}, CanSettings, "'bitrat'"),
        ({"interface": "socketcan", "channel": "can0", "listen_only": True}, CanSettings, "'listen_only'"),
        ({"interface": "udp_multicast", "channel": "x", "receive_own": True}, CanSettings, "'receive_own'"),
    ],
)
@pytest.mark.real_time("a bus of python-can's own")
def test_why_a_bus_does_not_open(settings: dict[str, Any], kind: type[TransportError], said: str) -> None:
    with pytest.raises(TransportError) as caught:
        CanBus.open("powertrain", settings)
    assert type(caught.value) is kind
    assert said in caught.value.cause
    assert "powertrain" in caught.value.cause
    assert caught.value.remedy


@pytest.mark.real_time("a bus of python-can's own")
def test_a_serial_adapter_that_is_pulled_out() -> None:
    """python-can's slcan says goodbye to it, which fails; its port is closed all the same."""
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    os.close(slave)
    bus = CanBus.open("desk", {"interface": "slcan", "channel": path, "bitrate": 500_000, "sleep_after_open": 0.0})
    channel = bus.channel(REQUEST, RESPONSE)
    waits = waiting(channel)
    os.close(master)
    with pytest.raises(CanGone):
        waits.result(LONG)
    bus.close()
    assert not {path, f"{path} (deleted)"} & open_files()


@pytest.mark.real_time("a bus of python-can's own")
def test_a_serial_adapter_is_opened_once() -> None:
    """The commands with which another program begins would close the channel of the first."""
    master, slave = pty.openpty()
    settings = {"interface": "slcan", "channel": f"{os.ttyname(slave)}@115200", "sleep_after_open": 0.0}
    try:
        for _ in range(2):
            with CanBus.open("desk", settings):
                while select.select([master], [], [], 0.1)[0]:
                    os.read(master, 100)
                with pytest.raises(CanBusy, match=r"'lab': the adapter /dev/pts/.* is in use by another program"):
                    CanBus.open("lab", settings)
                assert not select.select([master], [], [], 0)[0]
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.real_time("a bus of python-can's own")
def test_a_key_is_told_by_its_likeness() -> None:
    with pytest.raises(CanSettings) as caught:
        CanBus.open("powertrain", {"interface": "slcan", "channel": ABSENT_TTY, "tty_baud_rate": 115_200})
    assert caught.value.remedy.endswith("Did you mean tty_baudrate?")


@pytest.mark.parametrize(
    "settings",
    [
        {"interface": "kvaser", "channel": 0, "single_handle": True, "bitrate": 500_000},
        {"interface": "slcan", "channel": ABSENT_TTY, "tty_baudrate": 115_200, "sleep_after_open": 0.0},
        {"interface": "pcan", "channel": "PCAN_USBBUS1", "f_clock": 80_000_000, "device_id": 1},
        {"interface": "neovi", "channel": 1, "serial": "CY1234", "use_system_timestamp": True},
        {"interface": "socketcan", "channel": "can0", "bitrate": 500_000, "local_loopback": True},
    ],
    ids=lambda settings: settings["interface"],
)
@pytest.mark.real_time("a bus of python-can's own")
def test_keys_that_an_interface_has_are_its_own_matter(settings: dict[str, Any]) -> None:
    """Those in its signature, and those that it looks up in its keywords; what is then missing is the adapter."""
    with pytest.raises(AdapterAbsent):
        CanBus.open("powertrain", settings)


@pytest.mark.parametrize("interface", ["iscan", "neousys", "neovi", "pcan", "kvaser"])
@pytest.mark.real_time("a bus of python-can's own")
def test_a_vendors_library_that_is_missing(interface: str) -> None:
    """None of them is on a machine without such an adapter; each says so in a way of its own."""
    channel: Any = "PCAN_USBBUS1" if interface == "pcan" else 0
    with pytest.raises(CanDriverMissing) as caught:
        CanBus.open("powertrain", {"interface": interface, "channel": channel, "bitrate": 500_000})
    assert caught.value.code == "E-CAN-DRIVER"
    assert caught.value.exit_status is ExitStatus.ABSENT


@pytest.mark.real_time("a bus of python-can's own")
def test_socketcan_without_its_channel() -> None:
    """On a kernel with CAN the channel is absent, on one without the kernel's CAN is missing."""
    with pytest.raises(AdapterAbsent) as caught:
        CanBus.open("powertrain", {"interface": "socketcan", "channel": "can-not-there"})
    try:
        socket.socket(socket.PF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()
    except OSError:
        assert type(caught.value) is CanDriverMissing
        assert "kernel has no CAN" in caught.value.remedy
    else:
        assert type(caught.value) is CanAbsent


@pytest.mark.real_time("a bus of python-can's own")
def test_a_channel_that_this_user_may_not_open(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o000)
        # Loaded now: that user may not be able to read this checkout.
        importlib.import_module("proxyflash.emulators.can.python_can")
        is_root = os.geteuid() == 0
        try:
            if is_root:
                os.seteuid(65534)
            with pytest.raises(CanForbidden) as caught:
                CanBus.open("powertrain", {"interface": "proxyflash", "channel": f"unix:{path}"})
        finally:
            if is_root:
                os.seteuid(0)
    assert caught.value.exit_status is ExitStatus.PERMISSION


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EBUSY, CanBusy),
        (errno.EADDRINUSE, CanBusy),
        (errno.EPERM, CanForbidden),
        (errno.ENODEV, CanAbsent),
        (errno.ENETDOWN, CanAbsent),
        (errno.EAFNOSUPPORT, CanDriverMissing),
    ],
)
def test_an_error_number_counts_wherever_it_is(number: int, kind: type[TransportError]) -> None:
    """Raised as it is, in python-can's error_code, or behind an error of python-can's."""
    plain = OSError(number, os.strerror(number))
    with_code = can.CanInitializationError("no", number)
    behind = can.CanInitializationError("could not open")
    behind.__cause__ = plain
    for error in (plain, with_code, behind):
        assert type(opening_error("b", "vendor", "0", error)) is kind


def test_settings_of_the_user_do_not_leak_in(tmp_path: Path) -> None:
    """~/.canrc and CAN_BITRATE are python-can's own defaults; a bench file means the same on every machine."""
    (tmp_path / ".canrc").write_text(
        "[default]\ninterface = virtual\nchannel = elsewhere\nreceive_own_messages = True\n"
    )
    program = (
        "from proxyflash.transports.can.opening import open_bus\n"
        "bus = open_bus('b', {'interface': 'virtual'})\n"
        "print(bus.channel_id, bus.receive_own_messages)\n"
        "bus.shutdown()\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "CAN_CHANNEL": "nowhere"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["channel-0", "False"]


def test_nothing_is_printed() -> None:
    """python-can logs what it raises too; without a handler that went to stderr."""
    program = (
        "from proxyflash.transports.can.bus import CanBus\n"
        "for interface in ('socketcan', 'kvaser'):\n"
        "    try: CanBus.open('b', {'interface': interface, 'channel': '0'})\n"
        "    except Exception: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_refusals_are_those_of_a_bench_file() -> None:
    for kind in (CanSettings, CanInterfaceUnknown):
        assert issubclass(kind, BadSettings)
        assert kind.exit_status is ExitStatus.BAD_FILE
