"""Which parts of the ring the bench file doesn't name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from proxyflash.flashers.errors import PartError
from proxyflash.flashers.flasher import Address, Discovered, Discovery
from proxyflash.transports.deadline import Deadline

from .flasher import LoopAddress, LoopClient
from .transport import LoopBus

NODES = range(16)
"""That are asked."""


class LoopDiscovery(Discovery):
    """Asks each node of the low numbers."""

    protocol: ClassVar[str] = "loop-boot"

    @classmethod
    def discover(
        cls, bus: LoopBus, listed: Sequence[Address], *, active: bool, deadline: Deadline
    ) -> Sequence[Discovered]:
        known = {address.node for address in listed if isinstance(address, LoopAddress)}
        found = []
        for node in NODES if active else ():
            if node not in known and not deadline.expired:
                try:
                    who = LoopClient(bus, node, 0.05).hello(tries=1).identity
                except PartError:
                    continue
                found.append(Discovered(f"node {node}  {who.part} {who.serial}", f"node-{node}", f"node = {node}"))
        return found
