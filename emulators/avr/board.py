"""An AVR on a serial line: what resets it, and whether its bootloader or its application runs then.

On the boards that these loaders are made for, one of the host's modem lines drives RESET through a capacitor: its edge
resets the part, its level doesn't matter. A part that is a USB device itself has no such line; there the application
starts the loader when its port is set to 1200 bit/s and DTR is not asserted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, NoReturn

from ...transports import clock
from ..serial.board import Sensor, Stage, UartBoard
from ..serial.line import Line
from ..serial.wire import RECEIVE_BUFFER, UartWire
from ..supply import Supply
from .part import AvrMemory

TOUCH_RATE = 1200
"""bit/s of a port that starts the loader while DTR is not asserted."""


class Reset(Enum):
    """Why the processor starts, as MCUSR shows."""

    POWER_ON = auto()
    EXTERNAL = auto()
    WATCHDOG = auto()
    TOUCHED = auto()
    """By the watchdog, after the application left its word for the loader."""
    NONE = auto()
    """It doesn't: what it ran led it into the boot section."""


@dataclass(frozen=True, slots=True)
class ResetLine:
    """Which of the adapter's outputs, "dtr" or "rts", is coupled to RESET. An asserted output is a low pin; `inverted`:
    a high one."""

    output: str
    inverted: bool

    def is_high(self, wire: UartWire) -> bool:
        asserted: bool = getattr(wire, self.output)
        return asserted if self.inverted else not asserted


class AvrLoader(ABC):
    """What is in the boot section. `window`: seconds that it waits for a first byte, `patience`: for a later one; None:
    for ever."""

    def __init__(self, board: AvrBoard, memory: AvrMemory, *, window: float | None, patience: float | None) -> None:
        self._board = board
        self._memory = memory
        self.window = window
        self._patience = patience

    @abstractmethod
    def enters(self, cause: Reset) -> bool:
        """Whether it serves, or starts the application at once."""

    @abstractmethod
    def run(self) -> None:
        """Serves until it starts the application, or ends in a reset. Raises PowerLost, ResetPulled."""


class AvrBoard(UartBoard):
    """The part on its board. `mute`: the part never answers. `enters_at_power_on`: the supply counts as a reset from
    outside. `reenumerates`: None: an adapter is between; else the part is the USB device, whose port is gone for this
    number of seconds whenever loader and application follow one another (0.0: it stays)."""

    receiver_bytes: ClassVar[int] = 3
    """Two in the buffer and one in the shift register (datasheet, "USART")."""

    def __init__(
        self,
        name: str,
        supply: Supply,
        wire: UartWire,
        sensor: Sensor,
        reset_line: ResetLine | None,
        *,
        reenumerates: float | None = None,
        enters_at_power_on: bool = False,
        mute: bool = False,
        pace: float = 1.0,
    ) -> None:
        super().__init__(name, supply, wire, sensor, pace=pace)
        self.memory: AvrMemory
        self.loader: AvrLoader
        self._reset_line = reset_line
        self._reset_high = reset_line is None or reset_line.is_high(wire)
        self._reenumerates = reenumerates
        self._power_on = Reset.EXTERNAL if enters_at_power_on else Reset.POWER_ON
        self._mute = mute
        self._cause = self._power_on
        self._spm_until = 0.0
        self._in_background = False
        wire.is_usb = reenumerates is not None

    def reset(self) -> None:
        """Pulls the reset line for a moment."""
        self._restart(Reset.EXTERNAL)

    # What the processor does.

    def firmware(self) -> None:
        self.running = None
        self._enter(Stage.RESET)
        self._uart.room = RECEIVE_BUFFER
        self._in_background = False
        cause = self._cause
        self.clock = self._started_at + self.memory.part.startup_seconds * self.pace
        self.busy_real(self.clock - clock.monotonic())
        self._uart.discard_received(self.clock)
        if self._mute:
            self._enter(Stage.HUNG)
            return
        while True:
            if self.loader.enters(cause):
                if self.memory.part.baudrate:
                    self._uart.line = Line(self.memory.part.baudrate)
                self._enter(Stage.LOADER)
                self.loader.run()
                self._leave_usb()
            elif cause is Reset.NONE:
                break  # Loader and reset vector lead to one another for ever.
            if self.memory.application() is not None or not self.memory.runs_into_boot_section:
                break
            cause = Reset.NONE
        self._run_application(self.memory.application())

    # What its firmware calls.

    def spm_busy(self, seconds: float) -> None:
        """SPM takes that long: the processor waits, or goes on while it is `in_background`."""
        if self._in_background:
            self._spm_until = self.clock + seconds * self.pace
        else:
            self.work(seconds)

    def erase_in_background(self, address: int) -> None:
        """In the section that can be read while it is written. Raises PowerLost, ResetPulled."""
        self._in_background = True
        try:
            self.memory.erase_page(address)
        finally:
            self._in_background = False

    def wait_for_spm(self) -> None:
        """Until what was started in the background is done."""
        if self.pace:
            self.work((self._spm_until - self.clock) / self.pace)

    def hang(self) -> NoReturn:
        """Until the next reset. Always raises ResetPulled, or PowerLost."""
        self._enter(Stage.HUNG)
        self.wait(lambda: False, None)
        raise AssertionError("it waited for ever")

    def watchdog(self, seconds: float = 0.0) -> NoReturn:
        """The watchdog resets the part after so long. Always raises ResetPulled, or PowerLost."""
        self.busy_real(seconds)
        self._cause = Reset.WATCHDOG
        self.reset_itself()

    # What happens to it.

    def _restart(self, cause: Reset) -> None:
        if self.supply.is_on:
            self._cause = cause
            super().reset()
            self._uart.discard_unsent()
            self._released(clock.monotonic())

    def _pins_changed(self) -> None:
        wire = self._wire
        if self._reset_line is not None:
            fell = self._reset_high
            self._reset_high = self._reset_line.is_high(wire)
            if fell and not self._reset_high:
                self._restart(Reset.EXTERNAL)
        is_touched = wire.host.line.baudrate == TOUCH_RATE and not wire.dtr
        if self._reenumerates is not None and is_touched and self.stage is Stage.APPLICATION and self.supply.is_on:
            self._leave_usb()
            self._restart(Reset.TOUCHED)

    def _leave_usb(self) -> None:
        """A USB device goes and comes back: the host's port is gone meanwhile."""
        if self._reenumerates:
            self._wire.vanish(clock.monotonic())
            back = clock.Timer(self._reenumerates, self._enumerate)
            back.start()

    def _enumerate(self) -> None:
        """A USB device with its supply has a port again."""
        if self.supply.is_on and self._wire.gone_at is not None:
            self._wire.plug()

    def _supply_switched(self, on: bool) -> None:
        if on:
            self._cause = self._power_on
        super()._supply_switched(on)
        if self._reenumerates and on:
            self._enumerate()
