"""The emulated serial line: its times, what settings that differ make of bytes, and pyserial's behaviour on it."""

from __future__ import annotations

import contextlib
import errno
import os
import termios
import tty
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import serial
from proxyflash.emulators.faults import Fault, FaultPlan, Faults
from proxyflash.emulators.serial.line import Line, received
from proxyflash.emulators.serial.protocol_emulated import Serial
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartEnd, UartWire
from proxyflash.transports import clock


def make_wire(pace: float = 0.0, plan: FaultPlan | None = None) -> UartWire:
    return UartWire(uuid.uuid4().hex, faults=Faults(plan), pace=pace)


def open_host(wire: UartWire, **settings: Any) -> Serial:
    port = serial.serial_for_url(wire.host_settings()["url"], **{"timeout": 5, "write_timeout": 5, **settings})
    assert isinstance(port, Serial)
    return port


def take(end: UartEnd, size: int) -> bytes:
    end.available()
    return end.take(size)


@pytest.fixture
def wire() -> Iterator[UartWire]:
    made = make_wire()
    yield made
    made.close()


class TestLine:
    """Frames as oscilloscopes show them; the bits are written out in each comment."""

    @pytest.mark.parametrize(
        ("byte", "sender", "receiver", "kept", "checked"),
        [
            # 7F: seven ones, so the even parity bit is 1, which a line without parity shows as its stop bit.
            pytest.param(0x7F, (115200, 8, "N"), (115200, 8, "E"), b"\x7f", b"\x7f", id="odd ones pass 8N1 to 8E1"),
            # 00: the even parity bit should be 0 where the stop bit is 1.
            pytest.param(0x00, (115200, 8, "N"), (115200, 8, "E"), b"\x00", b"", id="even ones fail 8N1 to 8E1"),
            # 79 in 8E1 ends with parity 1: a stop bit to 8N1. 03 ends with parity 0: a framing error.
            pytest.param(0x79, (115200, 8, "E"), (115200, 8, "N"), b"\x79", b"\x79", id="8E1 to 8N1"),
            pytest.param(0x03, (115200, 8, "E"), (115200, 8, "N"), b"\x03", b"", id="8E1 to 8N1 framing"),
            pytest.param(0x01, (9600, 8, "O"), (9600, 8, "E"), b"\x01", b"", id="odd to even"),
            # 0 and eight zeros at twice the rate: 4.5 of our bits low, then high.
            pytest.param(0x00, (115200, 8, "N"), (57600, 8, "N"), b"\xf8", b"\xf8", id="sender twice as fast"),
            # One start bit at half the rate: two of our bits low, then high.
            pytest.param(0xFF, (57600, 8, "N"), (115200, 8, "N"), b"\xfe", b"\xfe", id="sender half as fast"),
            # 18 of our bits low: no stop bit.
            pytest.param(0x00, (57600, 8, "N"), (115200, 8, "N"), b"\x00", b"", id="looks like a break"),
            # 1 start, 4 ones, 4 zeros at an eighth: low 8, high 32, low 32, high: two start edges.
            pytest.param(0x0F, (9600, 8, "N"), (76800, 8, "N"), b"\x80\x00", b"\x80", id="two bytes of one"),
            pytest.param(0xA5, (117000, 8, "N"), (115200, 8, "N"), b"\xa5", b"\xa5", id="1.5 percent off is fine"),
        ],
    )
    def test_mismatch(
        self,
        byte: int,
        sender: tuple[int, int, str],
        receiver: tuple[int, int, str],
        kept: bytes,
        checked: bytes,
    ) -> None:
        assert received(byte, Line(*sender), Line(*receiver), False) == kept
        assert received(byte, Line(*sender), Line(*receiver), True) == checked

    @pytest.mark.parametrize("parity", "NEOMS")
    def test_ends_that_agree_read_each_byte(self, parity: str) -> None:
        line = Line(115200, 8, parity)
        assert [received(byte, line, line, True) for byte in range(256)] == [bytes([byte]) for byte in range(256)]

    def test_a_frame_takes_its_bits(self) -> None:
        assert Line(115200, 8, "E", 1).frame_seconds == pytest.approx(11 / 115200)
        assert Line(1000, 7, "N", 1.5).frame_seconds == pytest.approx(9.5 / 1000)


