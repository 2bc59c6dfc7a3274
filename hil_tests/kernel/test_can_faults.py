"""What goes wrong on a CAN interface while a part is flashed over it: each has its own error, soon enough, leaves no
thread and no descriptor, and the next run works.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import can
import pytest
from proxyflash.flashers.errors import OperationFailed
from proxyflash.hil_tests.kernel.can_lab import NORMAL, program, soon
from proxyflash.hil_tests.kernel.conftest import ip
from proxyflash.hil_tests.kernel.uds_lab import REQUEST, RESPONSE, InWrite, Radar, flash, profile, socketcan
from proxyflash.hil_tests.kernel.waiting import LONG
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import BusOff, CanGone, IsoTpContested, IsoTpTimeout
from proxyflash.transports.isotp.opening import IsoTpChannel, IsoTpOptions

backends = pytest.mark.parametrize("backend", ["kernel", "user"])
BUS_OFF = can.Message(arbitration_id=0x40, is_error_frame=True, data=bytes(8), is_extended_id=False)
"""As a driver says it (Linux, include/uapi/linux/can/error.h: CAN_ERR_BUSOFF)."""


@pytest.fixture
def radar(vcan: str, tmp_path: Path) -> Iterator[Radar]:
    made = Radar(tmp_path, socketcan(vcan))
    yield made
    made.close()


def desk(interface: str) -> CanBus:
    return CanBus.open("powertrain", {"interface": "socketcan", "channel": interface})


def works_again(interface: str, radar: Radar) -> None:
    with desk(interface) as bus:
        assert flash(bus, profile()).verified
    assert radar.runs == "1.5.0"


@backends
def test_the_interface_goes_down(vcan: str, radar: Radar, backend: str) -> None:
    asked = profile(backend=backend)
    down = InWrite(lambda: ip("link", "set", vcan, "down"))
    with desk(vcan) as bus, pytest.raises(CanGone) as caught:
        flash(bus, asked, down)
    # The driver reports it: no answer of the part's was waited for.
    assert time.monotonic() - down.at < LONG / 2
    assert "down" in caught.value.remedy
    with pytest.raises(CanGone), desk(vcan) as bus:
        flash(bus, asked)
    ip("link", "set", vcan, "up")
    radar.joined_to(socketcan(vcan))
    works_again(vcan, radar)


@backends
def test_the_interface_is_deleted(vcan: str, radar: Radar, make_vcan: Callable[[], str], backend: str) -> None:
    deleted = InWrite(lambda: ip("link", "del", vcan))
    with desk(vcan) as bus, pytest.raises(CanGone):
        flash(bus, profile(backend=backend), deleted)
    assert time.monotonic() - deleted.at < LONG / 2
    another = make_vcan()
    radar.joined_to(socketcan(another))
    works_again(another, radar)


@backends
def test_bus_off(vcan: str, radar: Radar, backend: str) -> None:
    """The error frame that a driver would send, sent by a socket: to those who listen they are the same."""
    with can.Bus(interface="socketcan", channel=vcan) as driver:
        off = InWrite(lambda: driver.send(BUS_OFF))
        with desk(vcan) as bus, pytest.raises(BusOff):
            flash(bus, profile(backend=backend), off)
    assert time.monotonic() - off.at < LONG / 2
    works_again(vcan, radar)


@contextmanager
def flooded(interface: str) -> Iterator[None]:
    """Foreign frames of 8 bytes, as many as fill a bus of 500 kbit/s: some 4,000 a second.

    vcan would carry twenty times as many, a load that no real bus has.
    """
    command = program("cangen", interface, "-g", "0.1", "-I", "123", "-L", "8", "-i")
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        yield
        assert all(process.poll() is None for process in processes), "they flooded until the end"
    finally:
        for process in processes:
            process.kill()
            process.wait(LONG)


@backends
def test_a_flood_of_foreign_frames(vcan: str, radar: Radar, backend: str) -> None:
    """The kernel keeps from us what is not for us, so a flash goes on beside it."""
    with flooded(vcan), desk(vcan) as bus:
        assert flash(bus, profile(backend=backend)).verified
    assert radar.runs == "1.5.0"


@contextmanager
def saying(bus: can.BusABC, identifier: int, frames: Iterable[bytes], pause: float) -> Iterator[None]:
    """One frame each `pause` seconds, until the block ends."""
    done = threading.Event()

    def run() -> None:
        for data in frames:
            bus.send(can.Message(arbitration_id=identifier, data=data, is_extended_id=False))
            if done.wait(pause):
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@backends
def test_a_second_master(vcan: str, tmp_path: Path, backend: str) -> None:
    """It says that it is there, and wants no answer: enough for the part to forget what it had of a longer request."""
    radar = Radar(tmp_path, socketcan(vcan), st_min=5)
    try:
        with can.Bus(interface="socketcan", channel=vcan) as other, desk(vcan) as bus:
            began = time.monotonic()
            with (
                saying(other, REQUEST, repeat(b"\x02\x3e\x80"), 0.005),
                pytest.raises(IsoTpContested, match="another tester sends under 0x7E0"),
            ):
                flash(bus, profile(backend=backend))
            assert time.monotonic() - began < LONG / 2
        works_again(vcan, radar)
    finally:
        radar.close()


def drips() -> Iterator[bytes]:
    """A message of 4,095 bytes."""
    yield b"\x1f\xff" + bytes(6)
    for number in range(1, 585):
        yield bytes((0x20 | number % 16,)) + bytes(7)


@backends
def test_a_slow_drip(vcan: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response of which a frame comes each half of a time-out, for longer than any is waited for."""
    monkeypatch.setattr("proxyflash.transports.isotp.opening.RUN_ON_SECONDS", 2.0)
    with can.Bus(interface="socketcan", channel=vcan) as part, desk(vcan) as bus:
        channel = IsoTpChannel.open(bus, NORMAL, IsoTpOptions(backend=backend))
        with saying(part, RESPONSE, drips(), 0.5):
            began = time.monotonic()
            with pytest.raises(IsoTpTimeout, match="did not end its message"):
                channel.recv(Deadline.after(1.0))
            assert time.monotonic() - began < LONG / 2
        channel.close()
        channel = IsoTpChannel.open(bus, NORMAL, IsoTpOptions(backend=backend))
        part.send(can.Message(arbitration_id=RESPONSE, data=b"\x02\x7e\x00", is_extended_id=False))
        assert channel.recv(soon()) == b"\x7e\x00"
        channel.close()


