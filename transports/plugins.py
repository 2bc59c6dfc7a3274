"""What is installed under the project's entry-point groups; the built-in ones are registered the same way.

Nothing is imported until it is asked for by name, and a plugin that fails to import stops nothing but its own use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import PluginBroken, PluginUnknown
from .plain import meant

TRANSPORTS = "proxyflash.transports"
FLASHERS = "proxyflash.flashers"
FORMATS = "proxyflash.formats"
ENUMERATORS = "proxyflash.enumerators"
DISCOVERIES = "proxyflash.discoveries"
EMULATORS = "proxyflash.emulators"
WIRES = "proxyflash.wires"
TRACKS = "proxyflash.tracks"
RECORDS = "proxyflash.records"
STEPS = "proxyflash.steps"
GROUPS = (TRANSPORTS, RECORDS, FLASHERS, FORMATS, ENUMERATORS, DISCOVERIES, EMULATORS, WIRES, TRACKS, STEPS)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point as found; `fault` says why it can't be used, "" when it can."""

    group: str
    name: str
    target: str
    package: str
    fault: str


_installed = cache(entry_points)
"""Looks through every package of this host, once for all groups."""


@cache
def _group(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name: one each, unless packages disagree about what a name means."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in _installed().select(group=group):
        known = found.get(entry.name, ())
        if entry.value not in [other.value for other in known]:
            found[entry.name] = (*known, entry)
    return found


def names(group: str) -> list[str]:
    """The names registered in a group, sorted; imports none of them."""
    return sorted(_group(group))


@cache
def load(group: str, name: str) -> type[Any]:
    """The class registered as `name`.

    Raises PluginUnknown when no package registers it, PluginBroken when its module can't be imported or packages
    disagree about it.
    """
    kind = "discovery" if group == DISCOVERIES else group.removeprefix("proxyflash.").removesuffix("s")
    entries = _group(group).get(name, ())
    if not entries:
        known = ", ".join(names(group)) or "none"
        raise PluginUnknown(f"no {kind} is called {name!r}{meant(name, names(group))}; there are: {known}")
    if len(entries) > 1:
        claims = " and ".join(f"{_package(entry)} ({entry.value})" for entry in entries)
        raise PluginBroken(f"the {kind} {name!r} is claimed by {claims}", remedy="Uninstall one of these packages.")
    entry = entries[0]
    try:
        loaded = entry.load()
    except Exception as error:
        raise PluginBroken(f"the {kind} {name!r} ({entry.value}) can't be loaded: {error}") from error
    if not isinstance(loaded, type):
        raise PluginBroken(f"the {kind} {name!r} ({entry.value}) is not a class")
    return loaded


def survey() -> list[Plugin]:
    """Every plugin of every group, each imported once to see whether it works."""
    found = []
    for group in GROUPS:
        for name in names(group):
            try:
                load(group, name)
                fault = ""
            except PluginBroken as error:
                fault = error.cause
            found += [Plugin(group, name, entry.value, _package(entry), fault) for entry in _group(group)[name]]
    return found


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else ""
