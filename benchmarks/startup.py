"""How soon proxyflash answers, against the bare interpreter of the same environment.

`proxyflash --help` from its start to its end, to reach: three times; `proxyflash flash TARGET FILE` from its start to the
first byte that the part is sent, to reach: six times.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
import tty
from pathlib import Path

from .measuring import ROOT, Failed, environment, program
from .ours import PROGRAM
from .table import Row

TITLE = "start"
SECONDS = 60.0
"""How long a first byte may be away."""


def rows(runs: int, folder: Path) -> list[Row]:
    bare, ours, talking = [], [], []
    image = folder / "fw.bin"
    image.write_bytes(bytes(range(256)) * 16)
    program([str(PROGRAM), "--help"], folder / "out")  # Compiles the modules, as an installation does.
    first_byte(image, folder)
    for _ in range(runs):
        bare.append(program([sys.executable, "-c", "pass"], folder / "out").seconds)
        ours.append(program([str(PROGRAM), "--help"], folder / "out").seconds)
        talking.append(first_byte(image, folder))
    fastest = min(bare)
    return [
        Row(TITLE, "python -c pass", fastest, to_reference=1.0),
        Row(TITLE, "proxyflash --help", min(ours), to_reference=min(ours) / fastest, note="to reach: 3.00"),
        Row(
            TITLE,
            "proxyflash flash, first byte",
            min(talking),
            to_reference=min(talking) / fastest,
            note="to reach: 6.00",
        ),
    ]


def first_byte(image: Path, folder: Path) -> float:
    """Seconds from the start of `proxyflash flash stm32-uart:PORT FILE` to its first byte at the port. Raises Failed."""
    part, port = pty.openpty()
    try:
        tty.setraw(port)
        words = ["--state", folder / "state", "flash", f"stm32-uart:{os.ttyname(port)}", image, "--yes"]
        with (folder / "out").open("wb") as output:
            began = time.perf_counter()
            process = subprocess.Popen(
                [*map(str, [PROGRAM, *words, "--address", "0x08000000"])],
                stdout=output, stderr=subprocess.STDOUT, env=environment(), cwd=ROOT,
            )  # fmt: skip
            heard, _, _ = select.select([part], [], [], SECONDS)
            took = time.perf_counter() - began
            process.kill()
            process.wait()
    finally:
        os.close(part)
        os.close(port)
    if not heard:
        raise Failed(f"nothing was sent to the part: {(folder / 'out').read_text(errors='replace')[-500:]}")
    return took
