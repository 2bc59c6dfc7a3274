"""A part on a serial line: how its firmware sends, waits and works, and the application that it runs.

The rule: the firmware acts as of the moment that the last byte came in (`clock`), not of the moment that this thread
got to run, so that the wire alone limits the speed. Flash operations take their time from that moment too; the part
doesn't look at its receiver meanwhile, so all bytes that come in then are lost but those that the receiver keeps, as on
the part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, NoReturn

from ...transports import clock
from ..application import Application
from ..board import Board, ResetPulled
from ..supply import Supply
from .line import Line
from .wire import RECEIVE_BUFFER, UartWire


class Stage(Enum):
    """What the part is doing."""

    OFF = auto()
    RESET = auto()
    LOADER = auto()
    APPLICATION = auto()
    HUNG = auto()
    """It runs something that isn't there, until the next reset."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """What the application does: it answers `question` on its line. `answer` makes it from the version."""

    line: Line
    question: bytes = b""
    answer: Callable[[str], bytes] = str.encode


class Silence(Exception):
    """Nothing more came within the time that the firmware waits."""


class UartBoard(Board):
    """The part on its board. A subclass overrides `firmware`, and what its pins do."""

    receiver_bytes: ClassVar[int] = 1
    """What the receiver keeps while the processor doesn't look at it. A part that is the USB device itself loses nothing:
    the host keeps the bytes until the part takes them (USB 2.0, 8.4.5: NAK)."""

    def __init__(self, name: str, supply: Supply, wire: UartWire, sensor: Sensor, *, pace: float = 1.0) -> None:
        # Before the board's own listener, which starts the firmware.
        supply.listen(self._supply_switched)
        super().__init__(name, supply, pace=pace)
        self.stage = Stage.OFF
        self.running: Application | None = None
        self.clock = 0.0
        """The firmware's own time."""
        self._wire = wire
        self._uart = wire.device
        self._sensor = sensor
        self._started_at = 0.0
        wire.modem_listener = self._pins_changed
        wire.device.listener = self._heard

    def start(self) -> None:
        self._released(clock.monotonic())
        super().start()

    # What the processor does.

    def _run_application(self, found: Application | None) -> None:
        """Answers the question for ever; returns without an application, or if it answers nothing."""
        self.running = found
        if found is None:
            self._enter(Stage.HUNG)
            return
        self._uart.measuring = False
        self._uart.line = self._sensor.line
        self._enter(Stage.APPLICATION)
        question = self._sensor.question
        if not question or not found.version:
            return
        answer = self._sensor.answer(found.version)
        heard = b""
        while True:
            heard = (heard + self.receive(1))[-len(question) :]
            if heard == question:
                self.send(answer)

    def _answers_until(self, called_by: bytes, found: Application) -> None:
        """Answers the question until the text comes that starts the bootloader; b"": for ever."""
        question, heard = self._sensor.question, b""
        while not called_by or not heard.endswith(called_by):
            heard = (heard + self.receive(1))[-200:]
            if question and heard.endswith(question) and found.version:
                self.send(self._sensor.answer(found.version))

    def powered_off(self) -> None:
        self._enter(Stage.OFF)
        self.running = None
        self._uart.discard_unsent()

    def _enter(self, stage: Stage) -> None:
        with self.changed:
            self.stage = stage
            self.changed.notify_all()

    # What its firmware calls.

    def receive(self, count: int, silence: float | None = None) -> bytes:
        """Exactly `count` bytes. Raises Silence when none comes for `silence` seconds (None: it waits for ever)."""
        uart = self._uart
        while True:
            with self.changed:
                if uart.unread >= count:
                    self.tick()
                    return self._taken(count)
            coming = uart.expected()
            due = uart.due(count)
            if due is None:
                if not self.wait(lambda coming=coming: uart.expected() != coming, silence):  # type: ignore[misc]
                    uart.discard_received()
                    raise Silence
                continue
            self.busy_real(due - clock.monotonic())
            # In one step with the look at the reset line: after a reset the old firmware takes and sends nothing.
            with self.changed:
                self.tick()
                if uart.available(due) >= count:
                    return self._taken(count)

    def _taken(self, count: int) -> bytes:
        self.clock = max(self.clock, self._uart.arrived_at)
        # It has something to do, until it waits again.
        if self._idle.is_set():
            self._idle.clear()
            self.changed.notify_all()
        return self._uart.take(count)

    def send(self, data: bytes) -> None:
        with self.changed:
            self.tick()
            self._uart.send(data, at=self.clock)

    def work(self, seconds: float) -> None:
        """Takes that long, times `pace`, and is deaf meanwhile. Raises PowerLost, ResetPulled."""
        self.tick()
        if seconds * self.pace <= 0:
            return
        self._uart.room = self._uart.available(self.clock) + self.receiver_bytes
        self.clock += seconds * self.pace
        self.busy_real(self.clock - clock.monotonic())
        self._uart.available(self.clock)
        self._uart.room = RECEIVE_BUFFER

    def reset_itself(self) -> NoReturn:
        """A system reset, after what was sent has left. Always raises ResetPulled."""
        self.busy_real(self._uart.free_at - clock.monotonic())
        self._released(max(self.clock, self._uart.free_at))
        raise ResetPulled

    # What happens to it.

    def _released(self, at: float) -> None:
        """It leaves its reset: the processor starts, with a receiver that has heard nothing."""
        self._idle.clear()
        self._started_at = at
        self._uart.discard_received(at)

    def _pins_changed(self) -> None:
        """The host has moved a modem line."""

    def _heard(self) -> None:
        """It has something to do, until it waits again."""
        with self.changed:
            self._idle.clear()
            self.changed.notify_all()

    def _supply_switched(self, on: bool) -> None:
        if on:
            self._released(clock.monotonic())
