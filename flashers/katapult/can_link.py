"""Katapult's nodes on CAN: who is there, a node id for one of them, and the bytes to and from it.

A node without a node id answers to its UUID alone. The ids that it gets are given back when it is let go of, by the rule
that a node gives up its node id when another one gets the same: what clears the ids of all nodes at once would also end
what others do on the bus.
"""

from __future__ import annotations

from contextlib import suppress
from weakref import WeakKeyDictionary

from ...transports import clock
from ...transports.can.bus import CanBus, CanChannel, CanId
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged
from .client import Link
from .codec import ADMIN, ADMIN_ANSWER, NODES, UUID_BYTES, Admin, admin, node_ids, unassigned

FRAME = 8
FRAME_SECONDS = 0.0011
"""What a frame takes where the bus's bit rate isn't known: at 125 kbit/s."""
SEND_SECONDS = 1.0
"""How long the bus may take for a frame."""
QUIET_SECONDS = 0.02
"""How long nothing comes when nothing more will: a bootloader sends its answer's frames one after the other."""
STREAM_SECONDS = 1.0
ASSIGN_SECONDS = 0.002
"""How long a node may take to listen under its new node id."""
NOBODY = bytes(UUID_BYTES)

_taken: WeakKeyDictionary[CanBus, dict[int, str]] = WeakKeyDictionary()
"""Of each open bus the node ids that this process has given, with the UUIDs."""


class AdminChannel:
    """The admin messages of one bus. Raises TransportError."""

    def __init__(self, bus: CanBus) -> None:
        self._channel = bus.channel(CanId(ADMIN), CanId(ADMIN_ANSWER), fd=False)

    def send(self, data: bytes) -> None:
        self._channel.send(data, SEND_SECONDS)

    def query(self, deadline: Deadline, wanted: bytes = b"") -> dict[bytes, int]:
        """The nodes without a node id that answer until the deadline, by their UUIDs, with what they run. Ends early with the
        `wanted` node's answer."""
        self._channel.drain()
        self.send(admin(Admin.QUERY_UNASSIGNED))
        found: dict[bytes, int] = {}
        while wanted not in found and (frame := self._channel.recv(deadline)) is not None:
            if (answer := unassigned(bytes(frame.data))) is not None:
                found[answer[0]] = answer[1]
        return found

    def close(self) -> None:
        self._channel.close()


class CanLink(Link):
    """The node with a UUID. `node`: the node id that it gets; None: a number that this process has not given to another."""

    def __init__(self, bus: CanBus, uuid: str, node: int | None) -> None:
        self.name = bus.name
        self.admin = AdminChannel(bus)
        self._bus = bus
        self._uuid = uuid
        self._node = _free(bus, uuid) if node is None else node
        receives, sends = node_ids(self._node)
        self._channel: CanChannel = bus.channel(CanId(receives), CanId(sends), fd=False)
        self._is_given = False

    def seconds(self, count: int) -> float:
        return -(-count // FRAME) * (self._bus.frame_seconds or FRAME_SECONDS)

    def send(self, data: bytes, deadline: Deadline) -> None:
        self._channel.drain()
        for start in range(0, len(data), FRAME):
            self._channel.send(data[start : start + FRAME], deadline)

    def receive(self, deadline: Deadline) -> bytes:
        frame = self._channel.recv(deadline)
        return b"" if frame is None else bytes(frame.data)

    def resync(self) -> None:
        """The node id may be lost as well: another host on the bus may clear them all."""
        until = Deadline.after(STREAM_SECONDS)
        # A node alone on its bus acknowledges no frame while it restarts or has no supply.
        with suppress(NotAcknowledged):
            while self.receive(until.sooner(QUIET_SECONDS)):
                pass
            self.give_node_id()

    def give_node_id(self) -> None:
        """Gives the bootloader its node id; an application takes no notice."""
        self._is_given = True
        self.admin.send(admin(Admin.SET_NODE_ID, bytes.fromhex(self._uuid), self._node))
        clock.sleep(ASSIGN_SECONDS)

    def request_bootloader(self) -> None:
        self.admin.send(admin(Admin.REQUEST_BOOTLOADER, bytes.fromhex(self._uuid)))

    def restarted(self) -> None:
        """The node has lost its node id."""
        self._is_given = False

    def give_back(self) -> None:
        """Has the node give up its node id, which nobody gets."""
        if self._is_given:
            self._is_given = False
            self.admin.send(admin(Admin.SET_NODE_ID, NOBODY, self._node))

    def close(self) -> None:
        self._channel.close()
        self.admin.close()
        taken = _taken.get(self._bus, {})
        if taken.get(self._node) == self._uuid:
            del taken[self._node]


def _free(bus: CanBus, uuid: str) -> int:
    """A node id that no other UUID has; the same for a UUID each time, where that is possible."""
    taken = _taken.setdefault(bus, {})
    first = int(uuid, 16) % len(NODES)
    nodes: list[int] = [*NODES[first:], *NODES[:first]]
    return next((node for node in nodes if taken.setdefault(node, uuid) == uuid), nodes[0])
