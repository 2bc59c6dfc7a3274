"""Updates and downgrades, round after round: what fails once in a hundred, and what gets slower.

PROXYFLASH_SOAK_ROUNDS says how many (6 by default): overnight, a thousand. Each is one update with all that belongs to
it. A line for each part at the end has the results; so does soak.json among the artefacts.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.hil_tests.boot_session import running
from proxyflash.hil_tests.firmware import Firmware
from proxyflash.hil_tests.measurements import Measurements

from ..transports import clock

DEFAULT = 6
SECONDS_A_ROUND = 300


def rounds() -> int:
    """Raises ValueError."""
    return int(os.environ.get("PROXYFLASH_SOAK_ROUNDS") or DEFAULT)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


@pytest.mark.slow
@pytest.mark.destructive
@pytest.mark.timeout(0)
def test_soak(
    component: BenchComponent, firmware: Firmware, measurements: Measurements, artefacts: Path,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    releases = (firmware.new, firmware.old)
    component.flash(releases[1].image)
    identity = running(component, releases[1].version).id
    seconds: list[float] = []
    counted: Counter[str] = Counter()
    before = (0, 0)

    def hear(event: ev.Event) -> None:
        counted["retries"] += isinstance(event, ev.Retrying)

    for number in range(rounds()):
        release = releases[number % 2]
        result = component.flash(release.image, expect_version=release.version or None, context=RunContext(hear))
        assert result is not None
        found = running(component, release.version)
        assert found.id == identity, f"round {number + 1}"
        counted["written bytes"] += result.written_bytes
        seconds.append(result.seconds)
        if number == 0:
            before = (clock.active_count(), descriptors())
    after = (clock.active_count(), descriptors())
    summary = {
        "component": component.name, "rounds": len(seconds), "written": counted["written bytes"],
        "retries": counted["retries"], "fastest": f"{min(seconds):.3f}", "median": f"{statistics.median(seconds):.3f}",
        "slowest": f"{max(seconds):.3f}",
    }  # fmt: skip
    (artefacts / "soak.json").write_text(json.dumps(summary | {"seconds": seconds}, indent=1))
    record_property("soak", json.dumps(summary))
    measurements.add("rounds", len(seconds), "", low=1)
    measurements.add("written", counted["written bytes"], "B", low=1)
    measurements.add("retries", counted["retries"], "", high=len(seconds) // 10)
    measurements.add("median", statistics.median(seconds), "s")
    measurements.add("slowest", max(seconds), "s", high=SECONDS_A_ROUND)
    measurements.add("threads more than after the first round", after[0] - before[0], "", high=0)
    measurements.add("descriptors more than after the first round", after[1] - before[1], "", high=0)
