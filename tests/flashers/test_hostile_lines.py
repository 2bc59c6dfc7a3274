"""What a line may say to a flasher for ever: each serial protocol gives up in time, with an error of its own.

The other end is no part: it says what its kind says at the pace of the line, whatever it hears. On simulated time, so
that a line that talks for ever costs what there is to read, and that how long it took is exact.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.enumerators.bench import Bench
from proxyflash.tests.flashers.sweeps.rig import KINDS, Rig
from proxyflash.transports import clock
from proxyflash.transports.errors import ProxyflashError, Unexpected

pytestmark = pytest.mark.simulated_time(limit=600)
BAUDRATE = 19_200
LONGEST = 60.0
"""Simulated seconds until a flasher has given up, with the short time limits of these profiles."""
HEARD = 64
"""Bytes of what the host said that one answer is made of."""

Pieces = Iterator[tuple[bytes, float]]
"""What the line says next, and seconds of silence after it; an empty piece waits until the host says something."""
Speaker = Callable[[str, Callable[[], bytes]], Pieces]
"""Called with the protocol and what takes the bytes that the host has sent."""

PROFILES = {
    "stm32-uart": 'answer = 0.1, entry = {reset = "dtr", boot0 = "rts", hold = 0.001, settle = 0.005}',
    "stk500v1": "answer = 0.2, entry = {discharge = 0.001, settle = 0.005}",
    "stk500v2": "answer = 0.2, entry = {discharge = 0.001, settle = 0.005}",
    "avr109": 'answer = 0.2, entry = {reset = "none"}',
    "smp": "answer = 0.3, quiet = 0.01, swap = 3.0, erase = 1.0",
    "xmodem": 'loader = "gecko", timings = {connect = 2, knock = 0.1, start = 2, block = 0.3, verdict = 1}',
    "ymodem": 'loader = "st-iap", timings = {connect = 2, knock = 0.1, start = 2, block = 0.3, verdict = 1}',
}
GREETINGS = {
    "stm32-uart": b"\x79",
    "stk500v1": b"\x14\x10",
    "stk500v2": bytes.fromhex("1b 01 00 0b 0e 01 00 08") + b"AVRISP_2" + b"\x15",
    "avr109": b"CATERIN",
    "smp": b"\x06\x09AAg=\n",
    "xmodem": b"\r\n1. upload gbl\r\n2. run\r\n3. ebl info\r\nBL > ",
    "ymodem": b"=== Main Menu ===\r\nDownload image\r\n",
}
"""What a part of this protocol may say first."""


def endless(piece: bytes) -> Speaker:
    return lambda protocol, heard: itertools.repeat((piece * (512 // len(piece)), 0.0))


def noise(seed: int) -> Speaker:
    def speak(protocol: str, heard: Callable[[], bytes]) -> Pieces:
        source = random.Random(seed)
        while True:
            yield source.randbytes(512), 0.0

    return speak


def text(protocol: str, heard: Callable[[], bytes]) -> Pieces:
    source = random.Random(3)
    while True:
        yield bytes(source.randrange(0x20, 0x7F) for _ in range(512)), 0.0


def echo(protocol: str, heard: Callable[[], bytes]) -> Pieces:
    while True:
        yield heard(), 0.0


def drip(protocol: str, heard: Callable[[], bytes]) -> Pieces:
    """Each byte just before a receiver's patience ends."""
    for byte in itertools.cycle(GREETINGS[protocol]):
        yield bytes((byte,)), 0.09


def bursts(protocol: str, heard: Callable[[], bytes]) -> Pieces:
    source = random.Random(4)
    while True:
        yield source.randbytes(4096), 1.0


def greeting_then_noise(protocol: str, heard: Callable[[], bytes]) -> Pieces:
    source = random.Random(5)
    while True:
        if heard():
            yield GREETINGS[protocol], 0.0
            yield source.randbytes(64), 0.0
        yield b"", 0.0


def greeting_for_ever(protocol: str, heard: Callable[[], bytes]) -> Pieces:
    while True:
        yield GREETINGS[protocol], 0.0


def greeting_to_each(protocol: str, heard: Callable[[], bytes]) -> Pieces:
    while True:
        yield (GREETINGS[protocol] if heard() else b""), 0.0


SPEAKERS: dict[str, Speaker] = {
    **{f"0x{byte:02X}": endless(bytes((byte,))) for byte in (0x00, 0xFF, 0x79, 0x1F, 0x06, 0x15, 0x18, 0x43, 0x0A)},
    "in sync, ok": endless(b"\x14\x10"),
    "random 1": noise(1),
    "random 2": noise(2),
    "text": text,
    "echo": echo,
    "drip": drip,
    "bursts": bursts,
    "greeting, then noise": greeting_then_noise,
    "greeting for ever": greeting_for_ever,
    "greeting to each": greeting_to_each,
}


@contextmanager
def spoken(speaker: Speaker, protocol: str) -> Iterator[str]:
    """A line on which it speaks; the URL of the host's end."""
    wire = UartWire(uuid.uuid4().hex)
    wire.device.line = wire.host.line
    ended = clock.Event()

    def heard() -> bytes:
        wire.device.available()
        return wire.device.take(HEARD)

    def speak() -> None:
        for piece, pause in speaker(protocol, heard):
            if ended.is_set():
                return
            wire.device.line = wire.host.line
            wire.device.send(piece)
            ended.wait(len(piece) * wire.device.byte_seconds + pause or 0.001)

    thread = clock.Thread(speak, name="hostile")
    thread.start()
    try:
        yield wire.host_settings()["url"]
    finally:
        ended.set()
        thread.join()
        wire.close()


def bench_file(protocol: str, url: str) -> str:
    """Its question has letters that a Caterina takes for commands, so the bus says that the bootloader is looked for."""
    return f"""
[bus.b]
kind = "serial"
url = "{url}"
baudrate = {BAUDRATE}
dtr = false
rts = false
probe = true
[[component]]
name = "part"
bus = "b"
protocol = "{protocol}"
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}
profile = {{{PROFILES[protocol]}}}
"""


@pytest.mark.parametrize("protocol", PROFILES)
@pytest.mark.parametrize("kind", SPEAKERS)
def test_a_line_that_talks_for_ever_is_given_up(protocol: str, kind: str, tmp_path: Path) -> None:
    rig = Rig(KINDS[protocol], tmp_path)
    with spoken(SPEAKERS[kind], protocol) as url:
        (tmp_path / "bench.toml").write_text(bench_file(protocol, url))
        with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
            began = clock.monotonic()
            with pytest.raises(ProxyflashError) as told:
                bench.component("part").flash(rig.image, expect_version="1.5.0")
            assert clock.monotonic() - began < LONGEST
            assert not isinstance(told.value, Unexpected)
            assert told.value.code != "E-FAILED"
            assert str(told.value).isprintable()
            began = clock.monotonic()
            scan = bench.scan()
            assert len(scan.components) == 1
            assert not any(isinstance(fault, Unexpected) for _, fault in scan.faults)
            assert clock.monotonic() - began < LONGEST
