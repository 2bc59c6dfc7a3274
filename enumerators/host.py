"""Components without a bus: a partition, an application, whatever the host itself holds.

Such a `[[component]]` of the bench file has no `bus`, `protocol` and `address`. It tells its version by a key of a file or
by a command; an update reaches it by step handlers that know partitions, files and services, not by a flasher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .component import Component

if TYPE_CHECKING:
    from .bench import Bench


class HostComponent:
    """One component of the bench that lies in the host."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench = bench
        self.name = name

    def look(self) -> Component:
        """Asks for its version as the bench file says. A file or command that is not there: Presence.ABSENT."""
        raise NotImplementedError
