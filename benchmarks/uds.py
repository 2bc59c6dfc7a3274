"""An ECU that is flashed by UDS, against a plain udsoncan script: erase, download, check, reset, ask for the version.

The limit: every frame that the job needs on the bus, one after the other, at its true length (can_frames.py), and the
part's own times from emulators/uds/parts.toml. The job's requests, each with its positive response:

    10 03   10 02   27 01   27 02 key                       sessions and security access
    31 01 FF00 address and size                             erase, one request for all
    34 address and size                                     one download
    36 counter data                                         blocks: maxNumberOfBlockLength less 2, in program units
    37   31 01 0202 CRC   31 01 FF01                        end, check, dependencies
    11 01   22 F189                                         reset, the application's version

The part's own: restarting twice, into its bootloader and out of it; erasing each sector; programming each block before
it is acknowledged. The responses by which the ECU says that it is still at work go out while it works, and take no time
of their own.
"""

from __future__ import annotations

import sys
import tomllib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from proxyflash.emulators import application

from .can_frames import Bus, message
from .measuring import ROOT, Comparison, Run, Side, program
from .ours import flash_command, flash_here
from .serving import Served, served

REQUEST, RESPONSE = 0x7E0, 0x7E8
VERSION = "2.0.0"


def facts(part: str) -> dict[str, Any]:
    """The part's data; sectors are all of one size."""
    rows: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "emulators" / "uds" / "parts.toml").read_text())
    return rows[part]


