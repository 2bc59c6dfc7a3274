"""`PartsOfRun`: the parts of a bench over a run: each made ready for a test that is for it, and what broke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from ..enumerators.errors import PowerFailed
from ..enumerators.target import TargetFile
from ..flashers.errors import NoResponse
from ..flashers.flasher import Capability
from ..transports import plugins
from ..transports.errors import AdapterAbsent, AdapterGone, ProxyflashError, causes
from ..transports.plain import word
from .needs import CAPABILITIES, Needs
from .parts import Broken, NotThere, Part, PartLost
from .verdicts import Missing, component_of, fail, tell, told

HARDWARE_FAILED = (AdapterAbsent, AdapterGone, PowerFailed)
"""What no test can help: the part is broken from then on."""


class PartsOfRun:
    """`bench`: its name. `make`: makes the part of a component when it is first asked for. `named`: whether the command line
    names the one part, which must be there then."""

    def __init__(self, bench: str, make: Callable[[str], Part], missing: Missing, *, named: bool = False) -> None:
        self.failed: set[str] = set()
        """The tests that failed."""
        self._bench = bench
        self._make = make
        self._named = named
        self._missing = missing
        self._parts: dict[str, Part] = {}
        self._unusable: Broken | None = None

    def of(self, name: str) -> Part:
        if name not in self._parts:
            self._parts[name] = self._make(name)
        return self._parts[name]

    def need_unbroken(self, names: list[str]) -> None:
        if self._unusable is not None:
            self._missing.report(
                "bench", f"bench '{self._bench}' is out of use since {self._unusable.test}: {self._unusable.cause}"
            )
        for name in names:
            broken = self._parts[name].broken if name in self._parts else None
            if broken is not None:
                self._missing.report("broken", f"'{name}' is broken since {broken.test}: {broken.cause}")

    def need_capabilities(self, name: str, needs: Needs, item: pytest.Item) -> None:
        for wanted in needs.capabilities:
            part = self.of(name)
            able = Capability.NONE
            try:
                able = part.capabilities() & CAPABILITIES[wanted]
            except (PartLost, ProxyflashError) as error:
                if isinstance(error, NoResponse) and not part.has_answered:
                    self._absent(part, f"'{name}' on bench '{self._bench}' has not answered so far: {told(error)}")
                self._lost(part, item, error)
            if not able:
                self._missing.report(
                    "capability", f"the bootloader of '{name}' on bench '{self._bench}' can't {wanted}"
                )

    def need_version(self, name: str, needs: Needs) -> None:
        """Where nobody gave the question for it: the part may run, and can't say which version."""
        component = self.of(name).component
        if "version" in needs.things and not component.can_be_asked:
            file = component.bench.file
            is_target = isinstance(file, TargetFile)
            remedy = (
                "add version.send and version.match to the target"
                if is_target
                else f"add version = {{send = ..., match = ...}} to its component in {file.path}"
            )
            self._missing.report(
                "version", f"version unknown: '{name}' on bench '{self._bench}' has no question; {remedy}"
            )

    def make_ready(self, name: str, item: pytest.Item, *, wanted: bool) -> None:
        part = self.of(name)
        if not wanted and (part.broken or part.absent):
            return
        try:
            found = part.make_ready()
        except (NotThere, PartLost, ProxyflashError) as error:
            if part.seen is None and isinstance(error, NotThere | AdapterAbsent):
                part.absent = True
                if not wanted:
                    return
                if self._named:
                    self._break(part, item.nodeid, error)
                self._absent(part, f"'{name}' is absent on bench '{self._bench}': {told(error)}")
            self._lost(part, item, error, wanted=wanted)
            return
        part.test = item.nodeid
        if not wanted:
            return
        properties = {
            "component": name,
            "protocol": found.protocol,
            "serial": found.properties.get("serial", ""),
            "manufacturer": found.manufacturer,
            "model": found.model,
            "version": found.version,
            "state": found.presence.value,
        }
        alone = component_of(item) is not None
        tell(item, {key if alone else f"{name}.{key}": word(value) for key, value in properties.items()})

    def _absent(self, part: Part, reason: str) -> NoReturn:
        """A part that the command line names must be there; one of a bench file is skipped unless it is required."""
        if self._named:
            fail(reason)
        self._missing.report(part.component.entry.flasher.bus_kind, reason, absent=part.name)

    def _lost(self, part: Part, item: pytest.Item, error: Exception, *, wanted: bool = True) -> None:
        """A part that can't be made ready any more is reported once: by the test that lost it, or, if that passed, here."""
        self._break(part, part.test or item.nodeid, error)
        if part.test not in self.failed:
            since = f" since {part.test}" if part.test else ""
            fail(f"'{part.name}' is broken{since}: {told(error)}")
        if wanted:
            self.need_unbroken([part.name])

    @contextmanager
    def out_of_use(self, item: pytest.Item) -> Iterator[None]:
        """Of the bench as a whole: another process has it, its state can't be kept."""
        try:
            yield
        except ProxyflashError as error:
            self._unusable = Broken(item.nodeid, told(error))
            fail(f"bench '{self._bench}': {told(error)}")

    def _break(self, part: Part, test: str, error: Exception) -> None:
        """An adapter that is gone takes all parts of its bus with it, unless each has its own way."""
        names = {part.name}
        spec = part.component.entry.spec
        kind = part.component.entry.flasher.bus_kind
        if isinstance(error, AdapterAbsent | AdapterGone) and plugins.load(plugins.TRANSPORTS, kind).shared_wire:
            entries = part.component.bench.file.entries.values()
            names |= {entry.spec.name for entry in entries if entry.spec.bus == spec.bus}
        for name in names:
            other = self.of(name)
            other.broken = other.broken or Broken(test, told(error))

    def look_for_cause(self, item: pytest.Item, error: BaseException | None) -> None:
        """Of a test that failed: whether the hardware did."""
        self.failed.add(item.nodeid)
        failed = next((cause for cause in causes(error) if isinstance(cause, HARDWARE_FAILED)), None)
        if failed is not None:
            name = failed.component or component_of(item)
            if name in self._parts:
                self._break(self._parts[name], item.nodeid, failed)

    def make_safe(self) -> list[str]:
        """All supplies on, all parts running; what could not be done, in words."""
        # Supplies first, all of them: a worker of pytest-xdist is killed when this takes too long.
        steps = [(part, step) for step in (Part.supply, Part.bring_back) for part in self._parts.values()]
        return [f"'{part.name}' is left as it is: {fault}" for part, step in steps if (fault := step(part))]
