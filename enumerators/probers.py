"""`Prober`: asks one kind of bus who is there. One class for each kind of bus, in one file.

Asking is not entering: a prober reads a running part without disturbing its work. It sends to the addresses of the
bench file's components what their protocols allow, and to others only where the file's `probe` allows it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..flashers.base import Sighting
from ..transports.deadline import Deadline
from .benchfile import BusSpec, Entry
from .component import Unlisted


class Prober(ABC):
    """The prober of one bus. `transport`: the open bus."""

    def __init__(self, name: str, spec: BusSpec, transport: Any) -> None:
        self.name = name
        self.spec = spec
        self.transport = transport

    def sight(self, entry: Entry, deadline: Deadline) -> Sighting | None:
        """Who answers at a component's address; None when nothing does."""
        return entry.flasher.sight(
            self.transport, entry.address, entry.profile, active=self.spec.probe, deadline=deadline
        )

    def application(self, entry: Entry, deadline: Deadline) -> Sighting | None:
        """The same where the application is expected, after a boot: no bootloader has to be looked for."""
        return Prober.sight(self, entry, deadline)

    def can_tell(self, entry: Entry) -> bool:
        """Whether there is a way to see that this component is there without disturbing its work."""
        return True

    @abstractmethod
    def unlisted(self, entries: Sequence[Entry], deadline: Deadline) -> list[Unlisted]:
        """What is on the bus and none of `entries` (all components of this bus)."""
