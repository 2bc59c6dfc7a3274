"""What does not speak SMP, and answers all the same: it is reported as mute, and was sent nothing but an echo."""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import cbor2
import pytest
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.flashers.errors import NoResponse
from proxyflash.flashers.smp.flasher import SmpFlasher
from proxyflash.flashers.smp.profile import SmpAddress, SmpProfile
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.serial.port import SerialPort

HEADER = struct.Struct(">BBHHBB")
"""Op and version, flags, length, group, sequence number, command ("SMP Protocol Specification", "Frame")."""
WRITE_RSP = 3


def line(packet: bytes) -> bytes:
    """One line of a console ("SMP over console")."""
    raw = struct.pack(">H", len(packet) + 2) + packet + struct.pack(">H", binascii.crc_hqx(packet, 0))
    return b"\x06\x09" + base64.b64encode(raw) + b"\n"


def asked(heard: bytes) -> bytes:
    """The packet of a request that is one line."""
    return base64.b64decode(heard[2:].strip())[2:-2]


def echoed(heard: bytes, *, group: int = 0, past: int = 0, command: int = 0) -> bytes:
    """The reply to an echo, under another group, command or sequence number."""
    sequence = asked(heard)[6]
    body = cbor2.dumps({"r": "proxyflash"})
    return line(HEADER.pack(WRITE_RSP | 8, 0, len(body), group, (sequence - past) & 0xFF, command) + body)


def garbled(heard: bytes) -> bytes:
    reply = echoed(heard)
    return reply[:10] + bytes([reply[10] ^ 1]) + reply[11:]


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "an echo of the line": lambda heard: heard,
    "another protocol's bytes": lambda heard: b"\x79\x1f" * 3,
    "garbage": lambda heard: bytes(range(256)) * 4,
    "log text": lambda heard: b"[00:00:01.234,000] <wrn> uart: overrun\r\n",
    "half a frame and silence": lambda heard: echoed(heard)[:12],
    "a frame that is garbled": garbled,
    "a sequence number from before": lambda heard: echoed(heard, past=100),
    "another group's reply": lambda heard: echoed(heard, group=1),
    "another command's reply": lambda heard: echoed(heard, command=5),
    "silence": lambda heard: b"",
}


@contextmanager
def stranger(answer: Callable[[bytes], bytes]) -> Iterator[tuple[SerialPort, list[bytes]]]:
    """A port, and the lines that were sent into it."""
    wire = UartWire(uuid.uuid4().hex, pace=0)
    lines: list[bytes] = []
    begun = bytearray()

    def listening() -> None:
        begun.extend(wire.device.take(wire.device.available()))
        while b"\n" in begun:
            whole, _, rest = bytes(begun).partition(b"\n")
            begun[:] = rest
            lines.append(whole + b"\n")
            wire.device.send(answer(lines[-1]))

    wire.device.listener = listening
    wire.device.line = replace(wire.device.line, baudrate=115_200)
    url = wire.host_settings()["url"]
    port = SerialPort.open("imu", {"url": url, "baudrate": 115_200, "dtr": False, "rts": False})
    try:
        yield port, lines
    finally:
        port.close()
        wire.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_it_is_no_part(name: str) -> None:
    profile = SmpProfile(answer=0.05)
    with stranger(ANSWERS[name]) as (port, lines):
        with pytest.raises(NoResponse):
            SmpFlasher.attach(port, SmpAddress(), profile).connect()
        assert SmpFlasher.probe(port, SmpAddress(), profile, active=True, deadline=Deadline.after(1)) is None
    assert lines
    for sent in lines:
        op, _, _, group, _, command = HEADER.unpack(asked(sent)[: HEADER.size])
        assert (op & 7, group, command) == (2, 0, 0), "something else than an echo was sent"


def test_what_answers_rightly_is_heard() -> None:
    """The stranger's frames are whole but for what the cases above change."""
    with stranger(echoed) as (port, lines):
        flasher = SmpFlasher.attach(port, SmpAddress(), SmpProfile(answer=0.05))
        with pytest.raises(NoResponse):
            flasher.connect()
    assert len({HEADER.unpack(asked(sent)[: HEADER.size])[3::2] for sent in lines}) > 1, "it went on after the echo"
