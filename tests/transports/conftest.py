"""The clocks that tests of a clock run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock


@pytest.fixture(params=["system", "simulated", "seeded"])
def either(request: pytest.FixtureRequest) -> Iterator[clock.Clock]:
    """The system's clock, and a simulated one without and with a seed."""
    if request.param == "system":
        yield clock.current()
        return
    with clock.use(SimulatedClock(7 if request.param == "seeded" else None)) as used:
        yield used


@pytest.fixture
def simulated() -> Iterator[SimulatedClock]:
    used = SimulatedClock()
    with clock.use(used):
        yield used
