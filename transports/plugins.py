"""What is installed under the project's entry-point groups; the built-in ones are registered the same way.

Nothing is imported until it is asked for by name, and a plugin that fails to import stops nothing but its own use.

Entry points are read from the packages' own files. importlib.metadata finds the same ones, and takes longer to import than all
of these files to read; it finds what only it can: packages in zip files, and those that another program's finder knows.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial, reduce
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
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


Claims = dict[str, Callable[[], str]]
"""What a name stands for, as "module:Class", and which package says so: more than one where packages disagree."""


@cache
def _installed() -> dict[str, dict[str, Claims]]:
    """The entry points of this project's groups, by group and name."""
    found: dict[str, dict[str, Claims]] = {group: {} for group in GROUPS}
    for text, package in _registrations():
        names: dict[str, Claims] = {}
        for line in text.splitlines() if "[proxyflash." in text else ():
            line = line.strip()
            if line.startswith("["):
                names = found.get(line.strip("[]"), {})
            elif line and not line.startswith("#"):
                name, _, value = line.partition("=")
                names.setdefault(name.strip(), {}).setdefault(value.strip(), package)
    return found


def _registrations() -> Iterator[tuple[str, Callable[[], str]]]:
    """entry_points.txt and the name of each package of this host; the first one of a name counts, as in an import."""
    seen: set[str] = set()
    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        yield from _by_metadata(sys.path, seen)
        return
    for folder in sys.path:
        try:
            children = list(os.scandir(folder or "."))
        except NotADirectoryError:
            yield from _by_metadata([folder], seen)
            continue
        except OSError:
            continue
        for child in children:
            name, _, kind = child.name.rpartition(".")
            if kind in ("dist-info", "egg-info") and not _is_known(name.partition("-")[0], seen):
                with suppress(OSError):
                    text = Path(child, "entry_points.txt").read_text(encoding="utf-8", errors="replace")
                    yield text, partial(_name_in, child.path)


def _by_metadata(path: list[str], seen: set[str]) -> Iterator[tuple[str, Callable[[], str]]]:
    from importlib.metadata import distributions

    for found in distributions(path=path):
        if not _is_known(found.name, seen):
            yield found.read_text("entry_points.txt") or "", partial(getattr, found, "name")


def _is_known(package: str, seen: set[str]) -> bool:
    """Whether a package of this name was seen before, however the name is written. From now on it was."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    known = name in seen
    seen.add(name)
    return known


def _name_in(path: str) -> str:
    """The package's name as its makers write it."""
    from importlib.metadata import Distribution

    return Distribution.at(path).name


def names(group: str) -> list[str]:
    """The names registered in a group, sorted; imports none of them."""
    return sorted(_installed()[group])


@cache
def load(group: str, name: str) -> type[Any]:
    """The class registered as `name`.

    Raises PluginUnknown when no package registers it, PluginBroken when its module can't be imported or packages
    disagree about it.
    """
    kind = "discovery" if group == DISCOVERIES else group.removeprefix("proxyflash.").removesuffix("s")
    claims = _installed()[group].get(name, {})
    if not claims:
        known = ", ".join(names(group)) or "none"
        raise PluginUnknown(f"no {kind} is called {name!r}{meant(name, names(group))}; there are: {known}")
    if len(claims) > 1:
        said = " and ".join(f"{package()} ({value})" for value, package in claims.items())
        raise PluginBroken(f"the {kind} {name!r} is claimed by {said}", remedy="Uninstall one of these packages.")
    [value] = claims
    try:
        module, _, path = value.partition("[")[0].partition(":")
        loaded = reduce(getattr, path.strip().split("."), import_module(module.strip()))
    except Exception as error:
        raise PluginBroken(f"the {kind} {name!r} ({value}) can't be loaded: {error}") from error
    if not isinstance(loaded, type):
        raise PluginBroken(f"the {kind} {name!r} ({value}) is no class")
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
            claims = _installed()[group][name].items()
            found += [Plugin(group, name, value, package(), fault) for value, package in claims]
    return found
