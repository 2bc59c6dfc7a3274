"""Which nodes with Katapult are on a bus: those without a node id that answer Klipper's query, with what their bootloaders
say of themselves. The applications of other nodes don't notice it, and each node is left without a node id, as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ...transports.can.bus import CanBus, CanId
from ...transports.deadline import Deadline
from ..flasher import Discovered, Discovery
from ..settings import Settings
from .can import QUERY_SECONDS, identity_of
from .can_link import AdminChannel
from .codec import ADMIN, Program
from .profile import KatapultCanAddress, KatapultCanProfile

if TYPE_CHECKING:
    from ..describing import Describer


class KatapultDiscovery(Discovery):
    protocol: ClassVar[str] = "katapult-can"
    alone: ClassVar[bool] = True

    @classmethod
    def describer(cls) -> Describer:
        from .describe import KatapultCanDescriber

        return KatapultCanDescriber()

    @classmethod
    def discover(
        cls, bus: CanBus, listed: Sequence[Settings], *, active: bool, deadline: Deadline
    ) -> Sequence[Discovered]:
        if not active:
            return []
        admin = AdminChannel(bus)
        try:
            found = admin.query(deadline.sooner(QUERY_SECONDS))
        finally:
            admin.close()
        known = {address.uuid for address in listed if isinstance(address, KatapultCanAddress)}
        return [
            _discovered(bus, uuid.hex(), runs, deadline)
            for uuid, runs in sorted(found.items())
            if uuid.hex() not in known
        ]

    @classmethod
    def asked(cls, bus: CanBus, *, active: bool, found: int) -> str:
        if not active or found:
            return ""
        return f"asked every node by Klipper's query at {CanId(ADMIN)}: no other node without a node id answers"


def _discovered(bus: CanBus, uuid: str, runs: int, deadline: Deadline) -> Discovered:
    said = "runs its application"
    if runs == Program.KATAPULT:
        said = "in its bootloader"
        if not deadline.expired:
            identity = identity_of(bus, KatapultCanAddress(uuid=uuid), KatapultCanProfile())
            said = " ".join(filter(None, (said, identity.part, identity.bootloader)))
    return Discovered(f"{uuid}  {said}", f"node-{uuid}", f'uuid = "{uuid}"')
