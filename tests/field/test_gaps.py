"""What `read` wrote `flash` takes back, of memories with gaps: between memories, between erase units, within the image."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from proxyflash.emulators import application
from proxyflash.flashers.formats import formats, keeps_addresses, load, save
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.tests.tools.conftest import Desk

pytestmark = pytest.mark.simulated_time

SERIAL = "baudrate = 115_200\n"
CAN = "bitrate = 500_000\n"


class Part(NamedTuple):
    """`pieces`: addresses and sizes of what it holds at first; those of 900 bytes are programs. `gaps`: whether its memory has
    any."""

    kind: str
    protocol: str
    keys: str
    pieces: tuple[tuple[int, int], ...]
    bus: str = ""
    gaps: bool = True


UDS = 'security = {key = "xor", secret = "5a5a5a5a"}\n'
TWO_RUNS = (
    "memory = [{start = 0x2_0000, size = 0x8000, erase_unit = 8192, write_alignment = 8}, "
    "{name = 'data', start = 0x6_0000, size = 0x8000, erase_unit = 16384, write_alignment = 8}]\n"
)
EACH = 'routines = {check_parameters = ["alfi", "address", "size", "crc32"]}\n'
ECU = f'address = {{request = 0x7E0}}\nemulated = {{part = "acme-r88"}}\n[component.profile]\n{UDS}{TWO_RUNS}{EACH}'
IN_ECU = ((0x2_0000, 900), (0x2_6001, 33), (0x6_0010, 100), (0x6_7FF8, 8))
TWO_SECTORS = (
    "memory = [{start = 0x0800_4000, size = 0x4000, erase_unit = 0x4000}, "
    "{start = 0x0801_0000, size = 0x1_0000, erase_unit = 0x1_0000}]\n"
)
DFU = 'address = {{alt = {}}}\nemulated = {{part = "stm32f405-dfu"}}\n'
PARTS = {
    "uds by address": Part("can", "uds", f'{ECU}read = "memory"\n', IN_ECU, CAN),
    "uds by upload": Part("can", "uds", f'{ECU}read = "upload"\n', IN_ECU, CAN),
    "dfuse": Part(
        "usb", "dfu", f"{DFU.format(0)}[component.profile]\n{TWO_SECTORS}",
        ((0x800_4003, 5), (0x801_0000, 16), (0x801_FFF0, 16)),
    ),
    "dfuse options": Part("usb", "dfu", DFU.format(1), (), gaps=False),
    "dfuse otp": Part("usb", "dfu", DFU.format(2), (), gaps=False),
    "avr109": Part("serial", "avr109", 'emulated = {part = "atmega32u4-caterina"}\n', ((0, 900), (0x1003, 5))),
    "stk500v2": Part(
        "serial", "stk500v2", 'emulated = {part = "atmega2560-wiring"}\n', ((0, 900), (0x1003, 5)), SERIAL
    ),
}  # fmt: skip


def made(name: str, folder: Path) -> Part:
    part = PARTS[name]
    (folder / "bench.toml").write_text(
        f'[bus.b]\nkind = "{part.kind}"\nemulated = true\npace = 0.0\n{part.bus}'
        f'[[component]]\nname = "part"\nbus = "b"\nprotocol = "{part.protocol}"\n{part.keys}'
    )
    return part


@pytest.mark.parametrize("name", PARTS)
def test_what_read_wrote_of_all_memory(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part, desk = made(name, tmp_path), Desk(tmp_path, capsys)
    pieces = [
        Segment(
            start,
            application.make("1.0", "part", "Acme", size, start=start) if size == 900 else bytes(range(1, size + 1)),
        )
        for start, size in part.pieces
    ]
    if pieces:
        save(FirmwareImage(tuple(pieces), "hex"), tmp_path / "old.hex")
        done = desk.run("flash", "part", tmp_path / "old.hex", "--no-boot")
        assert done.status == 0, done.err
    first = desk.run("read", "part", tmp_path / "first.hex")
    assert first.status == 0, first.err
    held = load(tmp_path / "first.hex")
    assert any(low.end < high.address for low, high in pairwise(held.segments)) is part.gaps
    for piece in pieces:
        assert held.read(piece.address, piece.size, 0) == piece.data
    for ending in sorted({kind.endings[0] for kind in formats() if kind.is_written}):
        own = tmp_path / f"own{ending}"
        read = desk.run("read", "part", own)
        if part.gaps and not keeps_addresses(own):
            assert "several memories" in read.err
            continue
        assert read.status == 0, read.err
        where = () if keeps_addresses(own) else ("--address", hex(held.start))
        for dry in ("--dry-run",), ("--no-boot", "--yes"):
            done = desk.run("flash", "part", own, *where, *dry)
            assert (done.status, "nothing to write" in done.out + done.err) == (0, True), (ending, done.out, done.err)
        assert desk.run("verify", "part", own, *where).status == 0
    again = desk.run("read", "part", tmp_path / "again.hex")
    assert again.status == 0
    assert (tmp_path / "again.hex").read_bytes() == (tmp_path / "first.hex").read_bytes()
