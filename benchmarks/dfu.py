"""USB parts with a DFU bootloader, on an emulated bus of this process: against the limit, and against pyfu-usb.

dfu-util and the like need a real bus; pyfu-usb works on pyusb, whose backend can be the emulated bus. It writes and
does not verify, so there is a comparison for each: erase and write; erase, write and read back. The part is in DFU mode
from the start, as by a held boot pin, and is left there by us.

The limit: each control transfer at 12 Mbit/s takes 45 bytes of overhead with its first data packet and 13 with each
further one (USB 2.0, tables 5-2 and 5-9), and its data. A device that works says for how many whole milliseconds, and
must be let alone as long (DFU 1.1, 6.1.2), so that each of its times is rounded up:

    DfuSe    for each sector: erase command, GETSTATUS, its time, GETSTATUS
             set the address, GETSTATUS, GETSTATUS; for each block: DNLOAD, GETSTATUS, its time, GETSTATUS
             to read: set the address again, ABORT; UPLOAD for each block
    DFU 1.1  for each block: DNLOAD, GETSTATUS, its time with that of the sectors that it begins, GETSTATUS;
             empty DNLOAD, GETSTATUS, the manifestation's time, GETSTATUS; to read: UPLOAD for each block
             (this part programs the first block at manifestation)

with erase and program times from emulators/dfu/parts.toml. pyfu-usb asks again and again while the device is to be let
alone, so it is ahead of that by the rounding; on the simulated clock its transfers are counted.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import sys
import time
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import usb.core
from proxyflash.emulators import application
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.enumerators.bench import Bench
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock

from . import peers
from .measuring import ROOT, Comparison, Failed, Missing, Run, Side
from .ours import flash_here
from .table import Row

PYFU = "pyfu-usb==2.0.2"
PYFU_SIMULATED = "pyfu-usb, simulated clock"
PACKET = 64
STATUS = 6


def transfer(size: int) -> float:
    """Seconds of a control transfer with `size` bytes of data."""
    further = max(0, -(-size // PACKET) - 1)
    return (45 + size + 13 * further) * 8 / 12_000_000


def limit(part: str, size: int, *, verify: bool) -> dict[str, float]:
    """Seconds by phase for an image of `size` bytes at the start of the flash."""
    facts = tomllib.loads((ROOT / "emulators" / "dfu" / "parts.toml").read_text())[part]
    sectors = [(bytes_each, seconds) for count, bytes_each, seconds, _ in facts["sectors"] for _ in range(count)]
    step = facts["transfer_size"]
    blocks = [min(step, size - start) for start in range(0, size, step)]
    asked = 2 * transfer(STATUS)
    if facts["flavour"] == "dfuse":
        touched, covered = [], 0
        for each, seconds in sectors:
            if covered < size:
                touched.append(seconds)
            covered += each
        command = transfer(5) + asked
        phases = {
            "erase": sum(command + _whole(seconds) for seconds in touched),
            "write": command + sum(transfer(block) + _whole(_program(facts, block)) + asked for block in blocks),
        }
        reading = command + transfer(0)
    else:
        each, seconds = sectors[0]
        begun = [len(range(-(-start // each) * each, start + step, each)) for start in range(0, size, step)]
        programs = [0.0, *(_program(facts, block) for block in blocks[1:])]
        moving = sum(
            transfer(block) + _whole(program + count * seconds) + asked
            for block, program, count in zip(blocks, programs, begun, strict=True)
        )
        phases = {"write": moving + transfer(0) + asked + _whole(_program(facts, blocks[0]))}
        reading = 0.0
    if verify:
        phases["verify"] = reading + sum(transfer(block) for block in blocks)
    return phases


def _program(facts: dict[str, Any], size: int) -> float:
    return float(-(-size // facts["program_unit"]) * facts["program_seconds"])


def _whole(seconds: float) -> float:
    return math.ceil(round(seconds * 1000, 6)) / 1000


def comparison(part: str, title: str, size: int, *, verify: bool) -> Comparison:
    """One part of emulators/dfu/parts.toml; `size` in bytes."""
    facts = tomllib.loads((ROOT / "emulators" / "dfu" / "parts.toml").read_text())[part]
    base = int(facts["base"])
    image = application.make("2.0.0", "camera", "acme", size, start=base, seed=2)
    old = application.make("1.0.0", "camera", "acme", size, start=base, seed=1)

    def prepared(folder: Path) -> tuple[Path, Path]:
        file = folder / "new.bin"
        file.write_bytes(image)
        (folder / "old.bin").write_bytes(old)
        bench = folder / "bench.toml"
        bench.write_text(f"""
