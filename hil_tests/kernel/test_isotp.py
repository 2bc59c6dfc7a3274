"""Our ISO-TP, in user space and through the kernel's socket, with can-utils and the kernel's socket as its peers.

Block sizes, separation times and frames are looked at in candump's log: bytes as ISO 15765-2:2016 has them (table 9).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from proxyflash.transports.can.bus import CanBus, CanChannel
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import CanSettings, IsoTpFraming, IsoTpSettings, IsoTpTimeout, TransportError
from proxyflash.transports.isotp.kernel import KernelIsoTp
from proxyflash.transports.isotp.opening import Addressing, IsoTpAddress, IsoTpChannel, IsoTpOptions
from proxyflash.transports.isotp.user import UserIsoTp

from .can_lab import (
    ADDRESSES,
    FD_OPTIONS,
    NORMAL,
    candump,
    counting,
    isotpsend,
    kernel_limit,
    kernel_peer,
    listening,
    socketcan,
    soon,
)
from .conftest import ip
from .waiting import LONG

backends = pytest.mark.parametrize("backend", ["user", "kernel"])
frames = pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
FD_TOO = ("normal-11", "extended-29")
everywhere = pytest.mark.parametrize(
    ("where", "fd"),
    [(where, False) for where in ADDRESSES] + [(where, True) for where in FD_TOO],
    ids=[*ADDRESSES, *(f"{where}-fd" for where in FD_TOO)],
)


class Ours:
    """Our end of an ISO-TP connection on an interface."""

    def __init__(self, interface: str, address: IsoTpAddress, backend: str, *, fd: bool, **more: Any) -> None:
        self.bus = socketcan(interface, fd=fd)
        options = IsoTpOptions(backend=backend, tx_dl=64 if fd else 8, **more)
        self.channel = IsoTpChannel.open(self.bus, address, options)

    def __enter__(self) -> IsoTpChannel:
        return self.channel

    def __exit__(self, *error: object) -> None:
        self.channel.close()
        self.bus.close()


def sizes(address: IsoTpAddress, fd: bool) -> list[int]:
    """The longest single frame and the next (9.6.2), few and many frames; can-utils of 2020 take up to 4999 bytes."""
    single = (62 if fd else 7) - (address.addressing is Addressing.EXTENDED)
    return [1, single, single + 1, 4095, 4096, 4999] if address == NORMAL else [single, single + 1, 200]


@everywhere
@backends
def test_isotprecv_gets_what_we_send(vcan: str, tmp_path: Path, backend: str, fd: bool, where: str) -> None:
    address, options = ADDRESSES[where]
    words = ("isotprecv", "-l", *options, *(FD_OPTIONS if fd else ()), vcan)
    with listening(vcan, tmp_path / "out", *words) as receiver, Ours(vcan, address, backend, fd=fd) as ours:
        for number, size in enumerate(sizes(address, fd), 1):
            ours.send(counting(size), soon())
            assert bytes.fromhex(receiver.wait_lines(number)[-1]) == counting(size)


@everywhere
@backends
def test_we_get_what_isotpsend_sends(vcan: str, backend: str, fd: bool, where: str) -> None:
    address, options = ADDRESSES[where]
    with Ours(vcan, address, backend, fd=fd) as ours:
        for size in sizes(address, fd):
            process = isotpsend(vcan, options + (FD_OPTIONS if fd else ()), counting(size))
            assert ours.recv(soon()) == counting(size)
            assert process.wait(LONG) == 0


PACES = pytest.mark.parametrize(
    ("block_size", "st_min", "seconds"), [(1, 0, 0.0), (4, 2, 0.002), (3, 0xF5, 0.0005), (0, 5, 0.005)]
)


def said_in(lines: list[str]) -> list[tuple[float, bytes]]:
    """When the frames of candump's log came, in seconds, and their data."""
    return [(float(line[1 : line.index(")")]), bytes.fromhex(line.split("#")[1])) for line in lines]


def gaps(said: list[tuple[float, bytes]]) -> list[float]:
    """From one consecutive frame to the next; where a flow control came between, the next may follow that at once."""
    return [later[0] - earlier[0] for earlier, later in pairwise(said) if earlier[1][0] >> 4 == later[1][0] >> 4 == 2]


