"""Emulated DFU parts on the kernel's USB, from one `proxyflash emulate --vhci` for all tests, and what others see of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import usb.core
from proxyflash.emulators import application
from proxyflash.enumerators.bench import Bench
from proxyflash.hil_tests.kernel.waiting import LONG, wait_until
from proxyflash.hil_tests.kernel_bench import udev
from proxyflash.tools.commands import run as command_line

OLD = "1.4.2"
"""What the parts run at first. Each test brings them another version."""
MakeBench = Callable[..., Bench]

RUNTIME = 0x1209
"""Vendor id of the running applications."""
SIZE = 9_000
SYSFS = Path("/sys/bus/usb/devices")
VHCI = Path("/sys/devices/platform/vhci_hcd.0")


@dataclass(frozen=True)
class Kind:
    """A row of emulators/dfu/parts.toml, with its ids in DFU mode and those of its application, and where that lies."""

    part: str
    vendor_id: int
    product_id: int
    runtime_product_id: int
    start: int

    @property
    def both_ids(self) -> str:
        """dfu-util's -d: the application's, then those of DFU mode."""
        return f"{RUNTIME:04x}:{self.runtime_product_id:04x},{self.vendor_id:04x}:{self.product_id:04x}"

    def firmware(self, version: str) -> bytes:
        return application.make(version, "part", "Acme", SIZE, start=self.start)


ST = Kind("stm32f105-dfu", 0x0483, 0xDF11, 1, 0x0800_0000)
SLOT = Kind("slot-dfu", 0x1209, 0xDF01, 2, 0)
BLIND = Kind("blind-dfu", 0x1209, 0xDF02, 4, 0)
WINDOW = Kind("window-dfu", 0x1209, 0xDF05, 3, 0x0801_0000)
KINDS = (ST, SLOT, BLIND, WINDOW)


class Emulation:
    """Parts on one bus, served by a process of their own."""

    def __init__(self, folder: Path, kinds: Sequence[Kind]) -> None:
        self._folder = folder
        self.parts = [Part(self, folder, kind) for kind in kinds]
        text = '[bus.usb]\nkind = "usb"\nemulated = true\n'
        for part in self.parts:
            kind = part.kind
            path = folder / f"{kind.part}.bin"
            path.write_bytes(kind.firmware(OLD))
            table = f'part = "{kind.part}", serial = "{part.serial}", firmware = "{path.name}"'
            text += component_text(kind) + f"emulated = {{{table}, product_id = {kind.runtime_product_id}}}\n"
        (folder / "parts.toml").write_text(text)
        words = ["--json", "--bench", str(folder / "parts.toml"), "--state", str(folder / "state")]
        words += ["emulate", "--vhci", "usb", "--control", str(folder / "control")]
        self._process = start(words, folder)

    def wait_served(self) -> None:
        wait_until(lambda: not self._process.is_alive() or self._told(), "it serves")
        if not self._told():
            pytest.fail(f"emulate ends: {(self._folder / 'err').read_text()}")
        for part in self.parts:
            part.settle()

    def stop(self) -> None:
        """Ctrl-C. It ends as asked, and its devices have left."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGINT)
        self._process.join(LONG)
        assert self._process.exitcode == 0
        wait_until(lambda: not any((SYSFS / part.place).exists() for part in self.parts), "the devices have left")

    def command(self, words: str) -> None:
        """`emulate --control`: "off" or "on" a part, "cut" or "join" usb."""
        control = self._folder / "control"
        with control.with_name("control.answer").open() as answer:
            control.write_text(f"{words}\n")
            assert answer.readline() == "ok\n"

    def _told(self) -> bool:
        try:
            places = json.loads((self._folder / "out").read_text())["served"]["usb"]["path"].split(", ")
        except ValueError:
            return False
        for part, place in zip(self.parts, places, strict=True):
            part.place = place
        return True


