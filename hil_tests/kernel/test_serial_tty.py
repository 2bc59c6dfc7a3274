"""A tty of the kernel's cdc_acm driver: what a program sets and sends reaches the line at the other end of the adapter."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import shutil
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serial
from proxyflash.emulators.serial.line import Line
from proxyflash.emulators.serial.wire import TRANSMIT_BUFFER
from proxyflash.hil_tests.kernel.serial_lab import Serial, nothing_left
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import (
    SerialAbsent,
    SerialBusy,
    SerialForbidden,
    SerialFraming,
    SerialGone,
    SerialTimeout,
)

NOBODY = 65_534
ASYNC_LOW_LATENCY = 1 << 13
"""linux/tty_flags.h."""
DEADLINE = 60.0
"""Seconds that a call is given. The kernel reports at once that a tty has gone."""
AT_ONCE = DEADLINE / 6


@pytest.fixture
def line() -> Iterator[Serial]:
    with nothing_left():
        made = Serial()
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def slow() -> Iterator[Serial]:
    """An emulated part that takes its true time."""
    with nothing_left():
        made = Serial(pace=1.0)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def nobody() -> Iterator[None]:
    """As a user without rights or groups."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def arrived(line: Serial, size: int, seconds: float = 20.0) -> bytes:
    """What the other end has got, as soon as it is so much."""
    data = b""
    ends = time.monotonic() + seconds
    with line.wire.changed:
        while len(data) < size and time.monotonic() < ends:
            data += line.wire.device.take(line.wire.device.available())
            if len(data) < size:
                line.wire.changed.wait(0.05)
    return data


