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
from collections.abc import Callable, Mapping
from typing import Any

from .can_frames import Bus, seconds
from .measuring import ROOT

SERIAL_PART = "toolhead-f103"
ENTER = b"~ \x1c Request Serial Bootloader!! ~"
PART, UUID, NODE = "toolhead-f072", "0e0d81e4210c", 129
BLOCK = 64
SERIAL = f'''emulated = {{part = "{SERIAL_PART}", firmware = "old.bin", baudrate = 115_200}}
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}'''
"""Of the component on a serial line."""
RESET_SECONDS, COMPLETE_SECONDS = 0.02, 0.1
"""Of the emulated board: a restart, and how long after its answer to COMPLETE Katapult restarts."""
QUESTION, ANSWER = 0x120, 0x121


def facts(part: str = PART) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "emulators" / "katapult" / "parts.toml").read_text())
    return rows[part]


def limit(part: Mapping[str, Any], image: bytes, version: str, bus: Bus) -> dict[str, float]:
    """Seconds by phase on CAN, for an image at the application's start."""

    def exchange(sent: bytes, answer: bytes) -> float:
        return sum(
            seconds(bus, identifier, data[at : at + 8])
            for identifier, data in ((0x100 + 2 * NODE, sent), (0x101 + 2 * NODE, answer))
            for at in range(0, len(data), 8)
        )

    phases, uuid, said = _phases(part, image, exchange), bytes.fromhex(UUID), f"FW {version}".encode()
    phases["connect"] += (
        seconds(bus, 0x3F0, b"\x02" + uuid)
        + seconds(bus, 0x3F0, b"\x11" + uuid + bytes((NODE,)))
        + exchange(_message(0x16), _answer(0x16, uuid + bytes(2)))
    )
    phases["boot"] += seconds(bus, QUESTION, b"\x01") + sum(
        seconds(bus, ANSWER, said[at : at + 8]) for at in range(0, len(said) + 1, 8)
    )
    return phases


def serial_limit(part: Mapping[str, Any], image: bytes, version: str, baudrate: int) -> dict[str, float]:
    """Seconds by phase on a serial line with 8 data bits, no parity and one stop bit."""

    def exchange(sent: bytes, answer: bytes) -> float:
        return 10 * (len(sent) + len(answer)) / baudrate

    phases = _phases(part, image, exchange)
    phases["connect"] += exchange(ENTER, b"")
    phases["boot"] += exchange(b"VER?\r", f"FW {version}\r\n".encode())
    return phases


def _message(code: int, payload: bytes = b"") -> bytes:
    # The CRC's bits are those of some CRC: what they are hardly matters for the stuff bits.
    return b"\x01\x88" + bytes((code, len(payload) // 4)) + payload + b"\x5a\xc3\x99\x03"


def _answer(code: int, payload: bytes = b"") -> bytes:
    return _message(0xA0, struct.pack("<I", code) + payload)


def _phases(part: Mapping[str, Any], image: bytes, exchange: Callable[[bytes, bytes], float]) -> dict[str, float]:
    """What both wires have. `exchange`: the seconds of a message and of its answer."""
    start, (_, page) = part["start"], part["sectors"][0]
    about = struct.pack("<III", 0x10100, start, BLOCK) + part["mcu"].encode().ljust(16, b"\0")
    about += part["software"].encode().ljust(20, b"\0")
    programming = BLOCK // part["program_unit"] * part["program_seconds"]
    write = verify = 0.0
    for offset in range(0, len(image), BLOCK):
        address, data = struct.pack("<I", start + offset), image[offset : offset + BLOCK].ljust(BLOCK, b"\xff")
        write += exchange(_message(0x12, address + data), _answer(0x12, address)) + programming
        verify += exchange(_message(0x14, address), _answer(0x14, address + data))
    pages = -(-len(image) // page)
    end = exchange(_message(0x13), _answer(0x13, struct.pack("<I", pages)))
    spoilt = struct.pack("<I", start) + b"\xff\xff\xff\xff" + bytes(BLOCK - 4)
    return {
        "connect": exchange(_message(0x11), _answer(0x11, about)) + RESET_SECONDS,
        "erase": exchange(_message(0x12, spoilt), _answer(0x12, spoilt[:4]))
        + end
        + programming
        + part["erase_seconds"],
        "write": write + end + pages * part["erase_seconds"],
        "verify": verify,
        "boot": exchange(_message(0x15), _answer(0x15)) + COMPLETE_SECONDS + RESET_SECONDS,
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
