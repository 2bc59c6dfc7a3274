"""ISO-TP: byte vectors of ISO 15765-2:2016 played by hand, can-isotp's own stacks as the peer, and any frames at all."""

from __future__ import annotations

import errno
import itertools
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import can
import isotp
import pytest
from can.interfaces.virtual import VirtualBus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.tests.transports.threads import Call, in_thread
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus, CanChannel, CanId
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import (
    BusOff,
    CanGone,
    IsoTpContested,
    IsoTpFraming,
    IsoTpSettings,
    IsoTpTimeout,
    NotAcknowledged,
    TransportError,
)
from proxyflash.transports.isotp import kernel as isotp_kernel
from proxyflash.transports.isotp import opening as isotp_module
from proxyflash.transports.isotp import user as isotp_user
from proxyflash.transports.isotp.frames import accepted_frame
from proxyflash.transports.isotp.opening import Addressing, IsoTpAddress, IsoTpChannel, IsoTpOptions
from proxyflash.transports.isotp.user import UserIsoTp

LONG = 300.0
"""Seconds that no test is meant to wait."""
REQUEST, RESPONSE = CanId(0x7E0), CanId(0x7E8)
NORMAL = IsoTpAddress(request=REQUEST, response=RESPONSE)
EXTENDED = IsoTpAddress(Addressing.EXTENDED, REQUEST, RESPONSE, target=0x55, source=0xAA)
FIXED = IsoTpAddress(Addressing.NORMAL_FIXED, target=0x10, source=0xF1)
numbers = itertools.count()


def soon() -> Deadline:
    return Deadline.after(LONG)


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


def counting(size: int) -> bytes:
    return bytes(number & 0xFF for number in range(size))


class Pair:
    """An IsoTpChannel under test, and a bare channel on which the test plays its peer by hand."""

    def __init__(
        self,
        address: IsoTpAddress = NORMAL,
        options: IsoTpOptions | None = None,
        *,
        fd: bool = False,
        faults: FaultPlan | None = None,
    ) -> None:
        name = f"isotp-{next(numbers)}"
        self.wire = CanWire(name, data_bitrate=2_000_000 if fd else None, pace=0.0, faults=Faults(faults))
        self.bus = CanBus.open(name, self.wire.host_settings())
        self.peer_bus = CanBus("peer", can.Bus(interface="proxyflash", channel=name, fd=fd), "proxyflash", name, fd)
        request, response = address.ids()
        self.peer: CanChannel = self.peer_bus.channel(response, request)
        self.back_end = UserIsoTp(self.bus, address, options or IsoTpOptions())
        self.channel = IsoTpChannel(self.back_end)
        self.name = name

    def says(self, *frames: str) -> None:
        for frame in frames:
            self.peer.send(hexed(frame), soon())

    def hears(self) -> str:
        message = self.peer.recv(soon())
        assert message is not None
        return bytes(message.data).hex(" ")

    def send(self, pdu: bytes, deadline: Deadline | None = None) -> Call:
        return in_thread(lambda: self.channel.send(pdu, deadline or soon()))

    def recv(self) -> Call:
        return in_thread(lambda: self.channel.recv(soon()))

    def close(self) -> None:
        self.channel.close()
        self.bus.close()
        self.peer_bus.close()
        self.wire.close()


@pytest.fixture
def make_pair() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(*args: Any, **keys: Any) -> Pair:
        made.append(Pair(*args, **keys))
        return made[-1]

    yield make
    for pair in made:
        pair.close()


MakePair = Callable[..., Pair]

FLOW = "30 00 00"
"""Flow control: continue to send, no block size, no separation time."""


# Sending: what is on the wire (ISO 15765-2:2016, 9.6 and tables 9 to 20).


@pytest.mark.parametrize(
    ("padding", "wire"), [(0xCC, "02 10 03 cc cc cc cc cc"), (0x00, "02 10 03 00 00 00 00 00"), (None, "02 10 03")]
)
def test_a_single_frame(make_pair: MakePair, padding: int | None, wire: str) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(padding=padding))
    pair.channel.send(hexed("10 03"), soon())
    assert pair.hears() == wire


