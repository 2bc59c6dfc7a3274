"""The limit of a CANopen device that takes a program by SDO block download: every frame that the job needs, one after the other,
and the device's own times, from emulators/canopen/parts.toml. All frames have 8 bytes, but for NMT and boot-ups.

    1000 1018:1..4 1F51                a read, and its answer; 1008, 1009 and 100A with the segments of their texts
    NMT, 1F51 = 0, boot-up, 1F51       the application restarts into the bootloader
    NMT, 1F51 = 3                      answered when all sectors are erased
    1F50                               request | answer; sub-blocks of 127 segments of 7 bytes | acknowledgement; end | answer
    1F57, 1F56                         each a read
    NMT, 1F51 = 1, boot-up, 1F51       the program starts; its version 100A is read

A sub-block is programmed before it is acknowledged, and the device does not listen while its flash works.
"""

from __future__ import annotations

import binascii
import struct
import tomllib
from collections.abc import Mapping
from typing import Any

from .can_frames import Bus, seconds
from .measuring import ROOT

PART, NODE = "encoder", 5
SEGMENT = 7
RESET_SECONDS = 0.02
"""Of the emulated device."""


def facts() -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "emulators" / "canopen" / "parts.toml").read_text())
    return rows[PART]


def limit(part: Mapping[str, Any], image: bytes, version: str, bus: Bus) -> dict[str, float]:
    """Seconds by phase."""

    def frame(identifier: int, *values: bytes) -> float:
        return seconds(bus, identifier, b"".join(values).ljust(8, b"\0"))

    def read(index: int, sub: int = 0, value: bytes = bytes(4)) -> float:
        place = struct.pack("<HB", index, sub)
        pieces = [value[at : at + SEGMENT] for at in range(0, len(value), SEGMENT)] if len(value) > 4 else []
        return (
            frame(0x600 + NODE, b"\x40", place)
            + frame(0x580 + NODE, b"\x43", place, value[:4])
            + sum(frame(0x600 + NODE, b"\x60") + frame(0x580 + NODE, b"\0", piece) for piece in pieces)
        )

    def control(value: int) -> float:
        place = struct.pack("<HB", 0x1F51, 1)
        nmt = seconds(bus, 0, bytes((0x80, NODE)))
        return nmt + frame(0x600 + NODE, b"\x2f", place, bytes((value,))) + frame(0x580 + NODE, b"\x60", place)

    restart = RESET_SECONDS + seconds(bus, 0x700 + NODE, b"\0")
    known = read(0x1000) + sum(read(0x1018, sub) for sub in range(1, 5)) + read(0x1F51, 1)
    texts = read(0x1008, 0, part["name"].encode()) + read(0x1009, 0, b"B2") + read(0x100A, 0, version.encode())
    place = struct.pack("<HB", 0x1F50, 1)
    write = frame(0x600 + NODE, b"\xc6", place, struct.pack("<I", len(image)))
    write += frame(0x580 + NODE, b"\xa4", place, b"\x7f")
    for number, at in enumerate(range(0, len(image), SEGMENT)):
        write += frame(0x600 + NODE, bytes((number % part["block"] + 1,)), image[at : at + SEGMENT])
    blocks = -(-len(image) // (SEGMENT * part["block"]))
    write += blocks * frame(0x580 + NODE, b"\xa2\x7f\x7f")
    write += frame(0x600 + NODE, b"\xc1", struct.pack("<H", binascii.crc_hqx(image, 0))) + frame(0x580 + NODE, b"\xa1")
    write += -(-len(image) // part["program_unit"]) * part["program_seconds"]
    sectors = sum(count for count, _ in part["sectors"])
    return {
        "connect": known + texts,
        "erase": control(0) + restart + read(0x1F51, 1) + control(3) + sectors * part["erase_seconds"],
        "write": write + read(0x1F57, 1),
        "verify": read(0x1F56, 1),
        "boot": control(1) + restart + read(0x1F51, 1) + read(0x100A, 0, version.encode()),
    }


def bench(bus: Bus) -> str:
    """The text of a bench file with a device, `part`, that runs `old.bin`."""
    return f"""
[bus.can]
kind = "can"
emulated = true
bitrate = {bus.bitrate}

[[component]]
name = "part"
bus = "can"
protocol = "canopen"
address = {{node = {NODE}}}
emulated = {{part = "{PART}", firmware = "old.bin"}}
profile = {{identification = "crc32"}}
"""
