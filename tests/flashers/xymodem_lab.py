"""What tests of X- and YMODEM have in common: a part on a line, the other end of a line, profiles."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.faults import Faults
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.line import Line
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.xymodem.device import XmodemDevice, XymodemDevice, YmodemDevice
from proxyflash.emulators.xymodem.receiver import Receiver, Trouble
from proxyflash.enumerators.benchfile.schema import VersionQuestion
from proxyflash.enumerators.probers.serial import ask
from proxyflash.flashers.errors import RebootFailed
from proxyflash.flashers.flasher import ProbeResult
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.xymodem.flasher import XymodemFlasher
from proxyflash.flashers.xymodem.flavours import XmodemFlasher, YmodemFlasher
from proxyflash.flashers.xymodem.profile import XymodemAddress
from proxyflash.tests.flashers.doing import Doing
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.serial.port import SerialPort

DEVICES: dict[str, type[XymodemDevice]] = {"xmodem": XmodemDevice, "ymodem": YmodemDevice}
FLASHERS: dict[str, type[XymodemFlasher]] = {"xmodem": XmodemFlasher, "ymodem": YmodemFlasher}
QUESTION = {"send": "VER?\r", "match": "FW ([0-9.]+)"}
LINES = {"reset": "dtr", "select": "rts", "hold": 1e-4, "settle": 1e-3}
HASTY = {"connect": 3, "knock": 0.2, "start": 3, "block": 0.3, "verdict": 1}
"""Time limits for parts that answer at once."""


def shell(protocol: str) -> dict[str, Any]:
    """A profile of a command line in the style of U-Boot's."""
    return {
        "part": "=> ",
        "greet": "\x03",
        "prompt": "\n=> $",
        "bootloader": "Boot (\\S+)",
        "upload": [{"send": f"load{protocol[0]} 0x40200000\r", "expect": "Ready for binary"}],
        "success": "## Total Size +=",
        "failure": "aborted",
        "commit": [
            {"send": "crc32 0x40200000 0x<size-hex>\r", "expect": "==> <crc32>"},
            {"send": "erase 0x04200000 +0x<size-hex>\r", "expect": "Erased \\d+ sectors", "seconds": 3},
            {"send": "cp.b 0x40200000 0x04200000 0x<size-hex>\r", "expect": "done", "seconds": 3},
            {"send": "crc32 0x04200000 0x<size-hex>\r", "expect": "==> <crc32>"},
        ],
        "run": [{"send": "go 0x04200000\r", "expect": "Starting application"}],
    }


PARTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gecko": ("xmodem", "efr32mg1", {"loader": "gecko"}),
    "iap": ("ymodem", "stm32l4-iap", {"loader": "st-iap"}),
    "shell-x": ("xmodem", "shell-nor", shell("xmodem")),
    "shell-y": ("ymodem", "shell-nor", shell("ymodem")),
}
"""By a short name: the protocol, the emulated part, the profile."""


