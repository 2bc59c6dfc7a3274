"""Which CANopen nodes are on a bus: first by their heartbeats, then, where that is allowed, by a read of their device types, and
by LSS fastscan for those without a node id. All of them are left as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ...transports.can.bus import CanBus, CanId
from ...transports.deadline import Deadline
from ..flasher import Address, Discovered, Discovery
from . import codec, lss
from .codec import NODES, Ident, Object
from .flasher import CanopenFlasher
from .profile import CanopenAddress, CanopenProfile
from .sdo import SEND_SECONDS

if TYPE_CHECKING:
    from ..describing import Describer

LISTEN_SECONDS = 1.2
"""How long heartbeats are waited for: most nodes send one each second, or more often."""
ANSWER_SECONDS = 0.25
"""How long the answers to the read of all nodes may take."""
RUN_ON_SECONDS = 10.0
"""How much longer than its time a scan takes for nodes that have answered: LSS needs up to 7 s for each without a node id."""


class CanopenDiscovery(Discovery):
    protocol: ClassVar[str] = "canopen"
    listens: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    @classmethod
    def describer(cls) -> Describer:
        from .describe import CanopenDescriber

        return CanopenDescriber()

    @classmethod
    def discover(
        cls, bus: CanBus, listed: Sequence[Address], *, active: bool, deadline: Deadline
    ) -> Sequence[Discovered]:
        known = {address.node for address in listed if isinstance(address, CanopenAddress)}
        latest = Deadline(deadline.at + RUN_ON_SECONDS)
        heard = _heard(bus, deadline.sooner(LISTEN_SECONDS))
        if active:
            heard = {**_asked(bus, set(NODES) - known - heard.keys(), deadline.sooner(ANSWER_SECONDS)), **heard}
        found = [
            _node(bus, node, said, latest, active=active) for node, said in sorted(heard.items()) if node not in known
        ]
        if active:
            idents = {address.ident for address in listed if isinstance(address, CanopenAddress)}
            free = [node for node in reversed(NODES) if node not in known | heard.keys()]
            with lss.master(bus) as master:
                without = [ident for ident in master.scan(latest) if ident not in idents]
            found += [_without(ident, node) for ident, node in zip(without, free, strict=False)]
        return found

    @classmethod
    def asked(cls, bus: CanBus, *, active: bool, found: int) -> str:
        if found or not active:
            return ""
        return "asked every CANopen node id for its device type, and by LSS for nodes without a node id: no other node answers"


def _heard(bus: CanBus, deadline: Deadline) -> dict[int, str]:
    """The nodes that send heartbeats or boot up, with their states."""
    channel = bus.channel(CanId(codec.NMT), tuple(CanId(codec.HEARTBEAT + node) for node in NODES), fd=False)
    found: dict[int, str] = {}
    try:
        while (frame := channel.recv(deadline)) is not None:
            if (state := codec.heartbeat(bytes(frame.data))) is not None:
                found[frame.arbitration_id - codec.HEARTBEAT] = codec.STATES[state]
    finally:
        channel.close()
    return found


def _asked(bus: CanBus, nodes: set[int], deadline: Deadline) -> dict[int, str]:
    """The nodes that answer the read of their device type, in whatever way."""
    place = codec.multiplexer(Object.DEVICE_TYPE, 0)
    answers = bus.channel(CanId(codec.SDO_REQUEST), tuple(CanId(codec.SDO_RESPONSE + node) for node in NODES), fd=False)
    found: dict[int, str] = {}
    try:
        for node in sorted(nodes):
            channel = bus.channel(CanId(codec.SDO_REQUEST + node), (), fd=False)
            channel.send(codec.upload(Object.DEVICE_TYPE, 0), SEND_SECONDS)
            channel.close()
        while (frame := answers.recv(deadline)) is not None:
            if len(frame.data) == codec.FRAME and bytes(frame.data[1:4]) == place:
                found[frame.arbitration_id - codec.SDO_RESPONSE] = ""
    finally:
        answers.close()
    return {node: said for node, said in found.items() if node in nodes}


def _node(bus: CanBus, node: int, said: str, deadline: Deadline, *, active: bool) -> Discovered:
    words, name = [f"CANopen node {node}", said], f"node-{node}"
    address = f"node = {node}"
    if active and not deadline.expired:
        asked = CanopenFlasher.probe(bus, CanopenAddress(node=node), CanopenProfile(), active=True, deadline=deadline)
        if asked is not None:
            identity = asked.identity
            words += [identity.part, identity.version or identity.bootloader]
            if int(identity.serial or "0", 16):
                words.append(f"serial number {identity.serial}")
                address += f", serial = 0x{identity.serial}"
    return Discovered("  ".join(filter(None, words)), name, address)


def _without(ident: Ident, node: int) -> Discovered:
    names = ("vendor", "product", "revision", "serial")
    keys = ", ".join(f"{name} = 0x{value:08X}" for name, value in zip(names, ident, strict=True))
    return Discovered(
        f"CANopen node without a node id, serial number {ident.serial:08X}",
        f"node-{ident.serial:08x}",
        f"node = {node}, lss = true, {keys}",
    )