def test_the_longest_single_frame_and_the_shortest_first_frame(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.channel.send(counting(7), soon())
    assert pair.hears() == "07 00 01 02 03 04 05 06"
    sent = pair.send(counting(8))
    assert pair.hears() == "10 08 00 01 02 03 04 05"
    pair.says(FLOW)
    assert pair.hears() == "21 06 07 cc cc cc cc cc"
    sent.result(LONG)


def test_sequence_numbers_wrap_from_15_to_0(make_pair: MakePair) -> None:
    pair = make_pair()
    sent = pair.send(counting(6 + 7 * 17))
    assert pair.hears() == "10 7d 00 01 02 03 04 05"
    pair.says(FLOW)
    heads = [pair.hears()[:2] for _ in range(17)]
    assert heads == [f"2{number % 16:x}" for number in range(1, 18)]
    sent.result(LONG)


def test_a_length_beyond_4095_has_32_bits(make_pair: MakePair) -> None:
    pair = make_pair()
    sent = pair.send(counting(4096))
    assert pair.hears() == "10 00 00 00 10 00 00 01"
    pair.says(FLOW)
    assert pair.hears() == "21 02 03 04 05 06 07 08"
    sent.result(LONG)


@pytest.mark.parametrize(
    ("size", "wire"),
    [
        (7, "07 00 01 02 03 04 05 06"),
        (8, "00 08 00 01 02 03 04 05 06 07 cc cc"),
        (62, "00 3e " + counting(62).hex(" ")),
    ],
)
def test_single_frames_of_can_fd(make_pair: MakePair, size: int, wire: str) -> None:
    """SF_DL in the second byte behind 00 once it is more than 7; frames filled up to a size that there is."""
    pair = make_pair(NORMAL, IsoTpOptions(tx_dl=64), fd=True)
    pair.channel.send(counting(size), soon())
    assert pair.hears() == wire


def test_a_segmented_message_of_can_fd(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(tx_dl=64), fd=True)
    sent = pair.send(counting(62 + 63 + 9))
    assert pair.hears() == "10 86 " + counting(62).hex(" ")
    pair.says(FLOW)
    assert pair.hears() == "21 " + counting(125)[62:].hex(" ")
    assert pair.hears() == "22 " + counting(134)[125:].hex(" ") + " cc cc"
    sent.result(LONG)


def test_extended_addressing_puts_the_target_first(make_pair: MakePair) -> None:
    """And leaves 6 bytes in a single frame, 5 in a first frame."""
    pair = make_pair(EXTENDED)
    pair.channel.send(counting(6), soon())
    assert pair.hears() == "55 06 00 01 02 03 04 05"
    sent = pair.send(counting(7))
    assert pair.hears() == "55 10 07 00 01 02 03 04"
    pair.says("55 30 00 00", "aa 30 00 00")  # The first one is for somebody else.
    assert pair.hears() == "55 21 05 06 cc cc cc cc"
    sent.result(LONG)


def test_normal_fixed_addressing_makes_the_ids() -> None:
    """0x18DA, target, source; the answer has them the other way round (10.3.3, table 27)."""
    assert FIXED.ids() == (CanId(0x18DA10F1, True), CanId(0x18DAF110, True))


def test_block_size_and_flow_control_for_each_block(make_pair: MakePair) -> None:
    pair = make_pair()
    sent = pair.send(counting(6 + 7 * 5))
    pair.hears()
    pair.says("30 02 00")
    assert [pair.hears()[:2] for _ in range(2)] == ["21", "22"]
    assert pair.peer.recv(Deadline.after(0.05)) is None
    pair.says("30 01 00")
    assert pair.hears()[:2] == "23"
    assert pair.peer.recv(Deadline.after(0.05)) is None
    pair.says(FLOW)
    assert [pair.hears()[:2] for _ in range(2)] == ["24", "25"]
    sent.result(LONG)


@pytest.mark.parametrize(
    ("st_min", "seconds"),
    [(0x14, 0.020), (0x7F, 0.127), (0xF9, 0.0009), (0x80, 0.127), (0xF0, 0.127), (0xFA, 0.127), (0xFF, 0.127)],
)
def test_separation_times(make_pair: MakePair, st_min: int, seconds: float) -> None:
    """0x00 to 0x7F ms, 0xF1 to 0xF9 100 us each; each reserved value is 127 ms (9.6.5.4)."""
    pair = make_pair()
    began = clock.monotonic()
    sent = pair.send(counting(6 + 7 * 2))
    pair.hears()
    pair.says(f"30 00 {st_min:02x}")
    assert [pair.hears()[:2] for _ in range(2)] == ["21", "22"]
    sent.result(LONG)
    assert clock.monotonic() - began >= seconds


def test_a_separation_time_begins_at_the_end_of_the_frame_before() -> None:
    """At 20 kbit/s a frame takes at least 111 bit times, 5.55 ms, which come on top of the 4 ms."""
    wire = CanWire(f"isotp-{next(numbers)}", bitrate=20_000)
    heard: list[can.Message] = []
    part = wire.attach("part", heard.append)
    with CanBus.open("slow", wire.host_settings()) as bus:
        channel = IsoTpChannel.open(bus, NORMAL)
        sent = in_thread(lambda: channel.send(counting(6 + 7 * 20), soon()))
        while not heard:
            clock.sleep(0.001)
        part.send(can.Message(arbitration_id=RESPONSE.value, is_extended_id=False, data=hexed("30 00 04")))
        began = clock.monotonic()
        sent.result(LONG)
        assert clock.monotonic() - began >= 19 * (0.004 + 111 / 20_000)
    wire.close()


@pytest.mark.real_time("a bus of python-can's own")
def test_a_separation_time_begins_once_the_driver_took_the_frame_before() -> None:
    class Slow(VirtualBus):
        """Its driver is a while in taking a frame. `took`: when each was handed to it, and when it had it."""

        took: ClassVar[list[tuple[float, float]]] = []

        def send(self, msg: can.Message, timeout: float | None = None) -> None:
            began = clock.monotonic()
            clock.sleep(0.008)
            super().send(msg, timeout)
            self.took.append((began, clock.monotonic()))

    name = f"isotp-{next(numbers)}"
    with VirtualBus(name) as part, CanBus("slow", Slow(name), "virtual", name, False) as bus:
        channel = IsoTpChannel.open(bus, NORMAL)
        sent = in_thread(lambda: channel.send(counting(6 + 7 * 5), soon()))
        assert part.recv(LONG) is not None
        part.send(can.Message(arbitration_id=RESPONSE.value, is_extended_id=False, data=hexed("30 00 05")))
        sent.result(LONG)
    consecutive = Slow.took[1:]
    assert len(consecutive) == 5
    assert all(later[0] - earlier[1] >= 0.005 for earlier, later in pairwise(consecutive))


def test_a_separation_time_may_be_passed_over(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(squash_st_min=True))
    sent = pair.send(counting(6 + 7 * 100))
    pair.hears()
    pair.says("30 00 7f")  # 12.7 s in all, if it were kept.
    began = clock.monotonic()
    sent.result(LONG)
    assert clock.monotonic() - began < 6


def test_a_peer_may_ask_to_wait(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(n_bs_timeout=5.0))
    sent = pair.send(counting(8))
    pair.hears()
    pair.says(*["31 00 00"] * 5, FLOW)
    assert pair.hears()[:2] == "21"
    sent.result(LONG)


def test_a_peer_that_asks_to_wait_for_ever(make_pair: MakePair) -> None:
    pair = make_pair()
    sent = pair.send(counting(8))
    pair.hears()
    pair.says(*["31 00 00"] * (isotp_user.WAIT_FRAMES + 1))
    with pytest.raises(IsoTpFraming, match="100 times"):
        sent.result(LONG)


def test_overflow(make_pair: MakePair) -> None:
    pair = make_pair()
    sent = pair.send(counting(8))
    pair.hears()
    pair.says("32 00 00")
    with pytest.raises(IsoTpFraming, match="no room"):
        sent.result(LONG)
    pair.channel.send(b"\1", soon())  # The channel is good for more.
    assert pair.hears()[:5] == "01 01"


def test_a_reserved_flow_status_ends_the_message(make_pair: MakePair) -> None:
    """N_INVALID_FS (9.6.5.2)."""
    pair = make_pair()
    sent = pair.send(counting(8))
    pair.hears()
    pair.says("33 00 00")
    with pytest.raises(IsoTpFraming, match="flow status 3"):
        sent.result(LONG)


def test_no_flow_control(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(n_bs_timeout=0.05))
    with pytest.raises(IsoTpTimeout, match="N_Bs"):
        pair.channel.send(counting(8), soon())
    pair.channel.send(b"\1", soon())
    assert [pair.hears()[:2] for _ in range(2)] == ["10", "01"]


def test_the_deadline_ends_sending(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(n_bs_timeout=LONG))
    with pytest.raises(IsoTpTimeout, match="longer than it may"):
        pair.channel.send(counting(8), Deadline.after(0.05))
    sent = pair.send(counting(6 + 7 * 100), Deadline.after(0.3))
    pair.hears(), pair.hears()
    pair.says("30 00 7f")
    with pytest.raises(IsoTpTimeout, match="longer than it may"):
        sent.result(LONG)


def test_flow_control_that_came_late_sets_nothing_going(make_pair: MakePair) -> None:
    """That of a message before it, which was given up."""
    pair = make_pair(NORMAL, IsoTpOptions(n_bs_timeout=0.3))
    pair.says(FLOW, "02 7e 00")
    while not pair.back_end._channel._frames or len(pair.back_end._channel._frames) < 2:
        clock.sleep(0.001)
    sent = pair.send(counting(8))
    assert pair.hears()[:2] == "10"
    with pytest.raises(IsoTpTimeout, match="N_Bs"):
        sent.result(LONG)
    assert pair.peer.recv(Deadline.after(0)) is None
    assert pair.channel.recv(soon()) == hexed("7e 00")


def test_an_empty_message_is_none(make_pair: MakePair) -> None:
    with pytest.raises(ValueError):
        make_pair().channel.send(b"", soon())


# Receiving.


@pytest.mark.parametrize(
    ("frame", "pdu"),
    [
        ("02 50 03 cc cc cc cc cc", "50 03"),
        ("02 50 03", "50 03"),
        ("01 7e ff ff ff ff ff ff", "7e"),
        ("07 01 02 03 04 05 06 07", "01 02 03 04 05 06 07"),
    ],
)
def test_single_frames_are_taken_with_and_without_padding(make_pair: MakePair, frame: str, pdu: str) -> None:
    pair = make_pair()
    pair.says(frame)
    assert pair.channel.recv(soon()) == hexed(pdu)


def test_a_segmented_message_is_taken(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(block_size=2, st_min=5))
    got = pair.recv()
    pair.says("10 1b 00 01 02 03 04 05")
    assert pair.hears() == "30 02 05 cc cc cc cc cc"
    pair.says("21 06 07 08 09 0a 0b 0c", "22 0d 0e 0f 10 11 12 13")
    assert pair.hears() == "30 02 05 cc cc cc cc cc"
    pair.says("23 14 15 16 17 18 19 1a")
    assert got.result(LONG) == counting(27)


def test_a_segmented_message_with_extended_addressing(make_pair: MakePair) -> None:
    pair = make_pair(EXTENDED)
    got = pair.recv()
    pair.says("55 02 99 99", "aa 10 07 00 01 02 03 04")  # The first one is for somebody else.
    assert pair.hears() == "55 30 00 00 cc cc cc cc"
    pair.says("aa 21 05 06")
    assert got.result(LONG) == counting(7)


def test_a_segmented_message_of_can_fd_is_taken(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(tx_dl=64), fd=True)
    pair.says("00 0a 00 01 02 03 04 05 06 07 08 09")
    assert pair.channel.recv(soon()) == counting(10)
    got = pair.recv()
    pair.says("10 86 " + counting(62).hex())
    assert pair.hears() == "30 00 00 cc cc cc cc cc"
    pair.says("21" + counting(125)[62:].hex(), "22" + counting(134)[125:].hex() + "0000")
    assert got.result(LONG) == counting(134)


def test_a_length_of_32_bits_is_taken(make_pair: MakePair) -> None:
    pair = make_pair()
    got = pair.recv()
    pdu = counting(4096)
    pair.says("10 00 00 00 10 00 00 01")
    assert pair.hears()[:8] == FLOW
    for number, start in enumerate(range(2, len(pdu), 7), 1):
        pair.peer.send(bytes([0x20 | number & 15]) + pdu[start : start + 7], soon())
    assert got.result(LONG) == pdu


IGNORED = {
    "nothing": "",
    "a reserved type": "40 01 02",
    "the last reserved type": "f0 01 02",
    "a single frame of no bytes": "00 01 02 03",
    "a single frame longer than its frame": "05 01 02",
    "a single frame of 8 bytes": "08 01 02 03 04 05 06 07",
    "a first frame of 7 bytes": "10 07 00 01 02 03 04 05",
    "a first frame of 0 bytes": "10 00 00 00 00 00 00 00",
    "a first frame with 32 bits for 4095": "10 00 00 00 0f ff 00 01",
    "a first frame that is not full": "10 09 00 01 02 03 04",
    "a consecutive frame that nobody waits for": "21 00 01 02 03 04 05 06",
    "a consecutive frame of no bytes": "21",
    "flow control that nobody waits for": "30 00 00",
    "flow control that is too short": "30 00",
}


@pytest.mark.parametrize("frame", IGNORED.values(), ids=IGNORED.keys())
def test_what_is_ignored_is_neither_answered_nor_taken(make_pair: MakePair, frame: str) -> None:
    """9.6 and 9.8: a frame that is none, or comes out of turn."""
    pair = make_pair()
    pair.says(frame, "02 50 03")
    assert pair.channel.recv(soon()) == hexed("50 03")
    assert pair.peer.recv(Deadline.after(0)) is None


@pytest.mark.parametrize(
    "frame", [frame for name, frame in IGNORED.items() if not name.startswith("a consecutive frame that")]
)
def test_what_is_ignored_does_not_disturb_a_message_under_way(make_pair: MakePair, frame: str) -> None:
    pair = make_pair()
    got = pair.recv()
    pair.says("10 0f 00 01 02 03 04 05")
    pair.hears()
    pair.says("21 06 07 08 09 0a 0b 0c", frame, "22 0d 0e")
    assert got.result(LONG) == counting(15)


@pytest.mark.parametrize("frame", ["01 7e " + "00 " * 10, "00 00 " + "00 " * 10, "00 0b " + "00 " * 10])
def test_what_is_ignored_on_can_fd(make_pair: MakePair, frame: str) -> None:
    """A longer frame has its length in the second byte, and it fits."""
    pair = make_pair(NORMAL, IsoTpOptions(tx_dl=64), fd=True)
    pair.says(frame, "02 50 03")
    assert pair.channel.recv(soon()) == hexed("50 03")


def test_a_new_message_ends_the_one_under_way(make_pair: MakePair) -> None:
    pair = make_pair()
    got = pair.recv()
    pair.says("10 10 00 01 02 03 04 05")
    pair.hears()
    pair.says("02 50 03")
    assert got.result(LONG) == hexed("50 03")


def test_a_sequence_number_that_is_wrong(make_pair: MakePair) -> None:
    pair = make_pair()
    got = pair.recv()
    pair.says("10 20 00 01 02 03 04 05")
    pair.hears()
    pair.says("21 00 00 00 00 00 00 00", "23 00 00 00 00 00 00 00")
    with pytest.raises(IsoTpFraming):
        got.result(LONG)
    pair.says("02 50 03")
    assert pair.channel.recv(soon()) == hexed("50 03")


def test_a_message_that_stops_in_the_middle(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(n_cr_timeout=0.1))
    got = pair.recv()
    pair.says("10 20 00 01 02 03 04 05")
    with pytest.raises(IsoTpTimeout, match="N_Cr"):
        got.result(LONG)


def test_a_message_that_is_too_long_is_answered_by_an_overflow(make_pair: MakePair) -> None:
    pair = make_pair()
    got = pair.recv()
    pair.says("10 00 7f ff ff ff 00 01")
    assert pair.hears() == "32 00 00 cc cc cc cc cc"
    with pytest.raises(IsoTpFraming):
        got.result(LONG)


def test_a_message_that_began_in_time_is_waited_for(make_pair: MakePair) -> None:
    pair = make_pair()
    deadline = Deadline.after(0.2)
    got = in_thread(lambda: pair.channel.recv(deadline))
    pair.says("10 0f 00 01 02 03 04 05")
    pair.hears()
    while not deadline.expired:
        clock.sleep(0.01)
    pair.says("21 06 07 08 09 0a 0b 0c", "22 0d 0e")
    assert got.result(LONG) == counting(15)


def test_a_message_that_never_ends_is_not_waited_for_for_ever(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that starts over again and again."""
    monkeypatch.setattr(isotp_module, "RUN_ON_SECONDS", 0.2)
    pair = make_pair()
    got = in_thread(lambda: pair.channel.recv(Deadline.after(0.1)))
    while not got.done():
        pair.says("10 0f 00 01 02 03 04 05")
        pair.peer.recv(Deadline.after(0.05))
        clock.sleep(0.001)  # The wire takes no time.
    with pytest.raises(IsoTpTimeout, match="did not end"):
        got.result(LONG)


def test_a_deadline_that_has_passed_takes_what_is_there(make_pair: MakePair) -> None:
    pair = make_pair()
    assert pair.channel.recv(Deadline.after(0)) is None
    pair.says("30 00 00", "02 50 03")
    while len(pair.back_end._channel._frames) < 2:
        clock.sleep(0.001)
    assert pair.channel.recv(Deadline.after(-1)) == hexed("50 03")


def test_a_bus_full_of_nonsense_does_not_hold_a_poll(make_pair: MakePair) -> None:
    pair = make_pair()
    ended = clock.Event()

    def babble() -> None:
        while not ended.is_set():
            pair.says("f0")

    babbler = in_thread(babble)
    try:
        assert pair.channel.recv(Deadline.after(0.1)) is None
        with pytest.raises(IsoTpTimeout):
            pair.channel.send(counting(8), Deadline.after(0.1))
    finally:
        ended.set()
        babbler.result(LONG)


class Babbler:
    """A channel on which nonsense comes faster than it can be read."""

    def recv(self, deadline: Deadline) -> can.Message:
        return can.Message(arbitration_id=RESPONSE.value, is_extended_id=False, data=b"\xf0")

    def close(self) -> None:
        pass


def test_nonsense_without_end_does_not_hold_a_wait(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_pair()
    monkeypatch.setattr(pair.back_end, "_channel", Babbler())
    got = in_thread(lambda: pair.channel.recv(Deadline.after(0.05)))
    assert got.result(LONG) is None


def test_drain_forgets_messages_and_what_is_under_way(make_pair: MakePair) -> None:
    pair = make_pair()
    got = pair.recv()
    pair.says("02 11 01", "02 11 02", "10 20 00 01 02 03 04 05")
    assert got.result(LONG) == hexed("11 01")
    while len(pair.back_end._channel._frames) < 2:
        clock.sleep(0.001)
    pair.channel.drain()
    pair.says("21 06 07 08 09 0a 0b 0c", "02 11 03")
    assert pair.channel.recv(soon()) == hexed("11 03")


# Another tester sends under our id.


def other_tester(pair: Pair, *frames: str) -> None:
    for frame in frames:
        pair.peer_bus.send(can.Message(arbitration_id=0x7E0, is_extended_id=False, data=hexed(frame)), soon())


def test_an_answer_is_lost_to_another_tester(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.channel.send(hexed("22 f1 90"), soon())
    other_tester(pair, "02 3e 00")
    pair.says("02 7e 00")
    # That it is there is no failure.
    assert pair.channel.recv(soon()) == hexed("7e 00")
    with pytest.raises(IsoTpContested, match="no answer came, and another tester sends under 0x7E0"):
        pair.channel.recv(Deadline.after(0))
    pair.channel.send(hexed("22 f1 90"), soon())
    assert pair.channel.recv(Deadline.after(0.05)) is None


def test_flow_control_is_lost_to_another_tester(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(n_bs_timeout=0.5))
    sending = pair.send(counting(20))
    pair.hears()
    other_tester(pair, "02 3e 00")
    with pytest.raises(IsoTpContested, match="no flow control"):
        sending.result(LONG)


def test_another_tester_of_another_part_is_none(make_pair: MakePair) -> None:
    """Under one id with extended addressing, as many parts as there are bytes."""
    pair = make_pair(EXTENDED)
    pair.channel.send(hexed("22 f1 90"), soon())
    other_tester(pair, "56 02 3e 00")
    pair.says("aa 02 7e 00")
    assert pair.channel.recv(soon()) == hexed("7e 00")
    assert pair.channel.recv(Deadline.after(0)) is None
    other_tester(pair, "55 02 3e 00")
    pair.says("aa 02 7e 00")
    assert pair.channel.recv(soon()) == hexed("7e 00")
    with pytest.raises(IsoTpContested):
        pair.channel.recv(Deadline.after(0))


# The bus fails.


@pytest.mark.parametrize(
    ("plan", "kind"),
    [(FaultPlan(disconnect_after=3), CanGone), (FaultPlan(bus_off_after=3), BusOff)],
    ids=["unplugged", "bus-off"],
)
def test_the_bus_fails_in_the_middle(make_pair: MakePair, plan: FaultPlan, kind: type[TransportError]) -> None:
    """Frame 1: the first frame; 2: flow control; 3: among the consecutive frames."""
    pair = make_pair(faults=plan)
    sent = pair.send(counting(4000))
    pair.hears()
    pair.says(FLOW)
    with pytest.raises(kind):
        sent.result(LONG)
    with pytest.raises(kind):
        pair.channel.recv(soon())


def test_nobody_acknowledges(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.peer_bus.close()
    with pytest.raises((NotAcknowledged, IsoTpTimeout)) as caught:
        pair.channel.send(counting(100), soon())
    assert isinstance(caught.value, NotAcknowledged)


def test_a_dropped_frame_is_a_named_failure(make_pair: MakePair) -> None:
    pair = make_pair(NORMAL, IsoTpOptions(n_cr_timeout=0.2), faults=FaultPlan(drop=1.0, first=4, last=4))
    got = pair.recv()
    pair.says("10 14 00 01 02 03 04 05")
    pair.hears()
    pair.says("21 06 07 08 09 0a 0b 0c", "22 0d 0e 0f 10 11 12 13")  # The wire loses the second one.
    with pytest.raises(IsoTpTimeout, match="N_Cr"):
        got.result(LONG)


def test_closing_wakes_who_waits(make_pair: MakePair) -> None:
    pair = make_pair()
    got = pair.recv()
    while not pair.back_end._channel._waiting:
        clock.sleep(0.001)
    pair.channel.close()
    with pytest.raises(CanGone, match="closed"):
        got.result(LONG)


# can-isotp's own stacks, used as their documentation shows.


MIXED_11 = IsoTpAddress(Addressing.EXTENDED, CanId(0x600), CanId(0x601), target=0x99, source=0x99)
MIXED_29 = IsoTpAddress(Addressing.EXTENDED, CanId(0x18CE10F1, True), CanId(0x18CEF110, True), target=0x99, source=0x99)


def theirs(address: IsoTpAddress) -> isotp.Address:
    """The peer's end of our address, in can-isotp's words."""
    request, response = address.ids()
    if address.addressing is Addressing.NORMAL_FIXED:
        return isotp.Address(
            isotp.AddressingMode.NormalFixed_29bits, target_address=address.source, source_address=address.target
        )
    if address is MIXED_11:
        return isotp.Address(
            isotp.AddressingMode.Mixed_11bits, txid=response.value, rxid=request.value, address_extension=0x99
        )
    if address is MIXED_29:
        return isotp.Address(
            isotp.AddressingMode.Mixed_29bits, target_address=0xF1, source_address=0x10, address_extension=0x99
        )
    if address.addressing is Addressing.EXTENDED:
        mode = isotp.AddressingMode.Extended_29bits if request.extended else isotp.AddressingMode.Extended_11bits
        return isotp.Address(
            mode, txid=response.value, rxid=request.value, target_address=address.source, source_address=address.target
        )
    mode = isotp.AddressingMode.Normal_29bits if request.extended else isotp.AddressingMode.Normal_11bits
    return isotp.Address(mode, txid=response.value, rxid=request.value)


ADDRESSES = {
    "normal 11": NORMAL,
    "normal 29": IsoTpAddress(request=CanId(0x1ABCDEF, True), response=CanId(0x1ABCDF0, True)),
    "normal fixed": FIXED,
    "extended 11": EXTENDED,
    "extended 29": IsoTpAddress(Addressing.EXTENDED, CanId(0x10001, True), CanId(0x10002, True), target=1, source=2),
    "mixed 11": MIXED_11,
    "mixed 29": MIXED_29,
}


@pytest.mark.parametrize("stack", ["CanStack", "NotifierBasedCanStack"])
@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES.keys())
@pytest.mark.parametrize(
    ("tx_dl", "fd", "block_size", "st_min", "padding"),
    [
        (8, False, 0, 0, 0xCC),
        (8, False, 3, 0xF1, None),
        (64, True, 0, 0, 0x00),
        (24, True, 7, 0, None),
        (8, True, 3, 0, None),
    ],
    ids=["classic", "classic in blocks", "fd 64", "fd 24 in blocks", "fd 8 in blocks"],
)
@pytest.mark.real_time("threads of can-isotp's own")
def test_a_stranger_understands_us(
    address: IsoTpAddress, tx_dl: int, fd: bool, block_size: int, st_min: int, padding: int | None, stack: str
) -> None:
    options = IsoTpOptions(tx_dl=tx_dl, fd=fd, block_size=block_size, st_min=st_min, padding=padding)
    params = {
        "blocksize": block_size, "stmin": st_min, "tx_data_length": tx_dl, "can_fd": fd, "bitrate_switch": fd,
        "tx_padding": padding, "max_frame_size": 1 << 17,
    }  # fmt: skip
    sizes = [1, 5, 6, 7, 8, 9, 12, 20, 61, 62, 63, 64, 100, 300]
    if block_size == 0:
        sizes += [4095, 4096, 5000]
    converse(address, options, params, sizes, stack)


@pytest.mark.parametrize("tx_dl", [8, 64])
@pytest.mark.real_time("threads of can-isotp's own")
def test_64_kib_both_ways(tx_dl: int) -> None:
    params = {"blocksize": 0, "tx_data_length": tx_dl, "can_fd": tx_dl > 8, "tx_padding": 0, "max_frame_size": 1 << 17}
    converse(NORMAL, IsoTpOptions(tx_dl=tx_dl), params, [65_536], "NotifierBasedCanStack")


def converse(
    address: IsoTpAddress, options: IsoTpOptions, params: dict[str, Any], sizes: list[int], stack: str
) -> None:
    """The stranger sends back each message reversed."""
    fd = options.sends_fd
    name = f"isotp-{next(numbers)}"
    wire = CanWire(name, data_bitrate=2_000_000 if fd else None, pace=0.0)
    their_bus = can.Bus(interface="proxyflash", channel=name, fd=fd)
    notifier = can.Notifier(their_bus, [], timeout=0.05) if stack == "NotifierBasedCanStack" else None
    complaints: list[Exception] = []
    keys: dict[str, Any] = {"address": theirs(address), "params": params, "error_handler": complaints.append}
    peer: Any
    if notifier:
        peer = isotp.NotifierBasedCanStack(their_bus, notifier, **keys)
    else:
        peer = isotp.CanStack(their_bus, **keys)
    peer.start()
    try:
        with CanBus.open(name, wire.host_settings()) as bus:
            channel = IsoTpChannel.open(bus, address, options)
            rng = random.Random(7)
            for size in sizes:
                pdu = rng.randbytes(size)
                channel.send(pdu, soon())
                heard = peer.recv(block=True, timeout=LONG)
                assert bytes(heard or b"") == pdu
                peer.send(pdu[::-1])
                assert channel.recv(soon()) == pdu[::-1]
        assert complaints == []
    finally:
        peer.stop()
        if notifier:
            notifier.stop()
        their_bus.shutdown()
        wire.close()


# Settings.


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        (IsoTpAddress(), IsoTpOptions(), "request and response"),
        (IsoTpAddress(Addressing.NORMAL_FIXED, target=1), IsoTpOptions(), "target and source"),
        (IsoTpAddress(Addressing.EXTENDED, REQUEST, RESPONSE), IsoTpOptions(), "target and source"),
        (IsoTpAddress(request=CanId(0x800), response=RESPONSE), IsoTpOptions(), "11-bit"),
        (IsoTpAddress(request=REQUEST, response=CanId(1 << 29, True)), IsoTpOptions(), "29-bit"),
        (IsoTpAddress(Addressing.NORMAL_FIXED, target=0x100, source=0), IsoTpOptions(), "target"),
        (NORMAL, IsoTpOptions(tx_dl=13), "tx_dl = 13"),
        (NORMAL, IsoTpOptions(tx_dl=64), "tx_dl = 64 needs CAN FD"),
        (NORMAL, IsoTpOptions(fd=True), "fd = true needs CAN FD"),
        (NORMAL, IsoTpOptions(tx_dl=64, fd=False), "needs CAN FD, and fd is false"),
        (NORMAL, IsoTpOptions(st_min=256), "st_min"),
        (NORMAL, IsoTpOptions(block_size=-1), "block_size"),
        (NORMAL, IsoTpOptions(padding=300), "padding"),
        (NORMAL, IsoTpOptions(n_cr_timeout=0), "n_cr_timeout"),
        (NORMAL, IsoTpOptions(backend="kernal"), "neither kernel nor user"),
        (NORMAL, IsoTpOptions(backend="kernel"), "socketcan"),
    ],
)
def test_settings_that_do_not_hold(
    make_pair: MakePair, address: IsoTpAddress, options: IsoTpOptions, said: str
) -> None:
    pair = make_pair()
    before = dict(pair.bus._channels)
    with pytest.raises(IsoTpSettings, match=said):
        IsoTpChannel.open(pair.bus, address, options)
    assert pair.bus._channels == before


def test_nothing_is_printed() -> None:
    """can-isotp logs what it reports to us as well."""
    program = (
        "from proxyflash.emulators.can.wire import CanWire\n"
        "from proxyflash.transports.can.bus import CanBus, CanId\n"
        "from proxyflash.transports.deadline import Deadline\n"
        "from proxyflash.transports.isotp.opening import IsoTpAddress, IsoTpChannel, IsoTpOptions\n"
        "wire = CanWire('w', pace=0.0)\n"
        "wire.attach('deaf', lambda message: None)\n"
        "with CanBus.open('w', wire.host_settings()) as bus:\n"
        "    address = IsoTpAddress(request=CanId(1), response=CanId(2))\n"
        "    channel = IsoTpChannel.open(bus, address, IsoTpOptions(n_bs_timeout=0.02))\n"
        "    try: channel.send(bytes(100), Deadline.after(9))\n"
        "    except Exception as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("IsoTpTimeout\n", "")


# The kernel's socket, as far as a kernel without it lets: its structures, the way back, its errors.

C_PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include <linux/can.h>
#include <linux/can/isotp.h>
static void dump(const void *start, unsigned size) {
    for (unsigned i = 0; i < size; i++) printf("%02x", ((const unsigned char *)start)[i]);
    printf("\n");
}
int main(void) {
    struct can_isotp_options options;
    memset(&options, 0, sizeof options);
    options.flags = CAN_ISOTP_TX_PADDING | CAN_ISOTP_EXTEND_ADDR | CAN_ISOTP_RX_EXT_ADDR | CAN_ISOTP_FORCE_TXSTMIN;
    options.ext_address = 0x55;
    options.rx_ext_address = 0xaa;
    options.txpad_content = 0xcc;
    dump(&options, sizeof options);
    struct can_isotp_fc_options flow = {.bs = 8, .stmin = 0xf1, .wftmax = 0};
    dump(&flow, sizeof flow);
    struct can_isotp_ll_options link = {.mtu = CANFD_MTU, .tx_dl = 64, .tx_flags = CANFD_BRS};
    dump(&link, sizeof link);
    printf("%d %d %d %d\n", SOL_CAN_ISOTP, CAN_ISOTP_OPTS, CAN_ISOTP_RECV_FC, CAN_ISOTP_LL_OPTS);
    return 0;
}
"""


def test_the_kernels_structures_are_those_of_its_header(tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    if not Path("/usr/include/linux/can/isotp.h").exists():
        pytest.skip("linux-libc-dev is not installed")
    (tmp_path / "dump.c").write_text(C_PROGRAM)
    subprocess.run(["gcc", "-o", str(tmp_path / "dump"), str(tmp_path / "dump.c")], check=True)
    done = subprocess.run([str(tmp_path / "dump")], capture_output=True, text=True, check=True).stdout.split("\n")
    options = IsoTpOptions(block_size=8, st_min=0xF1, padding=0xCC, tx_dl=64, squash_st_min=True)
    assert isotp_kernel.packed_options(EXTENDED, options).hex() == done[0]
    assert isotp_kernel.packed_flow_control(options).hex() == done[1]
    assert isotp_kernel.packed_link_layer(options).hex() == done[2]
    assert done[3] == (
        f"{isotp_kernel.SOL_CAN_ISOTP} {isotp_kernel.CAN_ISOTP_OPTS} {isotp_kernel.CAN_ISOTP_RECV_FC} "
        f"{isotp_kernel.CAN_ISOTP_LL_OPTS}"
    )


def test_the_kernels_options_by_hand() -> None:
    """Flags and frame_txtime of 4 bytes each, then ext_address, txpad_content, rxpad_content, rx_ext_address."""
    little = sys.byteorder == "little"
    plain = isotp_kernel.packed_options(FIXED, IsoTpOptions(padding=None))
    assert plain == bytes(12)
    padded = isotp_kernel.packed_options(NORMAL, IsoTpOptions(padding=0xAA))
    assert padded == (b"\4\0\0\0" if little else b"\0\0\0\4") + bytes(4) + b"\0\xaa\0\0"
    assert isotp_kernel.packed_link_layer(IsoTpOptions(tx_dl=12, bit_rate_switch=False)) == bytes((72, 12, 0))
    assert isotp_kernel.packed_link_layer(IsoTpOptions(fd=True)) == bytes((72, 8, 1))


def kernel_has_isotp() -> bool:
    try:
        socket.socket(socket.PF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP).close()
    except OSError:
        return False
    return True


@pytest.mark.real_time("the kernel's ISO-TP")
def test_a_socketcan_bus_on_a_kernel_without_isotp(make_pair: MakePair) -> None:
    """Nothing said: can-isotp serves. The kernel asked for: its absence is said. (A kernel that has ISO-TP finds no such
    channel, which is another thing to say.)"""
    pair = make_pair()
    bus = CanBus("desk", can.Bus(interface="proxyflash", channel=pair.name), "socketcan", "can-not-there", False)
    try:
        with pytest.raises(IsoTpSettings) as caught:
            IsoTpChannel.open(bus, NORMAL, IsoTpOptions(backend="kernel"))
        assert "can-not-there" in caught.value.cause
        assert ("modprobe can-isotp" in caught.value.remedy) is not kernel_has_isotp()
        assert isinstance(IsoTpChannel.open(bus, NORMAL).back_end, UserIsoTp)
    finally:
        bus.close()


class StandIn:
    """A socket that stands in for the kernel's: a pair of Unix sockets that keep messages apart, as it does."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.options: list[tuple[int, int, bytes]] = []
        self.bound: Any = None
        self.error = 0
        self.error_of_sending = 0

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self.options.append((level, option, value))

    def getsockopt(self, level: int, option: int) -> int:
        error, self.error = self.error, 0
        return error

    def bind(self, address: Any) -> None:
        self.bound = address

    def send(self, data: bytes) -> int:
        self.error, self.error_of_sending = self.error_of_sending, 0
        return self.near.send(data)

    def recv(self, size: int) -> bytes:
        if self.error:
            raise OSError(self.getsockopt(0, 0), "")
        return self.near.recv(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.near, name)


@pytest.fixture
def kernel(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[IsoTpChannel, StandIn, CanBus]]:
    """KernelIsoTp on a stand-in: the kernel's own behaviour is not what these tests show."""
    pair = make_pair()
    stand_in = StandIn()
    bus = CanBus("desk", can.Bus(interface="proxyflash", channel=pair.name), "socketcan", "can0", False)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", lambda *wanted: stand_in)
        channel = IsoTpChannel.open(bus, EXTENDED, IsoTpOptions(backend="kernel"))
    yield channel, stand_in, bus
    channel.close()
    stand_in.far.close()
    bus.close()


@pytest.mark.real_time("the kernel's ISO-TP")
def test_the_kernels_socket_is_bound_to_both_ids(kernel: tuple[IsoTpChannel, StandIn, CanBus]) -> None:
    """Python's address of it: interface, the id that it receives, the id that it sends."""
    _, stand_in, _ = kernel
    assert stand_in.bound == ("can0", 0x7E8, 0x7E0)
    assert [option[:2] for option in stand_in.options] == [(106, 1), (106, 2)]


@pytest.mark.real_time("the kernel's ISO-TP")
def test_messages_through_the_kernels_socket(kernel: tuple[IsoTpChannel, StandIn, CanBus]) -> None:
    channel, stand_in, _ = kernel
    channel.send(b"\x10\x03", soon())
    assert stand_in.far.recv(100) == b"\x10\x03"
    assert channel.recv(Deadline.after(0.01)) is None
    stand_in.far.send(b"\x50\x03")
    stand_in.far.send(b"\x50\x04")
    assert channel.recv(soon()) == b"\x50\x03"
    channel.drain()
    assert channel.recv(Deadline.after(0)) is None


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECOMM, IsoTpTimeout),
        (errno.ETIMEDOUT, IsoTpTimeout),
        (errno.EMSGSIZE, IsoTpFraming),
        (errno.EILSEQ, IsoTpFraming),
        (errno.EBADMSG, IsoTpFraming),
        (errno.ENETDOWN, CanGone),
    ],
)
@pytest.mark.real_time("the kernel's ISO-TP")
def test_the_kernels_error_numbers(
    kernel: tuple[IsoTpChannel, StandIn, CanBus], number: int, kind: type[TransportError]
) -> None:
    """As net/can/isotp.c sets them on the socket."""
    channel, stand_in, _ = kernel
    stand_in.error_of_sending = number
    with pytest.raises(kind):
        channel.send(b"\1", soon())
    stand_in.error = number
    stand_in.far.send(b"wakes")
    with pytest.raises(kind):
        channel.recv(soon())


