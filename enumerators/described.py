"""The describers of a bench: what shows the messages on its buses in words, by what the bench file says of their parts."""

from __future__ import annotations

from collections.abc import Iterable

from ..flashers.describing import Describer
from ..transports import plugins
from ..transports.errors import PluginBroken
from ..transports.recording.records import Record
from .benchfile.schema import BenchFile


def describers(file: BenchFile) -> dict[str, list[Describer]]:
    """Of each bus: those of its components, and behind them those for parts that the file doesn't name. Opens nothing."""
    found: dict[str, list[Describer]] = {bus: [] for bus in file.spec.bus}
    for entry in file.entries.values():
        describer = entry.flasher.describer(entry.spec.name, entry.address, entry.profile)
        if describer is not None:
            found[entry.spec.bus].append(describer)
    for bus, listed in found.items():
        if sum(entry.spec.bus == bus for entry in file.entries.values()) > 1:
            for describer in listed:
                if not describer.addressed:
                    describer.part = ""
        listed += usual(file.spec.bus[bus].kind)
    return found


def describers_of(records: Iterable[Record], file: BenchFile | None) -> dict[str, list[Describer]]:
    """Of each bus of a recording. `file`: None where no bench file says what is on its buses."""
    found = {} if file is None else describers(file)
    for record in records:
        if record.bus and record.bus not in found and record.of_bus:
            found[record.bus] = usual(record.kind)
    return found


def usual(kind: str) -> list[Describer]:
    """Those for parts that no bench file names, on a bus of this kind."""
    found = []
    for name in plugins.names(plugins.DISCOVERIES):
        if name.partition(".")[0] == kind:
            try:
                describer = plugins.load(plugins.DISCOVERIES, name).describer()
            except PluginBroken:
                continue
            if describer is not None:
                found.append(describer)
    return found
