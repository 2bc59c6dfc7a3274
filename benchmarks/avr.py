"""AVR parts on a serial line, against avrdude: write, read back, start it. Real bootloaders on simavr, not our emulation.

The limit, from AVR061 and AVR068. A byte is 10 bits on the line, and the host may not send before it has the answer:

    stk500v1   LOAD_ADDRESS 4 | 2, PROG_PAGE 5 + 128 | 2      a page
               LOAD_ADDRESS 4 | 2, READ_PAGE 5 | 2 + 256      two pages
    stk500v2   PROGRAM_FLASH_ISP 16 + 256 | 8                 a page; the address counts on
               READ_FLASH_ISP 10 | 9 + 256                    a page

The simulated part has no time of its own for erasing and writing, and its UART works at its rate of the part's clock,
which the machine may be quicker or slower than: the shares of the limit mean little here, the ratios do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from proxyflash.hil_tests.real.avr import OPTIBOOT, WIRING, AvrPart, Board
from proxyflash.hil_tests.real.qemu import NotInstalled

from . import peers
from .measuring import Comparison, Failed, Missing, Run, Side, program
from .ours import flash_command, flash_here
from .serving import uart_bench

BITS = 10
BOARDS: tuple[Board, ...] = (OPTIBOOT, WIRING)


def limit(board: Board, size: int) -> dict[str, float]:
    """Seconds by phase for an image of `size` bytes at the start of the flash."""
    byte = BITS / board.baudrate
    pages, blocks = -(-size // board.page), -(-size // 256)
    if board.protocol == "stk500v1":
        return {"write": (size + 13 * pages) * byte, "verify": (size + 13 * blocks) * byte}
    return {"write": (size + 24 * pages) * byte, "verify": (size + 19 * blocks) * byte}


def comparison(board: Board, size: int) -> Comparison:
    """A blank part gets an image, and holds it in the end."""
    image = bytes((index * 7 + index // 251) % 255 for index in range(size))

    def side(name: str, work: Callable[[Path, AvrPart, Path], Run], *, ours: bool = False) -> Side:
        def run(folder: Path) -> Run:
            file = folder / "new.bin"
            file.write_bytes(image)
            try:
                part = AvrPart(board)
            except NotInstalled as lack:
                raise Missing(str(lack)) from lack
            with part:
                took = work(folder, part, file)
                if part.flash()[:size] != image:
                    raise Failed(f"{name}: the part does not hold the image")
            return took

        return Side(name, run, ours)

    def avrdude(folder: Path, part: AvrPart, file: Path) -> Run:
        about = ["-p", board.part, "-c", board.programmer, "-P", part.url, "-b", str(board.baudrate)]
        return program([peers.installed("avrdude"), *about, "-D", "-U", f"flash:w:{file}:r"], folder / "out")

    def ours(folder: Path, part: AvrPart, file: Path) -> Run:
        return flash_command(_bench(folder, part), "part", file, 0)

    def here(folder: Path, part: AvrPart, file: Path) -> Run:
        return flash_here(_bench(folder, part), "part", file, 0)

    return Comparison(
        f"AVR, {board.name}, {board.baudrate:,} bit/s, {size // 1024} KiB",
        limit(board, size),
        (
            side("avrdude", avrdude),
            side("proxyflash flash", ours, ours=True),
            side("proxyflash, in process", here, ours=True),
        ),
        size,
    )


def _bench(folder: Path, part: AvrPart) -> Path:
    file = folder / "bench.toml"
    more = f'protocol = "{part.board.protocol}"'
    file.write_text(uart_bench(f'url = "{part.url}"', part.board.baudrate, "part", more))
    return file
