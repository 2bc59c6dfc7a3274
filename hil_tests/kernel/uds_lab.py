"""An emulated ECU on a CAN interface of the kernel's, in the test's own process, and our flasher for it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import can
from proxyflash.emulators import application
from proxyflash.emulators.can.bridge import bridge
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.uds.device import UdsDevice
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import Phase, RunContext
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.uds.flasher import UdsFlasher
from proxyflash.flashers.uds.profile import UdsAddress, UdsProfile
from proxyflash.transports.can.bus import CanBus

BASE, SIZE = 0x10000, 0x70000
OLD = application.make("1.4.2", "radar", "Acme", 1_000, start=BASE)
NEW = application.make("1.5.0", "radar", "Acme", 3_003, start=BASE)
REQUEST, RESPONSE, FUNCTIONAL = 0x7E0, 0x7E8, 0x7DF


class Radar:
    """The part. It runs OLD until it is flashed. `table`: more of its table in a bench file."""

    def __init__(self, folder: Path, bus: can.BusABC, *, fd: bool = False, **table: Any) -> None:
        (folder / "old.bin").write_bytes(OLD)
        self.wire = CanWire(uuid.uuid4().hex, pace=0, data_bitrate=2_000_000 if fd else None)
        spec = DeviceSpec(
            "radar",
            address={"request": REQUEST},
            settings={"firmware": "old.bin", "part": "acme-r77", **table},
            firmware_folder=folder,
            pace=0.0,
        )
        self.device = UdsDevice.attach(spec, self.wire)
        self.device.settle()
        self._bus = bus
        self._unjoin = bridge(self.wire, bus)

    def joined_to(self, bus: can.BusABC) -> None:
        """Leaves the interface that it was on, and is on another one."""
        self._unjoin()
        self._bus.shutdown()
        self._bus = bus
        self._unjoin = bridge(self.wire, bus)

    @property
    def runs(self) -> str | None:
        """The version that its application says."""
        self.device.settle()
        return self.device.application_version

    def close(self) -> None:
        self._unjoin()
        self._bus.shutdown()
        self.device.close()
        self.wire.close()
        assert self.device.board.fault is None


def socketcan(interface: str, *, fd: bool = False) -> can.BusABC:
    """For the part's end, which like any controller looks at the frames that are for it alone."""
    wanted = [{"can_id": identifier, "can_mask": 0x7FF, "extended": False} for identifier in (REQUEST, FUNCTIONAL)]
    return can.Bus(interface="socketcan", channel=interface, fd=fd, can_filters=wanted)


def profile(*, backend: str = "user", fd: bool = False, **more: Any) -> UdsProfile:
    keys: dict[str, Any] = {
        "memory": [{"start": BASE, "size": SIZE, "erase_unit": 0x1000, "write_alignment": 8}],
        "security": {"key": "xor", "secret": "5a5a5a5a"},
        "timings": {"latency": 0.5, "retries": 1},
        "iso_tp": {"backend": backend, "tx_dl": 64 if fd else 8},
    }
    return UdsProfile.model_validate(keys | more)


class InWrite:
    """Does something once, when half of the image is written. `at`: when that was."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self.at = 0.0

    def __call__(self, event: ev.Event) -> None:
        if (
            isinstance(event, ev.Progress)
            and event.phase is Phase.WRITE
            and 2 * event.done >= event.total
            and not self.at
        ):
            self._action()
            self.at = time.monotonic()


def flash(bus: CanBus, asked: UdsProfile, on_event: Callable[[ev.Event], None] = ev.ignore) -> FlashResult:
    """Flashes NEW."""
    flasher = UdsFlasher.attach(bus, UdsAddress.model_validate({"request": REQUEST}), asked)
    try:
        programmer = Programmer(flasher, "radar", RunContext(on_event), attempts=1)
        return programmer.flash(programmer.plan(FirmwareImage((Segment(BASE, NEW),), "bin")))
    finally:
        flasher.close()
