"""An STM32 on a serial line: its reset and BOOT0 pins, and what runs after a reset."""

from __future__ import annotations

from collections.abc import Callable

from .. import application
from ..serial.board import Stage
from ..serial.boot_pin_board import BootPinBoard
from .part import Stm32Memory


class Stm32Board(BootPinBoard):
    """The part on its board. `loader` is the ROM's firmware: it returns the address that Go names, None to hang.

    `mute`: the part never answers.
    """

    memory: Stm32Memory
    loader: Callable[[], int | None]

    # What the processor does.

    def firmware(self) -> None:
        if not self._comes_out_of_reset():
            return
        start = self.memory.flash.base
        if not self._strap and application.find(self.memory.flash, start) is not None:
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
        super()._released(at)
        self._uart.measuring = True