class Rig:
    """A part that runs 1.4.2, and the host's port. `table`: of the part's `emulated`; `sent`: each of the host's writes."""

    def __init__(
        self,
        name: str = "gecko",
        profile: dict[str, Any] | None = None,
        *,
        faults: Faults | None = None,
        **table: Any,
    ) -> None:
        self.protocol, part, known = PARTS[name]
        self.faults = faults or Faults()
        self.wire = UartWire(uuid.uuid4().hex, faults=self.faults, pace=0)
        self.sent: list[bytes] = []
        self._spy()
        settings = {"part": part, "wiring": "dtr-reset,!rts-boot", **table}
        spec = DeviceSpec("part", settings=settings, pace=0, version=QUESTION)
        self.device = DEVICES[self.protocol].attach(spec, self.wire)
        self.memory = self.device.flash
        self.old = application.make("1.4.2", "part", "Acme", 1000, start=self.memory.base)
        self.new = application.make("1.5.0", "part", "Acme", 3001, start=self.memory.base)
        self.memory.load(self.memory.base, self.old)
        self.device.board.reset()
        self.port = self.opened()
        self.flasher_class = FLASHERS[self.protocol]
        self.profile = self.flasher_class.Profile.model_validate(
            {**known, "entry": LINES, "timings": HASTY, **(profile or {})}
        )

    def _spy(self) -> None:
        send = self.wire.host.send

        def spied(data: bytes, at: float | None = None) -> None:
            self.sent.append(data)
            send(data, at)

        self.wire.host.send = spied  # type: ignore[method-assign]

    def opened(self) -> SerialPort:
        settings = {**self.wire.host_settings(), "baudrate": 115_200, "dtr": False, "rts": False}
        return SerialPort.open("part", settings)

    def flasher(self) -> XymodemFlasher:
        return self.flasher_class.attach(self.port, XymodemAddress(), self.profile)

    def programmer(self, **keys: Any) -> Programmer:
        return Programmer(self.flasher(), "part", **keys)

    def image(self, data: bytes | None = None) -> FirmwareImage:
        return FirmwareImage((Segment(0, self.new if data is None else data),), "bin", relocatable=True)

    def flash(self, data: bytes | None = None, *, ask_version: bool = True, **keys: Any) -> FlashResult:
        """As the command line does: plan, flash, verify, boot, ask for the version."""
        programmer = self.programmer(**keys)
        try:
            plan = programmer.plan(self.image(data))
            result = programmer.flash(plan, boot=False)
            if not programmer.start(plan) or not ask_version:
                return result
            version = self.version(Deadline.after(5))
            if version is None:
                raise RebootFailed("the application did not answer")
            return replace(result, version=version, booted=True)
        finally:
            programmer.bootloader.close()

    def version(self, deadline: Deadline) -> str | None:
        while True:
            question = VersionQuestion(send=QUESTION["send"], match=QUESTION["match"], timeout=0.3)
            version = ask(self.port, question, deadline)
            if version is not None or deadline.expired:
                return version

    def probe(self, *, active: bool) -> ProbeResult | None:
        return self.flasher_class.probe(
            self.port, XymodemAddress(), self.profile, active=active, deadline=Deadline.after(5)
        )

    def holds(self, data: bytes) -> bool:
        return self.memory.read(self.memory.base, len(data)) == data

    def runs(self, version: str | None) -> bool:
        """Whether the part runs this application in the end; None: its loader."""
        stage = Stage.LOADER if version is None else Stage.APPLICATION
        with self.device.board.changed:
            return self.device.board.changed.wait_for(
                lambda: self.device.board.stage is stage and self.device.application_version == version, 5
            )

    def whole_receiver(self) -> Callable[[], Receiver]:
        """What the part's loader receives with when nothing goes wrong."""
        make = self.device.board.loader._receiver

        def made() -> Receiver:
            receiver = make()
            receiver._trouble = Trouble.NONE
            return receiver

        return made

    def close(self) -> None:
        self.port.close()
        self.device.close()
        self.wire.close()
        assert self.device.board.fault is None


class Peer:
    """The other end of a port, driven by a test. The line between takes no time."""

    def __init__(self) -> None:
        self._wire = UartWire(uuid.uuid4().hex, pace=0)
        self._end = self._wire.device
        self._end.line = Line(4_000_000)
        self.port = SerialPort.open("peer", {**self._wire.host_settings(), "baudrate": 4_000_000})

    def send(self, data: bytes) -> None:
        self._end.send(data)

    def read(self, count: int, seconds: float = 10) -> bytes:
        """`count` bytes; fewer when not all of them come within `seconds`."""
        with self._wire.changed:
            self._wire.changed.wait_for(lambda: self._end.available() >= count, seconds)
        return self._end.take(count)

    def expect(self, data: bytes) -> None:
        assert self.read(len(data)) == data

    def nothing(self, seconds: float = 0.15) -> None:
        assert not self.read(1, seconds), "more was sent than expected"

    @contextmanager
    def chattering(self, text: bytes) -> Iterator[None]:
        """Sends this each millisecond meanwhile."""
        over = clock.Event()

        def chatter() -> None:
            while not over.wait(0.001):
                self.send(text)

        talking = Doing(chatter)
        try:
            yield
        finally:
            over.set()
            talking.result()

    def close(self) -> None:
        self.port.close()
        self._wire.close()


@contextmanager
def peer() -> Iterator[Peer]:
    made = Peer()
    try:
        yield made
    finally:
        made.close()
