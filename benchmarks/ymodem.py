"""A part that takes a file by YMODEM into its flash, against lrzsz's sb: the file's name, blocks of 1024 bytes, the end.

The limit, from the "X/YMODEM Protocol Reference" (C. Forsberg, 1988-06-18). A byte is 10 bits on the line: start, eight
data bits, stop. The sender may not go on before it has the answer to what it sent, so all bytes of both directions come one
after the other:

    block 0            SOH, 2, 128, CRC | ACK, C                                  133 + 2 bytes
    a long block       STX, 2, 1024, CRC | ACK                                   1029 + 1
    the end            EOT | NAK | EOT | ACK, C                                     2 + 3
    the empty block 0  SOH, 2, 128, CRC | ACK                                     133 + 1

To that come the erase time of all pages of the slot, which this loader erases before the first block, and the program time
of each program unit, from emulators/xymodem/loaders.toml.

For sb the shell asks the part to receive, as a terminal program does it. Only our sides ask the part what it makes of
the file, and start it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from proxyflash.emulators import application

from . import peers, turns
from .measuring import ROOT, Comparison, Run, Side, program
from .ours import flash_command, flash_here
from .serving import Served, part_on_uart, uart_bench

PART = "stm32l4-iap"
BITS = 10
BLOCK = 1024
SB = 'stty -F "$1" raw -echo "$2"; exec 3<>"$1"; printf 1 >&3; sb -k -q "$3" <&3 >&3'
"""The menu's key, then sb."""


def limit(size: int, baudrate: int) -> dict[str, float]:
    """Seconds by phase for a file of `size` bytes, a multiple of 1024."""
    facts = tomllib.loads((ROOT / "emulators" / "xymodem" / "loaders.toml").read_text())[PART]
    byte = BITS / baudrate
    blocks = -(-size // BLOCK)
    moving = (133 + 2 + blocks * (1029 + 1) + 2 + 3 + 133 + 1) * byte
    programming = -(-size // facts["program_unit"]) * facts["program_seconds"]
    return {"erase": facts["pages"][0] * facts["erase_seconds"], "write": moving + programming}


def comparison(baudrate: int, size: int) -> Comparison:
    """One rate; `size` in bytes."""
    size = max(BLOCK, size // BLOCK * BLOCK)
    image = application.make("2.0.0", "imu", "acme", size, seed=2, start=0x08008000)

    def side(name: str, flash: Callable[[Path, str, Path], Run], *, ours: bool = False) -> Side:
        def run(folder: Path) -> Run:
            file = folder / "new.bin"
            file.write_bytes(image)
            with _part(folder, baudrate) as part:
                took = flash(folder, part.path, file)
            part.holds(image)
            return turns.noted(took, folder / "part", f"ymodem {baudrate} {name}")

        return Side(name, run, ours)

    def sb(folder: Path, path: str, file: Path) -> Run:
        peers.installed("sb", "lrzsz")
        return program(["bash", "-c", SB, "sb", path, str(baudrate), str(file)], folder / "out")

    def ours(folder: Path, path: str, file: Path) -> Run:
        return flash_command(_bench(folder, path, baudrate), "imu", file, 0)

    def here(folder: Path, path: str, file: Path) -> Run:
        return flash_here(_bench(folder, path, baudrate), "imu", file, 0)

    return Comparison(
        f"YMODEM, {baudrate:,} bit/s, {size // 1024} KiB",
        limit(size, baudrate),
        (
            side("sb", sb),
            side("proxyflash flash", ours, ours=True),
            side("proxyflash, in process", here, ours=True),
        ),
        size,
    )


def _part(folder: Path, baudrate: int) -> AbstractContextManager[Served]:
    """A part held in its loader."""
    emulated = f'protocol = "ymodem"\nemulated = {{part = "{PART}", boot = true, baudrate = {baudrate}}}'
    return part_on_uart(folder, baudrate, emulated)


def _bench(folder: Path, path: str, baudrate: int) -> Path:
    file = folder / "bench.toml"
    more = 'protocol = "ymodem"\nprofile = {loader = "st-iap"}'
    file.write_text(uart_bench(f'url = "{path}"', baudrate, "imu", more))
    return file
