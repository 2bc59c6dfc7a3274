"""An emulated DFU part at the end of a USB/IP stream, asked as the kernel asks (Documentation/usb/usbip_protocol.rst)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.usb import usbip
from proxyflash.emulators.usb.usbip import UsbIpDevice
from proxyflash.emulators.usb.wire import UsbWire

pytestmark = pytest.mark.real_time("USB/IP over sockets")

LONG = 300.0
DEVICE_64 = bytes.fromhex("80 06 00 01 00 00 40 00")
"""GET_DESCRIPTOR of the device, 64 bytes: how the hub driver begins after a reset."""
DEVICE_18 = bytes.fromhex("80 06 00 01 00 00 12 00")
CONFIGURE = bytes.fromhex("00 09 01 00 00 00 00 00")
CONFIGURATION = bytes.fromhex("80 08 00 00 00 00 01 00")
GETSTATUS = bytes.fromhex("a1 03 00 00 00 00 06 00")
DETACH = bytes.fromhex("21 00 e8 03 00 00 00 00")
DFU_IDLE, APP_IDLE, APP_DETACH = (bytes([0, 0, 0, 0, state, 0]) for state in (2, 0, 1))


@dataclass
class Answer:
    command: int
    number: int
    status: int
    count: int
    data: bytes


class Host:
    """The kernel's end of a stream. A part that is plugged in again comes over another one."""

    def __init__(self, part: str = "slot-dfu", faults: FaultPlan | None = None, **table: Any) -> None:
        self.wire = UsbWire(uuid.uuid4().hex, pace=0, faults=Faults(faults or FaultPlan()))
        self.part = DfuDevice(DeviceSpec("part", settings={"part": part, **table}, pace=0), self.wire)
        if "boot" not in table:
            self.part.flash.load(self.part.application_start, application.make("1.4.2", "part", "Acme", 3000))
            self.part.supply.off()
            self.part.supply.on()
        self.port = self.wire.ports[0]
        self._numbers = itertools.count(1)
        self.connect()

    def connect(self) -> None:
        self.stream, device = socket.socketpair()
        self.stream.settimeout(LONG)
        assert self.port.function is not None
        self.served = UsbIpDevice(self.wire, self.port, self.port.function, device)

    def reconnect(self) -> None:
        """As vhci does when another function is plugged in."""
        self.served.close()
        self.stream.close()
        self.connect()

    def send(self, setup: bytes, data: bytes = b"", endpoint: int = 0) -> int:
        number, size = next(self._numbers), struct.unpack_from("<H", setup, 6)[0]
        head = struct.pack(">5I", 1, number, 0x10001, setup[0] >> 7, endpoint)
        self.stream.sendall(head + struct.pack(">IiiiI", 0, size, 0, 0, 0) + setup + data)
        return number

    def unlink(self, victim: int) -> int:
        number = next(self._numbers)
        self.stream.sendall(struct.pack(">6I24x", 2, number, 0x10001, 0, 0, victim))
        return number

    def answer(self, inward: bool = True) -> Answer:
        head = self.stream.recv(48, socket.MSG_WAITALL)
        command, number, _, _, _, status, count = struct.unpack_from(">5Iii", head)
        assert head[20 + 20 :] == bytes(8)
        data = self.stream.recv(count, socket.MSG_WAITALL) if command == 3 and inward and count else b""
        return Answer(command, number, status, count, data)

    def control(self, setup: bytes, data: bytes = b"") -> Answer:
        number = self.send(setup, data)
        answer = self.answer(inward=bool(setup[0] & 0x80))
        assert (answer.command, answer.number) == (3, number)
        return answer

    def enumerate(self) -> None:
        """As the hub driver does it, with SET_ADDRESS left out, which vhci keeps to itself."""
        for setup in (DEVICE_64, DEVICE_18, CONFIGURE):
            assert self.control(setup).status == 0

    def ended(self) -> bool:
        return self.stream.recv(1) == b""

    def close(self) -> None:
        self.served.close()
        self.stream.close()
        self.part.close()
        self.wire.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def build(*arguments: Any, **more: Any) -> Host:
        made.append(Host(*arguments, **more))
        return made[-1]

    yield build
    for host in made:
        host.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("usbip-")]


