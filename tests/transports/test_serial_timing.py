"""How long bytes take on a line, when a line counts as quiet, how often a read of many bytes wakes up. On simulated time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from proxyflash.emulators.serial.line import Line
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import SerialTimeout
from proxyflash.transports.serial import port as port_module
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


@pytest.mark.parametrize(
    "line", [Line(115_200), Line(9600, 8, "E"), Line(57_600, 7, "O", 2), Line(2400, 5, "N", 1.5)], ids=str
)
def test_wire_seconds_counts_each_bit_of_a_frame(wire: UartWire, line: Line) -> None:
    keys = {"baudrate": line.baudrate, "bytesize": line.bytesize, "parity": line.parity, "stopbits": line.stopbits}
    with SerialPort.open("part", {**wire.host_settings(), **keys}) as port:
        assert port.wire_seconds(100) == pytest.approx(100 * line.frame_seconds)


def test_wire_seconds_are_those_of_the_line_as_it_is_set_now(port: SerialPort) -> None:
    port.set_line(baudrate=9600, parity="E")
    assert port.wire_seconds(1) == pytest.approx(11 / 9600)


def test_a_quiet_line_is_listened_to_for_the_quiet_time(port: SerialPort) -> None:
    began = clock.monotonic()
    assert port.until_quiet(0.05, Deadline.after(1.0)) == b""
    assert clock.monotonic() - began == pytest.approx(0.05, abs=1e-3)


def test_what_comes_with_short_pauses_is_heard_to_its_end(wire: UartWire, port: SerialPort) -> None:
    def talk() -> None:
        for letter in b"ready":
            wire.device.send(bytes([letter]))
            clock.sleep(0.03)

    talking = clock.Thread(target=talk, name="part")
    talking.start()
    assert port.until_quiet(0.05, Deadline.after(1.0)) == b"ready"
    talking.join()


def test_a_line_that_never_falls_silent_is_left_at_the_deadline(
    wire: UartWire, port: SerialPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_module, "DRAIN_LIMIT", 100)
    wire.device.send(b"U" * 5000)
    began = clock.monotonic()
    assert port.until_quiet(0.05, Deadline.after(0.2)) == b"U" * 100
    assert clock.monotonic() - began == pytest.approx(0.2, abs=1e-3)


# How often a read of many bytes wakes up, and that it ends no later for it.


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
