"""`mboot-can`: MBoot on CAN. Its packets go as a stream of bytes, in frames of up to 8."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Self

from ...transports import clock
from ...transports.can.bus import CanBus
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged, ProxyflashError, TransportError
from ..can.question import ask_version, can_id
from ..errors import PartError, Step, silence
from ..flasher import Identity, ProbeResult, State
from .client import Client, Link
from .codec import SILENCES
from .flasher import MbootMemory
from .profile import MbootCanAddress, MbootCanProfile

if TYPE_CHECKING:
    from ..describing import Describer

FRAME = 8
FRAME_SECONDS = 0.0011
"""What a frame takes where the bus's bit rate isn't known: at 125 kbit/s."""
FOUND_SECONDS = 0.1
"""How long a bootloader is pinged that may run already."""
SEND_SECONDS = 1.0


class CanLink(Link):
    def __init__(self, bus: CanBus, address: MbootCanAddress) -> None:
        self.name = bus.name
        self._bus = bus
        self._channel = bus.channel(can_id(address.request), can_id(address.response), fd=False)

    def seconds(self, count: int) -> float:
        return -(-count // FRAME) * (self._bus.frame_seconds or FRAME_SECONDS)

    def send(self, data: bytes, deadline: Deadline) -> None:
        for start in range(0, len(data), FRAME):
            self._channel.send(data[start : start + FRAME], deadline)

    def receive(self, deadline: Deadline) -> bytes:
        frame = self._channel.recv(deadline)
        return b"" if frame is None else bytes(frame.data)

    def close(self) -> None:
        self._channel.close()


class MbootCanFlasher(MbootMemory):
    """One part."""

    protocol = "mboot-can"
    other_names = ("mboot", "blhost", "kboot")
    bus_kind = "can"
    probes_application = True
    Address = MbootCanAddress
    Profile = MbootCanProfile

    _profile: MbootCanProfile

    def __init__(self, bus: CanBus, address: MbootCanAddress, profile: MbootCanProfile) -> None:
        self._bus = bus
        self._address = address
        self._profile = profile
        self._link = CanLink(bus, address)
        self._client = Client(self._link, profile.answer)
        self._changed = False
        self._found: bool | None = None
        """Whether the part sat in its bootloader before it was brought there; None: not known yet."""
        self._has_answered = False

    @classmethod
    def attach(cls, bus: CanBus, address: MbootCanAddress, profile: MbootCanProfile) -> Self:
        return cls(bus, address, profile)

    @classmethod
    def describer(cls, name: str, address: MbootCanAddress, profile: object) -> Describer:
        from .describe import MbootCanDescriber

        return MbootCanDescriber(name, address.request, address.response)

    @classmethod
    def can_tell(cls, address: MbootCanAddress) -> bool:
        return address.question is not None

    @classmethod
    def probe(
        cls,
        bus: CanBus,
        address: MbootCanAddress,
        profile: MbootCanProfile,
        *,
        active: bool,
        deadline: Deadline | float,
    ) -> ProbeResult | None:
        """The question for the version; with `active` also pings, which a bootloader alone answers."""
        deadline = Deadline.of(deadline)
        if (version := ask_version(bus, address, profile.version, deadline.sooner(profile.answer))) is not None:
            return ProbeResult(State.RUNNING, Identity(version=version))
        if not active:
            return None
        part = cls(bus, address, profile)
        try:
            found = part._client.sync(min(FOUND_SECONDS, deadline.remaining))
            return ProbeResult(State.BOOTLOADER, part.ask()) if found else None
        except (PartError, NotAcknowledged):
            return None
        finally:
            part.close()

    def connect(self) -> Identity:
        try:
            self._enter()
            return self._judged(self.ask())
        except ProxyflashError:
            if self._found is False and not self._changed and self._has_answered:
                with suppress(TransportError, PartError):
                    self.start_application()
            raise

    def leave(self) -> None:
        """A part that was found in its bootloader stays there; another one runs its application again."""
        if not self._found:
            self.start_application()

    def abandon(self) -> None:
        """The part may be on its way into its bootloader, or wait for the rest of a packet."""
        if self._found is False and self._client.sync(self._profile.start):
            self.start_application()

    def close(self) -> None:
        self._link.close()

    def _enter(self) -> None:
        """Raises NoResponse, TransportError."""
        here = self._client.sync(FOUND_SECONDS)
        if self._found is None:
            self._found = here
        if not here:
            self._request_bootloader()
            here = self._client.sync(self._profile.start)
        if not here:
            if not self._has_answered:
                self._found = None
            raise silence(
                SILENCES[Step.QUESTION if self._has_answered else Step.CONNECT],
                f"no answer on {self._link.name} to pings under 0x{self._address.request:X}",
                "Is the part powered, and the bus's bit rate that of its bootloader? Without enter in the profile, reset the "
                "part while the command runs: its bootloader waits for a ping for a few seconds.",
            )
        self._has_answered = True

    def _request_bootloader(self) -> None:
        message = self._profile.enter
        if message.id is None:
            return
        channel = self._bus.channel(can_id(message.id), can_id(self._address.response), fd=False)
        try:
            # A part alone on its bus acknowledges nothing while it restarts.
            with suppress(NotAcknowledged):
                channel.send(message.data, SEND_SECONDS)
        finally:
            channel.close()

    def _restarted(self) -> None:
        # The bootloader resets once the acknowledgement of its response has come.
        clock.sleep(self._link.seconds(FRAME))
        self._found = None