class TestLine:
    def test_the_settings_reach_it(self, line: Serial) -> None:
        for baudrate, bytesize, parity, stopbits in (
            (115_200, 8, "E", 1),
            (9_600, 8, "N", 1),
            (250_000, 8, "O", 2),
            (1_234_567, 7, "E", 1),
            (57_600, 8, "M", 1),
        ):
            with line.open(baudrate=baudrate, bytesize=bytesize, parity=parity, stopbits=stopbits):
                assert line.wire.host.line == Line(baudrate, bytesize, parity, stopbits)

    def test_they_change_while_it_is_open(self, line: Serial) -> None:
        with line.open() as port:
            assert port.set_line(parity="E", baudrate=38_400)
            assert (line.wire.host.line, port.parity) == (Line(38_400, 8, "E", 1), "E")
            assert port.set_line(parity="N")
            assert line.wire.host.line == Line(38_400, 8, "N", 1)

    def test_bytes_both_ways(self, line: Serial) -> None:
        """Each value, and more than one transfer holds."""
        data = bytes(range(256)) * 64
        with line.open(parity="E") as port:
            line.wire.device.line = line.wire.host.line
            port.write(data, Deadline.after(20))
            assert arrived(line, len(data)) == data
            line.wire.device.send(data)
            assert port.read_exactly(len(data), Deadline.after(20)) == data

    def test_the_wrong_parity_is_not_understood(self, line: Serial) -> None:
        with line.open(parity="N") as port:
            line.wire.device.line = Line(115_200, 8, "E", 1)
            port.write(b"\x01" * 10 + b"\x03" * 10, Deadline.after(20))
            # What this line's even parity bit, a one, looks like without one is its stop bit.
            assert arrived(line, 11, 0.5) == b"\x01" * 10

    def test_a_slow_line_holds_the_writer_back(self, slow: Serial) -> None:
        data = bytes(range(256)) * (5 * TRANSMIT_BUFFER // 2 // 256)
        with slow.open(baudrate=230_400) as port:
            slow.wire.device.line = slow.wire.host.line
            port.write(data, Deadline.after(60))
            assert arrived(slow, len(data), 60.0) == data

    def test_a_break(self, line: Serial) -> None:
        line.wire.device.checks = False
        with serial.Serial(line.path, 115_200) as port:
            line.wire.device.line = line.wire.host.line
            port.write(b"a")
            assert arrived(line, 1) == b"a"
            port.break_condition = True
            assert line.wire.host.low
            port.break_condition = False
            assert not line.wire.host.low
            port.send_break(0.01)
            assert not line.wire.host.low
            port.write(b"b")
            assert arrived(line, 3) == b"\0\0b"


class TestModemLines:
    def test_each_and_both(self, line: Serial) -> None:
        with line.open() as port:
            assert line.modem == [(True, True)]
            for dtr, rts in ((False, True), (False, False), (True, False), (True, True)):
                assert port.set_modem(dtr=dtr, rts=rts)
                assert line.modem[-1] == (dtr, rts)
            assert port.set_modem(rts=False)
            assert line.modem[-1] == (True, False)
        assert line.modem[-1] == (False, False)
        # Both in one step.
        assert len(line.modem) == 7

    def test_opening_releases_what_is_named_and_both_in_one_step(self, line: Serial) -> None:
        for named in ({"dtr": False, "rts": False}, {"dtr": False}, {"rts": False}):
            with line.open(**named):
                assert line.modem == [(True, True), (named.get("dtr", True), named.get("rts", True))]
            line.modem.clear()

    def test_without_hupcl_they_stay_at_closing_and_no_edge_comes_with_the_next_opening(self, line: Serial) -> None:
        line.open(hupcl=False).close()
        assert line.modem == [(True, True)]
        line.open().close()
        assert line.modem == [(True, True)]
        line.open(hupcl=True).close()
        assert line.modem == [(True, True), (False, False)]


class TestOpening:
    def test_a_driver_without_low_latency_is_opened_all_the_same(self, line: Serial) -> None:
        """cdc_acm takes the flag and keeps none."""
        with line.open():
            descriptor = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
            # struct serial_struct, whose fifth word are the flags (linux/serial.h).
            told = struct.unpack_from("5i", fcntl.ioctl(descriptor, termios.TIOCGSERIAL, bytes(128)))
            os.close(descriptor)
        assert not told[4] & ASYNC_LOW_LATENCY

    def test_absent(self, line: Serial) -> None:
        line.path = "/dev/ttyACM77"
        with pytest.raises(SerialAbsent, match="there is no port /dev/ttyACM77"):
            line.open()

    def test_another_program_has_locked_it(self, line: Serial) -> None:
        flock = shutil.which("flock")
        assert flock is not None
        command = [flock, "--no-fork", line.path, "sh", "-c", "echo; read end"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            try:
                assert holder.stdout is not None
                holder.stdout.readline()
                with pytest.raises(SerialBusy, match=rf"sh \(pid {holder.pid}\)"):
                    line.open()
            finally:
                holder.kill()
        line.open().close()

    def test_it_is_exclusive_as_long_as_it_is_open(self, line: Serial) -> None:
        """Also to programs that ask for no lock; root's may."""
        Path(line.path).chmod(0o666)
        other = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
        try:
            with line.open(), nobody(), pytest.raises(OSError) as caught:
                os.open(line.path, os.O_RDWR | os.O_NOCTTY)
            assert caught.value.errno == errno.EBUSY
            with nobody():
                os.close(os.open(line.path, os.O_RDWR | os.O_NOCTTY))
        finally:
            os.close(other)

    def test_another_program_has_it_for_itself(self, line: Serial) -> None:
        Path(line.path).chmod(0o666)
        other = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
        try:
            fcntl.ioctl(other, termios.TIOCEXCL)
            with nobody(), pytest.raises(SerialBusy, match=r"another program|python"):
                line.open()
        finally:
            os.close(other)

    def test_a_user_outside_of_its_group(self, line: Serial) -> None:
        os.chown(line.path, 0, grp.getgrnam("dialout").gr_gid)
        Path(line.path).chmod(0o660)
        with nobody(), pytest.raises(SerialForbidden) as caught:
            line.open()
        assert "usermod -aG dialout" in str(caught.value.remedy)
        line.open().close()


class TestFaults:
    def test_unplugged_while_it_is_read(self, line: Serial) -> None:
        with line.open() as port:
            pulled = threading.Timer(0.2, line.wire.unplug)
            pulled.start()
            with pytest.raises(SerialGone, match=r"is gone, while reading"):
                port.read_some(Deadline.after(DEADLINE))
            assert since_gone(line) < AT_ONCE
            pulled.join()
            for action in (
                lambda: port.write(b"x", Deadline.after(DEADLINE)),
                lambda: port.read_exactly(1, Deadline.after(DEADLINE)),
                lambda: port.set_modem(dtr=True),
                lambda: port.set_line(parity="E"),
                port.drain,
            ):
                with pytest.raises(SerialGone):
                    action()
            assert since_gone(line) < AT_ONCE
        # The next one finds it there again.
        line.wire.plug()
        line.path = line.tty.wait_path(20)
        with line.open(parity="E") as port:
            line.wire.device.line = line.wire.host.line
            port.write(b"hello", Deadline.after(10))
            assert arrived(line, 5) == b"hello"

    def test_unplugged_while_it_is_written(self, slow: Serial) -> None:
        with slow.open(baudrate=9_600) as port:
            pulled = threading.Timer(0.2, slow.wire.unplug)
            pulled.start()
            with pytest.raises(SerialGone, match="is gone, while writing"):
                port.write(bytes(200_000), Deadline.after(DEADLINE))
            assert since_gone(slow) < AT_ONCE
            pulled.join()
        assert slow.modem[-1] == (False, False)
        assert since_gone(slow) < AT_ONCE

    def test_detached_by_another_program(self, line: Serial) -> None:
        """As `usbip detach` does."""
        controller = Path("/sys/devices/platform/vhci_hcd.0")
        ports = [words.split() for words in (controller / "status").read_text().splitlines()]
        (used,) = [int(words[1]) for words in ports if words[-1] == line.place()]
        with line.open() as port:
            (controller / "detach").write_text(str(used))
            began = time.monotonic()
            with pytest.raises(SerialGone):
                port.read_some(Deadline.after(DEADLINE))
            assert time.monotonic() - began < AT_ONCE

    def test_a_line_that_takes_nothing(self, slow: Serial) -> None:
        """The deadline ends it. Closing would wait for what the kernel still has, until the adapter is pulled out."""
        with slow.open(baudrate=300) as port:
            began = time.monotonic()
            with pytest.raises(SerialTimeout):
                port.write(bytes(200_000), Deadline.after(0.5))
            assert 0.4 < time.monotonic() - began < 10
            slow.wire.unplug()
        assert since_gone(slow) < AT_ONCE

    def test_a_drip_ends_with_the_deadline(self, line: Serial) -> None:
        with line.open() as port, sending(line, b"\x55", 0.1):
            with pytest.raises(SerialTimeout) as caught:
                port.read_exactly(4_000, Deadline.after(1.0))
            assert 0 < len(caught.value.received) < 4_000
            with pytest.raises(SerialTimeout):
                port.read_until(b"\n", Deadline.after(0.5))

    def test_a_flood_is_bounded(self, slow: Serial) -> None:
        """115,200 bit/s without a pause."""
        with slow.open() as port, sending(slow, bytes(range(128, 256)) * 8, 0.0):
            with pytest.raises(SerialFraming):
                port.read_until(b"\n", Deadline.after(60), limit=2_000)
            assert port.drain()
            assert len(port.read_exactly(5_000, Deadline.after(60))) == 5_000
            assert port.set_line(parity="E")
        slow.open().close()


def since_gone(line: Serial) -> float:
    """Seconds."""
    assert line.wire.gone_at is not None
    return time.monotonic() - line.wire.gone_at


@contextmanager
def sending(line: Serial, data: bytes, pause: float) -> Iterator[None]:
    """The other end says this again and again, with a pause or as fast as the line is."""
    device, ended = line.wire.device, threading.Event()
    device.line = line.wire.host.line

    def send() -> None:
        while not ended.wait(pause or max(0.0, device.free_at - time.monotonic() - 0.05)):
            device.send(data)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
