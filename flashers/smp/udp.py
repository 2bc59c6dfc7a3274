"""`smp-udp`: SMP by datagrams, one packet in each ("SMP over UDP/IP" of Zephyr's transport specification)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...transports.deadline import Deadline
from ...transports.udp import LARGEST, UdpSocket
from .flasher import SmpFlasher
from .link import Wire
from .profile import SmpProfile

if TYPE_CHECKING:
    from ..describing import Describer


class DatagramWire:
    """A packet is a datagram."""

    rate = ""
    overhead = 0
    largest = LARGEST

    def __init__(self, udp: UdpSocket) -> None:
        self.name = udp.name
        self._udp = udp

    def send(self, packet: bytes, deadline: Deadline) -> None:
        self._udp.send(packet)

    def receive(self, deadline: Deadline) -> bytes | None:
        return self._udp.receive(deadline)

    def drain(self) -> None:
        self._udp.drain()

    def await_silence(self, seconds: float, deadline: Deadline) -> None:
        while not deadline.expired and self._udp.receive(deadline.sooner(seconds)) is not None:
            pass

    @property
    def log(self) -> bytes:
        return b""

    def follow(self, until: Deadline | None) -> None:
        """A socket stays, whatever becomes of the part."""

    def speak_to(self, *, recovery: bool) -> None:
        """A socket has no bit rate."""

    def turn(self) -> bool:
        return False

    def seconds(self, size: int) -> float:
        return 0.0


class SmpUdpFlasher(SmpFlasher):
    """One part on a network."""

    protocol = "smp-udp"
    bus_kind = "udp"
    bus_defaults: ClassVar[Mapping[str, Any]] = {"port": 1337}
    """Of Zephyr (CONFIG_MCUMGR_TRANSPORT_UDP_PORT)."""

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import DatagramDescriber

        return DatagramDescriber(name)

    @classmethod
    def _wire_on(cls, bus: UdpSocket, profile: SmpProfile) -> Wire:  # type: ignore[override]
        return DatagramWire(bus)
