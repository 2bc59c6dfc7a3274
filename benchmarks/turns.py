"""What a recorded serial line shows of the program: how often it had to answer, and how long each answer took it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from .measuring import CACHE, Run
from .serving import RECORDING

KEPT = CACHE / "recordings"
"""The recording of each side's last run, to be laid side by side."""
LONGEST = 0.01
"""Seconds beyond which the program did something else than to answer: it started, or it waited on purpose."""


@dataclass(frozen=True, slots=True)
class Turns:
    """`seconds`: of each, from the part's last byte to the program's next one. `sent`, `received`: bytes."""

    seconds: list[float]
    sent: int
    received: int


def read(recording: Path) -> Turns:
    passed = []
    for line in recording.read_text().splitlines():
        at, way, data = line.split()
        passed.append((float(at), way, len(data) // 2))
    times = [after[0] - before[0] for before, after in pairwise(passed) if before[1] == "<" and after[1] == ">"]
    sent = sum(size for _, way, size in passed if way == ">")
    return Turns([each for each in times if each < LONGEST], sent, sum(size for _, way, size in passed if way == "<"))


def noted(run: Run, part: Path, name: str) -> Run:
    """The run, with what the recording in the part's folder shows of it. The recording is kept under the name."""
    found = read(part / RECORDING)
    KEPT.mkdir(parents=True, exist_ok=True)
    shutil.copy(part / RECORDING, KEPT / re.sub(r"\W+", "-", name))
    if not found.seconds:
        return run
    told = (
        f"{len(found.seconds):,} turns of {1e6 * median(found.seconds):.0f} µs, {sum(found.seconds):.2f} s;"
        f" {found.sent:,} bytes out, {found.received:,} in"
    )
    return replace(run, note=told)
