"""An emulated part on a serial line: MBoot, and the application that it starts.

After a reset MBoot measures the bit rate by the first byte of a ping. It starts a valid application after the time that it
waits for a ping, unless its boot pin is active. The application answers the bench file's question for its version, and takes a
text by which it starts MBoot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from ...transports import clock
from .. import application
from ..device import DeviceSpec, factory_content
from ..flash import NorFlash
from ..keys import Range
from ..serial.board import Sensor, Silence, Stage
from ..serial.boot_pin_board import BootPinBoard, Pins
from ..serial.device import UartDevice
from ..serial.keys import BootPinKeys
from ..serial.wire import UartWire
from ..supply import Supply
from .loader import BYTE_SECONDS, START, Loader
from .parts import parts, unique_of


class MbootBoard(BootPinBoard):
    """`enter`: the text that starts MBoot; b"": there is none."""

    flash: NorFlash

    def __init__(
        self,
        name: str,
        supply: Supply,
        wire: UartWire,
        pins: Pins,
        sensor: Sensor,
        part: Mapping[str, Any],
        *,
        enter: bytes,
        detect: float,
        secured: bool,
        byte_seconds: float,
        pace: float,
    ) -> None:
        super().__init__(name, supply, wire, pins, sensor, pace=pace)
        self._part = part
        self._text = enter
        self._detect = detect
        self._secured = secured
        self._byte_seconds = byte_seconds
        self.wanted = False
        """Whether the application has started MBoot."""
        self._until: float | None = None

    def firmware(self) -> None:
        if not self._comes_out_of_reset():
            return
        start = self._part["base"] + self._part["reserved"]
        found = application.find(self.flash, start)
        wanted, self.wanted = self.wanted, False
        stays = wanted or self._strap or found is None
        self._enter(Stage.LOADER)
        self._uart.measured_parity = "N"
        self._uart.measuring = True
        self._until = None if stays else self.clock + self._detect * self.pace
        loader = Loader(self._part, self.flash, self, unique_of(self.name), secured=self._secured)
        loader.byte_seconds = self._byte_seconds
        self._loader = loader
        try:
            loader.serve()
        except Silence:
            self._run_sensor(found)
            return
        self.reset_itself()

    def receive(self, count: int, silence: float | None = None) -> bytes:
        """As of UartBoard. MBoot measures again after a byte that does not begin a ping, and waits for the first ping only for
        a while."""
        if self.stage is not Stage.LOADER or self._loader.is_active:
            return super().receive(count, silence)
        if silence is None and self._until is not None:
            self._await_ping(self._until)
        data = super().receive(count, silence)
        if not self._loader.is_active and data[0] != START and count == 1 and silence is None:
            self._uart.measuring = True
        return data

    def _await_ping(self, until: float) -> None:
        """Until something comes; a part that waits so is not idle yet. Raises Silence, PowerLost, ResetPulled."""
        with self.changed:
            while not self._uart.expected():
                self.tick()
                left = until - clock.monotonic()
                if left <= 0:
                    raise Silence
                self.changed.wait(left)

    def _run_sensor(self, found: application.Application | None) -> None:
        """Ends with a reset, or hangs."""
        self.clock = max(self.clock, clock.monotonic())
        self.running = found
        if found is None:
            self._enter(Stage.HUNG)
            return
        self._uart.measuring = False
        self._uart.line = self._sensor.line
        self._enter(Stage.APPLICATION)
        self._answers_until(self._text, found)
        self.wanted = True
        self.reset_itself()

    def _supply_switched(self, on: bool) -> None:
        self.wanted = False
        super()._supply_switched(on)


@dataclass(frozen=True, kw_only=True)
class MbootKeys(BootPinKeys):
    """The `emulated` table."""

    strap: ClassVar[str] = "boot"

    part: str
    """Which part it is."""
    boot: bool = False
    """Whether the boot pin is held active."""
    wiring: str = "none"
    """What the adapter's outputs drive: "dtr-reset,rts-boot", "rts-reset,dtr-boot", or one of the two alone. An asserted
    output pulls its pin low. With "!" before an output ("dtr-reset,!rts-boot") a transistor turns that round. While no program
    has the port open, both outputs are released."""
    enter: str = ""
    """The text by which the application starts the bootloader. "": nothing starts it."""
    detect: Annotated[float, Range(0)] | None = None
    """Seconds that the bootloader waits for a ping after a reset. Default: as the part."""
    byte_timeout: Annotated[float, Range(0)] = BYTE_SECONDS
    """Seconds that each byte of a packet may take. A packet that takes longer is dropped."""
    secured: bool = False
    """Whether the flash security is on."""


class MbootUartDevice(UartDevice):
    """One part, alone on its line."""

    keys = MbootKeys
    board: MbootBoard

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = MbootKeys.of(spec.settings, self.part_names())
        self.part = parts()[settings.part]
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = MbootBoard(
            spec.name,
            self.supply,
            wire,
            settings.pins(),
            settings.sensor(spec.version),
            self.part,
            enter=settings.enter.encode(),
            detect=self.part["detect_seconds"] if settings.detect is None else settings.detect,
            secured=settings.secured,
            byte_seconds=settings.byte_timeout,
            pace=spec.pace,
        )
        self.flash = self.board.flash = NorFlash.of_part(self.part, self.supply, spec.flash_path)
        self.flash.busy = self.board.work
        factory_content(spec, self.flash, fresh=fresh, start=self.application_start)
        self.board.start()

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

    @property
    def application_start(self) -> int:
        return int(self.part["base"] + self.part["reserved"])

    def reset(self) -> None:
        self.board.reset()
