"""How soon `proxyflash --help` answers, against the bare interpreter of the same environment. To reach: three times."""

from __future__ import annotations

import sys
from pathlib import Path

from .measuring import program
from .ours import PROGRAM
from .table import Row

TITLE = "start"


def rows(runs: int, folder: Path) -> list[Row]:
    bare, ours = [], []
    program([str(PROGRAM), "--help"], folder / "out")  # Compiles the modules, as an installation does.
    for _ in range(runs):
        bare.append(program([sys.executable, "-c", "pass"], folder / "out").seconds)
        ours.append(program([str(PROGRAM), "--help"], folder / "out").seconds)
    fastest = min(bare)
    return [
        Row(TITLE, "python -c pass", fastest, to_reference=1.0),
        Row(TITLE, "proxyflash --help", min(ours), to_reference=min(ours) / fastest, note="to reach: 3.00"),
    ]