class TestSchedule:
    def test_each_byte_has_its_time(self) -> None:
        wire = make_wire(pace=1.0)
        wire.host.line = Line(115200, 8, "E", 1)
        before = clock.monotonic()
        wire.host.send(bytes(100))
        first, last = wire.device.due(1), wire.device.due(100)
        assert first is not None
        assert last is not None
        assert first >= before + 11 / 115200
        assert last - first == pytest.approx(99 * 11 / 115200)
        assert wire.device.due(101) is None
        wire.close()

    def test_bytes_written_in_time_follow_without_a_gap(self) -> None:
        wire = make_wire(pace=1.0)
        wire.host.line = Line(1200, 8, "N", 1)
        for _ in range(10):
            wire.host.send(b"12345")
        first, last = wire.device.due(1), wire.device.due(50)
        assert first is not None
        assert last is not None
        assert last - first == pytest.approx(49 * 10 / 1200)
        wire.close()

    def test_an_answer_counts_from_the_moment_of_the_question(self) -> None:
        wire = make_wire(pace=1.0)
        wire.host.line = wire.device.line = Line(1000, 8, "N", 1)
        asked = clock.monotonic() - 5
        wire.device.send(b"late", at=asked)
        assert wire.host.due(4) == pytest.approx(asked + 4 * 10 / 1000)
        assert wire.host.available() == 4
        wire.close()

    def test_pace_scales(self) -> None:
        wire = make_wire(pace=0.5)
        wire.host.line = Line(100, 8, "N", 1)
        wire.host.send(b"ab")
        first, second = wire.device.due(1), wire.device.due(2)
        assert first is not None
        assert second is not None
        assert second - first == pytest.approx(0.05)
        wire.close()

    def test_bytes_arrive_when_they_are_due_and_not_before(self) -> None:
        wire = make_wire(pace=1.0)
        wire.host.line = wire.device.line = Line(1000, 8, "N", 1)
        wire.host.send(b"abcd")
        due = wire.device.due(3)
        assert due is not None
        assert wire.device.available(due - 1e-4) == 2
        assert wire.device.available(due) == 3
        assert wire.host.unsent() <= 1
        wire.close()


class TestFaults:
    def test_drop_duplicate_and_corrupt(self) -> None:
        for plan, expected in (
            (FaultPlan(drop=1.0, first=2, last=3), b"ad"),
            (FaultPlan(duplicate=1.0, first=2, last=2), b"abbcd"),
        ):
            wire = make_wire(plan=plan)
            wire.host.send(b"abcd")
            assert take(wire.device, 9) == expected
            wire.close()
        wire = make_wire(plan=FaultPlan(corrupt=1.0, first=4))
        wire.host.send(b"abcd")
        data = take(wire.device, 9)
        assert data[:3] == b"abc"
        assert (data[3] ^ ord("d")).bit_count() == 1
        assert wire.faults.done == [(4, Fault.CORRUPT)]
        wire.close()

    def test_delay_holds_back_what_follows(self) -> None:
        wire = make_wire(plan=FaultPlan(delay=1.0, delay_seconds=100, first=2, last=2))
        wire.host.send(b"abc")
        assert take(wire.device, 9) == b"a"
        due = wire.device.due(2)
        assert due is not None
        assert due > clock.monotonic() + 90
        wire.close()

    def test_units_count_without_faults_too(self, wire: UartWire) -> None:
        wire.host.send(b"abc")
        wire.device.send(b"de")
        assert wire.faults.units == 5

    def test_disconnect(self) -> None:
        wire = make_wire(plan=FaultPlan(disconnect_after=3))
        port = open_host(wire)
        port.write(b"abcd")
        assert take(wire.device, 9) == b"ab"
        with pytest.raises(serial.SerialException):
            port.read(1)
        with pytest.raises(serial.SerialException):
            port.write(b"x")
        with pytest.raises(OSError, match="error"):
            assert port.in_waiting is None
        with pytest.raises(OSError, match="error"):
            port.dtr = False
        port.close()
        with pytest.raises(serial.SerialException) as caught:
            open_host(wire)
        assert caught.value.errno == errno.ENOENT
        wire.faults = Faults()
        wire.plug()
        with open_host(wire) as again:
            again.write(b"back")
        assert take(wire.device, 9) == b"back"
        wire.close()

    def test_what_is_sent_to_a_port_that_vanished_is_lost(self, wire: UartWire) -> None:
        wire.unplug()
        wire.device.send(b"lost")
        assert wire.host.expected() == 0

    def test_a_read_that_waits_ends_when_the_port_vanishes(self, wire: UartWire) -> None:
        port = open_host(wire, timeout=None)
        clock.Timer(0.02, wire.unplug).start()
        with pytest.raises(serial.SerialException):
            port.read(1)
        port.close()


