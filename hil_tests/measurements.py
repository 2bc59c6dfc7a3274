"""What a bench test measures: a number with its unit and its limits, kept in the JUnit file."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ..transports.plain import plain, word


@dataclass(frozen=True, slots=True)
class Measurement:
    """`low`, `high`: the limits, which may be reached; None: there is none."""

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None

    @property
    def fault(self) -> str:
        """Which limit it missed, in words; "" if it is within. Not-a-number is within none."""
        if self.low is not None and not self.value >= self.low:
            return f"{self.name} is {self.value:g} {self.unit}, below its limit of {self.low:g} {self.unit}"
        if self.high is not None and not self.value <= self.high:
            return f"{self.name} is {self.value:g} {self.unit}, above its limit of {self.high:g} {self.unit}"
        return ""


class Measurements:
    """Those of one test. `properties`: its user properties, which pytest writes into the JUnit file."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties
        self.taken: list[Measurement] = []

    def add(
        self, name: str, value: float, unit: str, low: float | None = None, high: float | None = None
    ) -> Measurement:
        """Notes a measurement; fails the test at once when it is outside of its limits."""
        __tracebackhide__ = True
        taken = Measurement(name, value, unit, low, high)
        self.taken.append(taken)
        told = {"": value, ".unit": unit, ".low": low, ".high": high}
        self._properties += [
            (word(f"measurement.{name}{key}"), word(item) if isinstance(item, str) else item)
            for key, item in told.items()
            if item is not None
        ]
        if taken.fault:
            pytest.fail(plain(taken.fault))
        return taken
