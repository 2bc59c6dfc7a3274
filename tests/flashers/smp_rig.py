"""An emulated SMP part with the old image, and what the command line does to it: plan, flash, verify, boot."""

from __future__ import annotations

import io
import uuid
from typing import Any

from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.smp.device import SmpDevice
from proxyflash.flashers.flasher import ProbeResult
from proxyflash.flashers.formats import mcuboot
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.smp.flasher import SmpFlasher
from proxyflash.flashers.smp.profile import SmpAddress, SmpProfile
from proxyflash.tests.emulators.smp_lab import NEW, OLD, image
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.serial.port import SerialPort


class Rig:
    """`profile`: what differs from the short times that a part without pace needs."""

    def __init__(
        self,
        part: str = "acme-s1",
        profile: dict[str, Any] | None = None,
        *,
        plan: FaultPlan | None = None,
        blank: bool = False,
        **table: Any,
    ) -> None:
        self.faults = Faults()
        self.wire = UartWire(uuid.uuid4().hex, faults=self.faults, pace=0)
        self.device = SmpDevice.attach(DeviceSpec("imu", settings={"part": part, **table}, pace=0), self.wire)
        self.board = self.device.board
        self.recovers = blank
        """What a failure leaves may be serial recovery."""
        self.start = self.device.application_start
        if not blank:
            self.device.flash.load(self.start, self.image(OLD))
            self.board.reset()
        self.board.settle()
        self.profile = SmpProfile.model_validate(
            {"answer": 1.0, "quiet": 0.02, "swap": 20.0, "erase": 5.0} | (profile or {})
        )
        self.address = SmpAddress()
        self.open()
        self.faults.plan = plan or FaultPlan()
        self.faults.units = 0

    def open(self) -> None:
        url = self.wire.host_settings()["url"]
        self.port = SerialPort.open("imu", {"url": url, "baudrate": 115_200, "dtr": False, "rts": False})

    def image(self, version: str, **keys: int) -> bytes:
        return image(version, start=self.start, **keys)

    def flasher(self) -> SmpFlasher:
        return SmpFlasher.attach(self.port, self.address, self.profile)

    def flash(self, data: bytes | None = None, **keys: Any) -> FlashResult:
        programmer = Programmer(self.flasher(), "imu", **keys)
        firmware = mcuboot.read(io.BytesIO(self.image(NEW) if data is None else data), "new.bin")
        try:
            return programmer.flash(programmer.plan(firmware))
        finally:
            programmer.bootloader.close()

    def probe(self) -> ProbeResult | None:
        return SmpFlasher.probe(self.port, self.address, self.profile, active=False, deadline=Deadline.after(5))

    @property
    def runs(self) -> str | None:
        """The version that runs in the end; None: serial recovery, or nothing."""
        with self.board.changed:
            self.board.changed.wait_for(lambda: self.board.stage not in (Stage.OFF, Stage.RESET), 30)
        self.board.settle(30)
        return self.device.application_version

    @property
    def stays(self) -> bool:
        """Whether what runs is confirmed."""
        return self.device.loader.pairs[0].swap().name == "NONE"

    def whole_again(self) -> None:
        """No more faults from here on, and all the time that an answer needs on a busy machine."""
        self.faults.plan = FaultPlan()
        self.profile = self.profile.model_copy(update={"answer": 2.0})

    def close(self) -> None:
        self.port.close()
        self.device.close()
        self.wire.close()
        assert self.board.fault is None
