"""The record of a component on a bus: what the bench file says of it, joined with what the part answers."""

from __future__ import annotations

from ..flashers.flasher import ProbeResult, State
from ..transports.deadline import Deadline
from .benchfile.schema import BenchEntry
from .component import Component, Presence
from .probers import Prober

SIGHT_SECONDS = 2.0
"""How long a component has to answer who it is."""


def look(entry: BenchEntry, prober: Prober) -> Component:
    found = prober.probe(entry, Deadline.after(SIGHT_SECONDS))
    if found is None:
        return record(entry, Presence.ABSENT if prober.can_tell(entry) else Presence.UNKNOWN, None)
    presence = Presence.OK if found.state is State.RUNNING else Presence.BOOTLOADER
    return record(entry, presence, found)


def record(entry: BenchEntry, presence: Presence, found: ProbeResult | None) -> Component:
    spec = entry.spec
    identity = found.identity if found else None
    properties = dict(spec.properties)
    if identity:
        properties |= {key: value for key, value in identity.details.items() if value}
        if identity.serial:
            properties["serial"] = identity.serial
        if identity.bootloader:
            properties["bootloader"] = identity.bootloader
    return Component(
        id=(identity.serial if identity else "") or entry.address.serial_number or spec.name,
        name=spec.name,
        group=spec.group,
        manufacturer=spec.manufacturer or (identity.manufacturer if identity else ""),
        model=spec.model or (identity.part if identity else ""),
        version=identity.version if identity else "",
        presence=presence,
        bus=spec.bus,
        protocol=spec.protocol,
        where=_where(entry),
        properties=properties,
    )


def _where(entry: BenchEntry) -> str:
    """Protocol and address, short: "uds 0x7E0/0x7E8", "dfu 0483:df11"."""
    return f"{entry.spec.protocol} {entry.address.label()}".rstrip()
