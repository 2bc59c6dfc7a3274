"""What the suite has beside the plugin's fixtures: how to cut a wire, and the soak's summary at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.hil_tests.wire_cuts import BrownOut, Cut, Supply, cut_of
from proxyflash.transports.plain import plain

SOAK = "soak"
OTHERS = [Path(__file__).parent / name for name in ("kernel", "real")]
"""Tests of proxyflash itself, which a source tree has beside the suite."""


def pytest_configure(config: pytest.Config) -> None:
    # It is pytest-timeout's, which not everybody has.
    config.addinivalue_line("markers", "timeout(seconds): for pytest-timeout, where that is installed")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The others are for who names them."""
    if collection_path not in OTHERS:
        return None
    name = f"{collection_path.parent.name}.{collection_path.name}"
    named = [str(config.invocation_params.dir / argument).replace(os.sep, ".") for argument in config.args]
    return None if any(name in argument for argument in named) else True


@pytest.fixture
def cut(request: pytest.FixtureRequest, component: BenchComponent) -> Iterator[Cut]:
    """By its parameter: "wire", "adapter", "supply", "brown-out". What a test has cut is joined again."""
    kind = request.param
    if kind in ("supply", "brown-out"):
        # A test of a supply has "power" among its needs, by which the plugin knows that there is one.
        power = request.getfixturevalue("power")
        made: Cut | None = Supply(power) if kind == "supply" else BrownOut(power)
    else:
        made = cut_of(component, kind)
    if made is None:
        keys = f'properties = {{{kind}-cut = "COMMAND", {kind}-join = "COMMAND"}}'
        skipped = pytest.skip.Exception(
            f"no way to cut the {kind} of '{component.name}' on bench '{component.bench.file.path.stem}'; add {keys}"
        )
        skipped.proxyflash_kind = f"{kind}-cut"  # type: ignore[attr-defined]
        raise skipped
    yield made
    made.join()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the soaks have counted, from all workers."""
    lines = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in getattr(report, "user_properties", ())
        if name == SOAK
    ]
    if lines:
        terminalreporter.section("soak")
        for line in lines:
            terminalreporter.line(plain(" ".join(f"{key} {value}" for key, value in json.loads(str(line)).items())))
