"""Serial CAN adapters: the kernel's slcan driver on one PTY, python-can's slcan interface on another, joined back to back.

Each takes the other for an adapter, for both ends of that protocol speak of frames in the same way (`t`, `T`; Linux,
drivers/net/can/slcan). So the kernel's driver is tried against python-can, and our flasher over either.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import can
import pytest
from proxyflash.hil_tests.kernel.conftest import LONG, ip, wait_until
from proxyflash.hil_tests.kernel.uds_lab import Radar, flash, profile, socketcan
from proxyflash.transports.can import CanBus

N_SLCAN, SIOCGIFNAME = 17, 0x8910
"""Linux, include/uapi/linux/tty.h and sockios.h."""


ATTEMPTS = 5
"""A guest that is kept from its processor for a second doesn't answer within the kernel's N_Bs."""


class Pair:
    """`interface`: the kernel's slcan driver on a PTY. `path`: a tty whose other end is that PTY's."""

    def __init__(self) -> None:
        (self._first, self._driver), (self._second, other) = pty.openpty(), pty.openpty()
        for end in (self._driver, other):
            tty.setraw(end)
        self.path = os.ttyname(other)
        self._other = other
        fcntl.ioctl(self._driver, termios.TIOCSETD, struct.pack("i", N_SLCAN))
        answer = fcntl.ioctl(self._driver, SIOCGIFNAME, bytes(40))
        self.interface = answer[:16].rstrip(b"\0").decode()
        # Its queue of ten frames is less than what the kernel's ISO-TP hands over at once: what is too much would be lost.
        ip("link", "set", self.interface, "txqueuelen", "1000", "up")
        # Until the kernel has noticed that its link is there, it throws away what is sent on it, and tells nobody.
        state = Path("/sys/class/net", self.interface, "operstate")
        wait_until(lambda: state.read_text().strip() in ("up", "unknown"), "the interface is up")
        self._ended, self._end = os.pipe()
        self._pump = threading.Thread(target=self._run)
        self._pump.start()

    def _run(self) -> None:
        ways = {self._first: self._second, self._second: self._first}
        while True:
            for end in select.select([*ways, self._ended], [], [])[0]:
                if end == self._ended:
                    return
                with suppress(OSError):
                    data = os.read(end, 4096)
                    while data:
                        data = data[os.write(ways[end], data) :]

    def unplug(self) -> None:
        """The adapter's tty is hung up, as it is when it is pulled out."""
        os.write(self._end, b"x")
        self._pump.join()
        os.close(self._first)

    def close(self) -> None:
        if self._pump.is_alive():
            self.unplug()
        for descriptor in (self._driver, self._second, self._other, self._ended, self._end):
            os.close(descriptor)


@pytest.fixture
def pair(nothing_left: None) -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


FRAMES = [
    can.Message(arbitration_id=0x123, is_extended_id=False, data=b"\x01\x02"),
    can.Message(arbitration_id=0x18DAF140, is_extended_id=True, data=bytes(range(8))),
    can.Message(arbitration_id=0x7FF, is_extended_id=False, data=b""),
]


def slcan(path: str) -> can.BusABC:
    return can.Bus(interface="slcan", channel=path, bitrate=500_000, sleep_after_open=0)


def test_frames_both_ways(pair: Pair) -> None:
    with socketcan(pair.interface) as kernel, slcan(pair.path) as ours:
        for sender, receiver in ((kernel, ours), (ours, kernel)):
            for message in FRAMES:
                heard = None
                # One that is sent before both ends are there is lost, as it is on a real line.
                for _ in range(10):
                    sender.send(message, LONG)
                    if heard := receiver.recv(LONG / 10):
                        break
                assert heard is not None, (sender, message)
                assert heard.equals(message, timestamp_delta=None, check_channel=False, check_direction=False)


def test_a_flash_through_the_kernels_driver(pair: Pair, tmp_path: Path) -> None:
    radar = Radar(tmp_path, slcan(pair.path))
    try:
        with CanBus.open("powertrain", {"interface": "socketcan", "channel": pair.interface}) as bus:
            assert flash(bus, profile(), attempts=ATTEMPTS).verified
        assert radar.runs == "1.5.0"
    finally:
        radar.close()


def test_a_flash_through_python_cans_interface(pair: Pair, tmp_path: Path) -> None:
    radar = Radar(tmp_path, socketcan(pair.interface))
    try:
        settings = {"interface": "slcan", "channel": pair.path, "bitrate": 500_000, "sleep_after_open": 0}
        with CanBus.open("powertrain", settings) as bus:
            assert flash(bus, profile(), attempts=ATTEMPTS).verified
        assert radar.runs == "1.5.0"
    finally:
        radar.close()
