"""An emulated part in a process of its own, on a paced wire, fresh for each run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .measuring import Failed, environment

PROXYFLASH = (sys.executable, "-m", "proxyflash.tools")
RECORDED_PART = (sys.executable, "-m", "proxyflash.benchmarks.recorded_part")
RECORDING = "recording"


@dataclass(frozen=True, slots=True)
class Served:
    """`path`: where the part's bus is: a PTY, or a Unix socket. `flash`: the file of its flash contents."""

    path: str
    flash: Path

    def holds(self, image: bytes) -> None:
        """Raises Failed unless the part's flash begins with the image; to be asked once it is served no more."""
        found = self.flash.read_bytes()[: len(image)]
        if found != image:
            wrong = sum(a != b for a, b in zip(found, image, strict=True))
            raise Failed(f"the part does not hold the image: {wrong:,} of {len(image):,} bytes differ")


def uart_bench(bus: str, baudrate: int, part: str, more: str) -> str:
    """The text of a bench file with one part on one serial line, `uart`. `bus`, `more`: other lines of the two."""
    return f"""
[bus.uart]
kind = "serial"
{bus}
baudrate = {baudrate}

[[component]]
name = "{part}"
bus = "uart"
{more}
"""


@contextmanager
def part_on_uart(folder: Path, baudrate: int, more: str) -> Iterator[Served]:
    """Serves `imu`, an emulated part on a serial line, from `folder / "part"`. `more`: other lines of the component."""
    bench = uart_bench("emulated = true", baudrate, "imu", more)
    with served(bench, folder / "part", "uart", "imu", recorded=True) as part:
        yield part


@contextmanager
def served(bench: str, folder: Path, bus: str, part: str, *, recorded: bool = False) -> Iterator[Served]:
    """Serves the emulated bench of this text, whose one bus and one part are called so; `folder` is made for it.

    `recorded`: what passes on its serial line is in `folder / RECORDING` in the end.
    """
    folder.mkdir(parents=True)
    file = folder / "part.toml"
    file.write_text(bench)
    state = folder / "s"
    if recorded:
        command = [*RECORDED_PART, str(file), str(state), str(folder / RECORDING)]
    else:
        command = [*PROXYFLASH, "--bench", str(file), "--state", str(state), "emulate", "--jsonl", "-q"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        told = json.loads(line or "{}")
        if "served" not in told:
            raise Failed(f"the emulated part did not start: {line}")
        path = Path(told["served"][bus]["path"])
        yield Served(str(path), path.parent / f"{part}.flash")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
