"""`Prober`: asks one kind of bus who is there. One class for each kind of bus, in one file.

Asking is not entering: a prober reads a running part without disturbing its work. It sends to the addresses of the
bench file's components what their protocols allow, and to others only where the file's `probe` allows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from ...flashers.flasher import Discovered, Discovery, ProbeResult
from ...transports import plugins
from ...transports.deadline import Deadline
from ...transports.errors import PluginBroken
from ...transports.toml_text import toml_text
from ..benchfile.schema import BenchEntry, BusSpec
from ..component import Unlisted


class Prober:
    """The prober of one bus. `transport`: the open bus."""

    asks: ClassVar[bool] = False
    """Whether `unlisted` asks what the keys `ask` and `quiet` of the bus say."""
    sees_bootloaders: ClassVar[bool] = True
    """Whether a component that answers nothing isn't there. If not, it may be in its bootloader, or need to be brought there."""

    @classmethod
    def attached(cls) -> list[Unlisted]:
        """The buses of this kind that this host has, for a new bench file. Opens none of them."""
        return []

    @classmethod
    def not_listed(cls, listed: Sequence[Mapping[str, Any]]) -> list[Unlisted]:
        """Those that are worth telling after a scan. `listed`: the settings of the buses in the bench file."""
        return []

    def __init__(self, name: str, spec: BusSpec, transport: Any) -> None:
        self.name = name
        self.spec = spec
        self.transport = transport

    def probe(self, entry: BenchEntry, deadline: Deadline) -> ProbeResult | None:
        """Who answers at a component's address; None when nothing does."""
        return entry.flasher.probe(
            self.transport, entry.address, entry.profile, active=self.spec.probe, deadline=deadline
        )

    def application(self, entry: BenchEntry, deadline: Deadline) -> ProbeResult | None:
        """The same where the application is expected, after a boot: no bootloader has to be looked for."""
        return Prober.probe(self, entry, deadline)

    def can_tell(self, entry: BenchEntry) -> bool:
        """Whether there is a way to see that this component is there without disturbing its work."""
        return entry.flasher.can_tell(entry.address)

    def unasked(self, entries: Sequence[BenchEntry]) -> str:
        """What a scan leaves unasked on a bus that has these components, and the key that would let it; "": nothing."""
        return ""

    def unasked_of(self, entry: BenchEntry) -> str:
        """The same of one component that was not seen."""
        return ""

    def unlisted(self, entries: Sequence[BenchEntry], deadline: Deadline) -> list[Unlisted]:
        """What is on the bus and none of `entries` (all components of this bus)."""
        listed = [entry.address for entry in entries]
        return [
            _unlisted(self.name, discovery.protocol, part)
            for discovery in _discoveries(self.spec.kind)
            for part in discovery.discover(self.transport, listed, active=self.spec.probe, deadline=deadline)
        ]


def _discoveries(kind: str) -> Iterator[type[Discovery]]:
    """Those of one kind of bus, without those whose package can't be loaded."""
    for name in plugins.names(plugins.DISCOVERIES):
        if name.partition(".")[0] == kind:
            with suppress(PluginBroken):
                yield plugins.load(plugins.DISCOVERIES, name)


def _unlisted(bus: str, protocol: str, part: Discovered) -> Unlisted:
    body = f"bus = {toml_text(bus)}\nprotocol = {toml_text(protocol)}\naddress = {{{part.address}}}"
    return Unlisted(bus, f"{protocol} {part.title}", part.name, body)


def probers() -> Iterator[tuple[str, type[Prober]]]:
    """Each kind of bus with its prober, without those whose package can't be loaded."""
    for kind in plugins.names(plugins.ENUMERATORS):
        with suppress(PluginBroken):
            yield kind, plugins.load(plugins.ENUMERATORS, kind)
