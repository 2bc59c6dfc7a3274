"""A flash takes as long on the simulated clock as it does in real time: one of each family at the true pace of its wire.

A simulated run is exact. A real run takes longer by the processor time of the flasher and of the emulated part, which
costs nothing on the simulated clock, and by each late wake-up of a thread. The wires are slow ones where their rate can
be chosen, so that the processor's share stays below the tolerance. A real run has a real-time priority where the user
may set one, which keeps the load of the machine out of it; elsewhere the fastest of several runs counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from proxyflash.testing import NEW, Part, Rig
from proxyflash.tests.flashers.test_contract import KINDS, LINE, VERSION
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock

pytestmark = pytest.mark.real_time("each flash runs in real time as well")
TOLERANCE = 0.05
MOST_RUNS = 12
"""Real runs until one is fast enough."""


def slow(name: str, new_size: int, **changed: Mapping[str, Any]) -> Part:
    """A part of the contract tests with a larger new firmware, and with other tables in its bench file."""
    kind = KINDS[name]
    changed_kind: type[Part] = type(kind.__name__, (kind,), {"sizes": kind.sizes._replace(new=new_size), **changed})
    return changed_kind()


def line(baudrate: int) -> dict[str, Any]:
    return {**LINE, "baudrate": baudrate}


def serial(profile: Mapping[str, Any]) -> dict[str, Any]:
    return {"version": VERSION, "profile": profile}


def menu(loader: str) -> dict[str, Any]:
    timings = {"connect": 2, "knock": 0.5, "start": 2, "block": 2, "verdict": 1}
    entry = {"settle": 0.005}
    return serial({"loader": loader, "enter": "LOADER", "entry": entry, "block_size": 128, "timings": timings})


STM32_ENTRY = {"reset": "dtr", "boot0": "rts", "hold": 0.001, "settle": 0.005}
AVR = serial({"answer": 0.5, "entry": {"discharge": 0.01}})
FAMILIES = {
    "uds": slow("uds", 8000, bus={"kind": "can", "bitrate": 125_000}),
    "stm32-uart": slow(
        "stm32-uart",
        2500,
        bus=line(19_200),
        component=serial({"answer": 0.1, "entry": STM32_ENTRY}),
        emulated={"part": "stm32l476xg", "app_baudrate": 19_200, "wiring": "dtr-reset,!rts-boot0"},
    ),
    "dfuse": slow("dfuse", 12_000),
    "dfu": slow("dfu", 20_000),
    "smp": slow(
        "smp",
        1672,
        bus={"kind": "serial", "baudrate": 19_200},
        emulated={"part": "acme-s1", "app_baudrate": 19_200, "buf_size": 280},
    ),
    "stk500v1": slow(
        "stk500v1", 6000, component=AVR, emulated={"part": "atmega328p-optiboot", "app_baudrate": 115_200}
    ),
    "stk500v2": slow("stk500v2", 6000, component=AVR, emulated={"part": "atmega2560-wiring", "app_baudrate": 115_200}),
    "xmodem": slow(
        "xmodem",
        1500,
        bus=line(9600),
        component=menu("gecko"),
        emulated={"part": "efr32mg1", "app_baudrate": 9600, "enter": "LOADER", "baudrate": 9600},
    ),
    "ymodem": slow(
        "ymodem",
        1500,
        bus=line(19_200),
        component=menu("st-iap"),
        emulated={"part": "stm32l4-iap", "app_baudrate": 19_200, "enter": "LOADER", "baudrate": 19_200},
    ),
}


BANNER_SECONDS = 0.2
"""How long an application says that it has started. What it still says meets the flash, or not, by chance."""


def seconds_of(part: Part, folder: Path) -> float:
    """How long one flash takes, by the clock in use, from a running old application to a running new one."""
    folder.mkdir()
    rig = Rig(part, folder, pace=1)
    with rig.powered() as bench:
        clock.sleep(BANNER_SECONDS)
        began = clock.monotonic()
        result = bench.component("part").flash(rig.image, expect_version=NEW)
        taken = clock.monotonic() - began
    assert result is not None
    assert result.version == NEW
    return taken


@contextmanager
def urgent() -> Iterator[None]:
    policy, settings = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, settings)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_flash_takes_as_long_in_simulated_time_as_in_real_time(name: str, tmp_path: Path) -> None:
    with clock.use(SimulatedClock(limit=600)):
        simulated = seconds_of(FAMILIES[name], tmp_path / "simulated")
    fastest = float("inf")
    with urgent():
        for run in range(MOST_RUNS):
            fastest = min(fastest, seconds_of(FAMILIES[name], tmp_path / str(run)))
            if fastest <= simulated * (1 + TOLERANCE):
                break
    assert simulated > 0.5
    assert fastest == pytest.approx(simulated, rel=TOLERANCE)