@pytest.mark.real_time("the kernel's ISO-TP")
def test_who_waits_on_the_kernels_socket_is_told_what_ends_the_bus(
    kernel: tuple[IsoTpChannel, StandIn, CanBus],
) -> None:
    channel, _, bus = kernel
    got = in_thread(lambda: channel.recv(soon()))
    bus.close()
    with pytest.raises(CanGone):
        got.result(LONG)


# Any frames at all.

frames = st.one_of(
    st.binary(max_size=8),
    st.builds(
        lambda head, rest: bytes([head]) + rest, st.sampled_from([0x01, 0x10, 0x21, 0x22, 0x30]), st.binary(max_size=7)
    ),
    st.sampled_from([hexed(frame) for frame in IGNORED.values()]),
    st.sampled_from([hexed("10 0a 00 01 02 03 04 05"), hexed("21 06 07 08 09"), hexed("30 00 00"), hexed("02 7e 00")]),
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 1))
def test_any_frame_has_a_verdict(data: bytes, prefix: int) -> None:
    verdict = accepted_frame(data, prefix)
    assert verdict is None or len(verdict) == len(data)


@pytest.fixture
def fuzzed() -> Iterator[dict[bool, Pair]]:
    options = IsoTpOptions(n_cr_timeout=0.005, n_bs_timeout=0.005)
    pairs = {False: Pair(NORMAL, options), True: Pair(EXTENDED, options)}
    yield pairs
    for pair in pairs.values():
        pair.close()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(frames, max_size=12), st.booleans(), st.booleans())
