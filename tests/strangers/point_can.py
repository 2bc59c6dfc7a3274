"""A pytest plugin for python-can's suite: its interface "virtual" is an emulated wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import can.interfaces
import pytest
from proxyflash.emulators import registry as wires
from proxyflash.emulators.can.python_can import EmulatedCanBus
from proxyflash.emulators.can.wire import CanWire

MADE: list[CanWire] = []


class PointedBus(EmulatedCanBus):
    """A wire that isn't there yet is made, as a virtual channel is, with a node that acknowledges where a bus is alone."""

    def __init__(self, channel: Any = None, **settings: Any) -> None:
        if wires.find(str(channel)) is None:
            MADE.append(CanWire(str(channel), bitrate=500_000, data_bitrate=2_000_000, pace=0))
            MADE[-1].attach("acknowledges", lambda message: None)
        super().__init__(channel=str(channel), **settings)


can.interfaces.BACKENDS["virtual"] = (__name__, PointedBus.__name__)


@pytest.fixture(autouse=True)
def closed_wires() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()
