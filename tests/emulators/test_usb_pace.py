"""The emulated USB bus takes the time that its bytes take: not less after pauses, not more for late wake-ups."""

from __future__ import annotations

import uuid

import pytest
from proxyflash.emulators.usb.device import SETUP, Descriptors, InterfaceDescriptor, UsbFunction
from proxyflash.emulators.usb.wire import UsbWire
from proxyflash.transports import clock

DOWNLOAD = SETUP.pack(0x21, 1, 0, 0, 1024)
GET_DESCRIPTOR = SETUP.pack(0x80, 6, 0x0100, 0, 18)


def plugged(wire: UsbWire) -> UsbFunction:
    interface = InterfaceDescriptor(0, 0, 0xFE, 1, 2, "", b"")
    descriptors = Descriptors(0x1209, 0x0001, 0x0100, "", "", "", (interface,))
    function = UsbFunction(descriptors, lambda *request: b"", lambda: None)
    wire.plug(wire.new_port(), function)
    return function


def test_a_bus_that_paused_has_no_time_saved_up() -> None:
    wire = UsbWire(uuid.uuid4().hex)
    function = plugged(wire)
    paused = 0.0
    began = clock.monotonic()
    for _ in range(50):
        wire.control(wire.ports[0], function, DOWNLOAD, bytes(1024))
        rests = clock.monotonic()
        clock.sleep(0.0005)
        paused += clock.monotonic() - rests
    took = clock.monotonic() - began
    wire.close()
    # USB 2.0, tables 5-2 and 5-9: 45 bytes of overhead, 13 for each of 15 further packets, 1024 of data, at 12 Mbit/s.
    assert took >= paused + 50 * (45 + 15 * 13 + 1024) * 8 / 12e6


def test_a_late_wake_up_does_not_slow_the_bus_down(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = UsbWire(uuid.uuid4().hex)
    function = plugged(wire)
    sleeps: list[float] = []

    sleep = clock.sleep

    def oversleep(seconds: float) -> None:
        sleeps.append(seconds)
        sleep(seconds + 0.005)

    monkeypatch.setattr(clock, "sleep", oversleep)
    for _ in range(50):
        wire.control(wire.ports[0], function, GET_DESCRIPTOR, b"")
    wire.close()
    # A transfer takes 42 us: after the first wake-up, 5 ms late, the next 49 are over already.
    assert len(sleeps) == 1
