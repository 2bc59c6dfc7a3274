"""An emulated serial line behind a tty of the kernel's cdc_acm driver, in the test's own process, with or without a part."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.serial.acm_tty import AcmTty
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.line import Line as UartLine
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.stm32.device import Stm32UartDevice
from proxyflash.flashers.formats import load
from proxyflash.flashers.programmer import Programmer
from proxyflash.flashers.serial.boot_pins import Output
from proxyflash.flashers.stm32.profile import Stm32Address, Stm32Pins, Stm32Profile
from proxyflash.flashers.stm32.uart import Stm32UartFlasher
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.serial.port import SerialPort

OLD = application.make("1.4.2", "imu", "acme", 2_000)
NEW = application.make("1.5.0", "imu", "acme", 3_000)
QUESTION = {"send": "VER?\r", "match": "FW ([0-9.]+)"}
PART = "stm32f405xg"


class Serial:
    """One line. `tty`: as the host has it. `modem`: what its outputs (DTR, RTS) were set to, one after the other.

    `spoken`: the settings with which the host said something to the part.
    """

    def __init__(self, *, pace: float = 0.0, faults: FaultPlan | None = None) -> None:
        self.wire = UartWire(f"line-{uuid.uuid4().hex[:8]}", pace=pace, faults=Faults(faults or FaultPlan()))
        self.modem: list[tuple[bool, bool]] = []
        self.spoken: set[UartLine] = set()
        self._part: Stm32UartDevice | None = None
        self._moved: Callable[[], None] = lambda: None
        self.wire.modem_listener = self._note
        self.tty = AcmTty(self.wire, "imu")
        self.path = self.tty.path

    def attach(self, firmware: bytes = OLD, **table: Any) -> Stm32UartDevice:
        """A part that holds `firmware`, with these keys of its `emulated` table."""
        spec = DeviceSpec("imu", settings={"part": PART, **table}, version=QUESTION, pace=self.wire.pace)
        self._part = Stm32UartDevice.attach(spec, self.wire)
        self._moved, self.wire.modem_listener = self.wire.modem_listener, self._note
        heard = self.wire.device.listener

        def listened() -> None:
            self.spoken.add(self.wire.host.line)
            heard()

        self.wire.device.listener = listened
        flash = self._part.flash
        flash.load(flash.base, firmware + b"\x5a" * 5_000)
        self._part.board.reset()
        return self._part

    def open(self, **settings: Any) -> SerialPort:
        return SerialPort.open("line", {"url": self.path, "baudrate": 115_200, **settings})

    def place(self) -> str:
        """Where the adapter is on USB, as sysfs names it ("1-1")."""
        return Path("/sys/class/tty", Path(self.path).name, "device").resolve().parent.name

    def close(self) -> None:
        self.tty.close()
        assert not Path(self.path).exists()
        if self._part is not None:
            assert self._part.board.fault is None
            self._part.close()
        self.wire.close()

    def _note(self) -> None:
        # The listener is called for the line's settings too.
        if not self.modem or self.modem[-1] != (self.wire.dtr, self.wire.rts):
            self.modem.append((self.wire.dtr, self.wire.rts))
        self._moved()


class Wiring:
    """How DTR and RTS drive NRST and BOOT0, as each program's options say: "!" is a transistor, which turns a line round."""

    def __init__(self, text: str) -> None:
        self.text = text
        pins: dict[str, tuple[Output, bool]] = {}
        for wire in text.split(","):
            line, _, pin = wire.lstrip("!").partition("-")
            # Without a transistor an asserted line is a low pin.
            pins[pin] = ("dtr" if line == "dtr" else "rts", wire.startswith("!"))
        self.reset, reset_inverted = pins["reset"]
        self.boot0, self.boot0_high = pins["boot0"]
        self.reset_low = not reset_inverted

    def sequence(self) -> str:
        """stm32flash's -i."""
        high, low = (self._word(self.boot0, state) for state in (self.boot0_high, not self.boot0_high))
        pulse = f"{self._word(self.reset, self.reset_low)},{self._word(self.reset, not self.reset_low)}"
        return f"{high}&{pulse},:{low}&{pulse}"

    def profile(self, **more: Any) -> Stm32Profile:
        entry = Stm32Pins(
            reset=self.reset, boot0=self.boot0, reset_asserted=self.reset_low, boot0_asserted=self.boot0_high
        )
        # A machine that does other things too may stop for longer than the loader's second.
        return Stm32Profile(**{"entry": entry, "answer": 10.0, **more})

    def running(self) -> dict[str, bool]:
        """The lines with which the part runs its application."""
        return {self.reset: not self.reset_low, self.boot0: not self.boot0_high}

    def restart(self, port: SerialPort) -> None:
        """Into the application."""
        port.set_modem(**{**self.running(), self.reset: self.reset_low})
        port.set_modem(**self.running())

    @staticmethod
    def _word(line: str, asserted: bool) -> str:
        return line if asserted else f"-{line}"


def flash(port: SerialPort, profile: Stm32Profile, file: Path) -> None:
    """With our own flasher. The application runs then."""
    flasher = Stm32UartFlasher.attach(port, Stm32Address(), profile)
    programmer = Programmer(flasher, "imu", attempts=1)
    try:
        programmer.flash(programmer.plan(load(file, address=None)))
    finally:
        flasher.close()


def version(port: SerialPort) -> str:
    """What the application says."""
    port.drain()
    port.write(b"VER?\r", Deadline.after(5))
    return port.read_until(b"\r\n", Deadline.after(20)).decode().strip()


def content(part: Stm32UartDevice) -> bytes:
    return part.flash.read(part.flash.base, part.flash.size)


def runs(part: Stm32UartDevice) -> bool:
    part.settle()
    return part.board.stage is Stage.APPLICATION


class Stalls:
    """A context in which it is watched for how long this machine lets its threads wait: `longest`, in seconds."""

    longest = 0.0

    def __enter__(self) -> Stalls:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._ended.wait(0.01):
            now = time.monotonic()
            self.longest = max(self.longest, now - looked - 0.01)
            looked = now


@contextmanager
def nothing_left() -> Iterator[None]:
    """No thread and no descriptor of this process is there more than before."""
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    for thread in set(threading.enumerate()) - threads:
        # A timer that was cancelled needs a moment to end.
        thread.join(5)
    assert set(threading.enumerate()) <= threads
    assert _descriptors() <= descriptors


def _descriptors() -> set[tuple[str, str]]:
    """Number and target of each."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add((link.name, str(link.readlink())))
        except OSError:
            # The descriptor that the folder was read with.
            continue
    return found
