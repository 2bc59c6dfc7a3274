"""The component record of a component enumerator, and how components are selected.

Azure Device Update's agent takes this record from a component enumerator (its contract, version 1.0):
what a builder knows (name, group) joined with what only the part knows (serial, version, state).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import Any

from ..transports import json_text
from ..transports.plain import word
from .errors import SelectorWrong

MOST_SELECTOR = 1 << 16
"""Characters of a selector."""


class Presence(StrEnum):
    """What was found of a component."""

    OK = "ok"
    BOOTLOADER = "bootloader"
    """It sits in its bootloader: recoverable, flash it."""
    ABSENT = "absent"
    UNKNOWN = "unknown"
    """There is no way to ask it that would not disturb its work."""


@dataclass(frozen=True, slots=True)
class Component:
    """One updatable component. `id` is its serial number where it has reported one, else its name: never a port.

    `version`: "" where it isn't known. `where`: its bus, protocol and address, for a person to read.
    """

    id: str
    name: str
    group: str
    manufacturer: str
    model: str
    version: str
    presence: Presence
    bus: str
    protocol: str
    where: str
    properties: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The component as the enumerator contract has it: all values strings; version given in both places."""
        properties = dict(self.properties) | {"status": self.presence.value}
        if self.version:
            properties["version"] = self.version
        return {
            "id": self.id,
            "name": self.name,
            "group": self.group,
            "manufacturer": self.manufacturer,
            "model": self.model,
            "version": self.version,
            "properties": properties,
        }


@dataclass(frozen=True, slots=True)
class Unlisted:
    """Something found that isn't in the bench file: a component of `bus`, or, where that is "", a bus.

    `body`: its keys, as lines of TOML, without its name.
    """

    bus: str
    title: str
    name: str
    body: str

    @property
    def lines(self) -> str:
        """What to paste into the file."""
        head = f'[[component]]\nname = "{self.name}"' if self.bus else f"[bus.{self.name}]"
        return f"{head}\n{self.body}"


def distinct(found: Iterable[Unlisted], buses: Iterable[str], components: Iterable[str]) -> list[Unlisted]:
    """The same, with names that neither each other nor the bench file has, and plain titles."""
    taken = {False: set(buses), True: set(components)}
    renamed = []
    for item in found:
        names = taken[bool(item.bus)]
        name = next(name for name in _numbered(item.name) if name not in names)
        names.add(name)
        renamed.append(replace(item, name=name, title=word(item.title)))
    return renamed


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def parse_selector(text: str) -> dict[str, str]:
    """A selector from JSON. Raises SelectorWrong unless it is an object whose values are all strings."""
    try:
        selector = json_text.parse(text, most=MOST_SELECTOR)
    except ValueError as error:
        raise SelectorWrong(f"the selector is not JSON: {error}") from error
    if not isinstance(selector, dict) or not all(isinstance(value, str) for value in selector.values()):
        raise SelectorWrong("a selector is a JSON object of name-value pairs, all strings")
    return selector


def matches(component: Component, selector: Mapping[str, str]) -> bool:
    """Whether every pair of the selector equals the component's value of that name, case-sensitively.

    A value is looked for at the record's top level, then among its properties. A key that the component does not have
    matches nothing, nor does an empty value. An empty selector matches every component.
    """
    values = selectable(component)
    return all(bool(value) and values.get(key) == value for key, value in selector.items())


def selectable(component: Component) -> dict[str, str]:
    """What a selector may name of a component, and what the component has for it."""
    record = component.record()
    found: dict[str, str] = record["properties"]
    return found | {key: value for key, value in record.items() if isinstance(value, str)}


def select(components: Iterable[Component], selectors: Iterable[Mapping[str, str]]) -> list[Component]:
    """The components that match any of the selectors, in their own order."""
    wanted = list(selectors)
    return [component for component in components if any(matches(component, selector) for selector in wanted)]


def document(components: Iterable[Component]) -> str:
    """The JSON document that a component enumerator answers with."""
    return json.dumps({"components": [component.record() for component in components]}, indent=2)
