"""How a bus's reader waits: on a socket until a frame or the end comes, elsewhere for a moment at a time.

A Unix socket stands for the kernel's CAN socket; the kernel bench has real ones.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator

import can
import pytest
from proxyflash.tests.processes import descriptors
from proxyflash.transports.can import bus as transport
from proxyflash.transports.can.bus import CanBus, CanChannel, CanId
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import BusOff, CanGone, NotAcknowledged, TransportError

pytestmark = pytest.mark.real_time("the readers wait for sockets of the kernel's")
FRAME = struct.Struct("=IB3x8s")
"""struct can_frame (Linux, include/uapi/linux/can.h)."""
ERROR_FLAG = 0x2000_0000
BUS_OFF, CONTROLLER, TX_PASSIVE = 0x40, 0x04, 0x20
LONG = 60.0


class SocketBus(can.BusABC):
    """As python-can's socketcan: `recv` waits with select on one socket."""

    def __init__(self, ours: socket.socket) -> None:
        self.socket = ours
        self.waits: list[float | None] = []
        super().__init__(channel="can0")

    def fileno(self) -> int:
        return self.socket.fileno()

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        self.waits.append(timeout)
        self.socket.settimeout(timeout)
        try:
            frame = self.socket.recv(FRAME.size)
        except (BlockingIOError, TimeoutError):
            return None, True
        if not frame:
            raise can.CanOperationError("Error receiving: Network is down", errno.ENETDOWN)
        number, length, data = FRAME.unpack(frame)
        error = bool(number & ERROR_FLAG)
        return can.Message(
            arbitration_id=number & 0x1FFF_FFFF, is_extended_id=False, is_error_frame=error, data=data[:length]
        ), True

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        self.socket.send(FRAME.pack(msg.arbitration_id, len(msg.data), bytes(msg.data)))

    def shutdown(self) -> None:
        super().shutdown()
        self.socket.close()


class Kernel:
    """The other end of the socket, and the bus on it."""

    def __init__(self, interface: str) -> None:
        self.end, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.adapter = SocketBus(ours)
        self.bus = CanBus("b", self.adapter, interface, "can0", False)
        self.channel: CanChannel = self.bus.channel(CanId(0x7E0), CanId(0x7E8))

    def says(self, number: int, data: bytes = b"") -> None:
        self.end.send(FRAME.pack(number, len(data), data.ljust(8, b"\0")))

    def got(self) -> bytes:
        message = self.channel.recv(Deadline.after(LONG))
        assert message is not None
        return bytes(message.data)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setattr(transport, "CLOSE_SECONDS", LONG)
    made = Kernel("socketcan")
    yield made
    made.bus.close()
    made.end.close()


def test_the_reader_of_a_socket_looks_only_when_something_came(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_SECONDS", 0.0)
    for number in range(50):
        kernel.says(0x7E8, bytes((number,)))
        assert kernel.got() == bytes((number,))
    # For each frame a look that finds it, and another that finds no more of them; none of them waits.
    assert len(kernel.adapter.waits) <= 2 * 50 + 1
    assert set(kernel.adapter.waits) == {0}


def test_frames_that_came_together_are_all_taken(kernel: Kernel) -> None:
    for number in range(100):
        kernel.says(0x7E8, bytes((number,)))
    assert [kernel.got()[0] for _ in range(100)] == list(range(100))


def test_closing_wakes_the_reader_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CLOSE_SECONDS", LONG)
    before = descriptors()
    kernel = Kernel("socketcan")
    kernel.says(0x7E8, b"\x01")
    assert kernel.got() == b"\x01"
    began = time.monotonic()
    kernel.bus.close()
    assert time.monotonic() - began < LONG / 2
    assert not kernel.bus._reader.is_alive()
    with pytest.raises(CanGone):
        kernel.channel.recv(Deadline.after(LONG))
    kernel.bus.close()
    kernel.end.close()
    assert descriptors() == before


def test_an_interface_that_goes_down_ends_the_bus(kernel: Kernel) -> None:
    kernel.end.close()
    with pytest.raises(CanGone, match="Network is down"):
        kernel.channel.recv(Deadline.after(LONG))
    assert isinstance(kernel.bus.failure, CanGone)
    kernel.bus._reader.join(LONG)
    assert not kernel.bus._reader.is_alive()


@pytest.mark.parametrize(
    ("number", "data", "kind"),
    [
        (BUS_OFF, bytes(8), BusOff),
        # Nobody gets the error at once: a part that resets is off the bus for a while. The reader itself looks again.
        (CONTROLLER, bytes((0, TX_PASSIVE, 0, 0, 0, 0, 0, 0)), NotAcknowledged),
    ],
)
def test_an_error_frame_reaches_who_waits(kernel: Kernel, number: int, data: bytes, kind: type[TransportError]) -> None:
    kernel.says(ERROR_FLAG | number, data)
    with pytest.raises(kind):
        kernel.channel.recv(Deadline.after(LONG))


def test_the_reader_waits_without_a_limit_again_once_a_frame_came_through(kernel: Kernel) -> None:
    kernel.says(ERROR_FLAG | CONTROLLER, bytes((0, TX_PASSIVE, 0, 0, 0, 0, 0, 0)))
    with pytest.raises(NotAcknowledged):
        kernel.channel.recv(Deadline.after(LONG))
    kernel.says(0x7E8, b"\x02")
    assert kernel.got() == b"\x02"
    assert kernel.bus._unacknowledged == 0
    looks = len(kernel.adapter.waits)
    kernel.says(0x7E8, b"\x03")
    assert kernel.got() == b"\x03"
    assert len(kernel.adapter.waits) <= looks + 3


class Deaf(can.BusABC):
    """An adapter whose driver has no descriptor to wait on."""

    def __init__(self) -> None:
        self.waits: list[float | None] = []
        self.given: list[can.Message] = []
        super().__init__(channel="x")

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        self.waits.append(timeout)
        if self.given:
            return self.given.pop(), True
        assert timeout is not None
        time.sleep(timeout)
        return None, True

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        self.given.append(msg)


@pytest.mark.parametrize("interface", ["slcan", "socketcan", "pcan"])
def test_a_bus_without_a_descriptor_is_read_for_a_moment_at_a_time(
    interface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CLOSE_SECONDS", LONG)
    adapter = Deaf()
    with pytest.raises(NotImplementedError):
        adapter.fileno()
    bus = CanBus("b", adapter, interface, "x", False)
    channel = bus.channel(CanId(0x7E0), CanId(0x7E8))
    adapter.given.append(can.Message(arbitration_id=0x7E8, is_extended_id=False, data=b"\x05"))
    message = channel.recv(Deadline.after(LONG))
    assert message is not None
    assert bytes(message.data) == b"\x05"
    began = time.monotonic()
    bus.close()
    assert time.monotonic() - began < LONG / 2
    assert not bus._reader.is_alive()
    assert all(wait is not None and 0 <= wait <= transport.READ_SECONDS for wait in adapter.waits)


def test_a_socket_of_another_interface_is_not_waited_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver may keep frames of its own beside the socket."""
    monkeypatch.setattr(transport, "CLOSE_SECONDS", LONG)
    kernel = Kernel("udp_multicast")
    kernel.says(0x7E8, b"\x01")
    assert kernel.got() == b"\x01"
    kernel.bus.close()
    kernel.end.close()
    assert all(wait is not None and 0 <= wait <= transport.READ_SECONDS for wait in kernel.adapter.waits)
