"""What a bench test says that it needs: the `needs` markers on it, on its class and on its module, joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from ..enumerators.bench_component import BenchComponent
from ..flashers.flasher import Capability
from ..transports import plugins

WHERE = ("emulated", "hardware")
CAPABILITIES = {
    "read": Capability.READ,
    "digest": Capability.DIGEST,
    "check": Capability.CHECK,
    "boot": Capability.BOOT,
}
KEYS = ("name", "group", "protocol")


def buses() -> list[str]:
    """The kinds of bus that are installed."""
    return plugins.names(plugins.TRANSPORTS)


def things() -> tuple[str, ...]:
    """All that a `needs` marker may name."""
    return (*buses(), "power", "version", *WHERE, *CAPABILITIES)


class Marked(Protocol):
    """A test, or what becomes tests."""

    @property
    def nodeid(self) -> str: ...

    def iter_markers(self, name: str | None = None) -> Iterator[pytest.Mark]: ...


@dataclass(frozen=True, slots=True)
class Needs:
    """`buses`: kinds of bus, any of which a component may be on; `wanted`: of each key the values, any of which will do."""

    things: frozenset[str]
    wanted: tuple[tuple[str, frozenset[str]], ...]

    @classmethod
    def of(cls, test: Marked) -> Needs:
        """Fails what is collected when a marker is wrong."""
        known = things()
        named: set[str] = set()
        wanted: list[tuple[str, frozenset[str]]] = []
        for mark in test.iter_markers("needs"):
            for thing in mark.args:
                _check(test, thing in known, f"{thing!r} is none of {', '.join(known)}")
                named.add(thing)
            for key, value in mark.kwargs.items():
                _check(test, key in KEYS, f"{key!r} is not a key; there are: {', '.join(KEYS)}")
                wanted.append((key, frozenset([value] if isinstance(value, str) else value)))
        return cls(frozenset(named), tuple(wanted))

    @property
    def buses(self) -> tuple[str, ...]:
        return tuple(kind for kind in buses() if kind in self.things)

    @property
    def capabilities(self) -> tuple[str, ...]:
        return tuple(name for name in CAPABILITIES if name in self.things)

    def fit(self, component: BenchComponent) -> bool:
        """Whether a test of a component is for this one: by its place and names, not by what it can do."""
        spec = component.entry.spec
        if self.buses and component.entry.flasher.bus_kind not in self.buses:
            return False
        if ("hardware" if component.emulated else "emulated") in self.things:
            return False
        return all(getattr(spec, key) in values for key, values in self.wanted)

    @property
    def kind(self) -> str:
        """The kind of hardware that is missing where nothing fits; "emulated": no hardware is missing."""
        if "emulated" in self.things:
            return "emulated"
        if len(self.buses) == 1:
            return self.buses[0]
        for key, values in self.wanted:
            for value in values:
                if key == "protocol" and value in plugins.names(plugins.FLASHERS):
                    return str(plugins.load(plugins.FLASHERS, value).bus_kind)
        return "hardware" if "hardware" in self.things else "components"

    def missing(self, bench: str, path: Path | None, *, emulated: bool = False) -> str:
        """Why nothing fits, and what to do, where no component of the bench does. `path`: None if no file was named.

        `emulated`: the bench has an emulated bus of a kind that fits.
        """
        described, lines = [], []
        for key, values in self.wanted:
            described.append(f"{key} {_either(sorted(values))}")
            lines.append(f'{key} = "{min(values)}"')
        what = ", ".join(described)
        places = [place for place in WHERE if place in self.things]
        article = f"no {places[0]} component" if len(places) == 1 else "no component"
        on = f" on a bus of kind {_either(self.buses, quoted=False)}" if self.buses else ""
        having = f" with {what}" if what else ""
        lacking = f"{article}{having}{on} on bench '{bench}'"
        if "emulated" in self.things and path and not emulated:
            return f"{lacking}; run it without --bench, or add a bus with emulated = true to {path}"
        if path is None or ("hardware" in self.things and not (what or on)):
            return f"{lacking}; name a bench file that has one: --bench FILE"
        wants_bus = self.buses and not (emulated and "emulated" in self.things)
        bus = f'a [bus.NAME] with kind = "{self.buses[0]}" and ' if wants_bus else ""
        keys = f" with {', '.join(lines)}" if lines else ""
        remedy = f"add {bus}a [[component]]{keys} to {path}, or name another: --bench FILE"
        return f"{lacking}; {remedy}"


def _either(values: Sequence[str], *, quoted: bool = True) -> str:
    return " or ".join(f"'{value}'" if quoted else value for value in values)


def _check(test: Marked, holds: Any, fault: str) -> None:
    if not holds:
        pytest.fail(f"{test.nodeid}: needs: {fault}", pytrace=False)
