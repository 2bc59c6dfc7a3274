"""Uploads to a Zephyr application on an emulated Cortex-M3, against smpclient: time and processor time of the upload.

The part is QEMU's mps2-an385 with MCUboot and Zephyr's own SMP server, its console on a socket. It is fresh for each
run, and asked afterwards which image it holds. Both sides take the packet size that the part reports. QEMU keeps no bit
rate, so there is no limit to compare with: what counts is how the waiting is done, and how many requests are under way.

smpclient waits for each reply before it sends the next request; with more than one under way it has nothing to compare.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proxyflash.flashers.smp.flasher import SmpFlasher
from proxyflash.flashers.smp.profile import SmpAddress, SmpProfile
from proxyflash.hil_tests.real import qemu, zephyr
from proxyflash.hil_tests.real import zephyr_firmware as firmware
from proxyflash.transports.serial.port import SerialPort

from . import peers
from .measuring import ROOT, Failed, Missing, program
from .table import Row

SMPCLIENT = ("smpclient==7.3.0", "pyserial")
VERSION = (2, 1, 0)
START_SECONDS = 60.0
"""That the part may take until it answers, on a machine that is busy."""


class GaveUp(Exception):
    """smpclient ends with the first reply that doesn't come, and on a busy machine QEMU's line may lose a byte."""


@dataclass(frozen=True, slots=True)
class Upload:
    """`busy`: seconds of this host's processor."""

    seconds: float
    busy: float


def rows(buffer: int, pieces: int, runs: int, folder: Path, tell: Callable[[str], None]) -> list[Row]:
    """One size of buffers, in bytes. `pieces`: a divisor of the image; more than 1 uploads its beginning alone."""
    title = f"SMP on QEMU, buffers of {buffer}"
    sides: dict[str, Callable[[str, Path], Upload]] = {
        "smpclient": _smpclient,
        "proxyflash, window 1": lambda url, file: _ours(url, file, 1),
        "proxyflash, window 3": lambda url, file: _ours(url, file, 3),
    }
    best: dict[str, Upload] = {}
    missing: dict[str, str] = {}
    size = 0
    for number in range(runs):
        for name, run in sides.items():
            if name in missing:
                continue
            try:
                own = folder / f"{number}-{name[-1]}"
                own.mkdir(parents=True, exist_ok=True)
                size, took = _once(f"serial_recovery_buf{buffer}", pieces, own, run)
            except Missing as lack:
                missing[name] = str(lack)
                continue
            except GaveUp:
                tell(f"{title}: {name}: gave up")
                continue
            tell(f"{title}: {name}: {took.seconds:.3f} s")
            if name not in best or took.seconds < best[name].seconds:
                best[name] = took
    reference = best.get("smpclient")
    made = []
    for name in sides:
        if name not in best:
            made.append(Row(title, name, note=missing.get(name, "it gave up: a packet was lost")))
            continue
        took = best[name]
        against = took.seconds / reference.seconds if reference else None
        note = f"{size / took.seconds / 1000:.1f} kB/s; {took.busy:.2f} s of the processor"
        made.append(Row(title, name, took.seconds, None, against, note))
    return made


def _once(build: str, pieces: int, folder: Path, run: Callable[[str, Path], Upload]) -> tuple[int, Upload]:
    """Size and time of one upload to a fresh part. Raises Missing, Failed."""
    try:
        image = firmware.remade(firmware.find(f"_mps2_an385_{build}.signed.bin").read_bytes(), VERSION)
        part = zephyr.Mps2(build, application=True)
    except qemu.NotInstalled as lack:
        raise Missing(str(lack)) from lack
    file = folder / "new.bin"
    file.write_bytes(image[: len(image) // pieces])
    with part:
        _await_answer(part.url)
        took = run(part.url, file)
        if pieces == 1:
            _check(part.url, image)
    return len(image) // pieces, took


def _smpclient(url: str, file: Path) -> Upload:
    script = ROOT / "benchmarks" / "smpclient_script.py"
    output = file.with_name("out")
    try:
        program([peers.environment(*SMPCLIENT), script, url, file], output)
    except Failed as failure:
        if "TimeoutError" in output.read_text(errors="replace"):
            raise GaveUp from failure
        raise
    return Upload(*json.loads(output.read_text().splitlines()[-1]))


def _ours(url: str, file: Path, window: int) -> Upload:
    with _port(url) as port:
        flasher = SmpFlasher.attach(port, SmpAddress(), SmpProfile(window=window))
        flasher.connect()
        data = file.read_bytes()
        began, busy = time.perf_counter(), time.process_time()
        for _ in flasher.send(data):
            pass
        return Upload(time.perf_counter() - began, time.process_time() - busy)


def _await_answer(url: str) -> None:
    with _port(url) as port:
        SmpFlasher.attach(port, SmpAddress(), SmpProfile(answer=START_SECONDS / 3)).connect()


def _check(url: str, image: bytes) -> None:
    """Raises Failed unless the part lists the image."""
    with _port(url) as port:
        flasher = SmpFlasher.attach(port, SmpAddress(), SmpProfile())
        told = " ".join(flasher.connect().details.values())
        if firmware.digest_of(image).hex() not in told:
            raise Failed(f"the part does not hold the image: {told}")


def _port(url: str) -> SerialPort:
    return SerialPort.open("part", {"url": url})
