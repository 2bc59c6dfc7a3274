"""An emulated AVR on a line without pace, the host's port, and firmware for it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from proxyflash.emulators import application
from proxyflash.emulators.avr.avr109 import Avr109Device
from proxyflash.emulators.avr.device import AvrDevice
from proxyflash.emulators.avr.part import parts
from proxyflash.emulators.avr.stk500v1 import Stk500v1Device
from proxyflash.emulators.avr.stk500v2 import Stk500v2Device
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.tests.emulators.line_lab import ByteRig

JMP = bytes.fromhex("0c 94 40 00")
"""JMP 0x40 (AVR instruction set manual), in words: byte 0x80."""
QUESTION = {"send": "VER?\r", "match": "FW ([0-9.]+)"}
OPTIBOOT, ATMEGABOOT, WIRING, CATERINA = (
    "atmega328p-optiboot",
    "atmega328p-atmegaboot",
    "atmega2560-wiring",
    "atmega32u4-caterina",
)
DEVICES: dict[str, type[AvrDevice]] = {
    "optiboot": Stk500v1Device,
    "atmegaboot": Stk500v1Device,
    "wiring": Stk500v2Device,
    "caterina": Avr109Device,
}
IN_LOADER: dict[str, Any] = {"power_on": True, "boot_window": 0}
"""It serves from the beginning, and doesn't stop when there is nothing to do."""


def firmware(version: str, size: int) -> bytes:
    return application.make(version, "imu", "acme", size, vectors=JMP)


class Rig(ByteRig):
    """One part, and the host's port; at first neither line is asserted."""

    device: AvrDevice

    def __init__(
        self, part: str = OPTIBOOT, *, folder: Path | None = None, pace: float = 0, holds: bytes = b"", **table: Any
    ) -> None:
        self.wire = UartWire(uuid.uuid4().hex, pace=pace)
        baudrate = parts()[part].baudrate or 57_600
        settings = {"part": part, "app_baudrate": baudrate, **table}
        if holds:
            assert folder is not None
            (folder / "factory.bin").write_bytes(holds)
            settings["firmware"] = str(folder / "factory.bin")
        spec = DeviceSpec("imu", settings=settings, folder=folder, pace=pace, version=QUESTION)
        self.device = DEVICES[parts()[part].loader].attach(spec, self.wire)
        self.board = self.device.board
        self.flash = self.device.flash
        self.boot = parts()[part].boot
        self.boot_section = self.flash.read(self.boot, self.flash.size - self.boot)
        self.port = self.opened(baudrate=baudrate, timeout=20)

    @property
    def boot_section_is_whole(self) -> bool:
        return self.flash.read(self.boot, self.flash.size - self.boot) == self.boot_section

    def pulse(self) -> None:
        """A falling edge on RESET, by DTR; then the loader has it."""
        self.port.dtr = True
        assert self.board.settle(300)
        self.reach(Stage.LOADER)
        self.port.dtr = False
        self.port.reset_input_buffer()
