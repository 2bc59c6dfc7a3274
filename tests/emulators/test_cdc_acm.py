"""The emulated USB serial adapter, asked as a host asks: USB/IP over a socket pair, without a kernel."""

from __future__ import annotations

import errno
import itertools
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.errors import VhciAbsent
from proxyflash.emulators.serial.acm_tty import AcmTty
from proxyflash.emulators.serial.line import Line
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.usb.cdc_acm import CdcAcm, descriptors
from proxyflash.emulators.usb.device import Stall
from proxyflash.emulators.usb.usbip import UsbIpDevice
from proxyflash.emulators.usb.wire import UsbWire

pytestmark = pytest.mark.real_time("USB/IP over a socket pair")

CONFIGURATION = bytes.fromhex(
    "09 02 43 00 02 01 00 80 32"
    "09 04 00 00 01 02 02 01 00  05 24 00 20 01  05 24 01 00 01  04 24 02 06  05 24 06 00 01  07 05 82 03 10 00 0a"
    "09 04 01 00 02 0a 00 00 00  07 05 01 02 40 00 00  07 05 81 02 40 00 00"
)
"""By hand from USB 2.0, tables 9-10, 9-12, 9-13, and CDC 1.2, tables 15 and 16, PSTN 1.2, tables 3 and 4."""
SET_115200_8E1 = bytes.fromhex("21 20 00 00 00 00 07 00"), bytes.fromhex("00 c2 01 00 00 02 08")


@dataclass
class Answer:
    number: int
    status: int
    count: int
    data: bytes


class Host:
    """The USB/IP client's side (Linux, Documentation/usb/usbip_protocol.rst): 48 bytes of header, big endian."""

    def __init__(self, *, pace: float = 0.0) -> None:
        self.line = UartWire(uuid.uuid4().hex, pace=pace)
        self.adapter = CdcAcm(self.line, "imu")
        self.usb = UsbWire(uuid.uuid4().hex, pace=0)
        self.port = self.usb.new_port()
        self.usb.plug(self.port, self.adapter.function)
        self.stream, device = socket.socketpair()
        self.stream.settimeout(300)
        self.served = UsbIpDevice(self.usb, self.port, self.adapter.function, device)
        self._numbers = itertools.count(1)
        self._inward: set[int] = set()

    def submit(self, endpoint: int, *, data: bytes = b"", size: int = 0, setup: bytes = bytes(8)) -> int:
        """`endpoint`: its address; data goes out, `size` bytes come in."""
        number, inward = next(self._numbers), endpoint >> 7
        if inward:
            self._inward.add(number)
        head = struct.pack(">5I", 1, number, 0x10001, inward, endpoint & 0x7F)
        self.stream.sendall(head + struct.pack(">IiiiI", 0, size or len(data), 0, 0, 0) + setup + data)
        return number

    def unlink(self, number: int) -> None:
        self.stream.sendall(struct.pack(">6I24x", 2, next(self._numbers), 0x10001, 0, 0, number))

    def answer(self) -> Answer:
        """The next one. To an unlink: with status alone."""
        head = self.stream.recv(48, socket.MSG_WAITALL)
        command, number, _, _, _, status, count = struct.unpack_from(">5Iii", head)
        assert command in (3, 4)
        if command == 4:
            return Answer(number, status, 0, b"")
        data = self.stream.recv(count, socket.MSG_WAITALL) if number in self._inward and count else b""
        return Answer(number, status, count, data)

    def control(self, setup: bytes, data: bytes = b"") -> Answer:
        size = struct.unpack_from("<H", setup, 6)[0]
        self.submit(0x80 if setup[0] & 0x80 else 0, data=data, size=size, setup=setup)
        return self.answer()

    def configure(self) -> None:
        assert self.control(bytes.fromhex("00 09 01 00 00 00 00 00")).status == 0

    def no_answer(self) -> bool:
        """So far."""
        # Whatever comes after it has been looked at when this is answered.
        return self.control(bytes.fromhex("80 08 00 00 00 00 01 00")).data == b"\1"

    def close(self) -> None:
        self.served.close()
        self.stream.close()
        self.adapter.release()
        self.usb.close()
        self.line.close()


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    made.configure()
    yield made
    made.close()


