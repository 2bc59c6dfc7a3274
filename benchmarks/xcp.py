"""The limit of a part that is flashed by XCP: every packet that the job needs, one after the other, and the part's own times,
from emulators/xcp/parts.toml. The job's packets, each with its answer:

    CONNECT   SYNCH   GET_STATUS   PROGRAM_START
    SET_MTA, PROGRAM_CLEAR             each erase unit
    PROGRAM_MAX 7 bytes | ok           8 | 1 bytes, where the slave has no block mode
    PROGRAM, PROGRAM_NEXT ... | ok     8 bytes each, MIN_ST_PGM apart; one answer for each block
    UPLOAD | 7 bytes                   2 | 8 bytes, where BUILD_CHECKSUM is a sum
    PROGRAM_RESET                      the application's version after it, 1 frame | 2 frames

The part's own: erasing each unit, programming, restarting. OpenBLT also restarts at CONNECT, and waits half a second before it
starts the application.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .can_frames import Bus, seconds
from .measuring import ROOT

REQUEST, RESPONSE, QUESTION, ANSWER = 0x667, 0x7E1, 0x120, 0x121
RESET_SECONDS, BACK_DOOR_SECONDS = 0.02, 0.5
SERIAL_PART, SERIAL_RESET_SECONDS, SERIAL_BACK_DOOR_SECONDS = "openblt-f103-uart", 0.005, 0.05
LARGEST_BLOCK = 255
PROFILES = {
    "openblt-f103": """loader = "openblt"
memory = [{start = 0x08006000, size = 0x1A000, erase_unit = 0x2000}]
checksum_offset = 0x150
""",
    "ecu-block": """memory = [{start = 0x20000, size = 0x38000, erase_unit = 0x4000}]
write_alignment = 8
""",
}


def facts(part: str) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "emulators" / "xcp" / "parts.toml").read_text())
    return rows[part]


def limit(part: Mapping[str, Any], image: bytes, version: str, bus: Bus) -> dict[str, float]:
    """Seconds by phase on CAN, for an image at the memory's start."""
    said = f"FW {version}".encode()
    question = seconds(bus, QUESTION, b"\x01") + sum(
        seconds(bus, ANSWER, said[at : at + 8]) for at in range(0, len(said) + 1, 8)
    )
    restart = RESET_SECONDS, RESET_SECONDS + BACK_DOOR_SECONDS * ("block" in part)
    return _phases(part, image, partial(seconds, bus, REQUEST), partial(seconds, bus, RESPONSE), restart, question)


def serial_limit(part: Mapping[str, Any], image: bytes, version: str, baudrate: int) -> dict[str, float]:
    """Seconds by phase on a serial line with 8 data bits, no parity and one stop bit; each packet has its length before it."""

    def taken(packet: bytes) -> float:
        return 10 * (1 + len(packet)) / baudrate

    question = 10 * len(f"VER?\rFW {version}\r\n") / baudrate
    restart = SERIAL_RESET_SECONDS, SERIAL_RESET_SECONDS + SERIAL_BACK_DOOR_SECONDS
    return _phases(part, image, taken, taken, restart, question)


def _phases(
    part: Mapping[str, Any],
    image: bytes,
    sent: Callable[[bytes], float],
    answered: Callable[[bytes], float],
    restart: tuple[float, float],
    question: float,
) -> dict[str, float]:
    """`sent`, `answered`: the seconds of a packet. `restart`: those of the part into its bootloader, and out of it."""

    def exchange(packet: bytes, answer: bytes = b"\xff") -> float:
        return sent(packet) + (answered(answer) if answer else 0.0)

    is_openblt, unit = "block" in part, part["sectors"][0][1]
    mta = bytes.fromhex("f600000000600008")
    each = exchange(mta) + exchange(bytes.fromhex("d100000000200000")) + part["erase_seconds"]
    each += 0 if is_openblt else answered(b"\xfd\x05")
    step = part["max_cto"] - 1
    programming = len(image) / part["program_unit"] * part["program_seconds"]
    if blocks := part.get("max_bs", 0):
        step -= 1
        size = min(blocks * step, LARGEST_BLOCK)
        write = 0.0
        for start in range(0, len(image), size):
            end = min(start + size, len(image))
            packets = [image[at : min(at + step, end)] for at in range(start, end, step)]
            write += sum(sent(b"\xca\x06" + packet) for packet in packets) + answered(b"\xff")
            write += (len(packets) - 1) * part["min_st"] * 1e-4
        summed = exchange(bytes.fromhex("f300000000004000"), bytes.fromhex("ff090000ce97cd89"))
        verify = -(-len(image) // part["most_summed"]) * summed + exchange(mta)
    else:
        write = sum(exchange(b"\xc9" + image[at : at + step]) for at in range(0, len(image), step))
        verify = sum(exchange(b"\xf5\x07", b"\xff" + image[at : at + step]) for at in range(0, len(image), step))
    return {
        "connect": exchange(b"\xff\x00", bytes.fromhex("ff10000808000101")) + restart[0] * is_openblt,
        "erase": -(-len(image) // unit) * each + exchange(b"\xd2", bytes.fromhex("ff000008000000")),
        "write": write + programming + exchange(b"\xd0\x00"),
        "verify": verify,
        "boot": exchange(b"\xcf", b"" if is_openblt else b"\xff") + restart[1] + question,
    }


def bench(part: str, bus: Bus) -> str:
    """The text of a bench file with `part`, which runs `old.bin`."""
    return f"""
[bus.can]
kind = "can"
emulated = true
bitrate = {bus.bitrate}

[[component]]
name = "part"
bus = "can"
protocol = "xcp-can"
address = {{request = {REQUEST}, response = {RESPONSE}, version_request = {QUESTION}, version_response = {ANSWER}}}
emulated = {{part = "{part}", firmware = "old.bin"}}

[component.profile]
{PROFILES[part]}version = {{send = "01", match = "FW ([0-9.]+)"}}
"""


SERIAL = f'''emulated = {{part = "{SERIAL_PART}", firmware = "old.bin", baudrate = 115_200}}
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}
[component.profile]
{PROFILES["openblt-f103"]}'''
"""Of the component on a serial line."""
