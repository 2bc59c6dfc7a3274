"""Emulated OpenBLT and ECUs against frames of other people's implementations (LibOpenBLT as master, OpenBLT built for a PC as
slave), written out here and made by no code of the flasher; and against the rules of the document."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import can
import pytest
from proxyflash.emulators.can.wire import CanNode, CanWire
from proxyflash.emulators.device import BadDevice, DeviceSpec
from proxyflash.emulators.flash import NorFlash
from proxyflash.emulators.supply import Supply
from proxyflash.emulators.xcp.can import XcpCanDevice
from proxyflash.emulators.xcp.parts import memory_of, parts
from proxyflash.emulators.xcp.slave import Slave, checksum
from proxyflash.transports import clock

REQUEST, RESPONSE = 0x667, 0x7E1
GOLDEN = [
    ("ff00", "ff10000808000101"),
    ("fd", "ff0000000000"),
    ("d2", "ff000008000000"),
    ("cc00", "fe31"),
    ("f11704", "fe20"),
    ("f600000000600008", "ff"),
    ("d1000000204e0000", "ff"),
    ("d000", "ff"),
    ("fc", "fe00"),
    ("fe", "ff"),
]
"""CAN 0x667 to 0x7E1: requests, and what came back."""


class Bus(NamedTuple):
    device: XcpCanDevice
    node: CanNode
    heard: list[can.Message]

    def said(self, data: str, identifier: int = REQUEST, seconds: float = 0.2) -> str:
        self.heard.clear()
        self.node.send(can.Message(arbitration_id=identifier, is_extended_id=False, data=bytes.fromhex(data)))
        clock.sleep(seconds)
        assert all(message.arbitration_id == RESPONSE for message in self.heard)
        return " ".join(bytes(message.data).hex() for message in self.heard)


@contextmanager
def opened(folder: Path, part: str, **settings: Any) -> Iterator[Bus]:
    wire = CanWire(uuid.uuid4().hex, pace=0)
    heard: list[can.Message] = []
    node = wire.attach("host", heard.append)
    spec = DeviceSpec(
        "part",
        {"request": REQUEST, "response": RESPONSE},
        settings={"part": part} | settings,
        firmware_folder=folder,
        pace=0,
    )
    device = XcpCanDevice.attach(spec, wire)
    try:
        device.settle()
        yield Bus(device, node, heard)
    finally:
        device.close()
        wire.close()


def slave(part: str, secret: bytes = b"", **more: Any) -> tuple[Slave, Any]:
    row = parts()[part] | more
    flash = NorFlash.of_part(row, Supply(), None)
    made = Slave(row, memory_of(row, flash), secret)
    asked(made, "ff00")
    return made, flash


def asked(it: Slave, packet: str) -> str:
    return " ".join(answer.hex() for answer in it.take(bytes.fromhex(packet)))


def test_golden_frames(tmp_path: Path) -> None:
    with opened(tmp_path, "openblt-f103") as bus:
        # This OpenBLT was built with the resource PGM alone; the emulated part lets memory be calibrated, too.
        for request, answer in GOLDEN:
            said = bus.said(request)
            assert said.replace("ff110008", "ff100008") == answer, request


def test_the_packets_before_connect_are_ignored(tmp_path: Path) -> None:
    with opened(tmp_path, "openblt-f103") as bus:
        assert bus.said("fd") == ""
        assert bus.said("fc") == ""


def test_the_seed_and_the_key_of_an_openblt() -> None:
    """A locked one, whose key is the seed with 1 less in each byte: GET_SEED in two packets, UNLOCK in two."""
    it, _ = slave("openblt-f103", secret=bytes.fromhex("010301070103010f"), seed=8)
    assert asked(it, "fd") == "ff0010000000"
    assert asked(it, "f80010") == "ff08112233445566"
    assert asked(it, "f80110") == "ff027788"
    assert asked(it, "f708102132435465") == "ff10"
    assert asked(it, "f7027687") == "ff00"
    assert asked(it, "d2") == "ff000008000000"


def test_a_wrong_key_ends_the_session() -> None:
    it, _ = slave("openblt-f103", secret=b"\x5a")
    asked(it, "f80010")
    assert asked(it, "f7020000") == "fe25"
    assert asked(it, "fd") == ""


def test_openblt_programs_the_vector_table_at_the_end() -> None:
    it, flash = slave("openblt-f103")
    start = flash.base
    vectors = struct.pack("<7I", *range(0x20004000, 0x20004007)) + bytes(484)
    asked(it, "f600000000600008")
    for at in range(0, 512, 6):
        piece = vectors[at : at + 6]
        assert asked(it, f"d0{len(piece):02x}" + piece.hex()) == "ff"
    assert flash.read(start, 512) == b"\xff" * 512
    assert asked(it, "d000") == "ff"
    total = sum(range(0x20004000, 0x20004007)) + struct.unpack("<I", flash.read(start + 0x150, 4))[0]
    assert total % (1 << 32) == 0
    assert flash.read(start, 28) == vectors[:28]


def test_openblt_takes_a_whole_packet_for_program_max_whatever_its_length() -> None:
    it, flash = slave("openblt-f103")
    asked(it, "f600000000620008")
    assert asked(it, "c9010203") == "ff"
    assert asked(it, "d000") == "ff"
    assert flash.read(0x08006200, 7) == bytes.fromhex("0102035a5a5a5a")


def test_openblt_does_not_program_other_bytes_over_a_block() -> None:
    it, _ = slave("openblt-f103")
    for packet, answer in (
        ("f600000000620008", "ff"),
        ("d00101", "ff"),
        ("d000", "ff"),
        ("f600000000620008", "ff"),
        ("d00101", "ff"),
        ("d000", "ff"),
        ("f600000000620008", "ff"),
        ("d00102", "ff"),
        ("d000", "fe31"),
    ):
        assert asked(it, packet) == answer


def test_openblt_erases_nothing_in_front_of_the_application() -> None:
    it, _ = slave("openblt-f103")
    asked(it, "f600000000000008")
    assert asked(it, "d100000000200000") == "fe31"


def test_a_block_whose_packet_is_missing() -> None:
    """Part 2, PROGRAM_NEXT: ERR_SEQUENCE with the number of elements that are expected."""
    it, _ = slave("ecu-block")
    assert asked(it, "d0080102") == "fe29", "PROGRAM_START comes first"
    assert asked(it, "d2") == "ff0001082a0100"
    asked(it, "f600000000020000")
    assert asked(it, "d014010203040506") == ""
    assert asked(it, "ca080d0e0f101112") == "fe290e"
    assert asked(it, "ca0e0708090a0b0c") == ""
    assert asked(it, "ca080d0e0f101112") == ""
    assert asked(it, "ca021314") == "ff"


def test_a_checksum_over_more_than_the_slave_takes() -> None:
    it, _ = slave("ecu-block")
    asked(it, "f600000000020000")
    assert asked(it, "f300000000008000") == "fe22000000004000"


@pytest.mark.parametrize(
    ("kind", "value"), [(1, 0x10), (2, 0xF10), (4, 0x1800), (6, 0x140C03F8), (7, 0xC76A), (8, 0x9D50), (9, 0x89CD97CE)]
)
def test_checksums(kind: int, value: int) -> None:
    """The document's test pattern, as pyxcp's tests have it."""
    data = bytes(range(1, 17)) + bytes(range(0xF1, 0x100)) + b"\0"
    assert checksum(kind, "little", data) == value


def test_an_erase_in_functional_mode_alone() -> None:
    it, flash = slave("ecu-words")
    flash.load(flash.base, bytes(64))
    asked(it, "d2")
    asked(it, "f600000000800000")
    assert asked(it, "d100000000800000") == "fe20"
    assert asked(it, "d101000001000000") == "fe22"
    assert asked(it, "d101000002000000") == "ff"
    assert flash.read(flash.base, 64) == b"\xff" * 64


def test_words() -> None:
    it, flash = slave("ecu-words")
    flash.load(flash.base, bytes(range(8)))
    assert asked(it, "f402000000800000") == "ff0000010203"


def test_the_application_restarts_at_connect(tmp_path: Path) -> None:
    with opened(tmp_path, "openblt-f103") as bus:
        firmware = bus.device.make_firmware("1.4.2", "P", "A", 1000)
        (tmp_path / "app.bin").write_bytes(firmware)
    with opened(tmp_path, "openblt-f103", firmware="app.bin") as bus:
        assert bus.device.application_version == "1.4.2"
        assert bus.said("ff00", seconds=0.05) == ""
        assert bus.device.application_version is None
        assert bus.said("ff00", seconds=0.6).startswith("ff11")
        assert bus.said("fe", seconds=0.6) == "ff"
        assert bus.device.application_version == "1.4.2"


@pytest.mark.parametrize(("key", "value"), [("part", "no such part"), ("secret", "xyz"), ("baudrate", 5)])
def test_wrong_keys_of_its_table(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(BadDevice) as caught, opened(tmp_path, **({"part": "openblt-f103"} | {key: value})):  # type: ignore[arg-type]
        pass
    assert caught.value.key == key
