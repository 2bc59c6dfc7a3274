"""Runs the suite on real drivers of the Linux kernel, with emulated parts behind them in a process of their own.

    python -m proxyflash.hil_tests.kernel_bench [pytest's options]

As root, with udev, the modules vcan, vhci_hcd and cdc_acm, and an interface vcan0 that is up; or in a guest, by
`proxyflash vm run`. There is a bench for each kind of bus, with its parts in a process and its run of pytest in another,
all at once: most of the time goes by in waiting. What each says comes at the end; its results also lie in
$PROXYFLASH_ARTEFACTS, as suite-can.xml and so on. Without options the tests that are marked as slow are left out. Exit
status: the highest of pytest's, 1 when the parts can't be served, 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..transports import clock
from ..transports.plain import plain

FOLDER = Path(__file__).parent
BENCHES = FOLDER / "benches"
TTY = "/dev/ttyACM0"
"""What kernel-serial.toml names."""
SERVING = {
    "can": ["--join", "powertrain=socketcan:vcan0"],
    "serial": ["--acm", "imu-uart"],
    "usb": ["--vhci", "usb"],
}
"""How `emulate` serves each kind of bus."""
CHOSEN = {"can": "not rear-radar or test_both_are_flashed"}
"""By pytest's -k: to a driver one radar is as the other, and each frame costs a guest's processor time."""
COMMAND = "from proxyflash.tools.cli import main; main()"
END_SECONDS = 60
"""How long a process may take to do what it is asked."""
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
            ends = clock.monotonic() + END_SECONDS
            while not UDEV_RUNS.exists():
                if clock.monotonic() > ends or process.poll() is not None:
                    raise RuntimeError(f"{UDEVD} does not run")
                clock.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(END_SECONDS)
            # It leaves its socket, by which a libudev would take it for running.
            UDEV_RUNS.unlink(missing_ok=True)


@contextmanager
def served(kind: str, folder: Path) -> Iterator[str]:
    """The parts, until the end of the block: where they can lose their supply on request. Raises RuntimeError."""
    control = folder / f"{kind}-control"
    command = [sys.executable, "-c", COMMAND, "--json", "--bench", str(BENCHES / f"parts-{kind}.toml")]
    command += ["--state", str(folder / f"{kind}-parts"), "emulate", *SERVING[kind], "--control", str(control)]
    # In a session of its own: an interrupt ends the tests, and only then what they test.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
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
            if kind == "serial" and (tty := document["served"]["imu-uart"]["path"]) != TTY:
                raise RuntimeError(f"the serial adapter is {tty}, and kernel-serial.toml names {TTY}")
            yield str(control)
        finally:
            process.terminate()
            end(process)


@contextmanager
def suite(kind: str, arguments: list[str], folder: Path, control: str) -> Iterator[subprocess.Popen[str]]:
    """The suite on the bench of one kind of bus; what it says is shown at the end of the block."""
    command = [sys.executable, "-m", "pytest", "--bench", str(BENCHES / f"kernel-{kind}.toml"), "--allow-flash"]
    command += ["--require", f"{kind},power", *(arguments or ["-m", "not slow"])]
    if kind in CHOSEN and "-k" not in arguments:
        command += ["-k", CHOSEN[kind]]
    if artefacts := os.environ.get("PROXYFLASH_ARTEFACTS"):
        command.append(f"--junitxml={artefacts}/suite-{kind}.xml")
    command += [str(path) for path in sorted(FOLDER.glob("test_*.py"))]
    told = os.environ | {"PROXYFLASH_CONTROL": control, "PROXYFLASH_STATE": str(folder / f"{kind}-state")}
    said = folder / f"{kind}.log"
    with said.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=told, start_new_session=True)
    try:
        yield process
    finally:
        end(process)
        sys.stdout.write(f"\n---- {kind}\n{said.read_text(errors='replace')}")
        sys.stdout.flush()


def end(process: subprocess.Popen[str]) -> None:
    """It has been asked to, or has ended."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def interrupted_once(number: int, frame: object) -> None:
    """What ends a job may send the signal to this process and to its group."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def all_of(runs: list[subprocess.Popen[str]]) -> int:
    """Their highest exit status. An interrupt is passed on, so that each still reports its failures."""
    try:
        return max(run.wait() for run in runs)
    except KeyboardInterrupt:
        for run in runs:
            run.send_signal(signal.SIGINT)
        return 130


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, interrupted_once)
    with tempfile.TemporaryDirectory(prefix="proxyflash-") as name:
        folder = Path(name)
        try:
            with udev(), ExitStack() as stack:
                runs = []
                for kind in SERVING:
                    control = stack.enter_context(served(kind, folder))
                    runs.append(stack.enter_context(suite(kind, arguments, folder, control)))
                return all_of(runs)
        except RuntimeError as error:
            sys.stderr.write(f"{plain(str(error))}\n")
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
