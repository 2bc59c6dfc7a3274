"""How an STM32 gets into its system memory bootloader and out of it again: modem lines and line settings.

AN2606, 4 (bootloader activation): BOOT0 high while the part leaves reset selects the loader. What drives the two pins
is the board's: the profile says it.
"""

from __future__ import annotations

import time
from contextlib import suppress

from ..transports.deadline import Deadline
from ..transports.errors import TransportError
from ..transports.serial import SerialPort
from .stm32_profile import Stm32Profile


class Stm32Entry:
    """The port's settings as they were when this was made are the application's, where the profile names no others."""

    def __init__(self, port: SerialPort, profile: Stm32Profile) -> None:
        self._port = port
        self._profile = profile
        self._app_baudrate = profile.app_baudrate or port.baudrate
        self._app_parity = profile.app_parity or port.parity
        self._at_loader_settings = False

    @property
    def is_wired(self) -> bool:
        """Whether the lines alone choose what starts: they drive both NRST and BOOT0."""
        entry = self._profile.entry
        return entry.reset != "none" and entry.boot0 != "none"

    @property
    def resets(self) -> bool:
        """Whether a line drives NRST."""
        return self._profile.entry.reset != "none"

    @property
    def moves_the_part(self) -> bool:
        """Whether `enter` does anything to the part."""
        return self.resets or bool(self._profile.enter)

    def enter(self) -> bool:
        """Does what the profile says to bring the part into its loader; False where it names lines that aren't there.

        Raises TransportError.
        """
        if self._profile.enter:
            self.use_application_settings()
            data = self._profile.enter.encode()
            self._port.write(data, Deadline.after(self._profile.answer + len(data) * 12 / self._port.baudrate))
            time.sleep(self._profile.entry.settle + len(data) * 12 / self._port.baudrate)
        reset = self.reset_into(loader=True)
        self.use_loader_settings()
        return reset

    def reset_into(self, *, loader: bool) -> bool:
        """Resets the part through the lines that the profile names, into its loader or its application.

        False where the port hasn't got these lines. Raises TransportError.
        """
        entry = self._profile.entry
        driven = True
        if entry.boot0 != "none":
            driven &= self._drive(entry.boot0, loader == entry.boot0_asserted)
        if entry.reset != "none":
            driven &= self._drive(entry.reset, entry.reset_asserted)
            time.sleep(entry.hold)
            driven &= self._drive(entry.reset, not entry.reset_asserted)
            time.sleep(entry.settle)
        return driven

    def use_loader_settings(self) -> None:
        """Raises SerialGone, SerialSettings."""
        self._port.set_line(baudrate=self._profile.baudrate, parity=self._profile.parity)
        self._at_loader_settings = True

    def use_application_settings(self) -> None:
        """Raises SerialGone, SerialSettings."""
        if self._at_loader_settings:
            self._port.set_line(baudrate=self._app_baudrate, parity=self._app_parity)
            self._at_loader_settings = False

    def close(self) -> None:
        with suppress(TransportError):
            self.use_application_settings()

    def _drive(self, line: str, asserted: bool) -> bool:
        return self._port.set_modem(dtr=asserted) if line == "dtr" else self._port.set_modem(rts=asserted)