def looked_at(lines: list[str], block_size: int, st_min: int, seconds: float) -> None:
    """A message of 104 bytes, 6 in the first frame and 7 in each of 14 more, in candump's log."""
    said = said_in(lines)
    flow = [data[:3] for _, data in said if data[0] >> 4 == 3]
    assert flow == [bytes((0x30, block_size, st_min))] * (1 + 13 // block_size if block_size else 1)
    assert sum(data[0] >> 4 == 2 for _, data in said) == 14
    # The log's times are those of the frames' arrival, of microseconds.
    assert min(gaps(said), default=seconds) >= seconds * 0.95


@PACES
@backends
def test_isotpsend_keeps_to_what_we_ask(
    vcan: str, tmp_path: Path, backend: str, block_size: int, st_min: int, seconds: float
) -> None:
    with (
        candump(vcan, tmp_path / "log") as dump,
        Ours(vcan, NORMAL, backend, fd=False, block_size=block_size, st_min=st_min) as ours,
    ):
        process = isotpsend(vcan, ADDRESSES["normal-11"][1], counting(104))
        assert ours.recv(soon()) == counting(104)
        assert process.wait(LONG) == 0
        dump.wait_lines(15 + (1 + 13 // block_size if block_size else 1))
        looked_at(dump.end(), block_size, st_min, seconds)


@PACES
@backends
def test_we_keep_to_what_isotprecv_asks(
    vcan: str, tmp_path: Path, backend: str, block_size: int, st_min: int, seconds: float
) -> None:
    words = ("isotprecv", *ADDRESSES["normal-11"][1], "-b", f"{block_size:X}", "-m", f"{st_min:X}", vcan)
    with (
        candump(vcan, tmp_path / "log") as dump,
        listening(vcan, tmp_path / "out", *words) as receiver,
        Ours(vcan, NORMAL, backend, fd=False) as ours,
    ):
        ours.send(counting(104), soon())
        assert bytes.fromhex(receiver.wait_lines(1)[0]) == counting(104)
        dump.wait_lines(15 + (1 + 13 // block_size if block_size else 1))
        looked_at(dump.end(), block_size, st_min, seconds)


@backends
def test_a_separation_time_may_be_passed_over(vcan: str, tmp_path: Path, backend: str) -> None:
    """isotprecv asks for 127 ms."""
    with (
        candump(vcan, tmp_path / "log") as dump,
        listening(vcan, tmp_path / "out", "isotprecv", *ADDRESSES["normal-11"][1], "-m", "7F", vcan) as receiver,
        Ours(vcan, NORMAL, backend, fd=False, squash_st_min=True) as ours,
    ):
        ours.send(counting(104), soon())
        assert bytes.fromhex(receiver.wait_lines(1)[0]) == counting(104)
        dump.wait_lines(16)
        assert min(gaps(said_in(dump.end()))) < 0.127


@frames
@backends
def test_isotpdump_reads_our_frames(vcan: str, tmp_path: Path, backend: str, fd: bool) -> None:
    words = ("isotpdump", "-s", "7E0", "-d", "7E8", vcan)
    with (
        kernel_peer(vcan, fd=fd, block_size=2) as peer,
        listening(vcan, tmp_path / "dump", *words) as dump,
        Ours(vcan, NORMAL, backend, fd=fd) as ours,
    ):
        ours.send(counting(200), soon())
        assert peer.recv(1000) == counting(200)
        frames = 1 + (3 if fd else 28)
        lines = dump.wait_lines(frames + frames // 2)
        said = [line for line in lines if " 7E0 " in line]
        assert ["[FF] ln: 200" in line for line in said] == [True] + [False] * (frames - 1)
        assert [line.split("sn: ")[1][0] for line in said[1:]] == [f"{n % 16:X}" for n in range(1, frames)]
        data = bytes.fromhex("".join(line.split("data: ")[1] for line in said))
        assert data[:200] == counting(200)


@frames
@backends
def test_64_kib_to_and_from_the_kernels_socket(vcan: str, backend: str, fd: bool) -> None:
    size = min(1 << 16, kernel_limit())
    with kernel_peer(vcan, fd=fd, block_size=64) as peer, Ours(vcan, NORMAL, backend, fd=fd, block_size=32) as ours:
        ours.send(counting(size), soon())
        assert peer.recv(1 << 20) == counting(size)
        sender = threading.Thread(target=peer.send, args=(counting(size),))
        sender.start()
        assert ours.recv(soon()) == counting(size)
        sender.join()


def test_what_is_too_long_for_the_kernel(vcan: str) -> None:
    """At our end it is refused, at the peer's answered by an overflow; what is sent after it comes."""
    longer = counting(kernel_limit() + 1)
    for backend, failure in (("kernel", IsoTpSettings), ("user", IsoTpFraming)):
        with kernel_peer(vcan) as peer, Ours(vcan, NORMAL, backend, fd=False) as ours:
            with pytest.raises(failure):
                ours.send(longer, soon())
            ours.send(b"\x3e\x00", soon())
            assert peer.recv(100) == b"\x3e\x00"


# What goes wrong, with a peer that is played by hand.


class Hand:
    """Our end, and bare frames of its peer on the same interface."""

    def __init__(self, interface: str, backend: str) -> None:
        self.bus = socketcan(interface)
        self.ours = IsoTpChannel.open(self.bus, NORMAL, IsoTpOptions(backend=backend, padding=None))
        self.peer_bus = socketcan(interface)
        self.peer: CanChannel = self.peer_bus.channel(NORMAL.ids()[1], NORMAL.ids()[0])

    def says(self, *frames: str) -> None:
        for frame in frames:
            self.peer.send(bytes.fromhex(frame), soon())

    def hears(self) -> str:
        message = self.peer.recv(soon())
        assert message is not None
        return bytes(message.data).hex(" ")

    def still_works(self) -> None:
        self.peer.drain()
        self.ours.send(b"\x3e\x00", soon())
        assert self.hears() == "02 3e 00"
        self.says("02 7e 00")
        assert self.ours.recv(soon()) == b"\x7e\x00"

    def close(self) -> None:
        self.ours.close()
        self.bus.close()
        self.peer_bus.close()


@pytest.fixture(params=["user", "kernel"])
def hand(vcan: str, request: pytest.FixtureRequest) -> Iterator[Hand]:
    made = Hand(vcan, request.param)
    yield made
    made.close()


class Sending(threading.Thread):
    """Sends ten bytes; `error`: why that failed."""

    def __init__(self, channel: IsoTpChannel) -> None:
        super().__init__(daemon=True)
        self.channel = channel
        self.error: TransportError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.channel.send(counting(10), soon())
        except TransportError as error:
            self.error = error

    def came_to(self) -> type[object]:
        self.join(LONG)
        assert not self.is_alive()
        return type(self.error)


def test_no_flow_control(hand: Hand) -> None:
    assert Sending(hand.ours).came_to() is IsoTpTimeout
    hand.still_works()


@backends
def test_no_flow_control_for_what_just_needs_two_frames(vcan: str, backend: str) -> None:
    """With an address byte in each, which leaves 6 bytes for a single frame."""
    with Ours(vcan, ADDRESSES["extended-11"][0], backend, fd=False) as ours:
        ours.send(counting(6), soon())
        with pytest.raises(IsoTpTimeout):
            ours.send(counting(7), soon())


def test_an_overflow(hand: Hand) -> None:
    sending = Sending(hand.ours)
    assert hand.hears() == "10 0a 00 07 0e 15 1c 23"
    hand.says("32 00 00")
    assert sending.came_to() is IsoTpFraming
    hand.still_works()


def test_a_peer_that_asks_to_wait(hand: Hand) -> None:
    sending = Sending(hand.ours)
    hand.hears()
    hand.says("31 00 00", "31 00 00", "30 00 00")
    assert sending.came_to() is type(None)
    assert hand.hears() == "21 2a 31 38 3f"
    hand.still_works()


def test_a_peer_that_stops_within_its_message(hand: Hand) -> None:
    hand.says("10 0a 00 01 02 03 04 05")
    with pytest.raises(IsoTpTimeout):
        hand.ours.recv(soon())
    hand.still_works()


def test_a_frame_out_of_sequence(hand: Hand) -> None:
    def goes_on() -> None:
        hand.hears()
        hand.says("22 06 07 08 09")

    receiving = threading.Thread(target=goes_on)
    receiving.start()
    hand.says("10 0a 00 01 02 03 04 05")
    with pytest.raises(IsoTpFraming):
        hand.ours.recv(soon())
    receiving.join()
    hand.still_works()


def test_nothing_came_in_time(hand: Hand) -> None:
    assert hand.ours.recv(Deadline.after(0.05)) is None
    hand.still_works()


def test_what_has_begun_in_time_is_waited_for(hand: Hand) -> None:
    deadline = Deadline.after(0.5)

    def goes_on() -> None:
        hand.hears()
        threading.Event().wait(deadline.remaining)
        hand.says("21 06 07 08 09")

    peer = threading.Thread(target=goes_on)
    peer.start()
    hand.says("10 0a 00 01 02 03 04 05")
    assert hand.ours.recv(deadline) == bytes(range(10))
    peer.join()


def test_an_error_of_a_message_before_is_not_that_of_the_next(hand: Hand) -> None:
    """Nobody waits for the message that the peer breaks off, nor reads its error."""
    hand.says("10 0a 00 01 02 03 04 05")
    if isinstance(hand.ours.back_end, KernelIsoTp):
        hand.hears()
        threading.Event().wait(1.2)  # The kernel's N_Cr is a second.
    sending = Sending(hand.ours)
    while hand.hears()[:2] != "10":
        pass
    hand.says("30 00 00")
    assert sending.came_to() is type(None)
    while hand.hears()[:2] != "21":
        pass
    hand.ours.drain()
    hand.still_works()


def test_nothing_said_no_socket_of_the_kernels_serves(vcan: str) -> None:
    with socketcan(vcan) as bus:
        channel = IsoTpChannel.open(bus, NORMAL)
        assert isinstance(channel.back_end, UserIsoTp)
        channel.close()


def test_fd_on_an_interface_for_classic_frames(vcan: str) -> None:
    ip("link", "set", vcan, "down")
    ip("link", "set", vcan, "mtu", "16", "up")
    with pytest.raises(CanSettings) as caught:
        CanBus.open("desk", {"interface": "socketcan", "channel": vcan, "fd": True})
    assert f"sudo ip link set dev {vcan} mtu 72" in caught.value.remedy


def test_a_second_socket_of_the_same_ids(vcan: str) -> None:
    """The kernel lets two programs have the same ids; both get what comes in."""
    with (
        Ours(vcan, NORMAL, "kernel", fd=False) as first,
        Ours(vcan, NORMAL, "kernel", fd=False) as second,
        kernel_peer(vcan) as peer,
    ):
        peer.send(b"\x7e\x00")
        assert [first.recv(soon()), second.recv(soon())] == [b"\x7e\x00"] * 2
