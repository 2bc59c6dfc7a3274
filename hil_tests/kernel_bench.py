"""Runs the suite on real drivers of the Linux kernel, with emulated parts behind them in a process of their own.

    python -m proxyflash.hil_tests.kernel_bench [pytest's options]

As root, with udev, the modules vcan, vhci_hcd and cdc_acm, and an interface vcan0 that is up; or in a guest, by
`proxyflash vm run`. Exit status: pytest's, or 1 when the parts can't be served.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).parent
BENCHES = FOLDER / "benches"
TTY = "/dev/ttyACM0"
"""What kernel.toml names."""
COMMAND = "from proxyflash.tools.cli import main; main()"
END_SECONDS = 60
UDEVD, UDEV_RUNS = Path("/lib/systemd/systemd-udevd"), Path("/run/udev/control")


@contextmanager
def udev() -> Iterator[None]:
    """libusb hears from udevd alone that devices come and go; a guest has none running. Raises RuntimeError."""
    if UDEV_RUNS.exists():
        yield
        return
    if not UDEVD.exists():
        raise RuntimeError(f"{UDEVD} is not installed")
    with subprocess.Popen([UDEVD], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            ends = time.monotonic() + END_SECONDS
            while not UDEV_RUNS.exists():
                if time.monotonic() > ends or process.poll() is not None:
                    raise RuntimeError(f"{UDEVD} does not run")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(END_SECONDS)
            # It leaves its socket, by which a libudev would take it for running.
            UDEV_RUNS.unlink(missing_ok=True)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The parts, until the end of the block: where they can be told to lose their supply. Raises RuntimeError."""
    control = folder / "control"
    command = [sys.executable, "-c", COMMAND, "--json", "--bench", str(BENCHES / "parts.toml")]
    command += ["--state", str(folder / "state"), "emulate", "--join", "powertrain=socketcan:vcan0"]
    command += ["--acm", "imu-uart", "--vhci", "usb", "--control", str(control)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = ""
            while True:
                line = process.stdout.readline()
                told += line
                try:
                    document = json.loads(told)
                    break
                except ValueError:
                    if not line:
                        raise RuntimeError(f"the parts are not served: {told}") from None
            tty = document["served"]["imu-uart"]["path"]
            if tty != TTY:
                raise RuntimeError(f"the serial adapter is {tty}, and kernel.toml names {TTY}")
            yield str(control)
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def main(arguments: list[str]) -> int:
    tests = [str(path) for path in sorted(FOLDER.glob("test_*.py"))]
    suite = [sys.executable, "-m", "pytest", "--bench", str(BENCHES / "kernel.toml"), "--allow-flash"]
    suite += ["--require", "can,serial,usb,power", *(arguments or ["-m", "not slow"]), *tests]
    with tempfile.TemporaryDirectory(prefix="proxyflash-") as folder:
        try:
            with udev(), served(Path(folder)) as control:
                return subprocess.run(suite, env={**os.environ, "PROXYFLASH_CONTROL": control}).returncode
        except RuntimeError:
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
