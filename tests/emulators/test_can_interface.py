"""python-can's interface "proxyflash" as users of python-can use it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import pytest
from can.interfaces.virtual import VirtualBus
from proxyflash.emulators.can import python_can as can_interface
from proxyflash.emulators.can.bridge import bridge
from proxyflash.emulators.can.server import serve_can
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.tests.processes import descriptors
from proxyflash.transports import clock

LONG = 300.0
numbers = itertools.count()
OpenBus = Callable[..., can.BusABC]


@pytest.fixture(params=["in process", pytest.param("over a socket", marks=pytest.mark.real_time("a socket"))])
def channel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A CAN FD wire: by its name, and by the socket that it is served at."""
    wire = CanWire(f"interface-{next(numbers)}", data_bitrate=2_000_000, pace=0.0)
    if request.param == "in process":
        yield wire.channel
    else:
        close = serve_can(wire, tmp_path / "s")
        yield f"unix:{tmp_path / 's'}"
        close()
    wire.close()


@pytest.fixture
def open_bus(channel: str) -> Iterator[OpenBus]:
    opened: list[can.BusABC] = []

    def open_bus(**keys: object) -> can.BusABC:
        opened.append(can.Bus(interface="proxyflash", channel=channel, ignore_config=True, **keys))  # type: ignore[arg-type]
        return opened[-1]

    yield open_bus
    for bus in opened:
        bus.shutdown()


def received(bus: can.BusABC) -> can.Message:
    message = bus.recv(LONG)
    assert message is not None
    return message


EVERY_KIND = [
    can.Message(arbitration_id=0x7FF, data=b"", is_extended_id=False),
    can.Message(arbitration_id=0x123, data=bytes(range(8)), is_extended_id=False),
    can.Message(arbitration_id=0x1FFFFFFF, data=b"\xff" * 8),
    can.Message(arbitration_id=0x123, dlc=5, is_remote_frame=True, is_extended_id=False),
    can.Message(arbitration_id=0x18DA00F1, data=bytes(range(64)), is_fd=True, bitrate_switch=True),
    can.Message(arbitration_id=1, data=bytes(12), is_fd=True, error_state_indicator=True, is_extended_id=False),
]


def test_every_kind_of_frame_arrives_as_it_was_sent(open_bus: OpenBus) -> None:
    a, b = open_bus(fd=True), open_bus(fd=True)
    for sent in EVERY_KIND:
        a.send(sent, LONG)
    for sent in EVERY_KIND:
        got = received(b)
        assert got.equals(sent, timestamp_delta=None, check_channel=False, check_direction=False)
        assert got.is_rx
        assert got.timestamp > 0


def test_timestamps_are_those_of_the_wire(open_bus: OpenBus) -> None:
    """Both readers give a frame the same time, whenever they read it; later frames have later times."""
    a, b, c = open_bus(), open_bus(), open_bus()
    for number in range(5):
        a.send(can.Message(arbitration_id=number), LONG)
    first = [received(b).timestamp for _ in range(5)]
    assert first == sorted(first)
    assert [received(c).timestamp for _ in range(5)] == first


def test_what_is_changed_after_sending_changes_nothing(open_bus: OpenBus) -> None:
    a, b, c = open_bus(), open_bus(), open_bus()
    message = can.Message(arbitration_id=1, data=b"\1\2")
    a.send(message, LONG)
    message.data[0] = 9
    got = received(b)
    assert got.data == b"\1\2"
    got.data[0] = 7
    assert received(c).data == b"\1\2"


def test_an_fd_frame_is_filled_up_to_a_length_that_there_is(open_bus: OpenBus) -> None:
    a, b = open_bus(fd=True), open_bus(fd=True)
    a.send(can.Message(arbitration_id=1, data=b"\xaa" * 9, is_fd=True), LONG)
    assert received(b).data == b"\xaa" * 9 + bytes(3)


