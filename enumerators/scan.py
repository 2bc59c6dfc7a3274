"""Scanning a bench: asks every component of the bench file who it is, and looks for others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..transports.deadline import Deadline
from ..transports.errors import (
    AdapterAbsent,
    AdapterBusy,
    AdapterForbidden,
    AdapterGone,
    BadSettings,
    BusOff,
    CanOverrun,
    NotAcknowledged,
    PluginBroken,
    PluginUnknown,
    ProxyflashError,
    known,
)
from .buses import Buses
from .component import Component, Presence, Unlisted, distinct
from .errors import BenchError
from .host import HostComponent
from .probers import probers
from .records import SIGHT_SECONDS, look, record

OF_THE_BUS = (
    AdapterAbsent,
    AdapterBusy,
    AdapterForbidden,
    AdapterGone,
    BadSettings,
    BusOff,
    CanOverrun,
    NotAcknowledged,
    PluginUnknown,
    PluginBroken,
    BenchError,
)
"""What no other component of the bus would fare better with."""
UNSEEN = (Presence.ABSENT, Presence.UNKNOWN)
"""Of a component of which nothing was seen."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What is there: the file's components in its order, and others that were found. `faults`: of a bus, or, where the
    error names one, of one component of that bus. `unasked`: what was not asked on a bus, and the key that would let it."""

    components: tuple[Component, ...]
    unlisted: tuple[Unlisted, ...]
    faults: tuple[tuple[str, ProxyflashError], ...]
    unasked: tuple[tuple[str, str], ...] = ()
    asked: tuple[tuple[str, str], ...] = ()
    """What was asked on a bus, of components that were not seen and of parts that the file doesn't list."""
    onward: tuple[tuple[str, Mapping[str, str]], ...] = ()
    """The settings with which a target's next scan of a bus may find more."""


def scan(buses: Buses) -> Scan:
    """Asks every component of the file who it is, and looks for others. Enters no bootloader.

    Raises BenchLocked and StateFolder. The scan's `faults` have the errors of components and of buses: neither hides
    another.
    """
    buses.lock()
    components: dict[str, Component] = {}
    unlisted: list[Unlisted] = []
    faults: list[tuple[str, ProxyflashError]] = []
    unasked: list[tuple[str, str]] = []
    asked: list[tuple[str, str]] = []
    onward: list[tuple[str, Mapping[str, str]]] = []
    for bus in buses.file.spec.bus:
        entries = [entry for entry in buses.file.entries.values() if entry.spec.bus == bus]
        try:
            prober = buses.prober(bus)
            for entry in entries:
                try:
                    seen = components[entry.spec.name] = look(entry, prober)
                    if seen.presence in UNSEEN:
                        if said := prober.asked_of(entry):
                            asked.append((bus, f"{seen.name}: asked by {said}: no answer"))
                        if said := prober.unasked_of(entry):
                            unasked.append((bus, f"{seen.name}: {said}"))
                except OF_THE_BUS:
                    raise
                except Exception as error:
                    # One part that answers anything keeps no other from being asked.
                    faults.append((bus, known(error).named(entry.spec.name)))
                    components[entry.spec.name] = record(entry, Presence.ABSENT, None)
            unlisted += prober.unlisted(entries, Deadline.after(SIGHT_SECONDS))
            asked += [(bus, said) for said in prober.asked]
            if said := prober.unasked(entries):
                unasked.append((bus, said))
            if settings := prober.onward(prober.spec, entries):
                onward.append((bus, settings))
        except Exception as error:
            faults.append((bus, known(error)))
            # A port that another program holds, or that this user may not open, says nothing of its part.
            presence = Presence.UNKNOWN if isinstance(error, AdapterBusy | AdapterForbidden) else Presence.ABSENT
            for entry in entries:
                components.setdefault(entry.spec.name, record(entry, presence, None))
    for name, hosted in buses.file.hosted.items():
        components[name] = HostComponent(hosted, buses.commands, buses.outside).look()
    real = [spec for spec in buses.file.spec.bus.values() if not spec.emulated]
    if real and buses.replay is None and buses.file.lists_host:
        unlisted += [
            bus
            for kind, prober_class in probers()
            for bus in prober_class.not_listed([spec.settings for spec in real if spec.kind == kind])
        ]
    return Scan(
        tuple(components[name] for name in buses.file.names),
        tuple(distinct(unlisted, buses.file.spec.bus, buses.file.names)),
        tuple(faults),
        tuple(unasked),
        tuple(asked),
        tuple(onward),
    )