def test_its_configuration(host: Host) -> None:
    assert host.control(bytes.fromhex("80 06 00 02 00 00 ff 00")).data == CONFIGURATION
    assert descriptors("imu").whole_configuration() == CONFIGURATION


class TestRequests:
    def test_the_line_coding(self, host: Host) -> None:
        assert host.control(*SET_115200_8E1).count == 7
        assert host.line.host.line == Line(115_200, 8, "E", 1)
        assert host.control(bytes.fromhex("a1 21 00 00 00 00 07 00")).data == SET_115200_8E1[1]

    @pytest.mark.parametrize(
        ("coding", "line"),
        [
            ("80 25 00 00 00 00 08", Line(9600, 8, "N", 1)),
            ("90 d0 03 00 02 01 07", Line(250_000, 7, "O", 2)),
            ("01 00 00 00 01 03 05", Line(1, 5, "M", 1.5)),
            ("40 42 0f 00 00 04 06", Line(1_000_000, 6, "S", 1)),
        ],
    )
    def test_all_of_its_values(self, host: Host, coding: str, line: Line) -> None:
        host.control(SET_115200_8E1[0], bytes.fromhex(coding))
        assert host.line.host.line == line

    @pytest.mark.parametrize(
        "coding", ["00 00 00 00 00 00 08", "80 25 00 00 03 00 08", "80 25 00 00 00 05 08", "80 25 00 00 00 00 10"]
    )
    def test_no_line_coding(self, host: Host, coding: str) -> None:
        before = host.line.host.line
        assert host.control(SET_115200_8E1[0], bytes.fromhex(coding)).status == -errno.EPIPE
        assert host.line.host.line == before

    def test_the_modem_lines_change_together(self, host: Host) -> None:
        seen: list[tuple[bool, bool]] = []
        host.line.modem_listener = lambda: seen.append((host.line.dtr, host.line.rts))
        for value in (3, 1, 2, 0):
            host.control(bytes([0x21, 0x22, value, 0, 0, 0, 0, 0]))
        assert seen == [(True, True), (True, False), (False, True), (False, False)]

    def test_breaks(self, host: Host) -> None:
        host.line.device.checks = False
        host.control(bytes.fromhex("21 23 ff ff 00 00 00 00"))
        assert host.line.host.low
        host.control(bytes.fromhex("21 23 00 00 00 00 00 00"))
        assert not host.line.host.low
        host.control(bytes.fromhex("21 23 01 00 00 00 00 00"))
        ends = time.monotonic() + 300
        while host.line.host.low and time.monotonic() < ends:
            time.sleep(0.001)
        assert not host.line.host.low
        assert host.line.device.take(host.line.device.available()) == b"\0\0"

    def test_nothing_before_it_is_configured(self) -> None:
        host = Host()
        assert host.control(*SET_115200_8E1).status == -errno.EPIPE
        host.close()

    @settings(max_examples=200, deadline=None)
    @given(kind=st.sampled_from([0x21, 0xA1]), request=st.integers(0x1F, 0x24), value=st.integers(0, 0xFFFF),
           index=st.integers(0, 2), data=st.binary(max_size=9))  # fmt: skip
    def test_any_request_is_answered_or_refused(
        self, kind: int, request: int, value: int, index: int, data: bytes
    ) -> None:
        line = UartWire(uuid.uuid4().hex, pace=0)
        adapter = CdcAcm(line, "imu")
        try:
            assert len(adapter.function.control(struct.pack("<BBHHH", kind, request, value, index, 7), data)) in (0, 7)
        except Stall:
            pass
        finally:
            adapter.release()
            line.close()
        assert (line.dtr, line.rts, line.host.low) == (False, False, False)


