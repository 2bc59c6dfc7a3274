"""Datagrams, on the loopback: whole, bounded in time, and silent where nobody listens."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import BadSettings, UdpAbsent, UdpGone, UdpSettings
from proxyflash.transports.recording.recorder import Recorder
from proxyflash.transports.recording.records import SerialBytes
from proxyflash.transports.udp import UdpSocket

pytestmark = pytest.mark.real_time("UDP sockets")


@pytest.fixture
def other() -> Iterator[socket.socket]:
    """The other end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))
        end.settimeout(300)
        yield end


@pytest.fixture
def udp(other: socket.socket) -> Iterator[UdpSocket]:
    with UdpSocket.open("lan", {"host": "127.0.0.1", "port": other.getsockname()[1]}) as opened:
        yield opened


def soon() -> Deadline:
    return Deadline.after(30)


def met(udp: UdpSocket, other: socket.socket) -> Any:
    """The address of our end."""
    udp.send(b"hello")
    return other.recvfrom(100)[1]


def test_there_and_back(udp: UdpSocket, other: socket.socket) -> None:
    udp.send(b"question")
    data, address = other.recvfrom(100)
    assert data == b"question"
    other.sendto(b"answer", address)
    other.sendto(b"", address)
    other.sendto(b"x" * 9000, address)
    assert [udp.receive(soon()) for _ in range(3)] == [b"answer", b"", b"x" * 9000]


def test_ipv6() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as end:
        try:
            end.bind(("::1", 0))
        except OSError:
            pytest.skip("IPv6 is not there on this host")
        end.settimeout(300)
        with UdpSocket.open("lan", {"host": "::1", "port": end.getsockname()[1]}) as udp:
            udp.send(b"six")
            assert end.recv(10) == b"six"


def test_a_deadline_ends_the_wait(udp: UdpSocket) -> None:
    began = time.monotonic()
    assert udp.receive(Deadline.after(0.05)) is None
    assert time.monotonic() - began >= 0.05
    assert udp.receive(Deadline(0.0)) is None


def test_nobody_else_is_heard(udp: UdpSocket, other: socket.socket) -> None:
    address = met(udp, other)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.sendto(b"false", address)
    other.sendto(b"true", address)
    assert udp.receive(soon()) == b"true"


def test_a_part_that_restarts_is_silent(udp: UdpSocket, other: socket.socket) -> None:
    """The host of a port that nobody listens on says so (ICMP), and that is not an end."""
    met(udp, other)
    port = other.getsockname()[1]
    other.close()
    for _ in range(3):
        udp.send(b"anybody?")
        assert udp.receive(Deadline.after(0.02)) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))
        again.settimeout(300)
        udp.send(b"there?")
        data, address = again.recvfrom(100)
        assert data == b"there?"
        again.sendto(b"yes", address)
        assert udp.receive(soon()) == b"yes"


def test_drained(udp: UdpSocket, other: socket.socket) -> None:
    address = met(udp, other)
    for number in range(5):
        other.sendto(bytes([number]), address)
    udp.drain()
    assert udp.receive(Deadline(0.0)) is None


def test_what_passes_is_recorded(udp: UdpSocket, other: socket.socket) -> None:
    udp.recorder = Recorder()
    other.sendto(b"answer", met(udp, other))
    assert udp.receive(soon()) == b"answer"
    kept = [(record.outgoing, record.data) for record in udp.recorder.records() if isinstance(record, SerialBytes)]
    assert kept == [(True, b"hello"), (False, b"answer")]


def test_after_closing(udp: UdpSocket) -> None:
    udp.close()
    udp.close()
    with pytest.raises(UdpGone):
        udp.send(b"x")
    with pytest.raises(UdpGone):
        udp.receive(Deadline.after(0.01))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs a host"),
        ({"host": ""}, "needs a host"),
        ({"host": 7}, "needs a host"),
        ({"host": "a", "port": 0}, "port = 0"),
        ({"host": "a", "port": 65_536}, "port = 65536"),
        ({"host": "a", "port": "1337"}, "port = '1337'"),
        ({"host": "a", "port": True}, "port = True"),
        ({"host": "a", "baudrate": 9600}, "no key 'baudrate'; there are: host, port"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UdpSettings, match=said) as caught:
        UdpSocket.open("lan", settings)
    assert isinstance(caught.value, BadSettings)


@pytest.mark.parametrize("host", ["nobody.invalid", "a" * 300, "\x00", "1.2.3.4.5"])
def test_a_host_that_is_not_known(host: str) -> None:
    with pytest.raises(UdpAbsent, match="not known"):
        UdpSocket.open("lan", {"host": host, "port": 1337})
