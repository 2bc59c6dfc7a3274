"""STM32 parts on a serial line, against stm32flash and stm32loader: erase what the file needs, write, verify, start it.

The limit, from AN3155 (USART protocol used in the STM32 bootloader) and the part's data. A byte is 11 bits on the line:
start, eight data bits, even parity, stop. The host may not send before it has the answer to what it sent, so all bytes
of both directions come one after the other:

    synchronise        0x7F, ACK                                                                  2 bytes
    Get                2 | ACK, count, version and 11 commands, ACK                              17
    Get ID             2 | ACK, count, 2, ACK                                                     7
    Extended Erase     2 | ACK | 2 + 2 for each unit + checksum | ACK                             7 + 2 units
    Write Memory       2 | ACK | address, checksum | ACK | count, data, checksum | ACK           12 + data, 256 at most
    Read Memory        2 | ACK | address, checksum | ACK | count, complement | ACK, data         12 + data
    Go                 2 | ACK | address, checksum | ACK                                          9

To that come the erase time of each unit that the file touches and the program time of each program unit, from
emulators/stm32/parts.toml. Verifying is reading all of it back: this part's loader has no Get Checksum.

stm32loader 0.7.1 counts pages from address 0 on, so that on these parts it can erase the whole flash or nothing. It
gets a blank part, and the limit's time of erasing is added to its own.
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

PART = "stm32f405xg"
FAMILY = "F4"
"""Of the part, in stm32loader's words."""
BASE = 0x08000000
BLOCK = 256
BITS = 11


def limit(size: int, baudrate: int) -> dict[str, float]:
    """Seconds by phase for an image of `size` bytes at the start of the flash."""
    facts = tomllib.loads((ROOT / "emulators" / "stm32" / "parts.toml").read_text())[PART]
    erased, units = 0.0, 0
    left = size
    for sector in facts["sectors"]:
        count = min(sector["count"], -(-left // sector["size"])) if left > 0 else 0
        units += count
        erased += count * sector["erase_seconds"]
        left -= count * sector["size"]
    byte = BITS / baudrate
    blocks = -(-size // BLOCK)
    moving = (12 * blocks + size) * byte
    programs = -(-size // facts["program_unit"])
    return {
        "connect": (2 + 17 + 7) * byte,
        "erase": (7 + 2 * units) * byte + erased,
        "write": moving + programs * facts["program_seconds"],
        "verify": moving,
        "boot": 9 * byte,
    }


def comparison(baudrate: int, size: int) -> Comparison:
    """One rate; `size` in bytes."""
    image = application.make("2.0.0", "imu", "acme", size, seed=2)
    allowed = limit(size, baudrate)
    erasing = allowed["erase"]

    def side(name: str, flash: Callable[[Path, str, Path], Run], *, ours: bool = False, blank: bool = False) -> Side:
        def run(folder: Path) -> Run:
            file = folder / "new.bin"
            file.write_bytes(image)
            with _part(folder, baudrate, 0 if blank else size) as part:
                took = flash(folder, part.path, file)
            part.holds(image)
            return turns.noted(took, folder / "part", f"stm32 {baudrate} {name}")

        return Side(name, run, ours)

    def stm32flash(folder: Path, path: str, file: Path) -> Run:
        name = peers.installed("stm32flash")
        command = [name, "-m", "8n1", "-b", str(baudrate), "-w", str(file), "-v", "-g", "0", path]
        return program(command, folder / "out")

    def stm32loader(folder: Path, path: str, file: Path) -> Run:
        about = ["-n", "-P", "none", "-b", str(baudrate), "-p", path, "-f", FAMILY]
        work = ["-w", "-v", "-a", hex(BASE), "-g", hex(BASE), str(file)]
        took = program([str(peers.stm32loader()), "-c", peers.NO_MODEM_LINES, *about, *work], folder / "out")
        return Run(took.seconds + erasing, {"erase, as the limit has it": erasing}, took.busy)

    def ours(folder: Path, path: str, file: Path) -> Run:
        return flash_command(_bench(folder, path, baudrate), "imu", file, BASE)

    def here(folder: Path, path: str, file: Path) -> Run:
        return flash_here(_bench(folder, path, baudrate), "imu", file, BASE)

    return Comparison(
        f"STM32, {baudrate:,} bit/s, {size // 1024} KiB",
        allowed,
        (
            side("stm32flash", stm32flash),
            side("stm32loader", stm32loader, blank=True),
            side("proxyflash flash", ours, ours=True),
            side("proxyflash, in process", here, ours=True),
        ),
        size,
    )


def _part(folder: Path, baudrate: int, size: int) -> AbstractContextManager[Served]:
    """A part held in its loader, with an older firmware of `size` bytes in its flash."""
    old = application.make("1.0.0", "imu", "acme", size, seed=1) if size else b""
    (folder / "old.bin").write_bytes(old)
    emulated = f'protocol = "stm32-uart"\nemulated = {{part = "{PART}", firmware = "../old.bin", boot0 = true}}'
    return part_on_uart(folder, baudrate, emulated)


def _bench(folder: Path, path: str, baudrate: int) -> Path:
    file = folder / "bench.toml"
    file.write_text(uart_bench(f'url = "{path}"', baudrate, "imu", 'protocol = "stm32-uart"'))
    return file