def test_by_the_documents_bytes(make: Callable[..., Host]) -> None:
    """USBIP_CMD_SUBMIT and USBIP_RET_SUBMIT, written out by hand; the descriptor by USB 2.0, table 9-8."""
    host = make(boot="dfu")
    host.stream.sendall(
        bytes.fromhex(
            "00000001 00000d05 0001000f 00000001 0000000000000200 00000012 00000000 00000000 00000000 8006000100001200"
        )
    )
    assert host.stream.recv(48 + 18, socket.MSG_WAITALL) == bytes.fromhex(
        "00000003 00000d05 00000000 00000000 00000000"
        "00000000 00000012 00000000 00000000 00000000 0000000000000000"
        "12 01 00 02 00 00 00 40 09 12 01 df 00 01 01 02 03 01"
    )


def test_it_begins_without_a_configuration(make: Callable[..., Host]) -> None:
    host = make(boot="dfu")
    assert host.control(CONFIGURATION).data == b"\0"
    assert host.control(GETSTATUS).status == -errno.EPIPE
    host.enumerate()
    assert host.control(CONFIGURATION).data == b"\1"
    assert host.control(GETSTATUS).data == DFU_IDLE


def test_what_goes_out_is_counted(make: Callable[..., Host]) -> None:
    host = make(boot="dfu")
    host.enumerate()
    answer = host.control(bytes.fromhex("21 01 00 00 00 00 80 00"), bytes(128))
    assert (answer.status, answer.count) == (0, 128)
    # A block that is longer than wTransferSize is refused.
    answer = host.control(bytes.fromhex("21 01 00 00 00 00 01 10"), bytes(4097))
    assert (answer.status, answer.count) == (-errno.EPIPE, 0)


def test_no_more_than_was_asked_for(make: Callable[..., Host]) -> None:
    assert make(boot="dfu").control(bytes.fromhex("80 06 00 01 00 00 05 00")).data == bytes.fromhex("12 01 00 02 00")


def test_other_endpoints_there_are_none(make: Callable[..., Host]) -> None:
    host = make(boot="dfu")
    host.send(CONFIGURATION, endpoint=1)
    assert host.answer().status == -errno.EPIPE


class TestResets:
    def test_one_after_a_detach_brings_dfu_mode(self, make: Callable[..., Host]) -> None:
        host = make()
        host.enumerate()
        assert host.control(GETSTATUS).data == APP_IDLE
        assert host.control(DETACH).status == 0
        assert host.control(GETSTATUS).data == APP_DETACH
        # Nobody answers the reset device any more.
        assert host.control(DEVICE_64).status == -errno.EPROTO
        assert host.control(DEVICE_64).status == -errno.EPROTO
        host.reconnect()
        # An enumeration has several resets, of which none brings it back.
        for _ in range(3):
            assert host.control(DEVICE_64).data[8:12] == bytes.fromhex("09 12 01 df")
            assert host.control(DEVICE_18).status == 0
        host.enumerate()
        assert host.control(GETSTATUS).data == DFU_IDLE

    @pytest.mark.parametrize("length", ["08", "40"])
    def test_one_without_a_detach_unconfigures_it(self, make: Callable[..., Host], length: str) -> None:
        host = make()
        host.enumerate()
        assert host.control(bytes.fromhex(f"80 06 00 01 00 00 {length} 00")).status == 0
        assert host.control(CONFIGURATION).data == b"\0"
        host.enumerate()
        assert host.control(GETSTATUS).data == APP_IDLE

    def test_other_lengths_are_no_reset(self, make: Callable[..., Host]) -> None:
        host = make()
        host.enumerate()
        host.control(DETACH)
        for length in ("12", "09", "ff"):
            assert host.control(bytes.fromhex(f"80 06 00 01 00 00 {length} 00")).status == 0
        assert host.control(GETSTATUS).data == APP_DETACH


