"""Conditions before an update or a step: what must hold on the bench, asked for at that moment.

    {"supply": {"component": "left-motor", "min": 11.5, "max": 14.8}}    volts, by `volts` of the bench's [power.left-motor]
    {"busLoad": {"bus": "powertrain", "max": 40, "seconds": 1}}          percent of the time, measured on a CAN bus
    {"check": "parked"}                                                  the bench file's [check.parked]
    {"version": {"component": "gateway", "min": "2.1", "below": "3.0"}}  of another component: a dependency

Without `component` the one in context is meant. A manifest names checks and never brings a command of its own: which
commands the host runs is its maintainer's to say. A fault that keeps a condition from being looked at is as good as a
condition that does not hold: the reason says which it was.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ...enumerators import power
from ...enumerators.bench import Bench
from ...enumerators.benchfile.validation import first_fault
from ...enumerators.commands import CommandFailed
from ...enumerators.component import Presence
from ...flashers.errors import NoResponse
from ...transports import plugins
from ...transports.errors import ProxyflashError
from ...transports.plain import meant
from ...transports.transport import Transport
from ..errors import ConditionFailed, ManifestField
from .versions import key, older

NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?", re.ASCII)
MOST_SECONDS = 60.0
"""How long a bus load may be measured."""


def _version(text: str) -> str:
    if key(text) is None:
        raise ValueError("no version: numbers with dots between")
    return text


Text = Annotated[str, Field(min_length=1, max_length=64)]
VersionText = Annotated[str, Field(max_length=64), AfterValidator(_version)]
Volts = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]


class Condition(BaseModel, ABC):
    """One condition. `component`: which component it is about; None: the step's own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
    component: Text | None = None

    @abstractmethod
    def missing(self, bench: Bench) -> str:
        """What is missing in the bench file for it, with nothing asked yet; "": nothing."""

    @abstractmethod
    def reason(self, bench: Bench, component: str | None) -> str:
        """Why it does not hold now; "": it holds. `component`: the one in context. May raise ProxyflashError."""

    def failed(self, bench: Bench, component: str | None) -> str:
        """Why it does not hold now, or can't be asked; "": it holds. Raises what keeps it from being looked at."""
        return self.missing(bench) or self.reason(bench, component)


@dataclass(frozen=True, slots=True)
class BenchConditions:
    """Asks conditions on a bench. `component`: the one in context."""

    bench: Bench
    component: str | None = None

    def missing(self, condition: Condition) -> str:
        """What is missing in the bench file for it, with nothing asked yet; "": nothing."""
        return condition.missing(self.bench)

    def demand(self, conditions: Iterable[Condition]) -> None:
        """Raises ConditionFailed for the first that doesn't hold."""
        for condition in conditions:
            cause: ProxyflashError | None = None
            try:
                reason = condition.failed(self.bench, self.component)
            except ProxyflashError as error:
                cause, reason = error, f"{error.code} {error.cause}"
            if reason:
                raise ConditionFailed(reason, component=self.component) from cause


class Supply(Condition):
    """The supply's voltage lies between `min` and `max`."""

    min: Volts | None = None
    max: Volts | None = None

    def missing(self, bench: Bench) -> str:
        if self.component is None:
            return ""
        return _no_volts(bench, self.component)

    def reason(self, bench: Bench, component: str | None) -> str:
        name = self.component or component
        if name is None:
            return "supply: it names no component, and none is in context"
        if lacking := _no_volts(bench, name):
            return lacking
        command = bench.file.spec.power[name].volts
        found = power.volts(command, commands=bench.commands, component=name)
        return _outside(f"the supply of {name} is {found:g} V", found, self.min, self.max)


class BusLoad(Condition):
    """No more than `max` percent of the time are frames on a CAN bus, over `seconds`."""

    bus: Text
    max: Annotated[float, Field(ge=0, le=100)]
    seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 1.0

    def missing(self, bench: Bench) -> str:
        spec = bench.file.spec.bus.get(self.bus)
        if spec is None:
            return f"busLoad: the bench file has no bus {self.bus!r}{meant(self.bus, bench.file.spec.bus)}"
        why: str = plugins.load(plugins.TRANSPORTS, spec.kind).no_load(self.bus, spec.settings)
        return f"busLoad: {why}" if why else ""

    def reason(self, bench: Bench, component: str | None) -> str:
        bus: Transport = bench.transport(self.bus)
        load = bus.load(self.seconds)
        if load is None:
            return f"busLoad: the bit rate of {self.bus} is not known"
        return _outside(f"the load of {self.bus} is {100 * load:.1f} %", 100 * load, None, self.max)


