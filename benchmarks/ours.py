"""Our own sides: the command line, and the library in this process, whose interpreter runs already."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext

from .measuring import Failed, Run, program

PROGRAM = Path(sys.executable).parent / "proxyflash"


def flash_command(bench: Path, component: str, image: Path, address: int, options: Sequence[str] = ()) -> Run:
    """`proxyflash flash` from its start to its end, its phases as its own events tell them. Raises Failed.

    "start" is the time before the first event: the interpreter, its modules, the bench file, the image.
    """
    output = bench.with_suffix(".jsonl")
    command = [PROGRAM, "--bench", bench, "--state", bench.parent / "state", "--jsonl", "flash", component, image]
    began = time.time()
    run = program([*map(str, command), "--address", hex(address), "--yes", *options], output)
    events = [json.loads(line) for line in output.read_text().splitlines()]
    verdicts = [event.get("verdict") for event in events if event["kind"] == "result"]
    if verdicts != ["ok"]:
        raise Failed(f"proxyflash ended without a verdict of ok: {output.read_text()[-500:]}")
    times = [event["time"] for event in events if "time" in event]
    spent = {"start": times[0] - began}
    for event in events:
        _add(spent, event["kind"], event)
    spent["end"] = began + run.seconds - times[-1]
    return Run(run.seconds, spent, run.busy)


def flash_here(
    bench: Path, component: str, image: Path, address: int, holds: bytes | None = None, **options: Any
) -> Run:
    """The same by the library's own call, from the opening of the bus on; `options`: its own.

    `holds`: what an emulated part of this process must hold in the end. Raises Failed.
    """
    spent: dict[str, float] = {}

    def note(event: ev.Event) -> None:
        if isinstance(event, ev.PhaseFinished):
            _add(spent, event.kind, {"phase": str(event.phase), "seconds": event.seconds})

    with Bench.open(bench, state=bench.parent / "state") as opened:
        part = opened.component(component)
        if part.emulated:
            opened.emulated_device(component)
        began, before = time.perf_counter(), time.process_time()
        part.flash(image, address=address, context=RunContext(note), **options)
        took, busy = time.perf_counter() - began, time.process_time() - before
        if holds is not None:
            flash = opened.emulated_device(component).flash
            if flash.read(flash.base, len(holds)) != holds:
                raise Failed("the part does not hold the image")
    return Run(took, spent, busy)


def _add(spent: dict[str, float], kind: str, event: dict[str, Any]) -> None:
    if kind == "phase-done":
        phase = event["phase"]
        spent[phase] = spent.get(phase, 0.0) + event["seconds"]
