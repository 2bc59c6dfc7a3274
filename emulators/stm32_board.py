"""An STM32 on a serial line: its reset and BOOT0 pins, and what runs after a reset."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from . import application
from .stm32_part import Stm32Memory
from .supply import Supply
from .uart_board import Sensor, Stage, UartBoard
from .uart_wire import RECEIVE_BUFFER, UartWire


@dataclass(frozen=True, slots=True)
class Driver:
    """Which of the adapter's outputs drives a pin: "dtr" or "rts".

    Wired directly an asserted output is a low pin; `inverted`, by a transistor say, a high one.
    """

    output: str
    inverted: bool

    def is_high(self, wire: UartWire) -> bool:
        asserted: bool = getattr(wire, self.output)
        return asserted if self.inverted else not asserted


@dataclass(frozen=True, slots=True)
class Pins:
    """What drives NRST and BOOT0. A pin that nothing drives is held: NRST high, BOOT0 as `boot0_held` says."""

    reset: Driver | None = None
    boot0: Driver | None = None
    boot0_held: bool = False

    def in_reset(self, wire: UartWire) -> bool:
        return self.reset is not None and not self.reset.is_high(wire)

    def boot0_high(self, wire: UartWire) -> bool:
        return self.boot0_held or (self.boot0 is not None and self.boot0.is_high(wire))


class Stm32Board(UartBoard):
    """The part on its board. `loader` is the ROM's firmware: it returns the address that Go names, None to hang.

    `mute`: the part never answers.
    """

    def __init__(
        self,
        name: str,
        supply: Supply,
        wire: UartWire,
        pins: Pins,
        sensor: Sensor,
        *,
        mute: bool = False,
        pace: float = 1.0,
    ) -> None:
        super().__init__(name, supply, wire, sensor, pace=pace)
        self.memory: Stm32Memory
        self.loader: Callable[[], int | None]
        self._pins = pins
        self._mute = mute
        self._in_reset = False
        self._boot0 = False

    def start(self) -> None:
        self._in_reset = self._pins.in_reset(self._wire)
        super().start()

    def reset(self) -> None:
        """Pulls the reset line for a moment, or with `_pins_changed` for as long as the pin is low."""
        super().reset()
        self._uart.discard_unsent()
        if not self._in_reset:
            self._released(time.monotonic())

    # What the processor does.

    def firmware(self) -> None:
        self.running = None
        self._enter(Stage.RESET)
        self._uart.room = RECEIVE_BUFFER
        self.wait(lambda: not self._in_reset, None)
        self.clock = self._started_at
        if self._mute:
            self._enter(Stage.HUNG)
            return
        start = self.memory.flash.base
        if not self._boot0 and application.find(self.memory.flash, start) is not None:
            self._run_at(start)
            return
        self._enter(Stage.LOADER)
        start_at = self.loader()
        if start_at is None or not self.memory.flash.base <= start_at < self.memory.flash.end:
            self._enter(Stage.HUNG)
        else:
            self._run_at(start_at)

    def _run_at(self, address: int) -> None:
        self._run_application(application.find(self.memory.flash, address))

    def powered_off(self) -> None:
        super().powered_off()
        self.memory.forget_ram()

    # What happens to it.

    def _released(self, at: float) -> None:
        """NRST goes high: BOOT0 is sampled, and the loader's UART is to measure the bit rate."""
        self._boot0 = self._pins.boot0_high(self._wire)
        super()._released(at)
        self._uart.measuring = True

    def _pins_changed(self) -> None:
        was = self._in_reset
        with self.changed:
            self._in_reset = self._pins.in_reset(self._wire)
            if was and not self._in_reset:
                self._released(time.monotonic())
            self.changed.notify_all()
        if self._in_reset and not was:
            self.reset()
