"""`HostileLine`: what a serial line may say to a flasher for ever. The flasher gives up in time, with an error of its own.

The other end is not a part. It is of a kind, such as noise or an echo, and sends what that kind sends at the pace of the
line. The clock is simulated: a line that talks for ever takes no longer to test than its bytes take to read.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ..emulators.serial.wire import UartWire
from ..enumerators.bench import Bench
from ..transports import clock
from ..transports.errors import ProxyflashError, Unexpected
from .part import NEW, Part
from .rig import Rig

BAUDRATE = 19_200
LONGEST = 60.0
"""Simulated seconds until a flasher has given up, with the short time limits of these profiles."""
HEARD = 64
"""Bytes of what the host said that one answer is made of."""

Pieces = Iterator[tuple[bytes, float]]
"""What the line says next, and seconds of silence after it; an empty piece waits until the host says something."""
Speaker = Callable[[bytes, Callable[[], bytes]], Pieces]
"""Called with the part's greeting, and what takes the bytes that the host has sent."""


def endless(piece: bytes) -> Speaker:
    return lambda greeting, heard: itertools.repeat((piece * (512 // len(piece)), 0.0))


def noise(seed: int) -> Speaker:
    def speak(greeting: bytes, heard: Callable[[], bytes]) -> Pieces:
        source = random.Random(seed)
        while True:
            yield source.randbytes(512), 0.0

    return speak


def text(greeting: bytes, heard: Callable[[], bytes]) -> Pieces:
    source = random.Random(3)
    while True:
        yield bytes(source.randrange(0x20, 0x7F) for _ in range(512)), 0.0


def echo(greeting: bytes, heard: Callable[[], bytes]) -> Pieces:
    while True:
        yield heard(), 0.0


def drip(greeting: bytes, heard: Callable[[], bytes]) -> Pieces:
    """Each byte just before a receiver's patience ends."""
    for byte in itertools.cycle(greeting):
        yield bytes((byte,)), 0.09


def bursts(greeting: bytes, heard: Callable[[], bytes]) -> Pieces:
    source = random.Random(4)
    while True:
        yield source.randbytes(4096), 1.0


def greeting_then_noise(greeting: bytes, heard: Callable[[], bytes]) -> Pieces:
    source = random.Random(5)
    while True:
        if heard():
            yield greeting, 0.0
            yield source.randbytes(64), 0.0
        yield b"", 0.0


def greeting_for_ever(greeting: bytes, heard: Callable[[], bytes]) -> Pieces:
    while True:
        yield greeting, 0.0


def greeting_to_each(greeting: bytes, heard: Callable[[], bytes]) -> Pieces:
    while True:
        yield (greeting if heard() else b""), 0.0


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
def spoken(speaker: Speaker, greeting: bytes) -> Iterator[str]:
    """A line on which it speaks; the URL of the host's end."""
    wire = UartWire(uuid.uuid4().hex)
    wire.device.line = wire.host.line
    ended = clock.Event()

    def heard() -> bytes:
        wire.device.available()
        return wire.device.take(HEARD)

    def speak() -> None:
        for piece, pause in speaker(greeting, heard):
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


class HostileLine(Part):
    """For bootloaders on serial lines, beside MemoryContract or SlotContract."""

    greeting: ClassVar[bytes]
    """What the bootloader may say first."""
    hostile_profile: ClassVar[Mapping[str, Any]] = {}
    """Keys that replace those of the profile: short time limits."""

    @pytest.mark.parametrize("kind", SPEAKERS)
    def test_a_line_that_talks_for_ever_is_given_up(self, kind: str, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path, profile=self.hostile_profile)
        with spoken(SPEAKERS[kind], self.greeting) as url:
            # What its application is asked may be a command to the bootloader, so the bootloader is looked for first.
            bus = {**self.bus, "baudrate": BAUDRATE, "probe": True, "url": url}
            (tmp_path / "bench.toml").write_text(self.bench_file(bus=bus, profile=self.hostile_profile))
            with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
                began = clock.monotonic()
                error = rig.error(bench, expect_version=NEW)
                assert clock.monotonic() - began < LONGEST
                assert isinstance(error, ProxyflashError), "the flash succeeded on a line without a part"
                assert not isinstance(error, Unexpected)
                assert error.code != "E-FAILED"
                assert str(error).isprintable()
                began = clock.monotonic()
                scan = bench.scan()
                assert len(scan.components) == 1
                assert not any(isinstance(fault, Unexpected) for _, fault in scan.faults)
                assert clock.monotonic() - began < LONGEST
