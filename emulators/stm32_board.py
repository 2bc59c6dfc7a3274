"""An STM32 on a serial line: its reset and BOOT0 pins, what runs after a reset, and how its firmware sends and waits.

The rule: the firmware acts as of the moment that the last byte came in (`clock`), not of the moment that this thread
got to run, so that the wire alone limits the speed. Flash operations take their time from that moment too; the part
doesn't look at its receiver meanwhile, so all but the first byte that comes in then are lost, as on the part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from . import application
from .board import Board, ResetPulled
from .stm32_part import Stm32Memory
from .supply import Supply
from .uart_line import Line
from .uart_wire import RECEIVE_BUFFER, UartWire


class Stage(Enum):
    """What the part is doing."""

    OFF = auto()
    RESET = auto()
    LOADER = auto()
    APPLICATION = auto()
    HUNG = auto()
    """It runs something that isn't there, until the next reset."""


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


@dataclass(frozen=True, slots=True)
class Sensor:
    """What the application does: it answers `question` on its line. `answer` makes it from the version."""

    line: Line
    question: bytes = b""
    answer: Callable[[str], bytes] = str.encode


class Silence(Exception):
    """Nothing more came within the time that the firmware waits."""


class Stm32Board(Board):
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
        # Before the board's own listener, which starts the firmware.
        supply.listen(self._supply_switched)
        super().__init__(name, supply, pace=pace)
        self.memory: Stm32Memory
        self.loader: Callable[[], int | None]
        self.stage = Stage.OFF
        self.running: application.Application | None = None
        self.clock = 0.0
        """The firmware's own time."""
        self._wire = wire
        self._uart = wire.device
        self._pins = pins
        self._sensor = sensor
        self._mute = mute
        self._in_reset = False
        self._boot0 = False
        self._started_at = 0.0
        wire.modem_listener = self._pins_changed
        wire.device.listener = self._heard

    def start(self) -> None:
        self._in_reset = self._pins.in_reset(self._wire)
        self._released(time.monotonic())
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
            self._run_application(start)
            return
        self._enter(Stage.LOADER)
        start_at = self.loader()
        if start_at is None or not self.memory.flash.base <= start_at < self.memory.flash.end:
            self._enter(Stage.HUNG)
        else:
            self._run_application(start_at)

    def _run_application(self, address: int) -> None:
        self.running = application.find(self.memory.flash, address)
        if self.running is None:
            self._enter(Stage.HUNG)
            return
        self._uart.measuring = False
        self._uart.line = self._sensor.line
        self._enter(Stage.APPLICATION)
        question = self._sensor.question
        if not question or not self.running.version:
            return
        answer = self._sensor.answer(self.running.version)
        heard = b""
        while True:
            heard = (heard + self.receive(1))[-len(question) :]
            if heard == question:
                self.send(answer)

    def powered_off(self) -> None:
        self._enter(Stage.OFF)
        self.running = None
        self._uart.discard_unsent()
        self.memory.forget_ram()

    def _enter(self, stage: Stage) -> None:
        with self.changed:
            self.stage = stage
            self.changed.notify_all()

    # What its firmware calls.

    def receive(self, count: int, silence: float | None = None) -> bytes:
        """Exactly `count` bytes. Raises Silence when none comes for `silence` seconds (None: it waits for ever)."""
        uart = self._uart
        while True:
            coming = uart.expected()
            due = uart.due(count)
            if due is None:
                if not self.wait(lambda coming=coming: uart.expected() != coming, silence):  # type: ignore[misc]
                    uart.discard_received()
                    raise Silence
                continue
            self.wait(lambda: False, due - time.monotonic())
            # In one step with the look at the reset line: after a reset the old firmware takes and sends nothing.
            with self.changed:
                self.tick()
                if uart.available(due) >= count:
                    self.clock = max(self.clock, uart.arrived_at)
                    return uart.take(count)

    def send(self, data: bytes) -> None:
        with self.changed:
            self.tick()
            self._uart.send(data, at=self.clock)

    def work(self, seconds: float) -> None:
        """Takes that long, times `pace`, and is deaf meanwhile. Raises PowerLost, ResetPulled."""
        self.tick()
        if seconds * self.pace <= 0:
            return
        self._uart.available(self.clock)
        self._uart.room = self._uart.available(self.clock) + 1
        self.clock += seconds * self.pace
        self.wait(lambda: False, self.clock - time.monotonic())
        self._uart.available(self.clock)
        self._uart.room = RECEIVE_BUFFER

    def reset_itself(self) -> None:
        """A system reset, after what was sent has left. Always raises ResetPulled."""
        self.wait(lambda: False, self._uart.free_at - time.monotonic())
        self._released(max(self.clock, self._uart.free_at))
        raise ResetPulled

    # What happens to it.

    def _released(self, at: float) -> None:
        """NRST goes high: BOOT0 is sampled, and the processor starts, with a receiver that has heard nothing."""
        self._idle.clear()
        self._boot0 = self._pins.boot0_high(self._wire)
        self._started_at = at
        self._uart.discard_received(at)
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

    def _heard(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _supply_switched(self, on: bool) -> None:
        if on:
            self._released(time.monotonic())