def limit(part: Mapping[str, Any], image: bytes, bus: Bus) -> dict[str, float]:
    """Seconds by phase for an image at the start of the memory."""
    start, size = part["base"], len(image)
    sector = part["sectors"][0]["size"]
    location = b"\x44" + start.to_bytes(4, "big") + size.to_bytes(4, "big")

    def exchange(request: bytes, response: bytes) -> float:
        return message(bus, REQUEST, RESPONSE, request) + message(bus, RESPONSE, REQUEST, response)

    step = (part["block_length"] - 2) // part["program_unit"] * part["program_unit"]
    blocks = [image[offset : offset + step] for offset in range(0, size, step)]
    downloading = sum(
        exchange(bytes([0x36, number & 0xFF]) + block, bytes([0x76, number & 0xFF]))
        for number, block in enumerate(blocks, 1)
    )
    programs = sum(-(-len(block) // part["program_unit"]) for block in blocks)
    times = b"\x00\x32\x01\xf4"
    crc = zlib.crc32(image).to_bytes(4, "big")
    connect = [
        (b"\x10\x03", b"\x50\x03" + times),
        (b"\x10\x02", b"\x50\x02" + times),
        (b"\x27\x01", b"\x67\x01\x12\x34\x56\x78"),
        (b"\x27\x02\x48\x6e\x0c\x22", b"\x67\x02"),
    ]
    verify = [
        (b"\x31\x01\x02\x02" + crc, b"\x71\x01\x02\x02\x00"),
        (b"\x31\x01\xff\x01", b"\x71\x01\xff\x01\x00"),
    ]
    boot = [(b"\x11\x01", b"\x51\x01"), (b"\x22\xf1\x89", b"\x62\xf1\x89" + VERSION.encode())]
    around = [(b"\x34\x00" + location, b"\x74\x20" + part["block_length"].to_bytes(2, "big")), (b"\x37", b"\x77")]
    return {
        "connect": sum(exchange(*pair) for pair in connect) + part["reset_seconds"],
        "erase": exchange(b"\x31\x01\xff\x00" + location, b"\x71\x01\xff\x00\x00")
        + -(-size // sector) * part["erase_seconds"],
        "write": sum(exchange(*pair) for pair in around) + downloading + programs * part["program_seconds"],
        "verify": sum(exchange(*pair) for pair in verify),
        "boot": sum(exchange(*pair) for pair in boot) + part["reset_seconds"],
    }


def title(part: Mapping[str, Any], bus: Bus, size: int) -> str:
    kind = f"CAN {bus.bitrate // 1000}k"
    if bus.data_bitrate:
        kind = f"CAN FD {bus.bitrate // 1000}k/{bus.data_bitrate // 1_000_000}M"
    return f"UDS, {kind}, blocks of {part['block_length']}, {size // 1024} KiB"


def comparison(ecu: str, bus: Bus, size: int) -> Comparison:
    """One part of emulators/uds/parts.toml on one bus; `size` in bytes."""
    part = facts(ecu)
    start = part["base"]
    image = application.make(VERSION, "radar", "acme", size, start=start, seed=2)
    old = application.make("1.0.0", "radar", "acme", size, start=start, seed=1)

    def side(name: str, flash: Callable[[Path, Served, Path], Run], *, ours: bool = False) -> Side:
        def run(folder: Path) -> Run:
            file = folder / "new.bin"
            file.write_bytes(image)
            (folder / "old.bin").write_bytes(old)
            with served(_emulated(ecu, bus), folder / "part", "can", "radar") as there:
                took = flash(folder, there, file)
            there.holds(image)
            return took

        return Side(name, run, ours)

    def script(folder: Path, there: Served, file: Path) -> Run:
        about = [f"unix:{there.path}", str(int(bus.data_bitrate is not None)), hex(start), str(file), VERSION]
        return program([sys.executable, "-m", "benchmarks.udsoncan_script", *about], folder / "out")

    def ours(folder: Path, there: Served, file: Path) -> Run:
        return flash_command(_bench(folder, there, part, bus), "radar", file, start)

    def here(folder: Path, there: Served, file: Path) -> Run:
        return flash_here(_bench(folder, there, part, bus), "radar", file, start)

    return Comparison(
        title(part, bus, size),
        limit(part, image, bus),
        (
            side("udsoncan script", script),
            side("proxyflash flash", ours, ours=True),
            side("proxyflash, in process", here, ours=True),
        ),
        size,
    )


def _rates(bus: Bus) -> str:
    return f"bitrate = {bus.bitrate}" + (f"\nfd = true\ndata_bitrate = {bus.data_bitrate}" if bus.data_bitrate else "")


def _emulated(ecu: str, bus: Bus) -> str:
    """An ECU that runs an older firmware."""
    return f"""
[bus.can]
kind = "can"
emulated = true
{_rates(bus)}

[[component]]
name = "radar"
bus = "can"
protocol = "uds"
address = {{request = {REQUEST}, response = {RESPONSE}}}
emulated = {{part = "{ecu}", firmware = "../old.bin"}}
"""


def simulated_bench(ecu: str, bus: Bus) -> str:
    """The text of a bench file with an ECU, `part`, that runs `old.bin` and is flashed in the same process."""
    text = _emulated(ecu, bus).replace("../old.bin", "old.bin").replace('"radar"', '"part"')
    return text + _profile(facts(ecu), bus)


def _bench(folder: Path, there: Served, part: Mapping[str, Any], bus: Bus) -> Path:
    file = folder / "bench.toml"
    file.write_text(f"""
[bus.can]
kind = "can"
interface = "proxyflash"
channel = "unix:{there.path}"
{_rates(bus)}

[[component]]
name = "radar"
bus = "can"
protocol = "uds"
address = {{request = {REQUEST}, response = {RESPONSE}}}
{_profile(part, bus)}""")
    return file


def _profile(part: Mapping[str, Any], bus: Bus) -> str:
    sector, unit = part["sectors"][0], part["program_unit"]
    return f"""
[component.profile]
security = {{key = "xor", secret = "5a5a5a5a"}}
routines = {{merge_erase = true}}
iso_tp = {{tx_dl = {bus.frame}}}

[[component.profile.memory]]
start = {part["base"]}
size = {sector["count"] * sector["size"]}
erase_unit = {sector["size"]}
write_alignment = {unit}
"""
