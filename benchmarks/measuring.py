"""Runs the sides of a comparison in turn, and keeps the quickest run of each.

The machine disturbed the quickest run least. Sides alternate, so that a load that comes and goes hits
all of them. Each run gets a folder of its own, and each has to prove that it did the job: what it leaves in the part is
compared with the file afterwards (`Served.holds`), and a run that failed ends the benchmark.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from .table import Row

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "bench"
"""What is made once and kept: environments of other tools, compiled modules. Git ignores it."""


class Missing(Exception):
    """A side can't be measured here: what is not installed, and how it is called."""


class Failed(Exception):
    """A side did not do the job."""


@dataclass(frozen=True, slots=True)
class Run:
    """`seconds` that it took; `spent`: seconds of it by phase, as far as the side reports them; `busy`: seconds of the
    processor, those of programs that it started among them; `note`: what else was seen of it."""

    seconds: float
    spent: Mapping[str, float] = field(default_factory=dict)
    busy: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """`run` does the job once, in a folder that is there for it alone. It raises Missing or Failed.

    `ours`: not one of those that we are compared with.
    """

    name: str
    run: Callable[[Path], Run]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """`limit`: what the wire and the part's own times allow, by phase, in seconds. `size`: bytes of the image."""

    title: str
    limit: Mapping[str, float]
    sides: Sequence[Side]
    size: int


def environment() -> dict[str, str]:
    """For the programs that are measured: as an installed program has it, with its modules compiled before."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(CACHE / "pycache")}


def program(command: Sequence[str | Path], output: Path, seconds: float = 300) -> Run:
    """One run of a program, its output in a file; it is killed after `seconds`. Raises Failed."""
    with output.open("wb") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*map(str, command)], stdout=stream, stderr=subprocess.STDOUT, env=environment(), cwd=ROOT
        )
        # Not wait's own time-out: with one it looks at ever longer intervals, of 50 ms in the end.
        killer = threading.Timer(seconds, process.kill)
        killer.start()
        _, ended, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        killer.cancel()
        status = process.returncode = os.waitstatus_to_exitcode(ended)
    if status:
        said = output.read_text(errors="replace")[-500:]
        raise Failed(f"{Path(command[0]).name} ended with {status}: {said}")
    return Run(took, busy=used.ru_utime + used.ru_stime)


def rows(comparison: Comparison, runs: int, folder: Path, tell: Callable[[str], None]) -> list[Row]:
    """A row for the limit and one for each side."""
    best: dict[str, Run] = {}
    busy: dict[str, float] = {}
    missing: dict[str, str] = {}
    numbers = count()
    for _ in range(runs):
        for side in comparison.sides:
            if side.name in missing:
                continue
            own = folder / str(next(numbers))
            own.mkdir(parents=True)
            try:
                run = side.run(own)
            except Missing as lack:
                missing[side.name] = str(lack)
                continue
            tell(f"{comparison.title}: {side.name}: {run.seconds:.3f} s")
            if run.busy is not None:
                busy[side.name] = min(run.busy, busy.get(side.name, run.busy))
            if side.name not in best or run.seconds < best[side.name].seconds:
                best[side.name] = run
    limit = sum(comparison.limit.values())
    others = [best[side.name].seconds for side in comparison.sides if side.name in best and not side.ours]
    quickest = min(others, default=None)
    made = [Row(comparison.title, "limit: wire and part", limit, 1.0, note=_seconds(comparison.limit))]
    for side in comparison.sides:
        if side.name in missing:
            made.append(Row(comparison.title, side.name, note=missing[side.name]))
            continue
        run = best[side.name]
        against = None if quickest is None else run.seconds / quickest
        host = 1000 * busy[side.name] / (comparison.size / 1024) if side.name in busy else None
        made.append(
            Row(comparison.title, side.name, run.seconds, limit / run.seconds, against, _shares(run), host=host)
        )
    return made


def _seconds(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f} s" for name, value in parts.items() if value >= 0.005)


def _shares(run: Run) -> str:
    """The phases with their share of the whole, those of half a per cent and more."""
    told = {name: value for name, value in run.spent.items() if value >= 0.005 * run.seconds}
    shares = ", ".join(f"{name} {value:.2f} s ({100 * value / run.seconds:.0f} %)" for name, value in told.items())
    return "; ".join(filter(None, (shares, run.note)))
