"""A laboratory for the DFU tests: emulated parts on an emulated bus, and the host's end of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.wire import UsbWire
from proxyflash.flashers.dfu.dfuse import DfuSeMemory
from proxyflash.flashers.dfu.flasher import DfuFlasher
from proxyflash.flashers.dfu.profile import DfuAddress, DfuProfile
from proxyflash.flashers.dfu.slot import DfuSlot
from proxyflash.flashers.flasher import Capability
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.transports.usb.bus import UsbBus

APP = {"runtime_vendor_id": 0x1209, "runtime_product_id": 1}
OLD, NEW = "1.4.2", "1.5.0"


@dataclass(frozen=True)
class Part:
    """A row of emulators/dfu/parts.toml, and how it is reached."""

    name: str
    vendor_id: int
    product_id: int
    start: int
    can: Capability

    @property
    def relocatable(self) -> bool:
        return self.start == 0

    @property
    def address(self) -> dict[str, Any]:
        return {"vendor_id": self.vendor_id, "product_id": self.product_id, **APP}

    def firmware(self, version: str, size: int = 5000) -> bytes:
        return application.make(version, "part", "Acme", size, start=self.start)

    def image(self, version: str = NEW, size: int = 5000, **target: Any) -> FirmwareImage:
        segment = Segment(self.start, self.firmware(version, size))
        return FirmwareImage((segment,), "bin", target=target, relocatable=self.relocatable)


def memory(flasher: DfuFlasher) -> DfuSeMemory:
    access = flasher.access()
    assert isinstance(access, DfuSeMemory)
    return access


def slot(flasher: DfuFlasher) -> DfuSlot:
    access = flasher.access()
    assert isinstance(access, DfuSlot)
    return access


BOOT, READ, CHECK = Capability.BOOT, Capability.READ, Capability.CHECK
PARTS = {
    part.name: part
    for part in (
        Part("stm32f405-dfu", 0x0483, 0xDF11, 0x08000000, BOOT | READ),
        Part("stm32f105-dfu", 0x0483, 0xDF11, 0x08000000, BOOT | READ),
        Part("resident-dfu", 0x1209, 0xDF03, 0x0800C000, BOOT | READ),
        Part("window-dfu", 0x1209, 0xDF05, 0x08010000, BOOT | READ),
        Part("slot-dfu", 0x1209, 0xDF01, 0, BOOT | READ),
        Part("waiting-dfu", 0x1209, 0xDF04, 0, BOOT | CHECK),
        Part("blind-dfu", 0x1209, 0xDF02, 0, BOOT | CHECK),
    )
}
F405, F105, RESIDENT, WINDOW, SLOT, WAITING, BLIND = PARTS.values()


class Lab:
    """An emulated USB bus with parts on it, and the host's end of it."""

    def __init__(self, pace: float = 0.0) -> None:
        self.wire = UsbWire(f"lab-{uuid4()}", pace=pace)
        self.backend = EmulatedUsbBackend(self.wire)
        self.bus = UsbBus("usb", self.backend)
        self.devices: list[DfuDevice] = []
        self.pace = pace

    def add(self, part: Part, *, old: bytes | None = None, **settings: Any) -> DfuDevice:
        """A part that runs its old application; `old` b"": a blank one."""
        device = DfuDevice(DeviceSpec(part.name, settings={"part": part.name, **settings}, pace=self.pace), self.wire)
        content = part.firmware(OLD) if old is None else old
        if content:
            device.flash.load(part.start, content)
            device.supply.off()
            device.supply.on()
        self.devices.append(device)
        return device

    def flasher(self, part: Part, profile: dict[str, Any] | None = None, **address: Any) -> DfuFlasher:
        settings = {"reenumerate": 1.0, "slot_size": 0x20000, **(profile or {})}
        return DfuFlasher(self.bus, DfuAddress(**{**part.address, **address}), DfuProfile(**settings))

    def programmer(self, part: Part, **more: Any) -> Programmer:
        return Programmer(self.flasher(part, **more), part.name)

    def flash(self, part: Part, image: FirmwareImage | None = None, **more: Any) -> FlashResult:
        flasher = self.flasher(part, **more)
        programmer = Programmer(flasher, part.name)
        try:
            return programmer.flash(programmer.plan(image or part.image()))
        finally:
            flasher.close()

    def close(self) -> None:
        self.bus.close()
        for device in self.devices:
            device.close()
        self.wire.close()


class Recorder:
    """Notes what is downloaded, on its way from pyusb."""

    def __init__(self, lab: Lab) -> None:
        self.downloads: list[bytes] = []
        self.blocks: list[int] = []
        passed_on = lab.wire.control

        def control(port: Any, function: Any, setup: bytes, data: bytes) -> bytes:
            if setup[:2] == b"\x21\x01":
                self.downloads.append(data)
                self.blocks.append(int.from_bytes(setup[2:4], "little"))
            return passed_on(port, function, setup, data)

        lab.wire.control = control  # type: ignore[method-assign]


class Answering:
    """Changes what the device answers to IN requests, by bRequest."""

    def __init__(self, lab: Lab, change: dict[int, Callable[[bytes], bytes]]) -> None:
        passed_on = lab.wire.control

        def control(port: Any, function: Any, setup: bytes, data: bytes) -> bytes:
            answer = passed_on(port, function, setup, data)
            if setup[0] == 0xA1 and setup[1] in change:
                return bytes(change[setup[1]](answer))
            return answer

        lab.wire.control = control  # type: ignore[method-assign]
