"""How often a read of many bytes wakes up, and that it ends no later for it. On simulated time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from proxyflash.emulators.serial.line import Line
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import SerialTimeout
from proxyflash.transports.serial.port import SerialPort

pytestmark = pytest.mark.simulated_time

DATA = bytes(range(256))


@pytest.fixture
def wire() -> Iterator[UartWire]:
    wire = UartWire(uuid.uuid4().hex)
    yield wire
    wire.close()


@pytest.fixture
def port(wire: UartWire) -> Iterator[SerialPort]:
    with SerialPort.open("part", {**wire.host_settings(), "baudrate": 115_200}) as port:
        wire.device.line = Line(115_200)
        yield port


@pytest.fixture
def looks(port: SerialPort, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that each look at the line found."""
    found: list[int] = []
    receive = port._line.receive

    def counted(limit: int, deadline: Deadline) -> bytes:
        data = receive(limit, deadline)
        found.append(len(data))
        return data

    monkeypatch.setattr(port._line, "receive", counted)
    return found


def test_a_read_of_many_bytes_wakes_up_few_times(wire: UartWire, port: SerialPort, looks: list[int]) -> None:
    began = clock.monotonic()
    wire.device.send(DATA)
    assert port.read_exactly(256, Deadline.after(1.0)) == DATA
    assert clock.monotonic() - began == pytest.approx(256 * 10 / 115_200, abs=1e-4)
    assert len(looks) < 40


def test_bytes_that_come_faster_than_the_rate_are_not_waited_for(
    wire: UartWire, port: SerialPort, looks: list[int]
) -> None:
    """A USB device has a rate in name alone: 256 bytes come in 2.6 ms, at 1200 bit/s they would take two seconds."""
    wire.is_usb = True
    port.set_line(baudrate=1200)
    began = clock.monotonic()
    wire.device.send(DATA)
    assert port.read_exactly(256, Deadline.after(1.0)) == DATA
    assert clock.monotonic() - began == pytest.approx(256 * 10e-6, abs=1e-4)


def test_a_pause_amid_the_bytes_costs_no_more_than_itself(wire: UartWire, port: SerialPort, looks: list[int]) -> None:
    began = clock.monotonic()
    wire.device.send(DATA[:20])
    wire.device.send(DATA[20:], at=began + 0.5)
    assert port.read_exactly(256, Deadline.after(1.0)) == DATA
    assert clock.monotonic() - began == pytest.approx(0.5 + 236 * 10 / 115_200, abs=1e-3)
    assert len(looks) < 60


def test_the_deadline_holds(wire: UartWire, port: SerialPort, looks: list[int]) -> None:
    began = clock.monotonic()
    wire.device.send(DATA)
    with pytest.raises(SerialTimeout) as caught:
        port.read_exactly(256, Deadline.after(0.01))
    assert clock.monotonic() - began == pytest.approx(0.01, abs=2e-4)
    assert 100 < len(caught.value.received) <= 115