class TestNoAnswer:
    def test_a_transfer_waits_until_it_is_taken_back(self, make: Callable[..., Host]) -> None:
        host = make(boot="dfu", mute=True)
        host.enumerate()
        waits = host.send(GETSTATUS)
        # Others are answered in the meantime.
        assert host.control(CONFIGURATION).data == b"\1"
        number = host.unlink(waits)
        assert host.answer() == Answer(4, number, -errno.ECONNRESET, 0, b"")
        number = host.unlink(waits)
        assert host.answer() == Answer(4, number, 0, 0, b"")

    def test_what_was_answered_is_not_taken_back(self, make: Callable[..., Host]) -> None:
        host = make(boot="dfu")
        done = host.control(CONFIGURATION).number
        number = host.unlink(done)
        assert host.answer() == Answer(4, number, 0, 0, b"")

    def test_a_lost_transfer(self, make: Callable[..., Host]) -> None:
        host = make(boot="dfu", faults=FaultPlan(drop=1.0, first=2, last=2))
        assert host.control(DEVICE_18).status == 0
        lost = host.send(DEVICE_18)
        assert host.control(DEVICE_18).status == 0
        assert host.unlink(lost)
        assert host.answer().status == -errno.ECONNRESET

    def test_too_many_that_wait_end_it(self, make: Callable[..., Host]) -> None:
        host = make(boot="dfu", mute=True)
        host.enumerate()
        for _ in range(1001):
            host.send(GETSTATUS)
        assert host.ended()


class TestEnds:
    def test_the_hosts_end_unplugs_it(self, make: Callable[..., Host]) -> None:
        host = make(boot="dfu")
        host.stream.close()
        with host.wire.changed:
            assert host.wire.changed.wait_for(lambda: host.port.function is None, LONG)

    def test_our_end_does_not(self, make: Callable[..., Host]) -> None:
        host = make(boot="dfu")
        host.served.close()
        host.served.close()
        assert host.ended()
        assert host.port.function is not None

    def test_a_part_whose_supply_is_cut(self, make: Callable[..., Host]) -> None:
        host = make(boot="dfu")
        host.enumerate()
        host.part.supply.off()
        assert host.control(GETSTATUS).status == -errno.EPROTO
        host.served.close()
        assert host.ended()

    def test_the_stream_stays_while_the_host_asks_on(
        self, make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What vhci_hcd sends into an ended stream hangs until its time-out."""
        monkeypatch.setattr(usbip, "QUIET_SECONDS", 1.0)
        monkeypatch.setattr(usbip, "LAST_ANSWERS_SECONDS", LONG)
        host = make(boot="dfu")
        host.part.supply.off()
        assert host.control(DEVICE_64).status == -errno.EPROTO
        closing = threading.Thread(target=host.served.close)
        closing.start()
        for _ in range(20):
            assert host.control(DEVICE_64).status == -errno.EPROTO
        assert host.ended()
        closing.join(LONG)

    def test_the_answer_that_is_under_way_comes_first(self, make: Callable[..., Host]) -> None:
        """A part that detaches on its own has left before its answer is out."""
        host = make("blind-dfu")
        host.enumerate()
        host.send(DETACH)
        host.served.close()
        assert host.answer(inward=False).status == 0
        assert host.ended()

    def test_a_host_that_does_not_read_does_not_hold_it(self, make: Callable[..., Host]) -> None:
        host = make(boot="dfu")
        host.enumerate()

        def ask_on() -> None:
            with contextlib.suppress(OSError):
                while True:
                    host.send(bytes.fromhex("80 06 00 02 00 00 ff 00"))

        asking = threading.Thread(target=ask_on)
        asking.start()
        time.sleep(0.1)
        host.served.close()
        asking.join(LONG)
        assert not asking.is_alive()

    @pytest.mark.parametrize(
        "message",
        [
            struct.pack(">5I28x", 3, 1, 0, 0, 0),
            struct.pack(">5I28x", 0, 1, 0, 0, 0),
            struct.pack(">5IIiiiI8x", 1, 1, 0, 0, 0, 0, -1, 0, 0, 0),
            struct.pack(">5IIiiiI8x", 1, 1, 0, 0, 0, 0, 0x10000, 0, 0, 0),
        ],
        ids=["an answer", "no command", "a negative size", "too long"],
    )
    def test_nonsense_ends_it(self, make: Callable[..., Host], message: bytes) -> None:
        host = make(boot="dfu")
        host.stream.sendall(message)
        assert host.ended()

    @given(data=st.binary(max_size=300))
    @settings(max_examples=100, deadline=None)
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever comes: it is answered or ends the stream, and the thread with it."""
        host = Host(boot="dfu")
        host.stream.sendall(data)
        host.stream.shutdown(socket.SHUT_WR)
        # It is reset where it ends with bytes that nobody has read.
        with contextlib.suppress(ConnectionResetError):
            while host.stream.recv(1 << 16):
                pass
        host.close()
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("usbip-")]
