"""How an AVR gets into its boot loader: a reset through a modem line, a text, or the touch of its port at 1200 bit/s.

A loader runs after each reset and gives the application the part when nothing comes for a while: about a second of
Optiboot's. What drives the reset pin is the board's: the profile says it.
"""

from __future__ import annotations

from contextlib import suppress

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import SerialGone, TransportError
from ...transports.serial.port import SerialPort
from ...transports.serial.usb_tty import UsbTty, at_place, usb_tty
from ..serial.boot_pins import send_text
from .profile import AvrProfile

TOUCH_RATE = 1200
"""bit/s at which letting go of DTR tells an application to become its loader (Arduino's CDC ports)."""
LEAVE_SECONDS = 2.0
"""How long a device may take to leave its bus; one that doesn't is in its loader already, or knows no touch."""
LOOK_SECONDS = 0.02
"""Between two looks whether a device is back: nothing tells."""


class AvrEntry:
    """The port's rate as it was when this was made is the application's, where the profile names no other."""

    def __init__(self, port: SerialPort, profile: AvrProfile) -> None:
        self._port = port
        self._profile = profile
        self._app_baudrate = profile.app_baudrate or port.baudrate
        self._url = port.url
        self._at_loader_rate = False

    @property
    def resets(self) -> bool:
        """Whether a line drives the reset pin."""
        return self._profile.entry.reset != "none"

    def enter(self) -> bool:
        """Does what the profile says to bring the part into its loader; False where it names lines that aren't there.

        Raises TransportError.
        """
        if self._profile.enter:
            self.use_application_rate()
            send_text(self._port, self._profile.enter, self._profile.answer, self._profile.entry.settle)
        if self._profile.entry.touch:
            self._touch()
        driven = self.reset() if self.resets else True
        self.use_loader_rate()
        return driven

    def reset(self) -> bool:
        """Resets the part; False where the port hasn't got the line. Raises TransportError."""
        entry = self._profile.entry
        if entry.wiring == "capacitor":
            driven = self._drive(not entry.asserted)
            if driven:
                clock.sleep(entry.discharge)
                self._drive(entry.asserted)
        else:
            driven = self._drive(entry.asserted)
            if driven:
                clock.sleep(entry.hold)
                self._drive(not entry.asserted)
        clock.sleep(entry.settle)
        return driven

    def await_application(self) -> None:
        """Of a part that is its own USB device: waits until the loader's port is gone and the application's is there.

        Raises SerialAbsent, SerialBusy, SerialForbidden when it doesn't come in time.
        """
        if self._profile.entry.touch:
            self._come_back(usb_tty(self._port.url), first=self._url)

    def _touch(self) -> None:
        """Tells the application to become its loader, and opens the loader's port. Raises TransportError."""
        before = usb_tty(self._port.url)
        with suppress(SerialGone):
            self._port.set_line(baudrate=TOUCH_RATE)
            self._port.set_modem(dtr=False)
        self._come_back(before)

    def _come_back(self, before: UsbTty | None, first: str = "") -> None:
        """Waits until the port is gone, then until one is there at the same place, and opens it.

        `first`: the port to try before others. One that doesn't go is opened again as it is.
        """
        limit = Deadline.after(self._profile.entry.touch_seconds)
        self._await_end(limit.sooner(LEAVE_SECONDS))
        self._port.close()
        while True:
            now = at_place(before.place) if before is not None else None
            try:
                if before is None or now is not None:
                    self._port.reopen(now.path if now is not None else first)
                    return
            except TransportError:
                if limit.expired:
                    raise
            if limit.expired:
                self._port.reopen(first)
                return
            clock.sleep(LOOK_SECONDS)

    def _await_end(self, limit: Deadline) -> None:
        """Until the port is gone, or the time is over."""
        with suppress(SerialGone):
            while self._port.read_some(limit):
                pass

    def use_loader_rate(self) -> None:
        """Raises SerialGone, SerialSettings."""
        if self._profile.baudrate is not None:
            self._port.set_line(baudrate=self._profile.baudrate)
            self._at_loader_rate = True

    def use_application_rate(self) -> None:
        """Raises SerialGone, SerialSettings."""
        if self._at_loader_rate or self._port.baudrate != self._app_baudrate:
            self._port.set_line(baudrate=self._app_baudrate)
            self._at_loader_rate = False

    def close(self) -> None:
        with suppress(TransportError):
            self.use_application_rate()

    def _drive(self, asserted: bool) -> bool:
        reset = self._profile.entry.reset
        return self._port.set_modem(
            dtr=asserted if reset in ("dtr", "both") else None,
            rts=asserted if reset in ("rts", "both") else None,
        )
