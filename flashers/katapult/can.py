"""`katapult-can`: Katapult on CAN. Its nodes are known by a UUID, and get a node id while they are asked.

A running application is asked by Klipper's query for nodes (id 0x3F0), and by what the bench file says of its version. It
is brought into its bootloader by Klipper's message for that, which holds the UUID.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from ...transports import clock
from ...transports.can.bus import CanBus
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged, ProxyflashError, TransportError
from ..can.question import ask_version
from ..errors import PartError, Step, WrongPart, silence
from ..flasher import Identity, ProbeResult, State
from .can_link import AdminChannel, CanLink
from .client import LOST, Client
from .codec import SILENCES, UUID_BYTES, About, Command, Program
from .flasher import KatapultMemory
from .profile import KatapultCanAddress, KatapultCanProfile

if TYPE_CHECKING:
    from ..describing import Describer

GREET_SECONDS = 0.1
"""How long a node has for its first answer each time that it is looked for."""
QUERY_SECONDS = 0.25
"""How long the answers to a query may take: of 64 nodes, at 125 kbit/s, on a bus with other traffic."""


class KatapultCanFlasher(KatapultMemory):
    """One node."""

    protocol = "katapult-can"
    other_names = ("canboot", "flash_can", "flashtool")
    bus_kind = "can"
    probes_application = True
    Address = KatapultCanAddress
    Profile = KatapultCanProfile

    _profile: KatapultCanProfile

    def __init__(self, bus: CanBus, address: KatapultCanAddress, profile: KatapultCanProfile) -> None:
        self._address = address
        self._profile = profile
        self._link = CanLink(bus, address.uuid, profile.node)
        self._client = Client(self._link, profile.answer)
        self._changed = False
        self._found: bool | None = None
        """Whether the node sat in its bootloader before it was brought there; None: not known yet."""

    @classmethod
    def attach(cls, bus: CanBus, address: KatapultCanAddress, profile: KatapultCanProfile) -> Self:
        return cls(bus, address, profile)

    @classmethod
    def describer(cls, name: str, address: KatapultCanAddress, profile: object) -> Describer:
        from .describe import KatapultCanDescriber

        return KatapultCanDescriber(name, address.raw)

    @classmethod
    def can_tell(cls, address: KatapultCanAddress) -> bool:
        """An application that has got a node id does not answer the query."""
        return address.question is not None

    @classmethod
    def probe(
        cls,
        bus: CanBus,
        address: KatapultCanAddress,
        profile: KatapultCanProfile,
        *,
        active: bool,
        deadline: Deadline | float,
    ) -> ProbeResult | None:
        deadline = Deadline.of(deadline)
        if (version := ask_version(bus, address, profile.version, deadline.sooner(profile.answer))) is not None:
            return ProbeResult(State.RUNNING, Identity(version=version, serial=address.uuid))
        admin = AdminChannel(bus)
        try:
            runs = admin.query(deadline.sooner(QUERY_SECONDS), address.raw).get(address.raw)
        finally:
            admin.close()
        if runs is None:
            return None
        if runs != Program.KATAPULT:
            # It may have started after the first question.
            version = ask_version(bus, address, profile.version, deadline.sooner(profile.answer))
            return ProbeResult(State.RUNNING, Identity(version=version or "", serial=address.uuid))
        return ProbeResult(State.BOOTLOADER, identity_of(bus, address, profile))

    def connect(self) -> Identity:
        try:
            identity = self._enter()
            self._judged(self._known)
        except ProxyflashError:
            if self._found is False and not self._changed and self._about is not None:
                with suppress(TransportError, PartError):
                    self.start_application()
            raise
        return identity

    def leave(self) -> None:
        """A node that was found in its bootloader stays there; another one runs its application again."""
        if not self._found:
            self.start_application()

    def abandon(self) -> None:
        """The node may be on its way into its bootloader, or wait for the rest of a message."""
        if self._found is False and self._greets(Deadline.after(self._profile.start)) is not None:
            self.start_application()

    def close(self) -> None:
        with suppress(TransportError):
            self._link.give_back()
        self._link.close()

    def identify(self) -> Identity | None:
        """Who the node is, if it is in its bootloader."""
        about = self._greet()
        return None if about is None else replace(self._identified(about), serial=self._address.uuid)

    # Into the bootloader.

    def _enter(self) -> Identity:
        about = self._greet()
        if about is None and self._profile.enter:
            self._found = bool(self._found)
            with suppress(NotAcknowledged):
                self._link.request_bootloader()
            about = self._greets(Deadline.after(self._profile.start))
        if about is None:
            was_there = self._about is not None
            raise silence(
                SILENCES[Step.QUESTION if was_there else Step.CONNECT],
                f"no answer on {self._link.name} from the bootloader of node {self._address.uuid}",
                "Is it powered, its UUID right, and the bus's bit rate that of its bootloader? An application that does not "
                "take Klipper's message for that needs two resets by hand, or its button, to start its bootloader.",
            )
        if self._found is None:
            self._found = True
        identity = replace(self._identified(about), serial=self._address.uuid)
        uuid = self._client.request(Command.GET_CANBUS_ID)[:UUID_BYTES]
        if uuid != self._address.raw:
            raise WrongPart(f"node {uuid.hex()} has answered in the place of {self._address.uuid}")
        return identity

    def _greets(self, deadline: Deadline) -> About | None:
        """The answer of a node that may be restarting; None: none until the deadline."""
        while True:
            began = Deadline.after(GREET_SECONDS)
            if (about := self._greet()) is not None:
                return about
            if deadline.expired:
                return None
            clock.sleep(min(began.remaining, deadline.remaining))

    def _greet(self) -> About | None:
        """The answer to CONNECT; None: none comes. An application takes no notice."""
        try:
            self._link.give_node_id()
            return self._client.connect(GREET_SECONDS, tries=1)
        except LOST:
            return None

    def _restarted(self) -> None:
        self._link.restarted()


def identity_of(bus: CanBus, address: KatapultCanAddress, profile: KatapultCanProfile) -> Identity:
    """Who a node in its bootloader is; its node id is given back. Raises TransportError."""
    node = KatapultCanFlasher(bus, address, profile)
    try:
        return node.identify() or Identity(serial=address.uuid)
    finally:
        node.close()
