"""The emulated X- and YMODEM loaders, byte for byte: their menus, and receiving as the "X/YMODEM Protocol Reference" has it."""

from __future__ import annotations

import binascii
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators import application
from proxyflash.emulators.device import BadDevice, DeviceSpec
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.xymodem.device import XmodemDevice, XymodemDevice, YmodemDevice
from proxyflash.emulators.xymodem.receiver import crc
from proxyflash.tests.emulators.line_lab import ByteRig
from proxyflash.tests.rigs import rigs

ACK, NAK, CAN, EOT = b"\x06", b"\x15", b"\x18", b"\x04"
MENU = b"\r\nGecko Bootloader v2.04.02\r\n1. upload gbl\r\n2. run\r\n3. ebl info\r\nBL > \0"


class Rig(ByteRig):
    """One part in its loader on a line without pace, and the host's port."""

    device: XymodemDevice

    def __init__(self, protocol: str, part: str, **table: Any) -> None:
        self.wire = UartWire(uuid.uuid4().hex, pace=0)
        kind: type[XymodemDevice] = XmodemDevice if protocol == "xmodem" else YmodemDevice
        spec = DeviceSpec("part", settings={"part": part, "boot": True, "timeout": 1, **table}, pace=0)
        self.device = kind.attach(spec, self.wire)
        self.board = self.device.board
        self.flash = self.device.flash
        self.device.settle()
        self.port = self.opened(dtr=True, rts=True, baudrate=115_200, timeout=10)


make_rig = rigs(Rig)


def block(number: int, data: bytes) -> bytes:
    """Figure 11, and STX for 1024 bytes (4.3)."""
    lead = b"\x01" if len(data) == 128 else b"\x02"
    return lead + bytes([number, 255 - number]) + data + binascii.crc_hqx(data, 0).to_bytes(2, "big")


def firmware(rig: Rig, size: int) -> bytes:
    return application.make("1.5.0", "part", "Acme", size, start=rig.flash.base)


class TestGecko:
    def begun(self, make_rig: Callable[..., Rig], **table: Any) -> Rig:
        rig = make_rig("xmodem", "efr32mg1", **table)
        rig.ask(b"\r", MENU[-len(MENU) :])
        rig.port.reset_input_buffer()
        rig.ask(b"1", b"\r\nbegin upload\r\n\0C")
        return rig

    def test_a_file(self, make_rig: Callable[..., Rig]) -> None:
        rig = self.begun(make_rig)
        data = firmware(rig, 640)
        for number in range(5):
            rig.ask(block(number + 1, data[number * 128 : number * 128 + 128]), ACK)
        rig.ask(EOT, ACK + b"\r\nSerial upload complete\r\n\0" + MENU)
        assert rig.flash.read(rig.flash.base, 640) == data

    def test_a_block_that_comes_again_is_acknowledged_and_dropped(self, make_rig: Callable[..., Rig]) -> None:
        """7.3.2: "a repeat of the previously received block ... should be considered OK"."""
        rig = self.begun(make_rig)
        data = firmware(rig, 640)
        for number in (0, 0, 1, 2, 2, 2, 3, 4):
            rig.ask(block(number + 1, data[number * 128 : number * 128 + 128]), ACK)
        rig.ask(EOT, ACK + b"\r\nSerial upload complete")
        assert rig.flash.read(rig.flash.base, 640) == data

    def test_a_garbled_block_is_refused(self, make_rig: Callable[..., Rig]) -> None:
        rig = self.begun(make_rig)
        good = block(1, bytes(128))
        rig.ask(good[:-1] + b"\x01", NAK)
        rig.ask(good[:2] + b"\x00" + good[3:], NAK)
        rig.ask(block(2, bytes(128)), NAK)
        rig.ask(good, ACK)
        rig.ask(block(3, bytes(128)), NAK)

    def test_a_byte_that_begins_no_packet_ends_it(self, make_rig: Callable[..., Rig]) -> None:
        rig = self.begun(make_rig)
        rig.ask(b"x", CAN * 3 + b"\r\nSerial upload aborted\r\n\0\r\nblock error 0x\x0021\r\n" + MENU)

    def test_a_file_that_is_not_whole(self, make_rig: Callable[..., Rig]) -> None:
        rig = self.begun(make_rig)
        data = firmware(rig, 1280)
        for number in range(5):
            rig.ask(block(number + 1, data[number * 128 : number * 128 + 128]), ACK)
        rig.ask(EOT, CAN * 3 + b"\r\nSerial upload aborted\r\n\0\r\nfile error 0x\x0043\r\n" + MENU)
        rig.ask(b"2", MENU)

    def test_a_file_for_something_else_erases_nothing(self, make_rig: Callable[..., Rig]) -> None:
        rig = self.begun(make_rig)
        for number in range(3):
            rig.ask(block(number + 1, bytes(128)), ACK)
        rig.ask(block(4, bytes(128)), CAN * 3 + b"\r\nSerial upload aborted")
        assert rig.flash.erases == 0


