"""A part on a serial line that a reset pin restarts, and a strap pin then keeps in its bootloader."""

from __future__ import annotations

from dataclasses import dataclass

from ...transports import clock
from ..supply import Supply
from .board import Sensor, Stage, UartBoard
from .wire import RECEIVE_BUFFER, UartWire


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
    """What drives the two. A pin that nothing drives is held: the reset pin high, the strap as `strap_held` says."""

    reset: Driver | None = None
    strap: Driver | None = None
    strap_held: bool = False

    def in_reset(self, wire: UartWire) -> bool:
        return self.reset is not None and not self.reset.is_high(wire)

    def strap_high(self, wire: UartWire) -> bool:
        return self.strap_held or (self.strap is not None and self.strap.is_high(wire))


class BootPinBoard(UartBoard):
    """The part on its board. A subclass's `firmware` begins with `_comes_out_of_reset`. `mute`: it never answers."""

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
        self._pins = pins
        self._mute = mute
        self._in_reset = False
        self._strap = False
        """Whether the strap was high when the part left its reset."""

    def start(self) -> None:
        self._in_reset = self._pins.in_reset(self._wire)
        super().start()

    def _comes_out_of_reset(self) -> bool:
        """Waits until the reset pin is let go; False: nothing runs then, for the part is mute."""
        self.running = None
        self._enter(Stage.RESET)
        self._uart.room = RECEIVE_BUFFER
        self.wait(lambda: not self._in_reset, None)
        self.clock = self._started_at
        if self._mute:
            self._enter(Stage.HUNG)
        return not self._mute

    def reset(self) -> None:
        """Pulls the reset line for a moment, or with `_pins_changed` for as long as the pin is low."""
        super().reset()
        self._uart.discard_unsent()
        if not self._in_reset:
            self._released(clock.monotonic())

    def _released(self, at: float) -> None:
        self._strap = self._pins.strap_high(self._wire)
        super()._released(at)

    def _pins_changed(self) -> None:
        was = self._in_reset
        with self.changed:
            self._in_reset = self._pins.in_reset(self._wire)
            if was and not self._in_reset:
                self._released(clock.monotonic())
            self.changed.notify_all()
        if self._in_reset and not was:
            self.reset()