class TestData:
    def test_to_the_part(self, host: Host) -> None:
        number = host.submit(0x01, data=b"hello")
        assert host.answer() == Answer(number, 0, 5, b"")
        assert host.line.device.take(host.line.device.available()) == b"hello"

    def test_from_the_part_in_the_order_in_which_it_was_asked_for(self, host: Host) -> None:
        first, second = host.submit(0x81, size=4), host.submit(0x81, size=128)
        assert host.no_answer()
        host.line.device.send(b"abcdef")
        host.adapter.function.ready()
        assert [host.answer(), host.answer()] == [Answer(first, 0, 4, b"abcd"), Answer(second, 0, 2, b"ef")]
        # What is there already is given at once.
        host.line.device.send(b"g")
        host.submit(0x81, size=128)
        assert host.answer().data == b"g"

    def test_what_was_taken_back_gets_nothing(self, host: Host) -> None:
        first, second = host.submit(0x81, size=128), host.submit(0x81, size=128)
        host.unlink(first)
        assert host.answer().status == -errno.ECONNRESET
        host.unlink(first)
        assert host.answer().status == 0
        host.line.device.send(b"x")
        host.adapter.function.ready()
        assert host.answer() == Answer(second, 0, 1, b"x")

    def test_what_the_transmitter_has_no_room_for_waits(self) -> None:
        host = Host(pace=1.0)
        host.configure()
        # 1,000,000 bit/s, 8N1.
        host.control(SET_115200_8E1[0], bytes.fromhex("40 42 0f 00 00 00 08"))
        host.line.device.line = host.line.host.line
        calls: list[bool] = []
        host.line.host.listener = lambda: calls.append(host.adapter.is_full)
        data = bytes(range(250)) * 20
        number = host.submit(0x01, data=data)
        assert host.no_answer()
        assert calls == [True]
        got, ends = b"", time.monotonic() + 300
        while len(got) < len(data) and time.monotonic() < ends:
            host.adapter.function.ready()
            got += host.line.device.take(host.line.device.available())
            time.sleep(0.001)
        assert got == data
        assert host.answer() == Answer(number, 0, len(data), b"")
        assert not host.adapter.is_full
        host.close()

    def test_no_such_endpoint(self, host: Host) -> None:
        number = host.submit(0x83, size=8)
        assert host.answer() == Answer(number, -errno.EPIPE, 0, b"")

    def test_one_that_has_left_says_nothing(self, host: Host) -> None:
        host.submit(0x81, size=8)
        host.usb.unplug(host.port)
        host.line.device.send(b"x")
        host.adapter.function.ready()
        host.submit(0x01, data=b"x")
        host.served.close()
        assert host.stream.recv(1) == b""

    def test_so_many_transfers_that_it_gives_up(self, host: Host) -> None:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            for _ in range(2_000):
                host.submit(0x81, size=8)
            while True:
                host.submit(0x81, size=8)


class TestClaims:
    def test_the_line_is_the_adapters_alone(self, host: Host) -> None:
        with pytest.raises(OSError) as caught:
            CdcAcm(host.line, "other")
        assert caught.value.errno == errno.EBUSY

    def test_released_it_lets_go_of_everything(self, host: Host) -> None:
        host.control(bytes.fromhex("21 22 03 00 00 00 00 00"))
        host.control(bytes.fromhex("21 23 ff ff 00 00 00 00"))
        host.adapter.release()
        assert (host.line.dtr, host.line.rts, host.line.host.low) == (False, False, False)
        host.line.claim()

    def test_without_the_kernels_controller(self, tmp_path: Path) -> None:
        """It says so, and leaves the line to others."""
        threads = set(threading.enumerate())
        line = UartWire(uuid.uuid4().hex)
        with pytest.raises(VhciAbsent):
            AcmTty(line, "imu", tmp_path / "vhci_hcd.0")
        line.claim()
        line.close()
        assert set(threading.enumerate()) <= threads