def test_filters(open_bus: OpenBus) -> None:
    a = open_bus()
    b = open_bus(can_filters=[{"can_id": 0x100, "can_mask": 0x7F0, "extended": False}])
    for identifier in (0x200, 0x105, 0x300, 0x10F):
        a.send(can.Message(arbitration_id=identifier, is_extended_id=False), LONG)
    assert [received(b).arbitration_id for _ in range(2)] == [0x105, 0x10F]
    b.set_filters(None)
    a.send(can.Message(arbitration_id=0x777, is_extended_id=False), LONG)
    assert received(b).arbitration_id == 0x777


def test_own_messages(open_bus: OpenBus) -> None:
    a, b = open_bus(receive_own_messages=True), open_bus()
    a.send(can.Message(arbitration_id=5), LONG)
    assert received(b).is_rx
    own = received(a)
    assert (own.arbitration_id, own.is_rx) == (5, False)
    b.send(can.Message(arbitration_id=6), LONG)
    assert received(a).is_rx
    assert b.recv(0) is None


def test_an_fd_frame_and_a_bus_that_is_not_fd(open_bus: OpenBus) -> None:
    a, b = open_bus(fd=True), open_bus()
    assert (a.protocol, b.protocol) == (can.CanProtocol.CAN_FD, can.CanProtocol.CAN_20)
    with pytest.raises(can.CanOperationError, match="without fd"):
        b.send(can.Message(arbitration_id=1, is_fd=True), LONG)
    a.send(can.Message(arbitration_id=1, is_fd=True), LONG)
    a.send(can.Message(arbitration_id=2), LONG)
    assert received(b).arbitration_id == 2


@pytest.mark.parametrize(
    "wrong",
    [
        can.Message(arbitration_id=0x800, is_extended_id=False),
        can.Message(arbitration_id=1 << 29),
        can.Message(arbitration_id=1, data=bytes(9)),
        can.Message(arbitration_id=1, data=bytes(65), is_fd=True),
        can.Message(is_error_frame=True),
    ],
    ids=["11-bit id", "29-bit id", "9 bytes", "65 bytes", "error frame"],
)
def test_what_no_controller_sends_is_refused(open_bus: OpenBus, wrong: can.Message) -> None:
    bus = open_bus(fd=True)
    with pytest.raises(ValueError):
        bus.send(wrong, LONG)


@pytest.mark.real_time("threads of python-can's own")
def test_notifier_and_periodic_messages(open_bus: OpenBus) -> None:
    a, b = open_bus(), open_bus()
    heard: clock.SomeQueue[can.Message] = clock.Queue()
    notifier = can.Notifier(b, [heard.put])
    task = a.send_periodic(can.Message(arbitration_id=0x321, data=b"\1"), 0.002)
    for _ in range(5):
        assert heard.get(timeout=LONG).arbitration_id == 0x321
    task.modify_data(can.Message(arbitration_id=0x321, data=b"\2"))  # type: ignore[attr-defined]
    while heard.get(timeout=LONG).data != b"\2":
        pass
    task.stop()
    notifier.stop()


def test_shut_down_by_the_context_manager_and_again(channel: str) -> None:
    before = (clock.active_count(), len(descriptors()))
    with can.Bus(interface="proxyflash", channel=channel, ignore_config=True) as bus:
        assert bus.state is can.BusState.ACTIVE
        assert str(bus) == f"emulated CAN {channel}"
    bus.shutdown()
    with pytest.raises(can.CanOperationError, match="shut down"):
        bus.send(can.Message(arbitration_id=1), LONG)
    with pytest.raises(can.CanOperationError, match="shut down"):
        bus.recv(LONG)
    deadline = clock.Event()
    for _ in range(1000):  # The server's threads end when they see that the client is gone.
        if (clock.active_count(), len(descriptors())) <= before:
            return
        deadline.wait(0.01)
    assert (clock.active_count(), len(descriptors())) == before


