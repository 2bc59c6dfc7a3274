"""An update of many components: time for each step, and memory, for a quarter of the size and for the whole.

Linear in time: a step of the large update takes as long as one of the small one (the column "to others" is the ratio of
the two). Flat in memory: the process grows by no more than what the results of the steps are. The steps' own work is next
to nothing: a file for each; what is measured is the engine, with a journal that is on the disk before each action.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .measuring import program
from .table import Row

STEPS = 2
"""Of each component."""
MEASURE = """
import json, re, sys, time
from pathlib import Path
from proxyflash.benchmarks.light_step import LightStep
from proxyflash.enumerators.bench import Bench
from proxyflash.transports import plugins
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.manifests.resolved_update import load
def resident(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
loaded = plugins.load
plugins.load = lambda group, name: LightStep if name == "benchmark/light:1" else loaded(group, name)
folder = Path(sys.argv[1])
with Bench.open(folder / "bench.toml", state=folder / "state") as bench:
    engine = Engine(bench)
    update = load(folder / "all.importmanifest.json", engine.policy)
    plan = engine.plan(update, bench.scan().components)
    open("/proc/self/clear_refs", "w").write("5")
    before = resident("VmRSS")
    began = time.perf_counter()
    outcome = engine.apply(plan)
    took = time.perf_counter() - began
    peak = resident("VmHWM")
    assert outcome.succeeded, outcome.error
    assert len(outcome.results) == len(plan.tasks)
    print(json.dumps([took, peak - before, len(plan.tasks)]))
"""


def rows(components: int, runs: int, folder: Path, tell: Callable[[str], None]) -> list[Row]:
    """`components`: of the whole; each has two steps."""
    title = f"an update, {components * STEPS:,} steps over {components:,} parts"
    found: dict[int, tuple[float, int, int]] = {}
    for run in range(runs):
        for count in (max(1, components // 4), components):
            own = folder / f"{count}-{run}"
            own.mkdir()
            _write(own, count)
            program([sys.executable, "-c", MEASURE, own], own / "out")
            seconds, peak, steps = json.loads((own / "out").read_text())
            tell(f"{title}: {steps} steps: {seconds:.3f} s")
            found[count] = min((seconds, peak, steps), found.get(count, (seconds, peak, steps)))
    made = []
    small = None
    for seconds, peak, steps in found.values():
        each = seconds / steps
        small = small or each
        note = (
            f"{1000 * each:.2f} ms a step; peak {peak / (1 << 20):.1f} MiB more, {peak / steps / 1024:.1f} KiB a step"
        )
        made.append(Row(title, f"{steps:,} steps", seconds, None, each / small, note))
    return made


def _write(folder: Path, components: int) -> None:
    """A bench of components without a bus, and an update of all of them."""
    parts = [f'[[component]]\nname = "part-{number}"\ngroup = "parts"\n' for number in range(components)]
    (folder / "bench.toml").write_text("".join(parts))
    (folder / "payload").write_bytes(b"x")
    light = {"handler": "benchmark/light:1", "files": ["payload"], "handlerProperties": {"folder": str(folder)}}
    reference = {"type": "reference", "updateId": _identity("parts")}
    _manifest(folder, "parts", [light] * STEPS, {"group": "parts"}, deployable=False)
    _manifest(folder, "all", [reference], {"model": "host"}, deployable=True)


def _identity(name: str) -> dict[str, str]:
    return {"provider": "Example", "name": name, "version": "1.0"}


def _manifest(folder: Path, name: str, steps: list[Any], selector: dict[str, str], *, deployable: bool) -> None:
    digest = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    document = {
        "updateId": _identity(name),
        "isDeployable": deployable,
        "compatibility": [selector],
        "instructions": {"steps": steps},
        "files": [{"filename": "payload", "sizeInBytes": 1, "hashes": {"sha256": digest}}],
        "createdDateTime": "2026-01-01T00:00:00Z",
        "manifestVersion": "5.0",
    }
    (folder / f"{name}.importmanifest.json").write_text(json.dumps(document))
