"""An emulated STM32 behind a tty of the kernel's cdc_acm driver, flashed by Debian's stm32flash and by our flasher.

At the loader's true 8E1, entered by the modem lines; and with a tty that vanishes meanwhile.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.faults import FaultPlan
from proxyflash.emulators.serial.line import Line
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.stm32.profile import Stm32Profile
from proxyflash.hil_tests.kernel.serial_lab import (
    NEW,
    OLD,
    Serial,
    Stalls,
    Wiring,
    content,
    flash,
    nothing_left,
    runs,
    version,
)
from proxyflash.hil_tests.kernel.waiting import wait_until
from proxyflash.hil_tests.kernel_bench import udev
from proxyflash.transports.errors import ProxyflashError, SerialGone

WIRINGS = ("dtr-reset,rts-boot0", "rts-reset,!dtr-boot0", "!rts-reset,!dtr-boot0")
"""Each line for each pin, straight and by a transistor; the other pairs are met without a kernel."""
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


class TestFaults:
    def test_the_tty_vanishes_while_ours_flashes(self, image: Path, tmp_path: Path) -> None:
        """In the middle of writing. It comes back under another number, and the same flash again ends well."""
        wiring, answer = Wiring("dtr-reset,!rts-boot0"), 30.0
        with udev(), lined(faults=FaultPlan(disconnect_after=1_500)) as line:
            part = line.attach(wiring=wiring.text)
            url = lasting_name(line.path)
            bench_file = tmp_path / "bench.toml"
            bench_file.write_text(bench_text(url, wiring, answer))
            with Bench.open(bench_file) as bench:
                component = bench.component("imu")
                with pytest.raises(SerialGone) as caught:
                    component.flash(image, address=part.flash.base, compare=False)
                ended = time.monotonic()
                assert (caught.value.code, caught.value.component) == ("E-SERIAL-GONE", "imu")
                assert line.wire.gone_at is not None
                assert ended - line.wire.gone_at < answer / 3
                assert content(part)[: len(NEW)] not in (NEW, (OLD + b"\x5a" * 5_000)[: len(NEW)])
                # Bus and port are still open, and the kernel keeps the number for them.
                before, line.wire.faults.plan = line.path, FaultPlan()
                line.wire.plug()
                line.path = line.tty.wait_path(20)
                assert line.path != before
                wait_until(lambda: str(Path(url).resolve()) == line.path, f"{url} is {line.path}")
                bench.reopen("uart")
                result = component.flash(image, address=part.flash.base)
                assert result is not None
                assert (result.version, result.verified) == ("1.5.0", "read back")
            assert content(part)[: len(NEW)] == NEW

    def test_the_tty_vanishes_while_stm32flash_writes(self, stm32flash: str, image: Path) -> None:
        with lined(faults=FaultPlan(disconnect_after=1_500)) as line:
            part = line.attach(boot0=True)
            command = (stm32flash, "-b", "115200", "-w", image)
            done = subprocess.run([*map(str, command), line.path], capture_output=True, text=True, timeout=120)
            assert done.returncode != 0
            line.wire.faults.plan = FaultPlan()
            line.wire.plug()
            line.path = line.tty.wait_path(20)
            run(*command, line.path, before=part.board.reset)
            assert content(part)[: len(NEW)] == NEW

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


def lasting_name(tty: str) -> str:
    """The name that udev gives it, whatever its number is."""
    found: list[str] = []

    def look() -> bool:
        found[:] = [str(link) for link in Path("/dev/serial/by-id").glob("*") if str(link.resolve()) == tty]
        return bool(found)

    wait_until(look, f"{tty} has a name in /dev/serial/by-id")
    return found[0]


def bench_text(url: str, wiring: Wiring, answer: float) -> str:
    """A bench file of this one part."""
    lines = "\n".join(f"{line} = {str(state).lower()}" for line, state in wiring.running().items())
    entry = ", ".join(
        (
            f'reset = "{wiring.reset}", reset_asserted = {str(wiring.reset_low).lower()}',
            f'boot0 = "{wiring.boot0}", boot0_asserted = {str(wiring.boot0_high).lower()}',
        )
    )
    return f"""
[bus.uart]
kind = "serial"
url = "{url}"
baudrate = 115_200
{lines}

[[component]]
name = "imu"
bus = "uart"
protocol = "stm32-uart"
profile = {{answer = {answer}, entry = {{{entry}}}}}
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}
"""
