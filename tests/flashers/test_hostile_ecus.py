"""What may answer under an ECU's id for ever: the UDS flasher gives up in time, with an error of its own."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import can
import pytest
from proxyflash.emulators.can.wire import CanWire
from proxyflash.enumerators.bench import Bench
from proxyflash.testing import Rig
from proxyflash.tests.flashers.test_contract import KINDS
from proxyflash.transports import clock
from proxyflash.transports.errors import ProxyflashError, Unexpected

pytestmark = pytest.mark.simulated_time(limit=600)
REQUEST, RESPONSE = 0x7E0, 0x7E8
LONGEST = 200.0
"""Simulated seconds until the flasher has given up: a part that is busy is asked again for 5 s, with each request."""

BENCH = """
[bus.b]
kind = "can"
interface = "proxyflash"
channel = "{channel}"
[[component]]
name = "part"
bus = "b"
protocol = "uds"
address = {{request = 0x7E0, response = 0x7E8}}
[component.profile]
memory = [{{start = 0x10000, size = 0x70000, erase_unit = 4096}}]
security = {{key = "xor", secret = "5a5a5a5a"}}
timings = {{p2 = 0.05, latency = 0.2, reset_gap = 2.0, retries = 1, pending = 5, erase = 5}}
"""

Ecu = Callable[[Callable[[float], bytes | None]], Iterator[bytes]]
"""Called with what waits for a frame of the tester, for the given seconds; the frames that it sends."""


def to_each(*frames: bytes) -> Ecu:
    """Answers each frame but flow control."""

    def answer(heard: Callable[[float], bytes | None]) -> Iterator[bytes]:
        while True:
            data = heard(0.1)
            if data is not None and data[0] >> 4 != 3:
                yield from frames

    return answer


def negative(code: int) -> Ecu:
    def answer(heard: Callable[[float], bytes | None]) -> Iterator[bytes]:
        while True:
            data = heard(0.1)
            if data is not None and data[0] >> 4 == 0:
                yield bytes((3, 0x7F, data[1], code))

    return answer


def pending_for_ever(heard: Callable[[float], bytes | None]) -> Iterator[bytes]:
    asked = 0x10
    while True:
        data = heard(0.02)
        if data is not None and data[0] >> 4 == 0:
            asked = data[1]
        yield bytes((3, 0x7F, asked, 0x78))


def flood(frame: bytes) -> Ecu:
    def answer(heard: Callable[[float], bytes | None]) -> Iterator[bytes]:
        while True:
            heard(0.001)
            yield frame

    return answer


def random_frames(seed: int) -> Ecu:
    def answer(heard: Callable[[float], bytes | None]) -> Iterator[bytes]:
        source = random.Random(seed)
        while True:
            heard(0.001)
            yield source.randbytes(source.randrange(9))

    return answer


def positive_then_random(heard: Callable[[float], bytes | None]) -> Iterator[bytes]:
    """Agrees with each request, as far as one frame shows, and says nonsense behind that."""
    source = random.Random(1)
    while True:
        data = heard(0.1)
        if data is not None and data[0] >> 4 == 0 and data[1] == 0x10:
            # Its P2 and P2* are what the specification proposes: it could announce up to 65 and 655 s.
            yield bytes((6, 0x50, data[2], 0x00, 0x32, 0x01, 0xF4))
        elif data is not None and data[0] >> 4 == 0:
            yield bytes((7, data[1] | 0x40, *data[2:4])).ljust(3, b"\0") + source.randbytes(4)
        elif data is not None and data[0] >> 4 == 1:
            yield bytes((0x30, 0, 0))


def echo(heard: Callable[[float], bytes | None]) -> Iterator[bytes]:
    while True:
        data = heard(0.1)
        if data is not None:
            yield data


ECUS: dict[str, Ecu] = {
    "pending for ever": pending_for_ever,
    "busy, repeat": negative(0x21),
    **{f"refuses by 0x{code:02X}": negative(code) for code in (0x00, 0x10, 0x11, 0x22, 0x31, 0x7F, 0xFF)},
    "first frame of 4 GiB": to_each(bytes.fromhex("10 00 ff ff ff ff 50 02")),
    "first frame of 4095, and no more": to_each(bytes.fromhex("1f ff 50 02 00 00 00 00")),
    "wait flood": flood(bytes.fromhex("31 00 00")),
    "waits to each": to_each(bytes.fromhex("31 00 00")),
    "overflow flood": flood(bytes.fromhex("32 00 00")),
    "consecutive frames": flood(bytes.fromhex("21 00 00 00 00 00 00 00")),
    "first frames": to_each(*[bytes.fromhex("10 14 50 02 00 00 00 00")] * 20),
    "random 1": random_frames(1),
    "random 2": random_frames(2),
    "agrees, then nonsense": positive_then_random,
    "echo": echo,
}


@contextmanager
def answered(ecu: Ecu) -> Iterator[str]:
    """A wire with it; the wire's channel."""
    wire = CanWire(uuid.uuid4().hex)
    said: clock.SomeQueue[bytes] = clock.Queue()
    ended = clock.Event()

    def hear(message: can.Message) -> None:
        if message.arbitration_id == REQUEST:
            said.put(bytes(message.data))

    def heard(seconds: float) -> bytes | None:
        try:
            return said.get(timeout=seconds)
        except clock.Empty:
            return None

    node = wire.attach("ecu", hear)

    def waits(seconds: float) -> bytes | None:
        if ended.is_set():
            raise StopAsyncIteration
        return heard(seconds)

    def answer() -> None:
        try:
            for data in ecu(waits):
                node.send(can.Message(arbitration_id=RESPONSE, is_extended_id=False, data=data))
        except StopAsyncIteration:
            return

    thread = clock.Thread(answer, name="ecu")
    thread.start()
    try:
        yield wire.channel
    finally:
        ended.set()
        thread.join()
        wire.close()


@pytest.mark.parametrize("name", ECUS)
def test_an_ecu_that_answers_for_ever_is_given_up(name: str, tmp_path: Path) -> None:
    rig = Rig(KINDS["uds"](), tmp_path)
    with answered(ECUS[name]) as channel:
        (tmp_path / "bench.toml").write_text(BENCH.format(channel=channel))
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
            assert clock.monotonic() - began < LONGEST
            assert len(scan.components) == 1
            assert not any(isinstance(fault, Unexpected) for _, fault in scan.faults)
