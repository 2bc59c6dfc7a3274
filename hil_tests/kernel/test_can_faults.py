"""What goes wrong on a CAN interface while a part is flashed over it: each has its own error, soon enough, leaves no
thread and no descriptor, and the next run works.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import can
import pytest
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import PartError
from proxyflash.flashers.events import Phase
from proxyflash.hil_tests.kernel.can_lab import NORMAL, program, soon
from proxyflash.hil_tests.kernel.conftest import LONG, ip
from proxyflash.hil_tests.kernel.uds_lab import REQUEST, RESPONSE, Radar, flash, profile, socketcan
from proxyflash.transports.can import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import BusOff, CanGone, IsoTpTimeout, TransportError
from proxyflash.transports.isotp import IsoTpChannel, IsoTpOptions

backends = pytest.mark.parametrize("backend", ["kernel", "user"])
BUS_OFF = can.Message(arbitration_id=0x40, is_error_frame=True, data=bytes(8), is_extended_id=False)
"""As a driver says it (Linux, include/uapi/linux/can/error.h: CAN_ERR_BUSOFF)."""


class InWrite:
    """Does something once, when half of the image is written. `at`: when that was."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self.at = 0.0

    def __call__(self, event: ev.Event) -> None:
        if (
            isinstance(event, ev.Progress)
            and event.phase is Phase.WRITE
            and 2 * event.done >= event.total
            and not self.at
        ):
            self._action()
            self.at = time.monotonic()


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
    # It is told by the driver: no answer of the part's was waited for.
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
    """Foreign frames of 8 bytes, as many as fill a bus of 500 kbit/s: more than 4,000 a second."""
    command = program("cangen", interface, "-g", "0.2", "-I", "123", "-L", "8", "-i")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
            assert process.poll() is None, "it flooded until the end"
        finally:
            process.kill()


@backends
def test_a_flood_of_foreign_frames(vcan: str, radar: Radar, backend: str) -> None:
    """The kernel keeps from us what is not for us, so a flash goes on beside it."""
    with flooded(vcan), desk(vcan) as bus:
        assert flash(bus, profile(backend=backend)).verified
    assert radar.runs == "1.5.0"


@backends
def test_a_second_master(vcan: str, radar: Radar, backend: str) -> None:
    """It asks under the same id, amid our requests: ours fail with an error of the part's or of the wire, or they hold."""
    done = threading.Event()
    with can.Bus(interface="socketcan", channel=vcan) as other:

        def talk() -> None:
            question = can.Message(arbitration_id=REQUEST, data=b"\x02\x3e\x00", is_extended_id=False)
            while not done.wait(0.01):
                other.send(question)

        talker = threading.Thread(target=talk)
        talker.start()
        try:
            with desk(vcan) as bus, suppress(PartError, TransportError):
                assert flash(bus, profile(backend=backend)).verified
        finally:
            done.set()
            talker.join()
    works_again(vcan, radar)


@backends
def test_a_slow_drip(vcan: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response of which a frame comes each half of a time-out, for longer than any is waited for."""
    for module in ("isotp", "isotp_kernel"):
        monkeypatch.setattr(f"proxyflash.transports.{module}.RUN_ON_SECONDS", 2.0)
    done = threading.Event()
    with can.Bus(interface="socketcan", channel=vcan) as part, desk(vcan) as bus:

        def drip() -> None:
            part.send(can.Message(arbitration_id=RESPONSE, data=b"\x1f\xff" + bytes(6), is_extended_id=False))
            number = 1
            while not done.wait(0.5):
                frame = bytes((0x20 | number % 16,)) + bytes(7)
                part.send(can.Message(arbitration_id=RESPONSE, data=frame, is_extended_id=False))
                number += 1

        channel = IsoTpChannel.open(bus, NORMAL, IsoTpOptions(backend=backend))
        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            began = time.monotonic()
            with pytest.raises(IsoTpTimeout, match="did not end its message"):
                channel.recv(Deadline.after(1.0))
            assert time.monotonic() - began < LONG / 2
        finally:
            done.set()
            dripping.join()
        channel.drain()
        channel.close()
    with desk(vcan) as bus, can.Bus(interface="socketcan", channel=vcan) as part:
        channel = IsoTpChannel.open(bus, NORMAL, IsoTpOptions(backend=backend))
        part.send(can.Message(arbitration_id=RESPONSE, data=b"\x02\x7e\x00", is_extended_id=False))
        assert channel.recv(soon()) == b"\x7e\x00"
        channel.close()
