"""The emulated CAN wire: arbitration, pace, acknowledgement, and what each fault does."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import can
import pytest
from proxyflash.emulators import registry as wires
from proxyflash.emulators.can.wire import CAN_ERR_ACK, CAN_ERR_BUSOFF, CanNode, CanWire, WireGone, priority
from proxyflash.emulators.faults import Fault, FaultPlan, Faults
from proxyflash.tests.transports.threads import names
from proxyflash.transports import clock
from proxyflash.transports.can.bits import frame_seconds

LONG = 300.0
"""Seconds that no test is meant to wait."""

numbers = itertools.count()
MakeWire = Callable[..., CanWire]


@pytest.fixture
def make_wire() -> Iterator[MakeWire]:
    made: list[CanWire] = []

    def make(*, plan: FaultPlan | None = None, pace: float = 0.0, **keys: int) -> CanWire:
        made.append(CanWire(f"wire-{next(numbers)}", faults=Faults(plan), pace=pace, **keys))
        return made[-1]

    yield make
    for wire in made:
        wire.close()


class Ear:
    """A node that keeps what it hears."""

    def __init__(self, wire: CanWire, *, host: bool = False) -> None:
        self.heard: clock.SomeQueue[can.Message] = clock.Queue()
        self.lost = clock.Event()
        self.node: CanNode = wire.attach("ear", self.heard.put, host=host, lost=self.lost.set)

    def next(self) -> can.Message:
        return self.heard.get(timeout=LONG)

    def ids(self, count: int) -> list[int]:
        return [self.next().arbitration_id for _ in range(count)]


def frame(identifier: int, data: bytes = b"\x11", *, extended: bool = False) -> can.Message:
    return can.Message(arbitration_id=identifier, data=data, is_extended_id=extended)


# Delivery and arbitration.


def test_every_other_node_hears_a_frame(make_wire: MakeWire) -> None:
    wire = make_wire()
    ears = [Ear(wire) for _ in range(3)]
    ears[0].node.send(frame(0x123, b"\1\2\3"))
    for ear in ears[1:]:
        assert ear.next().data == b"\1\2\3"
    assert ears[0].heard.empty()
    assert wire.frames == 1


def leading_bits(message: can.Message) -> str:
    """The arbitration field as it is sent, after SOF; it decides, and a 0 is dominant."""
    rtr = str(int(message.is_remote_frame))
    if message.is_extended_id:
        return f"{message.arbitration_id >> 18:011b}" + "11" + f"{message.arbitration_id & 0x3FFFF:018b}" + rtr
    return f"{message.arbitration_id:011b}" + rtr + "0"


def test_priority_is_the_order_of_the_bits() -> None:
    """Among them: a data frame before a remote frame of its id, both before any extended frame of the same base id."""
    rng = random.Random(5)
    messages = [
        can.Message(arbitration_id=identifier, is_extended_id=extended, is_remote_frame=is_remote)
        for base in (0x000, 0x7E0, 0x7FF, *(rng.randrange(0x800) for _ in range(20)))
        for identifier, extended in ((base, False), (base << 18, True), (base << 18 | 0x3FFFF, True))
        for is_remote in (False, True)
    ]
    assert [leading_bits(message) for message in sorted(messages, key=priority)] == sorted(map(leading_bits, messages))


def test_the_lowest_id_goes_first(make_wire: MakeWire) -> None:
    wire = make_wire()
    ear = Ear(wire)
    wanted = [
        frame(0x100),
        can.Message(arbitration_id=0x100, is_extended_id=False, is_remote_frame=True),
        frame(0x100 << 18, extended=True),
        frame(0x100 << 18 | 1, extended=True),
        frame(0x101),
        frame(0x7FF),
    ]
    nodes = [Ear(wire).node for _ in wanted]
    with wire.changed:  # The bus is busy until all of them are ready.
        for node, message in zip(nodes, reversed(wanted), strict=True):
            node.send(message)
    assert [leading_bits(ear.next()) for _ in wanted] == [leading_bits(message) for message in wanted]


def test_a_nodes_own_frames_keep_their_order(make_wire: MakeWire) -> None:
    wire = make_wire()
    ear, sender = Ear(wire), Ear(wire)
    with wire.changed:
        for identifier in (3, 1, 2):
            sender.node.send(frame(identifier))
    assert ear.ids(3) == [3, 1, 2]


# Pace. Only lower bounds: a loaded machine is slow, the wire must never be fast.


def test_frames_take_their_bit_times(make_wire: MakeWire) -> None:
    wire = make_wire(pace=1.0, bitrate=125_000)
    ear, sender = Ear(wire), Ear(wire)
    messages = [frame(0x7E0, bytes([number] * 8)) for number in range(40)]
    began = clock.monotonic()
    for message in messages:
        sender.node.send(message)
    ear.ids(len(messages))
    expected = sum(frame_seconds(message, 125_000, 125_000) for message in messages)
    assert clock.monotonic() - began >= expected
    assert wire.busy_seconds == pytest.approx(expected)


def test_a_pause_does_not_make_the_wire_faster(make_wire: MakeWire) -> None:
    """The bit times of an idle bus are gone: a frame takes its time even right after a pause."""
    wire = make_wire(pace=1.0, bitrate=125_000)
    ear, sender = Ear(wire), Ear(wire)
    one = frame_seconds(frame(0x7E0, bytes(8)), 125_000, 125_000)
    for _ in range(5):
        sender.node.send(frame(0x7E0, bytes(8)))
        ear.next()
        clock.sleep(0.01)
        began = clock.monotonic()
        for _ in range(4):
            sender.node.send(frame(0x7E0, bytes(8)))
        ear.ids(4)
        assert clock.monotonic() - began >= 4 * one


def test_a_full_transmit_queue_makes_the_sender_wait(make_wire: MakeWire) -> None:
    wire = make_wire(pace=1.0, bitrate=10_000)
    _, sender = Ear(wire), Ear(wire)
    while sender.node.send(frame(1), 0.0):
        pass
    assert len(sender.node.queue) == 32
    assert sender.node.send(frame(1), LONG)


# Acknowledgement and power.


def test_a_frame_that_nobody_acknowledges_stays(make_wire: MakeWire) -> None:
    wire = make_wire()
    alone = Ear(wire)
    alone.node.send(frame(0x10))
    for _ in range(3):
        error = alone.next()
        assert error.is_error_frame
        assert error.arbitration_id == CAN_ERR_ACK
    assert wire.frames == 0
    ear = Ear(wire)
    assert ear.ids(1) == [0x10]
    assert wire.frames == 1


def test_a_node_without_power_neither_hears_nor_acknowledges(make_wire: MakeWire) -> None:
    wire = make_wire()
    sender, part = Ear(wire), Ear(wire)
    part.node.power(False)
    sender.node.send(frame(0x10))
    assert sender.next().is_error_frame
    part.node.power(True)
    assert part.ids(1) == [0x10]


def test_what_a_node_has_queued_is_lost_with_its_supply(make_wire: MakeWire) -> None:
    wire = make_wire()
    part, ear = Ear(wire), Ear(wire)
    with wire.changed:
        part.node.send(frame(1))
        part.node.power(False)
    part.node.power(True)
    part.node.send(frame(2))
    assert ear.ids(1) == [2]


def test_own_frames_come_back_when_they_have_gone_over_the_wire(make_wire: MakeWire) -> None:
    wire = make_wire()
    sender = Ear(wire)
    sender.node.echo = True
    sender.node.send(frame(1))
    assert sender.next().is_error_frame
    Ear(wire)
    while (message := sender.next()).is_error_frame:
        pass
    assert (message.arbitration_id, message.is_rx) == (1, False)


# Faults.


def numbered(wire: CanWire, count: int) -> tuple[Ear, Ear]:
    """Frames 1 to `count` from an adapter of the host to another node."""
    host, part = Ear(wire, host=True), Ear(wire)
    for number in range(1, count + 1):
        host.node.send(frame(number), LONG)
    return host, part


def test_drop(make_wire: MakeWire) -> None:
    _, part = numbered(make_wire(plan=FaultPlan(drop=1.0, first=2, last=2)), 3)
    assert part.ids(2) == [1, 3]


def test_duplicate(make_wire: MakeWire) -> None:
    _, part = numbered(make_wire(plan=FaultPlan(duplicate=1.0, first=2, last=2)), 3)
    assert part.ids(4) == [1, 2, 2, 3]


def test_corrupt_turns_a_bit_of_what_arrives_and_not_of_what_was_sent(make_wire: MakeWire) -> None:
    wire = make_wire(plan=FaultPlan(corrupt=1.0))
    sender, part = Ear(wire), Ear(wire)
    message = frame(1, bytes(8))
    sender.node.send(message)
    arrived = part.next()
    assert sum(byte.bit_count() for byte in arrived.data) == 1
    assert message.data == bytes(8)


def test_delay_holds_a_frame_back_while_others_pass(make_wire: MakeWire) -> None:
    wire = make_wire(plan=FaultPlan(delay=1.0, delay_seconds=0.05, first=1, last=1))
    _, part = numbered(wire, 3)
    assert part.ids(3) == [2, 3, 1]


def test_a_delayed_frame_comes_even_if_the_wire_is_never_idle(make_wire: MakeWire) -> None:
    wire = make_wire(plan=FaultPlan(delay=1.0, delay_seconds=0.02, first=1, last=1), pace=1.0, bitrate=125_000)
    sender, part = Ear(wire), Ear(wire)
    ended = clock.Event()

    def babble() -> None:
        sender.node.send(frame(1))
        while not ended.is_set():
            sender.node.send(frame(2), LONG)

    thread = clock.Thread(target=babble)
    thread.start()
    try:
        assert any(part.next().arbitration_id == 1 for _ in range(2000))
    finally:
        ended.set()
        thread.join()


def test_disconnect_hits_the_adapters_of_the_host_only(make_wire: MakeWire) -> None:
    wire = make_wire(plan=FaultPlan(disconnect_after=1))
    host, part, other = Ear(wire, host=True), Ear(wire), Ear(wire)
    host.node.send(frame(1))
    assert host.lost.wait(LONG)
    with pytest.raises(WireGone):
        host.node.send(frame(2))
    part.node.send(frame(3))
    assert other.lost.is_set() is False
    assert wire.faults.done[0] == (1, Fault.DISCONNECT)


def test_bus_off_takes_the_host_off_the_bus(make_wire: MakeWire) -> None:
    wire = make_wire(plan=FaultPlan(bus_off_after=1))
    host, part = Ear(wire, host=True), Ear(wire)
    host.node.send(frame(1))
    error = host.next()
    assert (error.is_error_frame, error.arbitration_id) == (True, CAN_ERR_BUSOFF)
    assert host.node.send(frame(2), LONG) is False
    part.node.send(frame(3))
    refused = part.next()  # A controller that is bus-off acknowledges nothing.
    assert (refused.is_error_frame, refused.arbitration_id) == (True, CAN_ERR_ACK)
    assert Ear(wire).ids(1) == [3]
    assert host.heard.empty()  # Nor does it hear.


# The end.


def test_closing_the_wire_unplugs_who_waits_to_send(make_wire: MakeWire) -> None:
    wire = make_wire()
    alone = Ear(wire)
    while alone.node.send(frame(1), 0.0):
        pass
    failed = clock.Event()

    def send() -> None:
        with pytest.raises(WireGone):
            alone.node.send(frame(1))
        failed.set()

    thread = clock.Thread(target=send)
    thread.start()
    wire.close()
    thread.join(LONG)
    assert failed.is_set()
    assert alone.lost.is_set()


def test_a_name_is_one_wire_and_is_free_again(make_wire: MakeWire) -> None:
    wire = make_wire()
    with pytest.raises(ValueError, match="already"):
        CanWire(wire.channel)
    assert wires.find(wire.channel) is wire
    wire.close()
    again = CanWire(wire.channel)
    wire.close()  # Closed twice: the name is the other's now.
    assert wires.find(wire.channel) is again
    again.close()


def test_no_thread_is_left(make_wire: MakeWire) -> None:
    wire = make_wire()
    Ear(wire)
    wire.close()
    assert [name for name in names() if wire.channel in name] == []