@backends
def test_a_part_that_asks_to_wait_for_ever(vcan: str, backend: str) -> None:
    """The kernel counts no wait frames, and closing its socket waits until it has sent."""
    with can.Bus(interface="socketcan", channel=vcan) as part, desk(vcan) as bus:
        channel = IsoTpChannel.open(bus, NORMAL, IsoTpOptions(backend=backend))
        with saying(part, RESPONSE, repeat(b"\x31\x00\x00"), 0.3):
            began = time.monotonic()
            with pytest.raises(IsoTpTimeout, match="took longer than it may"):
                channel.send(bytes(100), Deadline.after(2.0))
            channel.close()
            assert time.monotonic() - began < LONG / 2
            channel = IsoTpChannel.open(bus, NORMAL, IsoTpOptions(backend=backend))
            channel.send(b"\x3e\x00", soon())
            channel.close()


@backends
def test_a_part_that_works_on_it_for_ever(vcan: str, backend: str) -> None:
    with can.Bus(interface="socketcan", channel=vcan) as part, desk(vcan) as bus:
        asked = profile(backend=backend, timings={"latency": 0.5, "retries": 1, "pending": 2.0})
        began = time.monotonic()
        with (
            saying(part, RESPONSE, repeat(b"\x03\x7f\x22\x78"), 0.3),
            pytest.raises(OperationFailed, match="kept ReadDataByIdentifier"),
        ):
            flash(bus, asked)
        assert time.monotonic() - began < LONG / 2