def test_what_a_closed_bus_has_taken_is_still_sent(open_bus: OpenBus) -> None:
    listener = open_bus()
    sender = open_bus()
    for number in range(100):
        sender.send(can.Message(arbitration_id=number), LONG)
    sender.shutdown()
    assert [received(listener).arbitration_id for _ in range(100)] == list(range(100))


def test_a_full_queue_is_a_timeout(open_bus: OpenBus) -> None:
    alone = open_bus()
    for _ in range(32):
        alone.send(can.Message(arbitration_id=1), LONG)
    with pytest.raises(can.CanTimeoutError):
        alone.send(can.Message(arbitration_id=1), 0.02)


@pytest.mark.parametrize("served", [False, pytest.param(True, marks=pytest.mark.real_time("a socket"))])
@pytest.mark.parametrize(
    ("plan", "said"),
    [(FaultPlan(disconnect_after=1), "unplugged"), (FaultPlan(bus_off_after=1), "bus-off")],
    ids=["disconnect", "bus-off"],
)
def test_what_the_host_is_told(tmp_path: Path, plan: FaultPlan, said: str, served: bool) -> None:
    wire = CanWire(f"interface-{next(numbers)}", faults=Faults(plan), pace=0.0)
    wire.attach("part", lambda message: None)
    close = serve_can(wire, tmp_path / "s") if served else lambda: None
    name = f"unix:{tmp_path / 's'}" if served else wire.channel
    with can.Bus(interface="proxyflash", channel=name, ignore_config=True) as bus:
        bus.send(can.Message(arbitration_id=1), LONG)
        if said == "bus-off":
            error = received(bus)
            assert (error.is_error_frame, error.arbitration_id) == (True, 0x40)  # CAN_ERR_BUSOFF
            assert bus.state is can.BusState.ERROR
        else:
            with pytest.raises(can.CanOperationError, match=said):
                bus.recv(LONG)
        with pytest.raises(can.CanOperationError, match=said):
            bus.send(can.Message(arbitration_id=2), LONG)
    close()
    wire.close()


@pytest.mark.real_time("a socket")
def test_no_such_wire_and_no_fd(tmp_path: Path) -> None:
    with pytest.raises(can.CanInitializationError, match="no emulated CAN wire"):
        can.Bus(interface="proxyflash", channel="nowhere", ignore_config=True)
    with pytest.raises(can.CanInitializationError, match="No such file"):
        can.Bus(interface="proxyflash", channel=f"unix:{tmp_path / 'none'}", ignore_config=True)
    wire = CanWire(f"interface-{next(numbers)}")
    with pytest.raises(can.CanInitializationError, match="classic CAN"):
        can.Bus(interface="proxyflash", channel=wire.channel, fd=True, ignore_config=True)
    wire.close()


def test_who_does_not_read_loses_frames_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As socketcan reports it: CAN_ERR_CRTL with CAN_ERR_CRTL_RX_OVERFLOW in data[1]."""
    monkeypatch.setattr(can_interface, "RECEIVE_QUEUE", 10)
    wire = CanWire(f"interface-{next(numbers)}", pace=0.0)
    with can.Bus(interface="proxyflash", channel=wire.channel, ignore_config=True) as bus:
        sender = wire.attach("part", lambda message: None)
        passed = clock.Event()
        wire.attach("counter", lambda message: passed.set() if message.arbitration_id == 19 else None)
        for number in range(20):
            sender.send(can.Message(arbitration_id=number), LONG)
        assert passed.wait(LONG)
        assert [received(bus).arbitration_id for _ in range(10)] == list(range(10))
        error = received(bus)
        assert (error.is_error_frame, error.arbitration_id, error.data[1]) == (True, 0x04, 0x01)
        assert bus.recv(0) is None
    wire.close()


# Other processes, and other buses.

ECHO = """
import sys, can
with can.Bus(interface="proxyflash", channel=sys.argv[1], ignore_config=True) as bus:
    bus.send(can.Message(arbitration_id=0x700, is_extended_id=False))
    for message in bus:
        if message.arbitration_id == 0x7FF:
            break
        bus.send(can.Message(arbitration_id=message.arbitration_id + 1, data=message.data[::-1], is_extended_id=False))