class Check(Condition):
    """The command of the bench file's [check.NAME] says so."""

    check: Text

    def missing(self, bench: Bench) -> str:
        known = ", ".join(bench.file.spec.check) or "none"
        return (
            ""
            if self.check in bench.file.spec.check
            else f"the bench file has no [check.{self.check}]{meant(self.check, bench.file.spec.check)}; it has: {known}"
        )

    def reason(self, bench: Bench, component: str | None) -> str:
        spec = bench.file.spec.check[self.check]
        try:
            said = bench.commands.run(spec.command)
        except CommandFailed as error:
            return f"check {self.check}: {error}"
        shown = said.strip()[-80:]
        if spec.match and not re.search(spec.match, said):
            return f"check {self.check}: {shown!r} does not match {spec.match!r}"
        if spec.min is None and spec.max is None:
            return ""
        number = NUMBER.search(said)
        if number is None:
            return f"check {self.check}: {shown!r} has no number"
        return _outside(f"check {self.check}: {number[0]}", float(number[0]), spec.min, spec.max)


class Version(Condition):
    """The component's version is `min` or later, and before `below`."""

    min: VersionText | None = None
    below: VersionText | None = None

    def missing(self, bench: Bench) -> str:
        if self.component is None or self.component in bench.file.names:
            return ""
        return f"version: the bench file has no component {self.component!r}{meant(self.component, bench.file.names)}"

    def reason(self, bench: Bench, component: str | None) -> str:
        name = self.component or component
        if name is None:
            return "version: it names no component, and none is in context"
        found = bench.find(name).look()
        if found.presence is Presence.ABSENT:
            raise NoResponse(f"{name} does not answer")
        if not found.version:
            return f"{name} does not tell its version"
        if key(found.version) is None:
            return f"{name} has {found.version!r}, which can't be compared with other versions"
        if self.min is not None and older(found.version, self.min):
            return f"{name} has {found.version}, and {self.min} or later is asked for"
        if self.below is not None and not older(found.version, self.below):
            return f"{name} has {found.version}, and one before {self.below} is asked for"
        return ""


KINDS: dict[str, type[Condition]] = {"supply": Supply, "busLoad": BusLoad, "version": Version}


def parse(raw: Any, place: str) -> Condition:
    """A condition from JSON or TOML. Raises ManifestField, which names `place`."""
    if not isinstance(raw, dict) or len(raw) != 1:
        raise ManifestField(f"{place}: a condition is an object with one of the keys {', '.join((*KINDS, 'check'))}")
    ((kind, value),) = raw.items()
    if kind == "check":
        kind_class: type[Condition] = Check
        value = {"check": value}
    elif kind in KINDS:
        kind_class = KINDS[kind]
    else:
        kinds = (*KINDS, "check")
        raise ManifestField(
            f"{place}.{kind}: the conditions that are known here are {', '.join(kinds)}{meant(kind, kinds)}"
        )
    try:
        found = kind_class.model_validate(value)
    except ValidationError as error:
        fault = first_fault(error)
        where = f"{place}.check" if kind == "check" else fault.at(place, kind)
        near = meant(str(fault.place[-1]), kind_class.model_fields) if fault.kind == "extra_forbidden" else ""
        raise ManifestField(f"{where}: {fault.message}{near}") from None
    bounds = [value.get(name) for name in ("min", "max", "below")] if isinstance(value, dict) else []
    if kind in ("supply", "version") and all(bound is None for bound in bounds):
        raise ManifestField(
            f"{place}.{kind}: it asks for nothing: give min, or {'max' if kind == 'supply' else 'below'}"
        )
    return found


def _no_volts(bench: Bench, name: str) -> str:
    spec = bench.file.spec.power.get(name)
    if spec is None or not spec.volts:
        return (
            f"supply: the bench file has no volts in [power.{name}], the command that prints them"
            f"{meant(name, bench.file.spec.power) if spec is None else ''}"
        )
    return ""


def _outside(told: str, value: float, low: float | None, high: float | None) -> str:
    if low is not None and value < low:
        return f"{told}, below {low:g}"
    if high is not None and value > high:
        return f"{told}, above {high:g}"
    return ""
