"""A flash takes as long on the simulated clock as it does in real time: one of each family at the true pace of its wire.

A simulated run is exact. A real run takes longer by the processor time of the flasher and of the emulated part, which
costs nothing on the simulated clock, and by each late wake-up of a thread. The wires are slow ones where their rate can
be chosen, so that the processor's share stays below the tolerance. A real run has a real-time priority where the user
may set one, which keeps the load of the machine out of it; elsewhere the fastest of several runs counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.tests.flashers.sweeps.rig import AVR_VECTORS, KINDS, Kind, Rig
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.simulated_clock import SimulatedClock

pytestmark = pytest.mark.real_time("each flash runs in real time as well")
TOLERANCE = 0.05
MOST_RUNS = 12
"""Real runs until one is fast enough."""
START_SECONDS = 10.0
"""Seconds in which each part starts its old application."""

SERIAL = """
[bus.b]
kind = "serial"
emulated = true
baudrate = {baudrate}
dtr = false
rts = false
[[component]]
name = "part"
bus = "b"
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}
protocol = "{protocol}"
emulated = {{part = "{part}", firmware = "old.bin", app_baudrate = {baudrate}{emulated}}}
profile = {profile}
"""


def serial(protocol: str, part: str, baudrate: int, profile: str, emulated: str = "") -> str:
    return SERIAL.format(protocol=protocol, part=part, baudrate=baudrate, profile=profile, emulated=emulated)


def paced(name: str, size: int, *changed: tuple[str, str]) -> Kind:
    """A kind of the sweeps at the true pace of its wire, with other texts in its bench file."""
    bench = KINDS[name].bench
    for old, new in (("pace = 0\n", ""), *changed):
        assert old in bench
        bench = bench.replace(old, new)
    return replace(KINDS[name], bench=bench, new_size=size)


RESET = "entry = {discharge = 0.01}"
MENU = """{{
    loader = "{loader}", enter = "LOADER", entry = {{settle = 0.005}}, block_size = 128,
    timings = {{connect = 2, knock = 0.5, start = 2, block = 2, verdict = 1}}
}}"""
FAMILIES = {
    "uds": paced("uds", 8000, ("emulated = true\n", "emulated = true\nbitrate = 125_000\n")),
    "stm32-uart": Kind(
        serial(
            "stm32-uart",
            "stm32l476xg",
            19_200,
            '{answer = 0.1, entry = {reset = "dtr", boot0 = "rts", hold = 0.001, settle = 0.005}}',
            ', wiring = "dtr-reset,!rts-boot0"',
        ),
        0x08000000,
        1000,
        2500,
        2500,
    ),
    "dfuse": paced("dfuse", 12_000),
    "dfu": paced("dfu", 20_000),
    "smp": paced(
        "smp", 1600, ("115200", "19_200"), ('firmware = "old.bin"', 'firmware = "old.bin", app_baudrate = 19_200')
    ),
    "stk500v1": Kind(
        serial("stk500v1", "atmega328p-optiboot", 115_200, f"{{answer = 0.5, {RESET}}}"),
        0,
        1000,
        6000,
        6000,
        vectors=AVR_VECTORS,
    ),
    "stk500v2": Kind(
        serial("stk500v2", "atmega2560-wiring", 115_200, f"{{answer = 0.5, {RESET}}}"),
        0,
        1000,
        6000,
        6000,
        vectors=AVR_VECTORS,
    ),
    "xmodem": Kind(
        serial(
            "xmodem",
            "efr32mg1",
            9600,
            MENU.format(loader="gecko").replace("\n", ""),
            ', enter = "LOADER", baudrate = 9600',
        ),
        0x4000,
        1000,
        1500,
        1500,
        relocatable=True,
    ),
    "ymodem": Kind(
        serial(
            "ymodem",
            "stm32l4-iap",
            19_200,
            MENU.format(loader="st-iap").replace("\n", ""),
            ', enter = "LOADER", baudrate = 19_200',
        ),
        0x08008000,
        1000,
        1500,
        1500,
        relocatable=True,
    ),
}


def seconds_of(kind: Kind, folder: Path) -> float:
    """How long one flash takes, by the clock in use, from a running old application to a running new one."""
    folder.mkdir()
    rig = Rig(kind, folder)
    with Bench.open(folder / "bench.toml", state=folder / "state") as bench:
        device = bench.emulated_device("part")
        starts = Deadline.after(START_SECONDS)
        while device.application_version != "1.4.2":
            assert not starts.expired
            clock.sleep(0.1)
        began = clock.monotonic()
        result = bench.component("part").flash(rig.image, expect_version="1.5.0")
        taken = clock.monotonic() - began
    assert result is not None
    assert result.version == "1.5.0"
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