"""


@pytest.mark.real_time("a socket")
def test_two_processes_on_one_wire(tmp_path: Path) -> None:
    wire = CanWire(f"interface-{next(numbers)}", pace=0.0)
    close = serve_can(wire, tmp_path / "s")
    channel = f"unix:{tmp_path / 's'}"
    with can.Bus(interface="proxyflash", channel=channel, ignore_config=True) as bus:
        other = subprocess.Popen([sys.executable, "-c", ECHO, channel])
        try:
            while received(bus).is_error_frame:
                pass  # Until the other one is there, nobody acknowledges.
            for number in range(100):
                bus.send(can.Message(arbitration_id=0x100, data=bytes([1, number]), is_extended_id=False), LONG)
                answer = received(bus)
                assert (answer.arbitration_id, bytes(answer.data)) == (0x101, bytes([number, 1]))
            bus.send(can.Message(arbitration_id=0x7FF, is_extended_id=False), LONG)
            assert other.wait(LONG) == 0
        finally:
            other.kill()
            other.wait()
    close()
    wire.close()


@pytest.mark.real_time("a bus of python-can's own")
def test_a_wire_is_joined_with_another_bus() -> None:
    wire = CanWire(f"interface-{next(numbers)}", pace=0.0)
    name = f"joined-{next(numbers)}"
    with can.Bus(interface="virtual", channel=name) as gate, can.Bus(interface="virtual", channel=name) as user:
        close = bridge(wire, gate)
        with can.Bus(interface="proxyflash", channel=wire.channel, ignore_config=True) as bus:
            user.send(can.Message(arbitration_id=1, data=b"in"))
            assert received(bus).data == b"in"
            bus.send(can.Message(arbitration_id=2, data=b"out"), LONG)
            assert received(user).data == b"out"
            assert user.recv(0) is None  # Nothing goes round.
            close()
            bus.send(can.Message(arbitration_id=3), LONG)
            assert received(bus).is_error_frame  # Nobody is there any more to acknowledge.
    wire.close()


class Choosy(VirtualBus):
    """Takes no frame of id 1."""

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        if msg.arbitration_id == 1:
            raise can.CanOperationError("transmit buffer full")
        super().send(msg, timeout)


@pytest.mark.real_time("a bus of python-can's own")
def test_a_frame_that_the_joined_bus_refuses_is_lost_alone() -> None:
    wire = CanWire(f"interface-{next(numbers)}", pace=0.0)
    name = f"joined-{next(numbers)}"
    with Choosy(channel=name) as gate, can.Bus(interface="virtual", channel=name) as user:
        close = bridge(wire, gate)
        with can.Bus(interface="proxyflash", channel=wire.channel, ignore_config=True) as bus:
            bus.send(can.Message(arbitration_id=1), LONG)
            bus.send(can.Message(arbitration_id=2), LONG)
            assert received(user).arbitration_id == 2
        close()
    wire.close()


@pytest.mark.real_time("a bus of python-can's own")
def test_a_joined_bus_that_fails_does_not_stop_the_wire() -> None:
    wire = CanWire(f"interface-{next(numbers)}", pace=0.0)
    gate = can.Bus(interface="virtual", channel=f"joined-{next(numbers)}")
    close = bridge(wire, gate)
    heard: clock.SomeQueue[can.Message] = clock.Queue()
    wire.attach("part", heard.put)
    gate.shutdown()
    with can.Bus(interface="proxyflash", channel=wire.channel, ignore_config=True) as bus:
        for number in range(100):
            bus.send(can.Message(arbitration_id=number), LONG)
        assert [heard.get(timeout=LONG).arbitration_id for _ in range(100)] == list(range(100))
    close()
    wire.close()
