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
import time
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import can
import pytest
from proxyflash.hil_tests.kernel.conftest import ip
from proxyflash.hil_tests.kernel.uds_lab import InWrite, Radar, flash, profile, socketcan
from proxyflash.hil_tests.kernel.waiting import LONG, wait_until
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.errors import CanGone

N_SLCAN, SIOCGIFNAME = 17, 0x8910
"""Linux, include/uapi/linux/tty.h and sockios.h."""


PATIENT = profile(timings={"latency": LONG, "retries": 1})
"""A guest may be kept from its processor for seconds."""


class Pair:
    """`interface`: the kernel's slcan driver on a PTY. `path`: a tty whose other end is that PTY's."""

    def __init__(self) -> None:
        (first, self._driver), (second, other) = pty.openpty(), pty.openpty()
        self._masters = [first, second]
        for end in (self._driver, other):
            tty.setraw(end)
        self.path = os.ttyname(other)
        self._other = other
        fcntl.ioctl(self._driver, termios.TIOCSETD, struct.pack("i", N_SLCAN))
        answer = fcntl.ioctl(self._driver, SIOCGIFNAME, bytes(40))
        self.interface = answer[:16].rstrip(b"\0").decode()
        # Its queue of ten frames is less than what the kernel's ISO-TP hands over at once: what is too much would be lost.
        ip("link", "set", self.interface, "txqueuelen", "1000", "up")
        # Until the kernel has noticed that its link is there, it throws away what is sent on it, without an error.
        state = Path("/sys/class/net", self.interface, "operstate")
        wait_until(lambda: state.read_text().strip() in ("up", "unknown"), "the interface is up")
        self._ended, self._end = os.pipe()
        self._pump = threading.Thread(target=self._run)
        self._pump.start()

    def _run(self) -> None:
        first, second = self._masters
        ways = {first: second, second: first}
        while True:
            for end in select.select([*ways, self._ended], [], [])[0]:
                if end == self._ended:
                    return
                with suppress(OSError):
                    data = os.read(end, 4096)
                    while data:
                        data = data[os.write(ways[end], data) :]

    def unplug(self, number: int) -> None:
        """The tty of the kernel's adapter (0), or of the other (1), is hung up, as it is when that is pulled out."""
        self._stop()
        os.close(self._masters.pop(number))

    def close(self) -> None:
        self._stop()
        for descriptor in (*self._masters, self._driver, self._other, self._ended, self._end):
            os.close(descriptor)

    def _stop(self) -> None:
        os.write(self._end, b"x")
        self._pump.join()


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
    with can.Bus(interface="socketcan", channel=pair.interface) as kernel, slcan(pair.path) as ours:
        for sender, receiver in ((kernel, ours), (ours, kernel)):
            for message in FRAMES:
                sender.send(message, LONG)
                heard = receiver.recv(LONG)
                assert heard is not None, (sender, message)
                assert heard.equals(message, timestamp_delta=None, check_channel=False, check_direction=False)


def ends(pair: Pair) -> list[dict[str, Any]]:
    """Settings of a bus of the kernel's driver, and of one of python-can's interface."""
    return [
        {"interface": "socketcan", "channel": pair.interface},
        {"interface": "slcan", "channel": pair.path, "bitrate": 500_000, "sleep_after_open": 0},
    ]


@pytest.mark.parametrize("ours", [0, 1], ids=["kernel", "python-can"])
def test_a_flash(pair: Pair, tmp_path: Path, ours: int) -> None:
    parts = slcan(pair.path) if ours == 0 else socketcan(pair.interface)
    radar = Radar(tmp_path, parts)
    try:
        with CanBus.open("powertrain", ends(pair)[ours]) as bus:
            assert flash(bus, PATIENT).verified
        assert radar.runs == "1.5.0"
    finally:
        radar.close()


@pytest.mark.parametrize("ours", [0, 1], ids=["kernel", "python-can"])
def test_the_adapter_is_pulled_out(pair: Pair, tmp_path: Path, ours: int) -> None:
    parts = slcan(pair.path) if ours == 0 else socketcan(pair.interface)
    radar = Radar(tmp_path, parts)
    pulled = InWrite(lambda: pair.unplug(ours))
    try:
        with CanBus.open("powertrain", ends(pair)[ours]) as bus, pytest.raises(CanGone):
            flash(bus, PATIENT, pulled)
        assert pulled.at
        assert time.monotonic() - pulled.at < LONG / 2
    finally:
        radar.close()
