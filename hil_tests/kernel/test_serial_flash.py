"""An emulated STM32 behind a tty of the kernel's cdc_acm driver, flashed by Debian's stm32flash and by our flasher.

At the loader's true 8E1, entered by the modem lines; and with a tty that vanishes meanwhile.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.faults import FaultPlan
from proxyflash.emulators.uart_line import Line
from proxyflash.flashers.stm32_profile import Stm32Profile
from proxyflash.hil_tests.kernel.serial_lab import (
    NEW,
    OLD,
    PART,
    Serial,
    Stalls,
    Wiring,
    content,
    flash,
    nothing_left,
    runs,
    version,
)
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError, SerialGone
from proxyflash.transports.serial import SerialPort

PROGRAM = Path(sys.executable).parent / "proxyflash"
WIRINGS = (
    "dtr-reset,rts-boot0",
    "dtr-reset,!rts-boot0",
    "rts-reset,dtr-boot0",
    "rts-reset,!dtr-boot0",
    "!dtr-reset,rts-boot0",
    "!rts-reset,!dtr-boot0",
)

OPENING_ENTERS = ("!rts-reset,!dtr-boot0",)
"""Where the kernel, which asserts both lines at opening, starts the loader. No setting helps."""


@contextmanager
def lined(**settings: Any) -> Iterator[Serial]:
    with nothing_left():
        line = Serial(**settings)
        try:
            yield line
        finally:
            line.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.bin"
    path.write_bytes(NEW)
    return path


@pytest.fixture
def stm32flash() -> str:
    program = shutil.which("stm32flash")
    if program is None:
        pytest.skip("stm32flash is not installed: apt-get install stm32flash")
    return program


def run(*command: str | Path, before: Callable[[], None] = lambda: None) -> None:
    """stm32flash, which waits for an answer for 0.5 s at most.

    If it fails while the machine stood still for most of that, it is run again, after `before`.
    """
    for _ in range(5):
        before()
        with Stalls() as stalls:
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
        if done.returncode == 0:
            return
        assert stalls.longest > 0.25, done.stdout + done.stderr
    pytest.fail(f"this machine stands still again and again: {done.stdout + done.stderr}")


class TestStm32flash:
    def test_in_its_default_mode(self, stm32flash: str, image: Path, tmp_path: Path) -> None:
        """8E1, which no pseudo-terminal can do."""
        with lined() as line:
            part = line.attach(boot0=True)
            run(stm32flash, "-b", "115200", "-w", image, "-v", line.path, before=part.board.reset)
            assert line.spoken == {Line(115_200, 8, "E", 1)}
            assert part.flash.read(part.flash.base, len(NEW)) == NEW
            back = ("-r", tmp_path / "back.bin", "-S", f"0x08000000:{len(NEW)}")
            run(stm32flash, "-b", "57600", *back, line.path, before=part.board.reset)
            assert (tmp_path / "back.bin").read_bytes() == NEW
            # Through the tty the part sees who gets its parity wrong.
            part.board.reset()
            done = subprocess.run([stm32flash, "-m", "8n1", line.path], capture_output=True, text=True, timeout=120)
            assert done.returncode != 0

    @pytest.mark.parametrize("wiring", WIRINGS)
    def test_by_the_modem_lines_like_ours(self, stm32flash: str, image: Path, wiring: str) -> None:
        wired, flashed = Wiring(wiring), []
        with lined() as line:
            part = line.attach(wiring=wiring)
            run(stm32flash, "-b", "115200", "-i", wired.sequence(), "-w", image, "-v", line.path)
            flashed.append(content(part))
            with line.open(**wired.running()) as port:
                if wiring in OPENING_ENTERS:
                    wired.restart(port)
                assert version(port) == "FW 1.5.0"
                assert runs(part)
                assert line.wire.host.line == Line(115_200, 8, "N", 1)
        with lined() as line:
            part = line.attach(wiring=wiring)
            with line.open(**wired.running()) as port:
                if wiring not in OPENING_ENTERS:
                    assert version(port) == "FW 1.4.2"
                flash(port, wired.profile(), image)
                assert version(port) == "FW 1.5.0"
                assert port.parity == "N"
            flashed.append(content(part))
        assert flashed[0] == flashed[1]


class TestServed:
    def test_by_the_command_line(self, stm32flash: str, image: Path, tmp_path: Path) -> None:
        """`proxyflash emulate --acm` in one process, stm32flash in another, our flasher here."""
        wiring = Wiring("dtr-reset,!rts-boot0")
        parts = tmp_path / "parts.toml"
        parts.write_text(
            f"""