[bus.usb]
kind = "usb"
emulated = true

[[component]]
name = "camera"
bus = "usb"
protocol = "dfu"
address = {{vendor_id = {facts["vendor_id"]}, product_id = {facts["product_id"]}}}
emulated = {{part = "{part}", firmware = "old.bin", boot = "dfu"}}
""")
        return bench, file

    def ours(folder: Path) -> Run:
        bench, file = prepared(folder)
        return flash_here(bench, "camera", file, base, holds=image, boot=False, verify=verify)

    def pyfu(folder: Path) -> Run:
        bench, file = prepared(folder)
        return _pyfu(bench, file, facts, image)

    sides = [Side("proxyflash, in process", ours, ours=True)]
    if not verify:
        sides.insert(0, Side("pyfu-usb, in process", pyfu))
    how = "verified" if verify else "not verified"
    return Comparison(f"{title}, {size // 1024} KiB, {how}", limit(part, size, verify=verify), sides, size)


def pyfu_simulated(part: str, title: str, size: int, folder: Path) -> Row:
    """What pyfu-usb takes on the simulated clock, and by how many transfers. Raises Failed."""
    job = comparison(part, title, size, verify=False)
    limit = sum(job.limit.values())
    with clock.use(SimulatedClock()):
        try:
            run = next(side for side in job.sides if not side.ours).run(folder)
        except Missing as lack:
            return Row(job.title, PYFU_SIMULATED, note=str(lack))
    (transfers,) = run.spent.values()
    return Row(job.title, PYFU_SIMULATED, run.seconds, limit / run.seconds, note=f"{transfers:,.0f} transfers")


def _pyfu(bench: Path, file: Path, facts: dict[str, Any], image: bytes) -> Run:
    """pyfu-usb's own download, with the emulated bus as pyusb's backend. Raises Missing, Failed.

    On a simulated clock, `spent` has the number of its transfers.
    """
    folder = str(peers.library(PYFU))
    with Bench.open(bench, state=bench.parent / "state") as opened:
        backend = EmulatedUsbBackend(opened.emulated_wire("usb"))
        find = usb.core.find

        def find_here(**settings: Any) -> Any:
            return find(**settings | {"backend": backend})

        sys.path.insert(0, folder)
        try:
            import pyfu_usb  # type: ignore[import-not-found]
        finally:
            sys.path.remove(folder)
        # At this level it draws no bar, which would cost it time.
        logger = logging.getLogger("pyfu_usb")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        ids = {"vid": facts["vendor_id"], "pid": facts["product_id"]}
        address = facts["base"] if facts["flavour"] == "dfuse" else None
        with mock.patch("usb.core.find", find_here), contextlib.redirect_stdout(io.StringIO()):
            began, before = clock.monotonic(), time.process_time()
            pyfu_usb.download(str(file), address=address, **ids)
            took, busy = clock.monotonic() - began, time.process_time() - before
        spent = {"transfers": float(opened.emulated_wire("usb").faults.units)} if clock.current().is_simulated else {}
        flash = opened.emulated_device("camera").flash
        if flash.read(flash.base, len(image)) != image:
            raise Failed("the part does not hold the image")
    return Run(took, spent, busy)