class TestPort:
    def test_exclusive(self, wire: UartWire) -> None:
        with open_host(wire):
            with pytest.raises(serial.SerialException, match="Errno 16") as caught:
                open_host(wire)
            assert caught.value.errno == errno.EBUSY
        open_host(wire).close()

    def test_absent(self) -> None:
        with pytest.raises(serial.SerialException) as caught:
            serial.serial_for_url("emulated://nobody")
        assert caught.value.errno == errno.ENOENT

    def test_a_closed_wire_is_absent(self) -> None:
        wire = make_wire()
        wire.close()
        with pytest.raises(serial.SerialException):
            open_host(wire)

    def test_a_channel_has_one_wire(self, wire: UartWire) -> None:
        with pytest.raises(ValueError, match=wire.channel):
            UartWire(wire.channel)

    def test_settings_go_live(self, wire: UartWire) -> None:
        with open_host(wire, baudrate=9600) as port:
            assert wire.host.line == Line(9600, 8, "N", 1)
            port.baudrate = 115200
            port.parity = "E"
            assert wire.host.line == Line(115200, 8, "E", 1)

    def test_read_gives_what_there_is_when_time_is_up(self, wire: UartWire) -> None:
        with open_host(wire, timeout=0.02) as port:
            wire.device.send(b"abc")
            assert port.in_waiting == 3
            assert port.read(2) == b"ab"
            assert port.read(2) == b"c"
            assert port.read(1) == b""
            port.timeout = 0
            assert port.read(1) == b""

    def test_read_waits_for_its_bytes(self, wire: UartWire) -> None:
        with open_host(wire) as port:
            clock.Timer(0.02, wire.device.send, [b"cd"]).start()
            wire.device.send(b"ab")
            assert port.read(4) == b"abcd"

    def test_inter_byte_timeout(self, wire: UartWire) -> None:
        with open_host(wire, timeout=60, inter_byte_timeout=0.01) as port:
            wire.device.send(b"ab")
            assert port.read(4) == b"ab"

    def test_cancel_read(self, wire: UartWire) -> None:
        with open_host(wire, timeout=None) as port:
            wire.device.send(b"ab")
            clock.Timer(0.02, port.cancel_read).start()
            assert port.read(4) == b"ab"

    def test_a_write_returns_when_the_buffer_has_it(self) -> None:
        wire = make_wire(pace=1.0)
        with open_host(wire, baudrate=50, write_timeout=0.02) as port:
            assert port.write(bytes(4000)) == 4000
            assert port.out_waiting > 3990
            with pytest.raises(serial.SerialTimeoutException):
                port.write(bytes(500))
            port.write_timeout = 0
            assert port.write(b"x") == 0
            port.reset_output_buffer()
            assert port.out_waiting == 0
            assert port.write(bytes(4096)) == 4096
        wire.close()

    def test_a_write_longer_than_the_buffer_goes_on_as_bytes_leave(self) -> None:
        wire = make_wire(pace=1.0)
        with open_host(wire, baudrate=4_000_000) as port:
            wire.device.line = wire.host.line
            data = os.urandom(20_000)
            port.write(data)
            port.flush()
            assert port.out_waiting == 0
            assert take(wire.device, 30_000) == data
        wire.close()

    def test_cancel_write(self) -> None:
        wire = make_wire(pace=1.0)
        with open_host(wire, baudrate=50, write_timeout=None) as port:
            clock.Timer(0.02, port.cancel_write).start()
            assert 4096 <= port.write(bytes(6000)) < 4200
        wire.close()

    def test_modem_lines(self, wire: UartWire) -> None:
        seen: list[tuple[bool, bool]] = []
        wire.modem_listener = lambda: seen.append((wire.dtr, wire.rts))
        with open_host(wire) as port:
            assert (port.cts, port.dsr, port.cd, port.ri) == (False, False, False, False)
            wire.cts = wire.dcd = True
            assert (port.cts, port.dsr, port.cd, port.ri) == (True, False, True, False)
            port.dtr = False
            port.dtr = False
        assert seen == [(True, False), (True, True), (False, True), (False, False)]

    def test_lines_that_were_set_before_opening(self, wire: UartWire) -> None:
        port = serial.serial_for_url(wire.host_settings()["url"], do_not_open=True)
        port.dtr = False
        port.open()
        assert (wire.dtr, wire.rts) == (False, True)
        port.close()

    def test_break(self, wire: UartWire) -> None:
        wire.device.checks = False
        with open_host(wire) as port:
            port.break_condition = True
            port.write(b"lost")
            port.break_condition = False
            port.write(b"ok")
        assert take(wire.device, 9) == b"\0ok"

    def test_a_stream_that_nobody_reads_is_bounded(self, wire: UartWire) -> None:
        for _ in range(100):
            wire.device.send(bytes(4096))
            wire.host.available()
        assert wire.host.available() == 65536


