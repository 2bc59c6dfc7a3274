"""A part ends with the process that started it, whatever ended that: here nothing of its own runs any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from proxyflash.hil_tests.real.avr import OPTIBOOT, AvrPart
from proxyflash.hil_tests.real.native_sim import NativeSim
from proxyflash.hil_tests.real.zephyr import Microbit, Mps2

MARK = "PROXYFLASH_STARTED_BY"
"""A variable of the environment, which is handed down."""
PARTS: dict[str, tuple[Callable[[], object], str]] = {
    "micro:bit": (Microbit, "zephyr import Microbit as Part; part = Part()"),
    "mps2": (Mps2, "zephyr import Mps2 as Part; part = Part()"),
    "native_sim on a terminal": (
        lambda: NativeSim("serial"),
        "native_sim import NativeSim as Part; part = Part('serial')",
    ),
    "native_sim on UDP": (lambda: NativeSim("udp"), "native_sim import NativeSim as Part; part = Part('udp')"),
    "AVR": (lambda: AvrPart(OPTIBOOT), "avr import OPTIBOOT, AvrPart as Part; part = Part(OPTIBOOT)"),
}


def marked(mark: str) -> list[int]:
    """Processes that were started with this mark, but for those that have ended and wait to be asked for."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # Gone meanwhile, or another user's.
    return found


@pytest.fixture(params=PARTS)
def script(request: pytest.FixtureRequest) -> str:
    """Starts the part. It is skipped, as all of these tests are, where a program or a firmware is missing."""
    start, source = PARTS[request.param]
    with start():  # type: ignore[attr-defined]
        pass
    return f"from proxyflash.hil_tests.real.{source}; print('runs', flush=True); input()"


@pytest.fixture
def temporary() -> Iterator[str]:
    """For what a part that is killed can't clear away; with a short path, as sockets want it."""
    with tempfile.TemporaryDirectory(prefix="pf-") as folder:
        yield folder


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_nothing_is_left(script: str, temporary: str, end: signal.Signals) -> None:
    mark = uuid.uuid4().hex
    starter = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, MARK: mark, "TMPDIR": temporary},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "runs\n"
        assert len(marked(mark)) > 1
        starter.send_signal(end)
        starter.wait(timeout=60)
        until = time.monotonic() + 60
        while left := marked(mark):
            assert time.monotonic() < until, [Path(f"/proc/{one}/cmdline").read_bytes() for one in left]
            time.sleep(0.05)
    finally:
        for one in marked(mark):
            os.kill(one, signal.SIGKILL)
        starter.wait()
        for stream in (starter.stdin, starter.stdout):
            assert stream is not None
            stream.close()