[bus.imu-uart]
kind = "serial"
emulated = true
pace = 0.0

[[component]]
name = "imu"
bus = "imu-uart"
protocol = "stm32-uart"
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}
emulated = {{part = "{PART}", wiring = "{wiring.text}"}}
"""
        )
        with emulating(parts, "--acm", "imu-uart") as served:
            path = served["imu-uart"]["path"]
            run(stm32flash, "-b", "460800", "-i", wiring.sequence(), "-w", image, "-v", path)
            with SerialPort.open("imu", {"url": path, "baudrate": 115_200, **wiring.running()}) as port:
                assert version(port) == "FW 1.5.0"
                image.write_bytes(OLD)
                flash(port, wiring.profile(), image)
                assert version(port) == "FW 1.4.2"
        assert not Path(path).exists()


@contextmanager
def emulating(bench: Path, *arguments: str) -> Iterator[dict[str, dict[str, str]]]:
    """`proxyflash emulate` in a process of its own; what it serves."""
    command = [PROGRAM, "emulate", "--state", bench.parent / "state", "--bench", bench, "--jsonl", *arguments]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line)["served"]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.communicate()


class TestFaults:
    def test_the_tty_vanishes_while_ours_flashes(self, image: Path) -> None:
        """In the middle of writing; then the same line is flashed as if nothing had been."""
        wiring = Wiring("dtr-reset,!rts-boot0")
        with lined(faults=FaultPlan(disconnect_after=2_500)) as line:
            part = line.attach(wiring=wiring.text)
            with line.open(**wiring.running()) as port, pytest.raises(SerialGone):
                # Long after which the part would be called mute.
                flash(port, wiring.profile(answer=30.0), image)
            gone_at = line.wire.gone_at
            assert gone_at is not None
            assert time.monotonic() - gone_at < 10
            assert content(part)[: len(NEW)] not in (NEW, (OLD + b"\x5a" * 5_000)[: len(NEW)])
            line.wire.faults.plan = FaultPlan()
            line.wire.plug()
            line.path = line.tty.wait_path(20)
            with line.open(**wiring.running()) as port:
                flash(port, wiring.profile(), image)
                assert version(port) == "FW 1.5.0"
            assert content(part)[: len(NEW)] == NEW

    def test_the_tty_vanishes_while_stm32flash_writes(self, stm32flash: str, image: Path) -> None:
        with lined(faults=FaultPlan(disconnect_after=1_500)) as line:
            line.attach(boot0=True)
            done = subprocess.run(
                [stm32flash, "-b", "115200", "-w", image, line.path], capture_output=True, text=True, timeout=120
            )
            assert done.returncode != 0
            line.wire.faults.plan = FaultPlan()
            line.wire.plug()
            line.path = line.tty.wait_path(20)
            line.open().close()

    @pytest.mark.parametrize(("data", "pause"), [(b"\x55", 0.2), (bytes(range(256)) * 8, 0.0)], ids=["drip", "flood"])
    def test_nonsense_instead_of_a_loader(self, image: Path, data: bytes, pause: float) -> None:
        """A drip of single bytes, and 115,200 bit/s without a pause: an error of its own, and the port is closed."""
        with lined(pace=1.0) as line:
            device, ended = line.wire.device, threading.Event()
            device.line = Line(115_200, 8, "E", 1)

            def talk() -> None:
                while not ended.wait(pause or max(0.0, device.free_at - time.monotonic() - 0.05)):
                    device.send(data)

            talker = threading.Thread(target=talk)
            talker.start()
            try:
                with line.open() as port, pytest.raises(ProxyflashError) as caught:
                    flash(port, Stm32Profile(answer=0.5), image)
            finally:
                ended.set()
                talker.join()
            assert caught.value.code.startswith("E-PART-")
            line.open().close()

    def test_the_tty_vanishes_while_the_part_is_asked(self) -> None:
        with lined() as line:
            line.attach(boot0=True)
            with line.open(parity="E") as port:
                port.write(b"\x7f", Deadline.after(10))
                assert port.read_exactly(1, Deadline.after(20)) == b"\x79"
                line.wire.unplug()
                with pytest.raises(SerialGone):
                    port.read_exactly(1, Deadline.after(30))
