"""`BenchWire`: the wire of an emulated bus, with what a bench and its commands need of any kind of wire.

Registered under the entry-point group `proxyflash.wires` by the kind of bus.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from .faults import Faults


@dataclass(frozen=True, slots=True)
class Served:
    """A wire that other programs can open. `path`: what they open; `opens`: how, in words. `close` ends it."""

    path: str
    opens: str
    close: Callable[[], object]


class BenchWire(ABC):
    """One wire, with the emulated parts of its components on it."""

    kind: ClassVar[str]
    """Of its bus."""
    powers_parts: ClassVar[bool] = False
    """Whether the parts get their supply from the wire, and so start again when the host's adapter comes back."""
    kernel_driver: ClassVar[str] = ""
    """The driver of the kernel that can take the wire, and the option of `emulate` for it; "": none."""
    faults: Faults

    @classmethod
    @abstractmethod
    def make(cls, channel: str, settings: Mapping[str, Any], faults: Faults, pace: float) -> Self:
        """`channel`: a name that no other wire of this process has. `settings`: of the bus in the bench file.

        `pace`: 1.0 takes the time that the wire takes, 0.0 none. Raises BadDevice, whose `key` is that of the bus.
        """

    @abstractmethod
    def host_settings(self) -> dict[str, Any]:
        """The keys of the bus's settings that have its transport open this wire."""

    def rejoin(self) -> None:  # noqa: B027 - most wires need nothing
        """Brings the host's end back after a fault has taken it away. A part sees nothing of that."""

    def serve(self, name: str, folder: Path) -> Served | None:
        """Serves the wire to other programs; None: there is no way. `name`: of the bus. `folder`: for sockets and links.

        Raises ProxyflashError, and OSError where the folder can't have them.
        """
        return None

    def serve_by_kernel(self, name: str) -> Served | None:
        """Puts the wire behind a driver of the kernel. Needs root. None: there is no such driver. `name`: of the bus.

        Raises ProxyflashError.
        """
        return None

    def join(self, place: str, name: str) -> Callable[[], object] | None:
        """Joins the wire with another bus of its kind until what it returns is called; None: there is no way.

        `place`: where that bus is, as the wire has it. `name`: what its errors call it. Raises TransportError.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Ends the wire."""
