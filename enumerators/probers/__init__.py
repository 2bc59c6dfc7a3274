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
        self.asked: list[str] = []
        """What `unlisted` asked of parts that no component stands for, in sentences without a subject."""

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

    def asked_of(self, entry: BenchEntry) -> str:
        """What `probe` asks of one component; "": nothing."""
        return f"{entry.spec.protocol} {entry.address.label()}".rstrip() if self.can_tell(entry) else ""

    @classmethod
    def onward(cls, spec: BusSpec, entries: Sequence[BenchEntry]) -> Mapping[str, str]:
        """The settings with which a target's next scan of such a bus may find more than one with `spec`; {}: none."""
        return {}

    def unlisted(self, entries: Sequence[BenchEntry], deadline: Deadline) -> list[Unlisted]:
        """What is on the bus and none of `entries` (all components of this bus)."""
        listed = [entry.address for entry in entries]
        found = []
        for discovery in sorted(_discoveries(self.spec.kind), key=lambda discovery: discovery.listens):
            others = any(entry.spec.protocol != discovery.protocol for entry in entries)
            if discovery.alone and others:
                continue
            parts = discovery.discover(self.transport, listed, active=self.spec.probe, deadline=deadline)
            found += [unlisted_part(self.name, discovery.protocol, part) for part in parts]
            if said := discovery.asked(self.transport, active=self.spec.probe, found=len(parts)):
                self.asked.append(said)
        return found


def _discoveries(kind: str) -> Iterator[type[Discovery]]:
    """Those of one kind of bus, without those whose package can't be loaded."""
    for name in plugins.names(plugins.DISCOVERIES):
        if name.partition(".")[0] == kind:
            with suppress(PluginBroken):
                yield plugins.load(plugins.DISCOVERIES, name)


def unlisted_part(bus: str, protocol: str, part: Discovered) -> Unlisted:
    """What a discovery has found, as lines of a bench file."""
    body = f"bus = {toml_text(bus)}\nprotocol = {toml_text(protocol)}\naddress = {{{part.address}}}"
    body += f"\nprofile = {{{part.profile}}}" if part.profile else ""
    return Unlisted(bus, f"{protocol} {part.title}", part.name, body)


def probers() -> Iterator[tuple[str, type[Prober]]]:
    """Each kind of bus with its prober, without those whose package can't be loaded."""
    for kind in plugins.names(plugins.ENUMERATORS):
        with suppress(PluginBroken):
            yield kind, plugins.load(plugins.ENUMERATORS, kind)
