"""The limit of a board that is flashed by Katapult on CAN: every frame that the job needs, one after the other, and the part's
own times, from emulators/katapult/parts.toml. A message is cut into frames of 8 bytes. The job's messages, each with its answer:

    node id   CONNECT   GET CANBUS ID                       under 0x3F0 the node id and Klipper's message to the application
    SEND BLOCK address 64 bytes | address                   8 + 4 + 64 | 8 + 8 bytes; a block that spoils the first page before
    EOF | pages
    REQUEST BLOCK address | address 64 bytes                8 + 4 | 8 + 8 + 64 bytes
    COMPLETE                                                the application's version after it, 1 frame | 2 frames

The part's own: restarting into Katapult and out of it, erasing each page as its first block comes, the first page twice, and
programming each block before it is acknowledged. Only one message is on its way: Katapult keeps 192 bytes, and does not listen
while its flash works.
"""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Mapping
from typing import Any

from .can_frames import Bus, seconds
from .measuring import ROOT

PART, UUID, NODE = "toolhead-f072", "0e0d81e4210c", 129
BLOCK = 64
RESET_SECONDS, COMPLETE_SECONDS = 0.02, 0.1
"""Of the emulated board: a restart, and how long after its answer to COMPLETE Katapult restarts."""
QUESTION, ANSWER = 0x120, 0x121


def facts() -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "emulators" / "katapult" / "parts.toml").read_text())
    return rows[PART]


def limit(part: Mapping[str, Any], image: bytes, version: str, bus: Bus) -> dict[str, float]:
    """Seconds by phase for an image at the application's start."""
    start, (_, page) = part["start"], part["sectors"][0]

    def message(identifier: int, code: int, payload: bytes) -> float:
        # The CRC's bits are those of some CRC: what they are hardly matters for the stuff bits.
        data = b"\x01\x88" + bytes((code, len(payload) // 4)) + payload + b"\x5a\xc3\x99\x03"
        return sum(seconds(bus, identifier, data[at : at + 8]) for at in range(0, len(data), 8))

    def exchange(code: int, payload: bytes, answer: bytes) -> float:
        sent = message(0x100 + 2 * NODE, code, payload)
        return sent + message(0x101 + 2 * NODE, 0xA0, struct.pack("<I", code) + answer)

    about = struct.pack("<III", 0x10100, start, BLOCK) + part["mcu"].encode().ljust(16, b"\0")
    about += part["software"].encode().ljust(20, b"\0")
    uuid = bytes.fromhex(UUID)
    programming = BLOCK // part["program_unit"] * part["program_seconds"]
    write = verify = 0.0
    for offset in range(0, len(image), BLOCK):
        address, data = struct.pack("<I", start + offset), image[offset : offset + BLOCK].ljust(BLOCK, b"\xff")
        write += exchange(0x12, address + data, address) + programming
        verify += exchange(0x14, address, address + data)
    pages = -(-len(image) // page)
    end = exchange(0x13, b"", struct.pack("<I", pages))
    spoilt = struct.pack("<I", start) + b"\xff\xff\xff\xff" + bytes(BLOCK - 4)
    said = f"FW {version}".encode()
    asked = seconds(bus, QUESTION, b"\x01") + sum(
        seconds(bus, ANSWER, said[at : at + 8]) for at in range(0, len(said) + 1, 8)
    )
    return {
        "connect": seconds(bus, 0x3F0, b"\x02" + uuid)
        + seconds(bus, 0x3F0, b"\x11" + uuid + bytes((NODE,)))
        + exchange(0x11, b"", about)
        + exchange(0x16, b"", uuid + bytes(2))
        + RESET_SECONDS,
        "erase": exchange(0x12, spoilt, spoilt[:4]) + end + programming + part["erase_seconds"],
        "write": write + end + pages * part["erase_seconds"],
        "verify": verify,
        "boot": exchange(0x15, b"", b"") + COMPLETE_SECONDS + RESET_SECONDS + asked,
    }


def bench(bus: Bus) -> str:
    """The text of a bench file with a board, `part`, that runs `old.bin`."""
    return f"""
[bus.can]
kind = "can"
emulated = true
bitrate = {bus.bitrate}

[[component]]
name = "part"
bus = "can"
protocol = "katapult-can"
address = {{uuid = "{UUID}", version_request = {QUESTION}, version_response = {ANSWER}}}
emulated = {{part = "{PART}", firmware = "old.bin"}}
profile = {{node = {NODE}, version = {{send = "01", match = "FW ([0-9.]+)"}}}}
"""
