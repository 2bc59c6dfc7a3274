"""Runs the suite on real drivers of the Linux kernel, with emulated parts behind them in a process of their own.

    python -m proxyflash.hil_tests.kernel_bench [pytest's options]

As root, with udev, the modules vcan, vhci_hcd and cdc_acm, and an interface vcan0 that is up; or in a guest, by
`proxyflash vm run`. There is a bench for each kind of bus, and each is a run of pytest of its own, all at once: most of
the time goes by in waiting. What each says comes when it has ended; its results also lie in $PROXYFLASH_ARTEFACTS, as
suite-can.xml and so on. Exit status: the highest of pytest's, or 1 when the parts can't be served.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

FOLDER = Path(__file__).parent
BENCHES = FOLDER / "benches"
TTY = "/dev/ttyACM0"
"""What kernel-serial.toml names."""
KINDS = ("can", "serial", "usb")
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
                raise RuntimeError(f"the serial adapter is {tty}, and kernel-serial.toml names {TTY}")
            yield str(control)
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def suite(kind: str, arguments: list[str], folder: Path, control: str) -> Iterator[subprocess.Popen[str]]:
    """The suite on the bench of one kind of bus; what it says goes to `kind`.log in the folder."""
    command = [sys.executable, "-m", "pytest", "--bench", str(BENCHES / f"kernel-{kind}.toml"), "--allow-flash"]
    command += ["--require", f"{kind},power", *(arguments or ["-m", "not slow"])]
    if artefacts := os.environ.get("PROXYFLASH_ARTEFACTS"):
        command.append(f"--junitxml={artefacts}/suite-{kind}.xml")
    command += [str(path) for path in sorted(FOLDER.glob("test_*.py"))]
    told = {"PROXYFLASH_CONTROL": control, "PROXYFLASH_STATE": str(folder / f"{kind}-state")}
    with (folder / f"{kind}.log").open("w") as log:
        # A group of its own: an interrupt from the keyboard is passed on, once.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, text=True, env={**os.environ, **told}, process_group=0
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        sys.stdout.write(f"\n---- {kind}\n{(folder / f'{kind}.log').read_text(errors='replace')}")
        sys.stdout.flush()


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="proxyflash-") as name:
        folder = Path(name)
        try:
            with udev(), served(folder) as control, ExitStack() as stack:
                runs = [stack.enter_context(suite(kind, arguments, folder, control)) for kind in KINDS]
                return max(run.wait() for run in runs)
        except RuntimeError as error:
            sys.stderr.write(f"{error}\n")
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
