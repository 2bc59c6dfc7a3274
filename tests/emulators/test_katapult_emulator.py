"""Emulated Katapult against its documents: the messages are written out here, and made by no code of the flasher."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import can
import pytest
from proxyflash.emulators.can.wire import CanNode, CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.katapult.can import KatapultCanDevice
from proxyflash.emulators.katapult.loader import reply
from proxyflash.transports import clock

UUID = "0e0d81e4210c"
START = 0x08002000
NACK, ERROR = bytes.fromhex("0188f10068959903"), bytes.fromhex("0188f20000bf9903")


class Bus(NamedTuple):
    """A host's adapter on the emulated bus, and the one node there."""

    device: KatapultCanDevice
    node: CanNode
    heard: list[can.Message]

    def said(self, identifier: int, data: str = "") -> bytes:
        """What comes back when a frame was sent: the bytes of all frames."""
        self.heard.clear()
        for start in range(0, max(len(data), 1), 16):
            frame = can.Message(
                arbitration_id=identifier, is_extended_id=False, data=bytes.fromhex(data[start : start + 16])
            )
            self.node.send(frame)
        clock.sleep(0.5)
        return b"".join(bytes(message.data) for message in self.heard)

    def ask(self, code: int, payload: bytes = b"") -> bytes:
        """A command, in its node's frames, once it has the node id 0x81."""
        return self.said(0x202, reply(code, payload).hex())


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    yield from opened(tmp_path, "")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Bus]:
    """With an application of any kind: a plausible vector table, and code where it starts."""
    firmware = struct.pack("<II", 0x20004000, START + 0x101).ljust(0x200, b"\x5a")
    (tmp_path / "app.bin").write_bytes(firmware)
    yield from opened(tmp_path, "app.bin")


def opened(folder: Path, firmware: str) -> Iterator[Bus]:
    wire = CanWire("katapult", pace=0)
    settings = {"part": "toolhead-f103", **({"firmware": firmware} if firmware else {})}
    spec = DeviceSpec("part", address={"uuid": UUID}, settings=settings, firmware_folder=folder, pace=0)
    device = KatapultCanDevice.attach(spec, wire)
    heard: list[can.Message] = []
    node = wire.attach("host", heard.append, host=True)
    device.settle()
    yield Bus(device, node, heard)
    device.close()
    wire.close()


def test_a_node_without_a_node_id_answers_the_query(bus: Bus) -> None:
    assert bus.said(0x3F0, "00").hex() == f"20{UUID}11"
    assert bus.heard[0].arbitration_id == 0x3F1


def test_a_node_with_a_node_id_does_not(bus: Bus) -> None:
    assert bus.said(0x3F0, f"11{UUID}81") == b""
    assert bus.said(0x3F0, "00") == b""
    assert bus.said(0x3F0, "12") == b""
    assert bus.said(0x3F0, "00").hex() == f"20{UUID}11"


@pytest.mark.parametrize("conflict", [(0x3F0, "11" + "00" * 6 + "81"), (0x203, "00")])
def test_a_conflict_takes_the_node_id(bus: Bus, conflict: tuple[int, str]) -> None:
    """Another node gets the same node id, or something is sent under the id of this one's answers (canserial.c)."""
    bus.said(0x3F0, f"11{UUID}81")
    bus.said(*conflict)
    assert bus.said(0x3F0, "00").hex() == f"20{UUID}11"


def test_commands(bus: Bus) -> None:
    bus.said(0x3F0, f"11{UUID}81")
    answer = bus.said(0x202, "01881100f17c9903")
    assert answer.startswith(bytes.fromhex("0188a00d11000000" + "00010100" + "00200008" + "40000000"))
    assert b"stm32f103xe\0" in answer
    assert bus.ask(0x16)[8:14].hex() == UUID
    block = bytes(range(64))
    assert bus.ask(0x12, struct.pack("<I", START) + block)[4:12] == struct.pack("<II", 0x12, START)
    assert bus.ask(0x14, struct.pack("<I", START))[12:76] == block
    assert bus.ask(0x13)[8:12] == struct.pack("<I", 1)
    assert {message.arbitration_id for message in bus.heard} == {0x203}


def send(bus: Bus, address: int, block: bytes) -> bytes:
    return bus.ask(0x12, struct.pack("<I", address) + block)


def test_blocks_and_pages(bus: Bus) -> None:
    """As src/stm32/flash.c has it."""
    bus.said(0x3F0, f"11{UUID}81")
    one, two = b"\x11" * 64, b"\x22" * 64
    assert send(bus, START - 1024, one) == ERROR, "before the application"
    assert send(bus, START + 32, one) == ERROR, "not at a multiple of a block"
    assert bus.ask(0x12, struct.pack("<I", START) + one[:60]) == ERROR
    assert send(bus, START, one) != ERROR
    assert send(bus, START + 64, two) != ERROR
    assert send(bus, START + 64, two) != ERROR, "the same again"
    assert send(bus, START + 64, one) == ERROR, "not erased"
    erases = bus.device.flash.erases
    assert send(bus, START, one) != ERROR, "a page's first block erases the others"
    assert bus.device.flash.read(START + 64, 64) == b"\xff" * 64
    assert bus.device.flash.erases == erases + 1
    assert send(bus, START, one) != ERROR, "the same again, with nothing behind it"
    assert bus.device.flash.erases == erases + 1


def test_what_is_not_well_formed_gets_one_nack(bus: Bus) -> None:
    """protocol.md, "NACK"; the next message that is well formed is answered."""
    bus.said(0x3F0, f"11{UUID}81")
    assert bus.said(0x202, "01881100f17d9903") == NACK
    assert bus.said(0x202, "01881100f17d9903") == b""
    assert bus.said(0x202, "01881100f17c9903")[:3] == b"\x01\x88\xa0"
    assert bus.ask(0x7F) == ERROR, "unknown commands are errors"


def test_complete_starts_the_application(running: Bus) -> None:
    running.device.double_reset()
    running.device.settle()
    assert running.said(0x3F0, "00").hex() == f"20{UUID}11"
    running.said(0x3F0, f"11{UUID}81")
    assert running.ask(0x15)[4:8] == struct.pack("<I", 0x15)
    assert running.said(0x3F0, "00").hex() == f"20{UUID}01"


def test_the_application_restarts_into_katapult(running: Bus) -> None:
    assert running.said(0x3F0, "00").hex() == f"20{UUID}01"
    running.said(0x3F0, "02" + "00" * 6)
    assert running.said(0x3F0, "00").hex() == f"20{UUID}01", "the UUID of another node"
    running.said(0x3F0, f"02{UUID}")
    assert running.said(0x3F0, "00").hex() == f"20{UUID}11"
    running.device.reset()
    running.device.settle()
    assert running.said(0x3F0, "00").hex() == f"20{UUID}01", "once"


def test_what_is_not_whole_hangs(running: Bus) -> None:
    """Katapult looks at the first word only."""
    running.device.flash.load(START + 0x100, b"\xff" * 64)
    running.device.reset()
    running.device.settle()
    assert running.device.node.is_hung
    assert running.said(0x3F0, "00") == b""
    running.device.double_reset()
    running.device.settle()
    assert running.said(0x3F0, "00").hex() == f"20{UUID}11"


def test_a_frame_that_goes_with_the_supply_is_not_taken(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supply may go between the wait for a frame and its taking, and takes what came in along."""
    monkeypatch.setattr(bus.device.node, "wait", lambda *arguments: True)
    assert bus.device.node._next_within(0.0) is None