class Part:
    """One of them. `place`: where the kernel has it, as sysfs names it ("1-1")."""

    def __init__(self, emulation: Emulation, folder: Path, kind: Kind) -> None:
        self.kind = kind
        self.place = ""
        self.serial = f"{kind.part[:4]}-1"
        self._emulation = emulation
        self._folder = folder

    def supply(self, word: str) -> None:
        """ "off" or "on"."""
        self._emulation.command(f"{word} {self.kind.part}")

    def hold(self) -> None:
        """Lets every request from now on wait for an answer, until `let_go`: to all parts of the bus."""
        self._emulation.command("cut usb")

    def let_go(self) -> None:
        self._emulation.command("join usb")

    def detach(self) -> None:
        """Pulls the cable, at the kernel's end."""
        lines = [line.split() for line in (VHCI / "status").read_text().splitlines()[1:]]
        port = next(int(words[1]) for words in lines if words[-1] == self.place)
        (VHCI / "detach").write_text(str(port))

    def plug(self) -> None:
        """Pulled out, it is plugged in again."""
        wait_until(lambda: not (SYSFS / self.place).exists(), "the device has left")
        self.supply("off")
        self.supply("on")

    def number(self) -> int:
        """The kernel's number of it, another one each time that it comes."""
        return int((SYSFS / self.place / "devnum").read_text())

    def seen(self) -> tuple[int, int, str] | None:
        """As the kernel has it now: vendor id, product id, and the version in bcdDevice."""
        folder = SYSFS / self.place
        try:
            if not (SYSFS / f"{self.place}:1.0").exists():
                return None
            vendor_id, product_id = (int((folder / name).read_text(), 16) for name in ("idVendor", "idProduct"))
            bcd = (folder / "bcdDevice").read_text().strip()
        except OSError:
            return None
        return vendor_id, product_id, f"{int(bcd[:2])}.{bcd[2]}.{bcd[3]}"

    def running(self) -> str:
        """The version that runs now."""
        seen = self.seen()
        assert seen is not None
        assert seen[:2] == (RUNTIME, self.kind.runtime_product_id)
        return seen[2]

    def wait_running(self, version: str) -> None:
        wanted = (RUNTIME, self.kind.runtime_product_id, version)
        wait_until(lambda: self.seen() == wanted, f"{self.kind.part} runs {version}")
        self.settle()

    def wait_dfu(self) -> None:
        wanted = (self.kind.vendor_id, self.kind.product_id)
        wait_until(lambda: (self.seen() or ())[:2] == wanted, f"{self.kind.part} is in DFU mode")
        self.settle()

    def settle(self) -> None:
        """What the kernel knows by now, udev knows too, and the libusb of this process, which hears it from udev."""
        run("udevadm", "settle", "--timeout=30")
        number = self.number()
        bus = int(self.place.partition("-")[0])
        wait_until(
            lambda: any((device.bus, device.address) == (bus, number) for device in usb.core.find(find_all=True)),
            f"libusb sees device {number} of bus {bus}",
        )

    def file(self, version: str, suffix: str = "bin") -> Path:
        """Firmware of this version: raw; "dfu" with a DFU 1.1 suffix; "dfuse" as a DfuSe file with a suffix."""
        data = self.kind.firmware(version)
        path = self._folder / f"{version}.{'bin' if suffix == 'bin' else f'{suffix}.dfu'}"
        path.write_bytes(dfuse(data, self.kind.start) if suffix == "dfuse" else data)
        if suffix != "bin":
            ids = ["-v", f"{self.kind.vendor_id:04x}", "-p", f"{self.kind.product_id:04x}", "-d", "ffff"]
            run("dfu-suffix", *ids, "-S", "0x011a" if suffix == "dfuse" else "0x0100", "-a", str(path))
        return path


def bench_text(parts: Sequence[Part]) -> str:
    """A bench file of real USB with these parts on it."""
    return "".join(['[bus.usb]\nkind = "usb"\n', *(component_text(part.kind) for part in parts)])


def component_text(kind: Kind) -> str:
    """Its table in a bench file."""
    return (
        f'\n[[component]]\nname = "{kind.part}"\nbus = "usb"\nprotocol = "dfu"\n'
        f"address = {{vendor_id = {kind.vendor_id}, product_id = {kind.product_id}, "
        f"runtime_vendor_id = {RUNTIME}, runtime_product_id = {kind.runtime_product_id}}}\n"
        + ("profile = {slot_size = 0x20000}\n" if kind.start == 0 else "")
    )


def dfuse(data: bytes, address: int) -> bytes:
    """UM0391, 2.1 and 2.2: prefix, one target (alternate setting 0) with one element; without the suffix."""
    element = struct.pack("<II", address, len(data)) + data
    target = struct.pack("<6sBI255sII", b"Target", 0, 1, b"Flash", len(element), 1) + element
    return struct.pack("<5sBIB", b"DfuSe", 1, 11 + len(target), 1) + target


def start(
    words: Sequence[str], folder: Path, user: Callable[[], None] = lambda: None
) -> multiprocessing.context.ForkProcess:
    """The command line, given `words`, in a fork of this process, after `user`; what it says is in files "out" and "err".

    A Python of its own takes as long to start, in a guest, as three tests.
    """

    # They are there as soon as the process is.
    out, err = ((folder / name).open("w", buffering=1) for name in ("out", "err"))

    def child() -> None:
        sys.stdout, sys.stderr = out, err
        # Not into what pytest keeps of this process's.
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        user()
        sys.exit(command_line(words))

    process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
    with out, err:
        process.start()
    return process


def run(program: str, *words: str, status: int = 0) -> str:
    """What it prints. Skips where it is not there; fails unless it ends with `status`."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [program, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2 * LONG
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@contextmanager
def emulated(folder: Path) -> Iterator[dict[Kind, Part]]:
    """All of KINDS; libusb of this process sees them."""
    if shutil.which("udevadm") is None:
        pytest.skip("udev is not installed")
    with udev():
        emulation = Emulation(folder, KINDS)
        try:
            emulation.wait_served()
            yield {part.kind: part for part in emulation.parts}
        finally:
            emulation.stop()
