"""The emulated DFU parts, flashed by a program that nobody here wrote: pyfu-usb (PyPI, MIT), on pyusb.

It runs in a process and an environment of its own (under build/peers, made once), with nothing of this package in it but
the emulator: pyusb gets the emulated backend instead of libusb's. It is run, never imported here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.tests.peers import environment

pytestmark = pytest.mark.real_time("peer programs in processes of their own")

ROOT = Path(__file__).parents[2]
RUNNER = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
import usb.backend.libusb1
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.wire import UsbWire
from pathlib import Path

part, pace, folder = sys.argv.pop(1), float(sys.argv.pop(1)), Path(sys.argv.pop(1))
wire = UsbWire("lab", pace=pace)
device = DfuDevice(DeviceSpec("part", settings={"part": part, "boot": "dfu"}, folder=folder, pace=pace), wire)
backend = EmulatedUsbBackend(wire)
usb.backend.libusb1.get_backend = lambda *args, **more: backend
sys.argv[0] = "pyfu-usb"
try:
    runpy.run_module("pyfu_usb", run_name="__main__")
finally:
    wire.close()
    device.close()
"""


@pytest.fixture(scope="session")
def pyfu_usb() -> Path:
    """The interpreter of the environment that pyfu-usb is in."""
    return environment("pyfu-usb==2.0.2")


def run(python: Path, folder: Path, part: str, *arguments: str, pace: float = 0.0) -> str:
    """Runs pyfu-usb against a part whose flash is kept in a folder; what it says."""
    package = folder / "package"
    if not package.exists():
        package.mkdir(parents=True)
        (package / "proxyflash").symlink_to(ROOT)
    command = [python, "-c", RUNNER, package, part, pace, folder, *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("part", "start", "size"),
    [
        ("stm32f405-dfu", 0x08000000, 70_001),
        ("stm32f105-dfu", 0x08000000, 20_003),
        ("resident-dfu", 0x0800C000, 5_000),
        ("slot-dfu", 0, 30_000),
    ],
)
def test_download(pyfu_usb: Path, tmp_path: Path, part: str, start: int, size: int) -> None:
    firmware = application.make("1.5.0", "part", "Acme", size, start=start)
    (tmp_path / "firmware.bin").write_bytes(firmware)
    address = ["-a", hex(start)] if start else []
    run(pyfu_usb, tmp_path, part, "-D", "firmware.bin", *address)
    flash = (tmp_path / "part.flash").read_bytes()
    offset = start % 0x08000000
    assert flash[offset : offset + size] == firmware
    # And nothing else: what it erased and what was blank.
    assert set(flash[:offset] + flash[offset + size :]) <= {0xFF}


def test_download_at_true_times(pyfu_usb: Path, tmp_path: Path) -> None:
    """It never waits as long as it is asked to: a device that is busy says so again."""
    firmware = application.make("1.5.0", "part", "Acme", 5_000)
    (tmp_path / "firmware.bin").write_bytes(firmware)
    run(pyfu_usb, tmp_path, "stm32f105-dfu", "-D", "firmware.bin", "-a", "0x08000000", pace=1.0)
    assert (tmp_path / "part.flash").read_bytes()[:5_000] == firmware


def test_list(pyfu_usb: Path, tmp_path: Path) -> None:
    """It reads the layout as the emulator writes it: 4 sectors of 16 K, one of 64 K, 7 of 128 K."""
    said = run(pyfu_usb, tmp_path, "stm32f405-dfu", "-l")
    assert "0483:df11" in said
    for line in (
        "0x8000000  4 pages of  16K bytes",
        "0x8010000  1 pages of  64K bytes",
        "0x8020000  7 pages of 128K bytes",
    ):
        assert line in said