def test_any_frames_are_a_message_or_a_named_failure(
    fuzzed: dict[bool, Pair], said: list[bytes], extended: bool, sends: bool
) -> None:
    pair = fuzzed[extended]
    prefix = b"\xaa" if extended else b""
    pair.channel.drain()
    pair.peer.drain()
    for frame in said:
        pair.peer.send((prefix + frame)[:8], soon())
    for _ in range(len(said) + 2):
        try:
            if sends:
                pair.channel.send(counting(20), Deadline.after(0.2))
            pair.channel.recv(Deadline.after(0.002))
        except (IsoTpTimeout, IsoTpFraming):
            pass
    pair.channel.drain()
    pair.peer.send((prefix + hexed("01 7e")), soon())
    while True:
        try:
            got = pair.channel.recv(soon())
        except (IsoTpTimeout, IsoTpFraming):
            continue
        if got == b"\x7e":
            break


@pytest.mark.parametrize(
    ("release", "tells"),
    [("6.1.0-56-amd64", False), ("5.10.0", False), ("6.3.0", True), ("6.12.48+deb13-amd64", True), ("nonsense", False)],
)
def test_which_kernels_poll_tells_the_truth(release: str, tells: bool) -> None:
    assert isotp_kernel.poll_tells(release) is tells


@given(st.integers(1, 70_000), st.sampled_from([8, 12, 16, 20, 24, 32, 48, 64]), st.sampled_from([NORMAL, EXTENDED]))
@settings(max_examples=200, deadline=None)
def test_how_many_frames_a_pdu_has(size: int, tx_dl: int, address: IsoTpAddress) -> None:
    """As many as can-isotp makes of it."""
    frames = 0
    flow: list[isotp.CanMessage] = []
    theirs = isotp_user._library_address(address, *address.ids())
    reply = bytes((address.source or 0,)) if address.addressing is Addressing.EXTENDED else b""

    def out(message: isotp.CanMessage) -> None:
        nonlocal frames
        frames += 1
        if frames == 1:
            flow.append(isotp.CanMessage(arbitration_id=address.ids()[1].value, data=reply + b"\x30\0\0"))

    logic = isotp.TransportLayerLogic(
        rxfn=lambda timeout: flow.pop() if flow else None, txfn=out, address=theirs,
        params={"tx_data_length": tx_dl, "can_fd": tx_dl > 8, "logger_name": "proxyflash.isotp"},
    )  # fmt: skip
    logic.send(bytes(size))
    while True:
        logic.process()
        if not logic.transmitting():
            break
    assert isotp_kernel.frames_of(size, tx_dl, len(reply)) == frames
