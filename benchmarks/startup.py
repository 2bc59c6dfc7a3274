"""How soon `proxyflash --help` answers, against the bare interpreter of the same environment."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from .table import Row

RUNS = 20


def fastest(command: list[str]) -> float:
    """Seconds of the fastest of RUNS runs, which is the one that the machine disturbed least."""
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - began)
    return min(found)


def rows() -> list[Row]:
    bare = fastest([sys.executable, "-c", "pass"])
    ours = fastest([str(Path(sys.executable).parent / "proxyflash"), "--help"])
    return [
        Row("start", "python -c pass", bare, 1.0, ""),
        Row("start", "proxyflash --help", ours, ours / bare, "of the bare interpreter's start"),
    ]
