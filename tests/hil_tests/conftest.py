"""Suites that are run by a pytest of their own: on an emulated bench, and on a bench that is hardware from there."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can.server import serve_can
from proxyflash.emulators.device import EmulatedDevice
from proxyflash.enumerators.bench import Bench
from proxyflash.hil_tests import bench_run  # noqa: F401 - see below
from proxyflash.transports import plugins

# pytester forgets what an inner run alone has imported, so what those share with each other is loaded here.
plugins.survey()

PROFILE = """
[profile.r77]
part = "R77"
memory = [{start = 0x0001_0000, size = 0x7_0000, erase_unit = 4096}]
security = {key = "xor", secret = "5a5a5a5a"}
timings = {latency = 1.0}
"""
RADARS = """
[[component]]
name = "front"
group = "radars"
bus = "powertrain"
protocol = "uds"
address = {request = 0x7E0}
profile = "r77"
boot_timeout = 3
"""
EMULATED = f"""
[bus.powertrain]
kind = "can"
emulated = true
pace = 0.0

[bus.imu-uart]
kind = "serial"
emulated = true
pace = 0.0
baudrate = 115_200
dtr = false
rts = false

[bus.usb]
kind = "usb"
emulated = true
pace = 0.0
{RADARS}
emulated = {{part = "acme-r77", serial = "RA-0019", firmware = "radar.bin"}}

[[component]]
name = "imu"
group = "imus"
bus = "imu-uart"
protocol = "stm32-uart"
profile = {{part = "STM32F40x", entry = {{reset = "dtr", boot0 = "rts"}}}}
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}
boot_timeout = 3

[component.emulated]
part = "stm32f405xg"
firmware = "arm.bin"
wiring = "dtr-reset,!rts-boot0"

[[component]]
name = "camera"
group = "cameras"
bus = "usb"
protocol = "dfu"
address = {{runtime_vendor_id = 0x1209, runtime_product_id = 0x0C24}}
boot_timeout = 3
emulated = {{part = "stm32f405-dfu", firmware = "arm.bin", vendor_id = 0x1209, product_id = 0x0C24}}
{PROFILE}
"""
OUTSIDE = f"""
[bus.powertrain]
kind = "can"
emulated = true
pace = 0.0
{RADARS}
emulated = {{part = "acme-r77", serial = "RA-0019", firmware = "radar.bin"}}
{RADARS.replace("front", "rear").replace("0x7E0", "0x7E1")}
emulated = {{part = "acme-r77", serial = "RA-0020", firmware = "radar.bin"}}
{PROFILE}
"""
HARDWARE = f"""
[bus.powertrain]
kind = "can"
interface = "proxyflash"
channel = "unix:SOCKET"
{RADARS}
{RADARS.replace("front", "rear").replace("0x7E0", "0x7E1")}
{PROFILE}
"""
POWER = """
[power.{name}]
off = "echo off {name} >control; read done <done"
on = "echo on {name} >control; read done <done"
"""
OUTSIDE_TOLD = """
def outside(said):
    with open("control", "w") as control:
        control.write(said)
    with open("done") as done:
        done.read()
"""
IMAGES = 'images = [{file = "radar.bin", version = "1.4.2"}, {file = "radar-1.5.0.bin", version = "1.5.0"}]\n'


def write_firmware(folder: Path) -> None:
    for name, version, start in (
        ("radar.bin", "1.4.2", 0x10000),
        ("radar-1.5.0.bin", "1.5.0", 0x10000),
        ("arm.bin", "1.4.2", 0x8000000),
    ):
        (folder / name).write_bytes(application.make(version, "part", "Acme", 3000, start=start))


class Suite:
    """A folder with tests and a bench file, and the pytest that runs them."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.folder = pytester.path
        self.bench = self.folder / "desk.toml"
        write_firmware(self.folder)

    def run(self, tests: str, *arguments: str | Path, bench: bool = True) -> pytest.RunResult:
        """In this process."""
        self.write(tests)
        return self.pytester.runpytest_inprocess(*self.arguments(*arguments, bench=bench))

    def write(self, tests: str) -> None:
        (self.folder / "test_it.py").write_text(f"import pytest\n{OUTSIDE_TOLD}\n{tests}\n")

    def arguments(self, *arguments: str | Path, bench: bool = True) -> list[str | Path]:
        named: list[str | Path] = ["--bench", self.bench] if bench else []
        # What hypothesis loads for its summary takes longer than all the rest of a run.
        return ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-rsfE", *named, *arguments]


class Outside:
    """Parts behind a CAN bus that is hardware from the inner run: what happens to them is seen and done here.

    `switched`: what the bench file's power commands and the tests did, as "off front".
    """

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder
        self.socket = socket
        self.switched: list[str] = []
        (folder / "outside").mkdir()
        write_firmware(folder / "outside")
        (folder / "outside" / "bench.toml").write_text(OUTSIDE)
        self._bench = Bench.open(folder / "outside" / "bench.toml", state=folder / "outside" / "state")
        self._close = serve_can(self._bench.emulated_wire("powertrain"), socket)
        for name in ("control", "done"):
            os.mkfifo(folder / name)
        self._thread = threading.Thread(target=self._switch, daemon=True)
        self._thread.start()

    def part(self, name: str) -> EmulatedDevice:
        return self._bench.emulated_device(name)

    def version(self, name: str) -> str | None:
        device = self.part(name)
        device.settle()
        return device.application_version

    def unplug(self) -> None:
        """The adapter is pulled out."""
        self._close()
        self._close = lambda: None

    def close(self) -> None:
        (self.folder / "control").write_text("end\n")
        self._thread.join()
        self._close()
        self._bench.close()

    def _switch(self) -> None:
        while True:
            said = (self.folder / "control").read_text().strip()
            if said == "end":
                return
            self.switched.append(said)
            what, _, name = said.partition(" ")
            if what == "unplug":
                self.unplug()
            else:
                supply = self.part(name).supply
                (supply.on if what == "on" else supply.off)()
                if supply.is_on:
                    self.part(name).settle()
            (self.folder / "done").write_text("done\n")


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """With the emulated bench "desk": front (CAN), imu (serial), camera (USB)."""
    made = Suite(pytester)
    made.bench.write_text(EMULATED)
    return made


@pytest.fixture
def hardware(suite: Suite) -> Iterator[Outside]:
    """The suite's bench "desk" is hardware: front and rear on one CAN bus, front with power control and images."""
    with tempfile.TemporaryDirectory(prefix="pf-") as short:  # There is a limit to the path of a Unix socket.
        outside = Outside(suite.folder, Path(short) / "can")
        text = HARDWARE.replace("SOCKET", str(outside.socket)).replace('name = "front"\n', f'name = "front"\n{IMAGES}')
        suite.bench.write_text(text + POWER.format(name="front"))
        try:
            yield outside
        finally:
            outside.close()
