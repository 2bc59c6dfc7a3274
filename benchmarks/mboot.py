"""The limit of a part that is flashed by MBoot: every byte, or frame, that the job needs, one after the other, and the part's own
times, from emulators/mboot/parts.toml. On CAN packets are cut into frames of 8 bytes. Bytes of the job's packets, each with its
answer and the acknowledgement of that:

    ping                                   2 | 10
    GET PROPERTY, 10 times                 18 | 2 + 18 | 2
    FLASH ERASE REGION, for each unit      22 | 2 + 18 | 2
    WRITE MEMORY, for each 4096 bytes      22 | 2 + 18 | 2   6 + 32 | 2 for each packet   18 | 2
    READ MEMORY, for each 1024 bytes       22 | 2 + 18 | 2   6 + 32 | 2 for each packet   18 | 2
    RESET                                  10 | 2 + 18 | 2

The part's own: its restarts, erasing each unit, programming each packet before that is acknowledged, and the time for which the
bootloader waits for a ping before it starts the application.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from .can_frames import Bus, seconds
from .measuring import ROOT

CAN_PART, SERIAL_PART = "tower-kv46f", "frdm-k22f"
REQUEST, RESPONSE, QUESTION, ANSWER, ENTER = 0x321, 0x123, 0x120, 0x121, 0x122
START, PACKET, WRITE, READ, PROPERTIES = 0xA000, 32, 4096, 1024, 10
DETECT_SECONDS, RESET_SECONDS = 0.5, 0.02
"""Of the emulated part: its wait for a ping, and on CAN a restart."""
TEXT = "LOADER"
SERIAL = f'''emulated = {{part = "{SERIAL_PART}", firmware = "old.bin", enter = "{TEXT}", detect = {DETECT_SECONDS}}}
profile = {{enter = "{TEXT}"}}
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}'''
"""Of the component on a serial line."""
DATA = random.Random(1).randbytes(64)
Exchange = Callable[[int, int], float]


def facts(part: str) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "emulators" / "mboot" / "parts.toml").read_text())
    return rows[part]


def limit(part: Mapping[str, Any], size: int, version: str, bus: Bus) -> dict[str, float]:
    """Seconds by phase on CAN, for an image of this size. Stuff bits are those of data that look like code."""

    def exchange(sent: int, answered: int) -> float:
        return sum(
            seconds(bus, identifier, DATA[at : min(at + 8, count)])
            for identifier, count in ((REQUEST, sent), (RESPONSE, answered))
            for at in range(0, count, 8)
        )

    phases, said = _phases(part, size, exchange), f"FW {version}".encode()
    phases["connect"] += seconds(bus, ENTER, b"\x01") + RESET_SECONDS
    phases["boot"] += RESET_SECONDS + seconds(bus, QUESTION, b"\x01")
    phases["boot"] += sum(seconds(bus, ANSWER, said[at : at + 8]) for at in range(0, len(said) + 1, 8))
    return phases


def serial_limit(part: Mapping[str, Any], size: int, version: str, baudrate: int) -> dict[str, float]:
    """Seconds by phase on a serial line with 8 data bits, no parity and one stop bit."""

    def exchange(sent: int, answered: int) -> float:
        return 10 * (sent + answered) / baudrate

    phases = _phases(part, size, exchange)
    phases["connect"] += exchange(len(TEXT), 0)
    phases["boot"] += exchange(len("VER?\r"), len(f"FW {version}\r\n"))
    return phases


def _phases(part: Mapping[str, Any], size: int, exchange: Exchange) -> dict[str, float]:
    """What both wires have. `exchange`: the seconds of a packet, and of its answer, by their bytes."""

    def command(count: int) -> float:
        return exchange(count, 2) + exchange(2, 18)

    unit = part["sectors"][0][1]
    packets, units = -(-size // PACKET), -(-size // unit)
    programming = PACKET / part["program_unit"] * part["program_seconds"]
    end = exchange(2, 18)
    return {
        "connect": exchange(2, 10) + PROPERTIES * command(18),
        "erase": units * (command(22) + part["erase_seconds"]),
        "write": -(-size // WRITE) * (command(22) + end) + packets * (exchange(6 + PACKET, 2) + programming),
        "verify": -(-size // READ) * (command(22) + end) + packets * exchange(2, 6 + PACKET),
        "boot": command(10) + DETECT_SECONDS,
    }


def bench(bus: Bus) -> str:
    """The text of a bench file with a part, `part`, that runs `old.bin`."""
    return f"""
[bus.can]
kind = "can"
emulated = true
bitrate = {bus.bitrate}

[[component]]
name = "part"
bus = "can"
protocol = "mboot-can"
address = {{version_request = {QUESTION}, version_response = {ANSWER}}}
emulated = {{part = "{CAN_PART}", firmware = "old.bin", detect = {DETECT_SECONDS}}}
profile = {{enter = {{id = {ENTER}, data = "01"}}, version = {{send = "01", match = "FW ([0-9.]+)"}}}}
"""
