"""The limit of an STM32 that is flashed by its system-memory bootloader on CAN or CAN FD: every frame that the job needs, one
after the other, and the part's own times, from emulators/stm32/parts.toml. After AN3154 and, on CAN FD, AN5405:

    initialise   Get   Get ID                               on CAN FD without the first one
    Erase        1 byte | ACK   numbers | ACK ACK           7 units each; on CAN FD 2 | ACK ACK, 64 | ACK, 31 units each
    Write        5 | ACK   8 | ACK, for each 8 bytes   ACK  on CAN FD 5 | ACK   64, for each 64 bytes   ACK
    Read         5 | ACK   8 for each 8 bytes   ACK         on CAN FD 64
    Go           4 | ACK                                    on CAN FD two of them; the application's version after it

The host may not send before it has the answer to what it sent. The image's first erase unit is erased alone.
"""

from __future__ import annotations

import tomllib
from typing import Any

from .can_frames import Bus, seconds
from .measuring import ROOT

BASE = 0x08000000
BLOCK = 256
QUESTION, ANSWER = 0x120, 0x121
ENTER, ENTER_DATA = 0x7F0, b"\xb0\x07"
RESET_SECONDS = 0.02
"""Of the emulated board: a restart into its bootloader."""
ACK = b"\x79"
COMMANDS = 11


def facts(part: str) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "emulators" / "stm32" / "parts.toml").read_text())
    return rows[part]


def limit(part: dict[str, Any], image: bytes, version: str, bus: Bus) -> dict[str, float]:
    """Seconds by phase, for an image at the start of the flash of a part that runs its application."""
    fd, size = bus.data_bitrate is not None, bus.frame

    def frames(identifier: int, *datas: bytes) -> float:
        return sum(seconds(bus, identifier, data) for data in datas)

    def pieces(data: bytes) -> list[bytes]:
        cut = [data[at : at + size] for at in range(0, len(data), size)]
        return [piece.ljust(64, b"\xff") for piece in cut] if fd else cut

    write = verify = 0.0
    for at in range(0, len(image), BLOCK):
        block = image[at : at + BLOCK]
        place = (BASE + at).to_bytes(4, "big") + bytes([len(block) - 1])
        data = pieces(block)
        acks = [ACK] * (0 if fd else len(data))
        write += frames(0x31, place, ACK, *acks, ACK) + frames(0x31 if fd else 0x04, *data)
        verify += frames(0x11, place, ACK, *data, ACK)
    write += -(-len(image) // part["program_unit"]) * part["program_seconds"]
    erase, left, units = 0.0, len(image), 0
    for sector in part["sectors"]:
        count = min(sector["count"], -(-left // sector["size"])) if left > 0 else 0
        units, left = units + count, left - count * sector["size"]
        erase += count * sector["erase_seconds"]
    code, most, numbers = (0x44, 31, bytes(64)) if fd else (0x43, 7, bytes(7))
    commands = 1 + -(-(units - 1) // most)
    erase += commands * frames(code, bytes(2 if fd else 1), numbers, ACK, ACK, ACK)
    get = frames(0x00, b"", ACK, *[b"\x20"] * (2 + COMMANDS), ACK) + frames(0x02, b"", ACK, b"\x04\x13", ACK)
    connect = seconds(Bus(bus.bitrate), ENTER, ENTER_DATA) + RESET_SECONDS + get
    said = f"FW {version}".encode()
    asked = seconds(Bus(bus.bitrate), QUESTION, b"\x01") + sum(
        seconds(Bus(bus.bitrate), ANSWER, said[at : at + 8]) for at in range(0, len(said) + 1, 8)
    )
    return {
        "connect": connect if fd else connect + frames(0x79, bytes(8), ACK),
        "erase": erase,
        "write": write,
        "verify": verify,
        "boot": frames(0x21, BASE.to_bytes(4, "big"), *[ACK] * (2 if fd else 1)) + asked,
    }


def bench(part: str, bus: Bus) -> str:
    """The text of a bench file with `part`, that runs `old.bin`."""
    fd = f"\nfd = true\ndata_bitrate = {bus.data_bitrate}" if bus.data_bitrate else ""
    return f"""
[bus.can]
kind = "can"
emulated = true
bitrate = {bus.bitrate}{fd}

[[component]]
name = "part"
bus = "can"
protocol = "stm32-{"fd" if fd else ""}can"
address = {{version_request = {QUESTION}, version_response = {ANSWER}}}
emulated = {{part = "{part}", firmware = "old.bin"}}
profile = {{enter = {{id = {ENTER}, data = "b0 07"}}, version = {{send = "01", match = "FW ([0-9.]+)"}}}}
"""
