"""`xcp-can`: XCP on CAN and CAN FD, a packet in each frame (ASAM MCD-1 XCP 1.x, part 3, XCP on CAN)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Self

import can

from ...transports import clock
from ...transports.can.bits import frame_seconds
from ...transports.can.bus import CanBus, CanChannel, CanId
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged, ProxyflashError, TransportError
from ..can.question import ask_version
from ..errors import Meaning, NoResponse, PartError, ProfileWrong, Step, silence
from ..flasher import Identity, ProbeResult, State
from ..keys.making import recorded_keys
from .client import LOST, Client, Link
from .codec import SILENCES, SLAVE_ID, Command, slave_id
from .flasher import RESET_IT, XcpMemory
from .profile import XcpCanAddress, XcpCanProfile

if TYPE_CHECKING:
    from ..describing import Describer

FRAME = 8
FD_LENGTHS = (8, 12, 16, 20, 24, 32, 48, 64)
FRAME_SECONDS = 0.0011
"""What a frame takes where the bus's bit rate isn't known: at 125 kbit/s."""
EXTENDED = 0x8000_0000


class CanLink(Link):
    def __init__(self, bus: CanBus, address: XcpCanAddress, profile: XcpCanProfile) -> None:
        self.name = bus.name
        self._bus = bus
        self._address = address
        self._profile = profile
        self._channel: CanChannel | None = None
        if address.request is not None:
            self._open(address.can_id(address.request))

    def _open(self, request: CanId) -> None:
        self._channel = self._bus.channel(request, self._address.can_id(self._address.response), fd=self._profile.fd)

    @property
    def longest(self) -> int:
        return FD_LENGTHS[-1] if self._fd else FRAME

    @property
    def _fd(self) -> bool:
        return self._bus.fd if self._profile.fd is None else self._profile.fd

    def find(self, seconds: float) -> None:
        """Asks the slave under which id it takes commands, where the address has none (GET_SLAVE_ID). Raises NoResponse."""
        if self._channel is not None:
            return
        address = self._address
        assert address.broadcast is not None
        channel = self._bus.channel(
            address.can_id(address.broadcast), address.can_id(address.response), fd=self._profile.fd
        )
        try:
            channel.send(self._framed(bytes((Command.TRANSPORT_LAYER_CMD, 0xFF)) + SLAVE_ID + b"\0"), seconds)
            deadline = Deadline.after(seconds)
            while (frame := channel.recv(deadline)) is not None:
                if (found := slave_id(bytes(frame.data))) is not None:
                    self._open(CanId(found & ~EXTENDED, bool(found & EXTENDED)))
                    return
        finally:
            channel.close()
        raise silence(Meaning.LOST, f"no answer on {self.name} to GET_SLAVE_ID")

    def seconds(self, count: int) -> float:
        return self._bus.frame_seconds or FRAME_SECONDS

    def seconds_of(self, packet: bytes) -> float:
        if (rates := self._bus.bit_rates) is None:
            return self.seconds(len(packet))
        request, fd = self._opened.transmit, self._fd
        message = can.Message(
            arbitration_id=request.value,
            is_extended_id=request.extended,
            data=self._framed(packet),
            is_fd=fd,
            bitrate_switch=fd,
        )
        return frame_seconds(message, *rates)

    def send(self, packet: bytes, deadline: Deadline) -> None:
        self._opened.send(self._framed(packet), deadline)

    def receive(self, deadline: Deadline) -> bytes | None:
        frame = self._opened.recv(deadline)
        return None if frame is None else bytes(frame.data)

    def drain(self) -> None:
        self._opened.drain()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    @property
    def _opened(self) -> CanChannel:
        if self._channel is None:
            raise NoResponse(f"the slave on {self.name} has not said which id it listens to")
        return self._channel

    def _framed(self, packet: bytes) -> bytes:
        """Filled up to a length that frames may have."""
        if len(packet) <= FRAME:
            return packet.ljust(FRAME, b"\0") if self._profile.pad else packet
        return packet.ljust(next(size for size in FD_LENGTHS if size >= len(packet)), b"\0")


class XcpCanFlasher(XcpMemory):
    """One slave."""

    protocol = "xcp-can"
    other_names = ("xcp", "openblt", "bootcommander")
    bus_kind = "can"
    probes_application = True
    Address = XcpCanAddress
    Profile = XcpCanProfile

    _profile: XcpCanProfile

    def __init__(self, bus: CanBus, address: XcpCanAddress, profile: XcpCanProfile) -> None:
        self._profile = profile
        self._key = recorded_keys(profile.security, bus.outside)
        self._link = CanLink(bus, address, profile)
        self._client = Client(self._link, profile.timings.answer)
        self._has_answered = False

    @classmethod
    def attach(cls, bus: CanBus, address: XcpCanAddress, profile: XcpCanProfile) -> Self:
        return cls(bus, address, profile)

    @classmethod
    def describer(cls, name: str, address: XcpCanAddress, profile: object) -> Describer:
        from .describe import XcpCanDescriber

        request, broadcast = (
            None if value is None else address.can_id(value) for value in (address.request, address.broadcast)
        )
        return XcpCanDescriber(name, request, address.can_id(address.response), broadcast)

    @classmethod
    def can_tell(cls, address: XcpCanAddress) -> bool:
        return address.question is not None

    @classmethod
    def probe(
        cls,
        bus: CanBus,
        address: XcpCanAddress,
        profile: XcpCanProfile,
        *,
        active: bool,
        deadline: Deadline | float,
    ) -> ProbeResult | None:
        """Asks the application for its version. CONNECT may restart an application into its bootloader: it is not sent."""
        deadline = Deadline.of(deadline).sooner(profile.timings.answer)
        version = ask_version(bus, address, profile.version, deadline)
        return None if version is None else ProbeResult(State.RUNNING, Identity(version=version))

    def connect(self) -> Identity:
        try:
            self._enter()
            identity = self._identified()
            if self._known.max_cto > self._link.longest:
                raise ProfileWrong(
                    f"the part's packets have {self._known.max_cto} bytes, and frames of this bus {self._link.longest}",
                    remedy="Set fd = true for the bus and in the profile, if the part speaks CAN FD.",
                )
            self._accept(identity)
        except ProxyflashError:
            if not self._changed and self._session is not None:
                with suppress(TransportError, PartError):
                    self.leave()
            raise
        self._has_answered = True
        return identity

    def _enter(self) -> None:
        """CONNECT, again and again: the application may restart into its bootloader, or a person resets the part."""
        timings = self._profile.timings
        deadline, tries = Deadline.after(timings.start), 0
        while True:
            began = Deadline.after(timings.connect)
            try:
                self._link.find(timings.connect)
                if self._connects():
                    break
            except (NoResponse, NotAcknowledged):
                pass
            tries += 1
            if deadline.expired:
                # A part that comes back later may still get a CONNECT that the adapter repeats.
                with suppress(*LOST, TransportError):
                    self._link.send(bytes((Command.DISCONNECT,)), Deadline.after(timings.connect))
                raise silence(
                    SILENCES[Step.QUESTION if self._has_answered else Step.CONNECT],
                    f"no answer on {self._link.name} to CONNECT",
                    f"Is the part powered, and are request, response and the bit rate those of its bootloader? {RESET_IT}",
                )
            clock.sleep(began.remaining)
        if self._found is None:
            self._found = not tries
