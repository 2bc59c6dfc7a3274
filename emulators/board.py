"""`Board`: a circuit board with a supply, a reset line and one processor, whose firmware runs on a thread of its own.

A firmware is written as firmware is: it waits for input, works, answers, all by calls that block. Each of these calls
ends with an exception when the supply goes or the reset line is pulled, so that a cut stops it wherever it is. Input
that comes from wires is put into buffers under `changed`, the one condition of the board.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from ..transports import clock
from .supply import PowerLost, Supply


class ResetPulled(Exception):
    """The processor is reset: its firmware starts again."""


class Board(ABC):
    """`pace`: 1.0 takes the times that the part takes, 0.0 takes none (for tests), 0.1 a tenth.

    Powered from `start` on. A subclass overrides `firmware`, and `powered_off` where wires must learn of it.
    """

    def __init__(self, name: str, supply: Supply, *, pace: float = 1.0) -> None:
        self.name = name
        self.supply = supply
        self.pace = pace
        self.changed = clock.Condition()
        self.fault: BaseException | None = None
        """What the firmware failed with, which is a fault of the emulator itself; None while all is well."""
        self._reset = False
        self._lost = False
        """The supply has been gone since the firmware last looked, be it back by now."""
        self._ended = False
        self._idle = clock.Event()
        self._thread: clock.SomeThread | None = None
        supply.listen(self._supply_changed)

    @abstractmethod
    def firmware(self) -> None:
        """What the processor does from reset on. Returning halts it until the next reset."""

    def powered_off(self) -> None:  # noqa: B027 - most boards have nothing to do here
        """Called once after the firmware stopped without supply, and on `close`."""

    def start(self) -> None:
        self._thread = clock.Thread(target=self._run, name=f"board {self.name}")
        self._thread.start()

    def close(self) -> None:
        """Stops the firmware for good."""
        with self.changed:
            self._ended = True
            self.changed.notify_all()
        if self._thread is not None and self._thread is not clock.current_thread():
            self._thread.join()

    def reset(self) -> None:
        """Pulls the reset line for a moment."""
        with self.changed:
            self._reset = True
            self._idle.clear()
            self.changed.notify_all()

    def settle(self, seconds: float = 5.0) -> bool:
        """Waits until the firmware waits for input, after a change of supply or reset; False after `seconds`."""
        return self._idle.wait(seconds)

    def tick(self) -> None:
        """Raises PowerLost or ResetPulled if the firmware must stop here."""
        if self._ended or self._lost or not self.supply.is_on:
            raise PowerLost
        if self._reset:
            raise ResetPulled

    def wait(self, ready: Callable[[], bool], seconds: float | None) -> bool:
        """Waits until `ready` (called with `changed` held) is true; False after `seconds` (None: no limit).

        Seconds are real ones, not scaled by `pace`. Raises PowerLost, ResetPulled.
        """
        until = None if seconds is None else clock.monotonic() + seconds
        with self.changed:
            while True:
                self.tick()
                if ready():
                    return True
                left = None if until is None else until - clock.monotonic()
                if left is not None and left <= 0:
                    return False
                self._idle.set()
                self.changed.wait(left)

    def busy(self, seconds: float) -> None:
        """The processor works for that long, times `pace`. Raises PowerLost, ResetPulled."""
        self.busy_real(seconds * self.pace)

    def busy_real(self, seconds: float) -> None:
        """Waits that long whatever `pace` is: a time that the other end has asked for. Raises as `busy`."""
        until = clock.monotonic() + seconds
        with self.changed:
            self.tick()
            while (left := until - clock.monotonic()) > 0:
                self.changed.wait(left)
                self.tick()

    def _supply_changed(self, on: bool) -> None:
        with self.changed:
            self._lost = self._lost or not on
            self._idle.clear()
            self.changed.notify_all()

    def _run(self) -> None:
        while not self._ended:
            try:
                with self.changed:
                    self._reset = False
                    self._idle.clear()
                self.firmware()
                self.wait(lambda: False, None)
            except ResetPulled:
                continue
            except PowerLost:
                self.powered_off()
                with self.changed:
                    while not (self._ended or self.supply.is_on):
                        self.changed.wait()
                    self._lost = False
            except BaseException as error:
                self.fault = error
                raise