class TestBatch:
    def test_figure_3(self, make_rig: Callable[..., Rig]) -> None:
        """The first end is refused, the second acknowledged; then it asks for another file, and takes an empty name."""
        rig = make_rig("ymodem", "stm32l4-iap")
        rig.port.write(b"\r")
        rig.port.read_until(b"\n" + b"=" * 58 + b"\r\n\n")
        rig.ask(b"1", b"Waiting for the file to be sent ... (press 'a' to abort)\n\rC")
        data = firmware(rig, 1500)
        rig.ask(block(0, b"foo.c\x001500".ljust(128, b"\0")), ACK + b"C")
        rig.ask(block(1, data[:1024]), ACK)
        rig.ask(block(2, data[1024:].ljust(1024, b"\x1a")), ACK)
        rig.ask(EOT, NAK)
        rig.ask(EOT, ACK + b"C")
        rig.ask(block(0, bytes(128)), ACK + b"\n\n\r Programming Completed Successfully!\n\r")
        assert b" Size: 1500 Bytes" in rig.port.read_until(b"Bytes")
        assert rig.flash.read(rig.flash.base, 1504) == data + b"\xff" * 4

    def test_figure_8_a_stream(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("ymodem", "shell-nor", asks="stream")
        rig.ask(b"\x03", b"<INTERRUPT>\r\n=> ")
        rig.port.write(b"loady\r")
        assert rig.port.read_until(b"G").endswith(b"bps...\r\nG")
        rig.ask(block(0, b"a\x00200".ljust(128, b"\0")), b"G")
        rig.port.write(block(1, bytes(128)) + block(2, bytes(128)))
        rig.ask(EOT, ACK + b"G")
        rig.ask(block(0, bytes(128)), b"## Total Size      = 0x000000c8 = 200 Bytes\r\n")

    def test_an_error_in_a_stream_ends_it(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("ymodem", "shell-nor", asks="stream")
        rig.ask(b"\x03", b"<INTERRUPT>\r\n=> ")
        rig.port.write(b"loady\r")
        rig.port.read_until(b"G")
        rig.ask(block(0, b"a\x00200".ljust(128, b"\0")), b"G")
        rig.ask(block(1, bytes(128))[:-1] + b"x", CAN * 8 + b"\b" * 8 + b"## Binary (ymodem) download aborted\r\n=> ")


def test_the_crc_s_check_value() -> None:
    """CRC-16/XMODEM over "123456789"."""
    assert crc(b"123456789") == 0x31C3


@given(st.binary(max_size=2000))
def test_the_crc_is_the_one_of_binascii(data: bytes) -> None:
    assert crc(data) == binascii.crc_hqx(data, 0)


@pytest.mark.parametrize(
    "table",
    [
        {"part": "shell-nor", "asks": "zmodem"},
        {"part": "shell-nor", "trouble": "all"},
        {"part": "shell-nor", "timeout": 0},
        {"part": "shell-nor", "baudrate": 0},
        {"part": "stm32l4-iap", "asks": "stream"},
        {"part": "efr32mg1"},
        {"part": "shell-nor", "wiring": "dtr-boot,dtr-reset"},
    ],
)
def test_a_setting_that_does_not_hold(table: dict[str, Any]) -> None:
    wire = UartWire(uuid.uuid4().hex, pace=0)
    try:
        with pytest.raises(BadDevice):
            YmodemDevice.attach(DeviceSpec("part", settings=table), wire)
    finally:
        wire.close()


PIECES = st.sampled_from(
    [b"1", b"2", b"3", b"\r", b"loadx\r", b"loady\r", b"crc32 0 ffffffffff\r", b"erase 04200000 +1\r", b"cp.b 0 0 1\r",
     b"\x03", CAN + CAN, EOT, b"\x01", b"\x02", block(0, b"a\x005".ljust(128, b"\0")), block(1, bytes(128)), ACK]
)  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "part"),
    [("xmodem", "efr32mg1"), ("ymodem", "stm32l4-iap"), ("xmodem", "shell-nor"), ("ymodem", "shell-nor")],
)
@given(sent=st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=12))
@settings(max_examples=40, deadline=None)
def test_whatever_it_is_sent(protocol: str, part: str, sent: list[bytes]) -> None:
    """It may do anything but break."""
    rig = Rig(protocol, part, timeout=0.02)
    for piece in sent:
        rig.port.write(piece)
    rig.device.settle()
    rig.close()
