"""A deadline is a point in time that only comes nearer."""

from __future__ import annotations

import math
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus, CanId
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.isotp.channel import IsoTpAddress
from proxyflash.transports.isotp.opening import IsoTpChannel
from proxyflash.transports.serial.port import SerialPort


def test_it_comes_nearer_and_passes() -> None:
    deadline = Deadline.after(1000)
    first = deadline.remaining
    assert 0 < deadline.remaining <= first <= 1000
    assert not deadline.expired


def test_one_that_has_passed_leaves_nothing() -> None:
    for deadline in (Deadline.after(0), Deadline.after(-5), Deadline(0.0)):
        assert deadline.expired
        assert deadline.remaining == 0.0


def test_it_is_on_the_monotonic_clock() -> None:
    before = clock.monotonic()
    at = Deadline.after(5).at
    assert before + 5 <= at <= clock.monotonic() + 5


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_sooner_is_never_later(seconds: float, other: float) -> None:
    deadline = Deadline.after(seconds)
    sooner = deadline.sooner(other)
    assert sooner.at <= deadline.at
    assert sooner.at <= clock.monotonic() + other


def test_a_deadline_that_never_comes_is_shortened_all_the_same() -> None:
    assert Deadline(math.inf).sooner(1.0).remaining <= 1.0


@pytest.mark.simulated_time
def test_a_plain_number_is_seconds_from_now() -> None:
    began = clock.monotonic()
    assert began + 5 <= Deadline.of(5).at <= clock.monotonic() + 5
    wire, line = CanWire(uuid.uuid4().hex, pace=0), UartWire(uuid.uuid4().hex, pace=0)
    bus = CanBus.open("b", {"interface": "proxyflash", "channel": wire.channel})
    port = SerialPort.open("s", {"url": line.host_settings()["url"], "baudrate": 115_200})
    channel = bus.channel(CanId(1), CanId(2))
    isotp = IsoTpChannel.open(bus, IsoTpAddress(request=CanId(3), response=CanId(4)))
    began = clock.monotonic()
    assert (channel.recv(1), isotp.recv(0.5), port.read_some(1), port.until_quiet(1, 2)) == (None, None, b"", b"")
    assert clock.monotonic() - began == pytest.approx(3.5, abs=0.1)
    port.write(b"x", 1)
    for opened in (isotp, channel, bus, port, wire, line):
        opened.close()


@pytest.mark.parametrize("value", [None, "1", True, math.nan, math.inf])
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="seconds from now"):
        Deadline.of(value)
