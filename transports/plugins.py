"""What is installed under the project's entry-point groups; the built-in ones are registered the same way.

Nothing is imported until it is asked for by name, and a plugin that fails to import stops nothing but its own use.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import cache, reduce
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

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


class Plugin(NamedTuple):
    """One entry point as found; `fault` says why it can't be used, "" when it can."""

    group: str
    name: str
    target: str
    package: str
    fault: str


class Entry(NamedTuple):
    """An entry point. `package`: the folder with what is known of its package, or the package's name."""

    group: str
    name: str
    value: str
    package: str

    def load(self) -> Any:
        """Raises whatever the module raises."""
        module, _, attributes = self.value.partition("[")[0].strip().partition(":")
        return reduce(getattr, attributes.split("."), import_module(module))


@cache
def _installed() -> list[Entry]:
    """Looks through every package of this host, once for all groups."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions")]
    eggs = any(str(place).endswith(".egg") for place in sys.path)
    if finders == [PathFinder] and not eggs and not any(map(os.path.isfile, sys.path)):
        return list(_in_folders())
    # There are packages elsewhere than in folders.
    from importlib.metadata import entry_points

    found = (entry for group in GROUPS for entry in entry_points(group=group))
    return [Entry(entry.group, entry.name, entry.value, entry.dist.name if entry.dist else "") for entry in found]


def _in_folders() -> Iterator[Entry]:
    """What importlib.metadata finds in the folders of sys.path. Importing that takes as long as the interpreter's own start."""
    seen = set()
    for folder in map(Path, sys.path):
        try:
            inside = os.listdir(folder)  # noqa: PTH208 - in the order that importlib.metadata has
        except OSError:
            continue
        for info in inside:
            package = re.sub(r"[-_.]+", "-", info.partition("-")[0]).lower()
            if info.endswith((".dist-info", ".egg-info")) and package not in seen:
                seen.add(package)
                yield from _entries(folder / info)


def _entries(info: Path) -> Iterator[Entry]:
    try:
        lines = (info / "entry_points.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    group = ""
    for line in map(str.strip, lines):
        name, is_entry, value = line.partition("=")
        if line.startswith("["):
            group = line.strip("[]")
        elif is_entry and not line.startswith("#"):
            yield Entry(group, name.strip(), value.strip(), str(info))


@cache
def _group(group: str) -> dict[str, tuple[Entry, ...]]:
    """The entry points of a group by name: one each, unless packages disagree about what a name means."""
    found: dict[str, tuple[Entry, ...]] = {}
    for entry in _installed():
        if entry.group != group:
            continue
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


def _package(entry: Entry) -> str:
    """The name of the entry's package."""
    from importlib.metadata import Distribution

    if not entry.package.endswith((".dist-info", ".egg-info")):
        return entry.package
    # The metadata of a package may be missing: its removal was interrupted.
    return Distribution.at(entry.package).name or Path(entry.package).name
