"""An emulated board on a serial line: Katapult, and the application that it starts.

The application answers the bench file's question for its version, and takes Klipper's text by which it restarts into Katapult
(Bootloader_Entry.md of Klipper3d/klipper). Katapult runs from a reset on where the application has asked for it, or where the
flash begins with no application; else it starts what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from ...transports import clock
from ..application import Application
from ..device import DeviceSpec, factory_content
from ..flash import NorFlash
from ..keys import Range
from ..serial.board import Sensor, Stage, UartBoard
from ..serial.device import UartDevice
from ..serial.keys import UartKeys
from ..serial.line import Line
from ..serial.wire import UartWire
from ..supply import Supply
from .loader import Loader
from .parts import parts, started

KLIPPER_TEXT = b"~ \x1c Request Serial Bootloader!! ~"
COMPLETE_SECONDS = 0.1
"""How long after its answer to COMPLETE Katapult resets."""
BAUDRATE = 250_000


class KatapultBoard(UartBoard):
    """`line`: Katapult's."""

    flash: NorFlash

    def __init__(
        self,
        name: str,
        supply: Supply,
        wire: UartWire,
        sensor: Sensor,
        part: Mapping[str, Any],
        line: Line,
        *,
        pace: float,
    ) -> None:
        super().__init__(name, supply, wire, sensor, pace=pace)
        self._part = part
        self._line = line
        self.wanted = False
        """Whether the next start is that of Katapult: a mark in the memory that a reset leaves as it is."""

    def firmware(self) -> None:
        self.running = None
        self.clock = self._started_at
        wanted, self.wanted = self.wanted, False
        loader = Loader(self._part, self.flash)
        if wanted or not loader.is_valid:
            self._uart.line = self._line
            self._enter(Stage.LOADER)
            while not loader.completed:
                for answer in loader.feed(self.receive(1)):
                    self.send(answer)
            self.work(COMPLETE_SECONDS)
            self._released(max(self.clock, self._uart.free_at))
        self._run_application(started(self.flash, self._part["start"]))

    def _run_application(self, found: Application | None) -> None:
        """Ends with a reset, or hangs."""
        self.running = found
        if found is None:
            self._enter(Stage.HUNG)
            return
        self._uart.line = self._sensor.line
        self._enter(Stage.APPLICATION)
        self._answers_until(KLIPPER_TEXT, found)
        self.wanted = True
        self.reset_itself()

    def reset(self) -> None:
        super().reset()
        self._uart.discard_unsent()
        self._released(clock.monotonic())

    def _supply_switched(self, on: bool) -> None:
        self.wanted = False
        super()._supply_switched(on)


@dataclass(frozen=True, kw_only=True)
class KatapultUartKeys(UartKeys):
    """The `emulated` table."""

    part: str
    """Which board it is."""
    baudrate: Annotated[int, Range(1)] = BAUDRATE
    """Bit rate of Katapult's line in bit/s."""


class KatapultUartDevice(UartDevice):
    """One part, alone on its line."""

    keys = KatapultUartKeys
    board: KatapultBoard

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = KatapultUartKeys.of(spec.settings, self.part_names())
        self.part = parts()[settings.part]
        fresh = spec.is_new
        super().__init__(spec, wire)
        sensor = settings.sensor(spec.version)
        line = Line(settings.baudrate)
        self.board = KatapultBoard(spec.name, self.supply, wire, sensor, self.part, line, pace=spec.pace)
        self.flash = self.board.flash = NorFlash.of_part(self.part, self.supply, spec.flash_path)
        self.flash.busy = self.board.work
        factory_content(spec, self.flash, fresh=fresh, start=self.application_start)
        self.board.start()

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

    @property
    def application_start(self) -> int:
        return int(self.part["start"])

    def double_reset(self) -> None:
        """A person presses the reset button twice: Katapult runs."""
        self.board.wanted = True
        self.board.reset()

    def reset(self) -> None:
        self.board.reset()

    def rescue(self) -> None:
        """Two resets, where it has started what is not whole."""
        if self.board.stage is Stage.HUNG:
            self.double_reset()
        else:
            self.reset()
