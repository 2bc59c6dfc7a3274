"""How a part gets into a loader that talks in text, and out of it: a text, modem lines, line settings.

What the lines drive is the board's: the profile says it.
"""

from __future__ import annotations

import time
from contextlib import suppress

from ..transports.deadline import Deadline
from ..transports.errors import TransportError
from ..transports.serial import SerialPort
from .menu_profile import MenuProfile


class MenuEntry:
    """The port's settings as they were when this was made are the application's. The loader has no parity (7.2)."""

    def __init__(self, port: SerialPort, profile: MenuProfile) -> None:
        self._port = port
        self._profile = profile
        self._app_baudrate, self._app_parity = port.baudrate, port.parity
        self._at_loader_settings = False

    @property
    def resets(self) -> bool:
        """Whether a line resets the part."""
        return self._profile.entry.reset != "none"

    def enter(self) -> bool:
        """Does what the profile says to bring the part into its loader; False where it names lines that aren't there.

        Raises TransportError.
        """
        if self._profile.enter:
            self.use_application_settings()
            data = self._profile.enter.encode()
            seconds = len(data) * 12 / self._port.baudrate
            self._port.write(data, Deadline.after(self._profile.timings.knock + seconds))
            time.sleep(self._profile.entry.settle + seconds)
        driven = self.reset_into(loader=True)
        self.use_loader_settings()
        return driven

    def reset_into(self, *, loader: bool) -> bool:
        """Resets the part through the lines that the profile names, into its loader or its application.

        False where the port hasn't got these lines. Raises TransportError.
        """
        entry = self._profile.entry
        driven = True
        if entry.select != "none":
            driven &= self._drive(entry.select, loader == entry.select_asserted)
        if entry.reset != "none":
            driven &= self._drive(entry.reset, entry.reset_asserted)
            time.sleep(entry.hold)
            driven &= self._drive(entry.reset, not entry.reset_asserted)
            time.sleep(entry.settle)
        return driven

    def use_loader_settings(self) -> None:
        """Raises SerialGone, SerialSettings."""
        self._port.set_line(baudrate=self._profile.baudrate, parity="N")
        self._at_loader_settings = True

    def use_application_settings(self) -> None:
        """Raises SerialGone, SerialSettings."""
        if self._at_loader_settings:
            self._port.set_line(baudrate=self._app_baudrate, parity=self._app_parity)
            self._at_loader_settings = False

    def let_go(self) -> None:
        """Selects the loader no more: what starts at the part's next reset is its own choice. Raises TransportError."""
        entry = self._profile.entry
        if entry.select != "none":
            self._drive(entry.select, not entry.select_asserted)

    def close(self) -> None:
        with suppress(TransportError):
            self.use_application_settings()

    def _drive(self, line: str, asserted: bool) -> bool:
        return self._port.set_modem(dtr=asserted) if line == "dtr" else self._port.set_modem(rts=asserted)