@pytest.mark.real_time("pseudo-terminals")
class TestPty:
    def test_reopened_slave_keeps_working(self) -> None:
        wire = make_wire()
        wire.device.line = Line(115200, 8, "N", 1)
        echoed = clock.Event()

        def echo() -> None:
            wire.device.send(take(wire.device, 100).upper())
            echoed.set()

        wire.device.listener = echo
        path, close = serve_pty(wire)
        for word in (b"one", b"two\r", b"three\x03"):
            slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
            mode = termios.tcgetattr(slave)
            mode[4] = mode[5] = termios.B115200
            termios.tcsetattr(slave, termios.TCSANOW, mode)
            os.write(slave, word)
            data = b""
            while len(data) < len(word):
                data += os.read(slave, 100)
            assert data == word.upper()
            os.close(slave)
        close()
        wire.close()

    @pytest.mark.parametrize("rate", [57600, 250_000])
    def test_the_slaves_rate_is_the_lines(self, rate: int) -> None:
        # 57600 is one of the constants of POSIX, 250,000 is not: pyserial sets it by TCSETS2.
        wire = make_wire()
        arrived = clock.Event()
        wire.device.line = Line(9600, 8, "E", 1)
        wire.device.listener = arrived.set
        path, close = serve_pty(wire)
        with serial.Serial(path, rate) as port:
            port.write(b"\0")
            assert arrived.wait(5)
        assert wire.host.line == Line(rate, 8, "E", 1)
        close()
        close()
        wire.close()

    def test_what_comes_late_to_the_program_is_not_its_delay(self) -> None:
        wire = make_wire(pace=1.0)
        arrived = clock.Event()
        wire.device.line = wire.host.line = Line(115200, 8, "N", 1)
        wire.device.listener = arrived.set
        path, close = serve_pty(wire)
        with serial.Serial(path, 115200, timeout=5) as port:
            wire.device.send(b"?", at=clock.monotonic() - 0.02)
            assert port.read(1) == b"?"
            port.write(b"!")
            assert arrived.wait(5)
        assert take(wire.device, 1) == b"!"
        assert wire.device.arrived_at <= clock.monotonic() - 0.02 + 2 / 11520
        close()
        wire.close()

    def test_it_takes_the_host_end_and_gives_it_back(self, wire: UartWire) -> None:
        _, close = serve_pty(wire)
        with pytest.raises(serial.SerialException):
            open_host(wire)
        close()
        open_host(wire).close()

    def test_programs_see_the_adapter_vanish(self, wire: UartWire) -> None:
        path, close = serve_pty(wire)
        slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(slave)
        wire.unplug()
        with contextlib.suppress(OSError):  # A hang-up is the end of the file or EIO, by the kernel's timing.
            assert os.read(slave, 1) == b""
        os.close(slave)
        close()
