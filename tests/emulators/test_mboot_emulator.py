"""The emulated MBoot, spoken to byte by byte: frames of other people's implementations, and the rules of the reference manual."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.mboot import sb
from proxyflash.emulators.mboot.loader import crc16, packet
from proxyflash.emulators.mboot.uart import MbootUartDevice
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.line import Line
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.transports import clock

PING, PING_RESPONSE = bytes.fromhex("5aa6"), bytes.fromhex("5aa7000201500000aaea")
ACK, NAK = bytes.fromhex("5aa1"), bytes.fromhex("5aa2")
WRITE = bytes.fromhex("5aa410009bef04010003 00a00000 28000000 00000000")
SUCCESS = bytes.fromhex("5aa40c002372a0000002 00000000 04000000")
NOT_ERASED = bytes.fromhex("5aa3 5aa40c0092a6a0000002 69000000 04000000")
SPEC: dict[str, Any] = {"part": "frdm-kl25z", "boot": True}


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.wire = UartWire(uuid.uuid4().hex)
        self.wire.host.line = Line(57600)
        self.device = MbootUartDevice.attach(DeviceSpec("imu", settings=SPEC | settings), self.wire)
        self.device.settle()

    def ask(self, data: bytes, seconds: float = 0.5) -> bytes:
        self.wire.host.send(data)
        clock.sleep(seconds)
        return self.wire.host.take(self.wire.host.available())

    def close(self) -> None:
        self.device.close()
        self.wire.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.close()


def data(payload: bytes) -> bytes:
    return packet(0xA5, payload)


def test_the_crc_is_xmodem() -> None:
    """Check value of the catalogue of CRCs."""
    assert crc16(b"123456789") == 0x31C3


def test_pings_set_the_bit_rate_and_are_answered(bench: Bench) -> None:
    assert bench.ask(PING) == PING_RESPONSE
    assert bench.ask(PING) == PING_RESPONSE


def test_a_byte_before_the_ping_does_not_set_it(bench: Bench) -> None:
    bench.wire.host.line = Line(9600)
    assert bench.ask(b"x") == b""
    bench.wire.host.line = Line(57600)
    assert bench.ask(PING) == PING_RESPONSE


def test_a_write(bench: Bench) -> None:
    bench.ask(PING)
    assert bench.ask(WRITE) == ACK + SUCCESS
    assert bench.ask(ACK + data(bytes(range(32)))) == ACK
    assert bench.ask(data(bytes(range(32, 40)))) == ACK + SUCCESS
    assert bench.device.flash.read(0xA000, 40) == bytes(range(40))


def test_a_write_where_nothing_was_erased_ends_early(bench: Bench) -> None:
    bench.device.flash.load(0xA000, bytes(32))
    bench.ask(PING)
    bench.ask(WRITE)
    assert bench.ask(ACK + data(bytes(range(32)))) == NOT_ERASED


def test_a_nak_has_the_response_repeated(bench: Bench) -> None:
    bench.ask(PING)
    bench.ask(WRITE)
    assert bench.ask(NAK) == SUCCESS


def test_a_garbled_packet_gets_a_nak(bench: Bench) -> None:
    bench.ask(PING)
    assert bench.ask(WRITE[:-1] + b"\1") == NAK
    assert bench.ask(WRITE) == ACK + SUCCESS


def test_a_packet_that_pauses_is_dropped(bench: Bench) -> None:
    bench.ask(PING)
    assert bench.ask(WRITE[:3]) == b""
    assert bench.ask(WRITE[3:]) == b""
    assert bench.ask(WRITE) == ACK + SUCCESS


def test_a_ping_ends_the_data_phase(bench: Bench) -> None:
    bench.ask(PING)
    bench.ask(WRITE)
    heard = bench.ask(ACK + PING)
    assert heard == PING_RESPONSE + bytes.fromhex("5aa3") + packet(0xA4, bytes.fromhex("a0000002 13270000 04000000"))
    assert bench.ask(PING) == b"", "it waits for an acknowledgement"
    assert bench.ask(PING) == PING_RESPONSE


@pytest.mark.parametrize(
    ("start", "size", "status"), [(0xA000, 0x400, 0), (0xA010, 0x400, 101), (0xA000, 0x10, 101), (0x9C00, 0x400, 10200)]
)
def test_erasing(start: int, size: int, status: int, bench: Bench) -> None:
    bench.device.flash.load(0x9C00, bytes(0x800))
    bench.ask(PING)
    heard = bench.ask(packet(0xA4, b"\2\0\0\3" + b"".join(word.to_bytes(4, "little") for word in (start, size, 0))))
    assert heard == ACK + packet(0xA4, b"\xa0\0\0\2" + status.to_bytes(4, "little") + b"\2\0\0\0")
    assert bench.device.flash.read(0xA000, 0x400) == (b"\xff" if status == 0 else b"\0") * 0x400
    assert bench.device.flash.read(0x9C00, 0x400) == bytes(0x400)


def test_a_part_whose_security_is_on() -> None:
    bench = Bench(secured=True)
    try:
        bench.ask(PING)
        heard = bench.ask(packet(0xA4, bytes.fromhex("03000003 00a00000 04000000 00000000")))
        assert heard == ACK + packet(0xA4, bytes.fromhex("a0000002 11270000 03000000"))
    finally:
        bench.close()


def test_the_application_starts_after_the_time_for_a_ping() -> None:
    bench = Bench(boot=False, detect=2.0)
    try:
        bench.device.flash.load(0xA000, application.make("1.5.0", "imu", "acme", 1000, start=0xA000))
        bench.device.reset()
        clock.sleep(1.9)
        assert bench.device.board.stage is Stage.LOADER
        clock.sleep(0.2)
        assert bench.device.application_version == "1.5.0"
        bench.device.reset()
        assert bench.ask(PING) == PING_RESPONSE
        clock.sleep(10)
        assert bench.device.board.stage is Stage.LOADER
    finally:
        bench.close()


def test_the_crc_of_boot_images_is_mpeg_2() -> None:
    """Check value of the catalogue of CRCs."""
    assert sb.crc32(b"123456789") == 0x0376E6E7


@pytest.mark.parametrize(
    ("place", "value", "status"),
    [(20, 0x58, 10101), (40, 1, 10103), (64, 0x5A, 10105), (100, 0x5A, 10106), (0, 0, 10002)],
)
def test_boot_images(place: int, value: int, status: int, bench: Bench) -> None:
    """A signature, a key, a command, a byte of the data that is wrong; a whole one."""
    image = application.make("1.5.0", "imu", "acme", 1000, start=0xA000)
    file = bytearray(sb.make(0xA000, image, 1024, reset=True))
    file[place] = value
    bench.ask(PING)
    assert bench.ask(packet(0xA4, b"\x08\1\0\1" + len(file).to_bytes(4, "little"))).startswith(ACK)
    heard = bench.ask(ACK)
    for start in range(0, len(file), 32):
        heard = bench.ask(data(bytes(file[start : start + 32])))
        if heard != ACK:
            break
    assert heard[2:] == packet(0xA4, b"\xa0\0\0\2" + status.to_bytes(4, "little") + b"\x08\0\0\0")
    assert (bench.device.flash.read(0xA000, 1000) == image) is (status == 10002)
