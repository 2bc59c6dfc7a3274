"""Tests of the kernel's own drivers: vcan, ISO-TP, slcan; vhci_hcd; cdc_acm.

Where this kernel does not have what a file tests, that file is skipped, with the reason. With PROXYFLASH_KERNEL_BENCH=1 (as
`proxyflash vm run` sets it) nothing may be missing, and whatever would be skipped fails.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from proxyflash.hil_tests.kernel.waiting import LONG

if TYPE_CHECKING:
    from proxyflash.hil_tests.kernel.usb_lab import Kind, MakeBench, Part

ALL_MUST_BE_THERE = os.environ.get("PROXYFLASH_KERNEL_BENCH", "") not in ("", "0")
GUEST = "Run them in a guest: proxyflash vm run -- .venv/bin/python -m pytest hil_tests/kernel"
numbers = itertools.count()


def can_missing() -> str:
    """What of CAN this kernel does not have; "" for nothing."""
    for kind, protocol, name in (
        (socket.SOCK_RAW, socket.CAN_RAW, "CAN sockets (can-raw)"),
        (socket.SOCK_DGRAM, socket.CAN_ISOTP, "ISO-TP sockets (can-isotp)"),
    ):
        try:
            socket.socket(socket.PF_CAN, kind, protocol).close()
        except OSError:
            return name
    return ""


def usb_missing() -> str:
    return "" if Path("/sys/devices/platform/vhci_hcd.0").exists() else "virtual USB host (vhci-hcd)"


def serial_missing() -> str:
    if name := usb_missing():
        return name
    return "" if Path("/sys/bus/usb/drivers/cdc_acm").exists() else "driver of USB serial adapters (cdc-acm)"


MISSING: dict[str, Callable[[], str]] = {
    "test_can": can_missing,
    "test_isotp": can_missing,
    "test_slcan": can_missing,
    "test_usb": usb_missing,
    "test_serial": serial_missing,
}
"""By the beginning of a file's name: what is missing for it."""


class Lacking(pytest.Module):
    """A file that is skipped whole."""

    reason = ""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(self.reason, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if ALL_MUST_BE_THERE:
        return None
    for prefix, missing in MISSING.items():
        if module_path.name.startswith(prefix) and (name := missing()):
            made: Lacking = Lacking.from_parent(parent, path=module_path)
            made.reason = f"this kernel has no {name}. {GUEST}"
            return made
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if ALL_MUST_BE_THERE and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"where all must be there, nothing is skipped: {reason}"
    return report


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's bench file or state."""
    monkeypatch.delenv("PROXYFLASH_BENCH", raising=False)
    monkeypatch.setenv("PROXYFLASH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def descriptors() -> dict[int, str]:
    """This process's open files: number, and what it is."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except OSError:
            continue  # That of listing them.
    return found


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test and what else it uses, no thread and no descriptor is there that was not there before."""
    threads = set(threading.enumerate())
    files = descriptors()

    def left() -> list[str]:
        more = [thread.name for thread in threading.enumerate() if thread not in threads]
        return more + [f"{number}: {name}" for number, name in descriptors().items() if files.get(number) != name]

    yield
    end = time.monotonic() + 10
    while left() and time.monotonic() < end:
        time.sleep(0.02)
    assert not left()


@pytest.fixture(scope="session")
def usb_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Kind, Part]]:
    """Emulated DFU parts on the kernel's USB, the same for all tests: to start what serves them takes long."""
    from proxyflash.hil_tests.kernel.usb_lab import emulated

    with emulated(tmp_path_factory.mktemp("usb")) as parts:
        yield parts


@pytest.fixture
def make_bench(usb_parts: dict[Kind, Part], tmp_path: Path) -> MakeBench:
    """A bench of the kernel's USB with the parts that are named."""
    import usb.core
    from proxyflash.enumerators.bench import Bench
    from proxyflash.hil_tests.kernel.usb_lab import bench_text

    def make(*listed: Part) -> Bench:
        file = tmp_path / "bench.toml"
        file.write_text(bench_text(listed))
        return Bench.open(file)

    # libusb's context, with its descriptors, is this process's from here on.
    usb.core.find()
    return make


def ip(*words: str, check: bool = True) -> None:
    """iproute2's `ip`. Skips where it is not there or this user may not."""
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=LONG)
    if "not permitted" in done.stderr:
        pytest.skip("to make CAN interfaces needs root")
    assert done.returncode == 0 or not check, done.stderr


@pytest.fixture
def make_vcan() -> Iterator[Callable[[], str]]:
    """Makes vcan interfaces of their own that carry classic and FD frames, and gives their names."""
    made: list[str] = []

    def make() -> str:
        name = f"pf{os.getpid() % 10_000}n{next(numbers)}"
        ip("link", "add", "dev", name, "type", "vcan")
        made.append(name)
        ip("link", "set", name, "mtu", "72", "up")
        return name

    yield make
    for name in made:
        ip("link", "del", name, check=False)


@pytest.fixture
def vcan(nothing_left: None, make_vcan: Callable[[], str]) -> str:
    """A vcan interface of its own."""
    return make_vcan()
