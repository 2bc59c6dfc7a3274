"""The touch: an application on its own USB serial port becomes its bootloader when the port is closed at 1200 bit/s.

The port vanishes then, and one of the bootloader's comes at the same USB place; on the way out it is the other way round.
"""

from __future__ import annotations

from contextlib import suppress

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import SerialGone, TransportError
from ...transports.serial.port import SerialPort
from ...transports.serial.usb_tty import UsbTty, at_place, usb_tty

TOUCH_RATE = 1200
"""bit/s at which letting go of DTR tells an application to become its bootloader (Arduino's CDC ports)."""
LEAVE_SECONDS = 2.0
"""How long a device may take to leave its bus; one that doesn't is in its bootloader already, or knows no touch."""
LOOK_SECONDS = 0.02
"""Between two looks whether a device is back: nothing tells."""


class UsbTouch:
    """The application's port is the one that is open when this is made. `seconds`: until another one is there."""

    def __init__(self, port: SerialPort, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._url = port.url

    def touch(self) -> bool:
        """Tells the application to become its bootloader, and opens the bootloader's port; whether the port went.

        Raises TransportError.
        """
        before = usb_tty(self._port.url)
        with suppress(SerialGone):
            self._port.set_line(baudrate=TOUCH_RATE)
            self._port.set_modem(dtr=False)
        return self._come_back(before)

    def await_application(self) -> None:
        """Waits until the bootloader's port is gone, and opens the application's.

        Raises SerialAbsent, SerialBusy, SerialForbidden when it doesn't come in time.
        """
        self._come_back(usb_tty(self._port.url), first=self._url)

    def _come_back(self, before: UsbTty | None, first: str = "") -> bool:
        """Waits until the port is gone, then until one is there at the same place, and opens it; whether it was gone.

        `first`: the port to try before others. One that doesn't go is opened again as it is.
        """
        limit = Deadline.after(self._seconds)
        went = self._ends(limit.sooner(LEAVE_SECONDS))
        self._port.close()
        while True:
            now = at_place(before.place) if before is not None else None
            try:
                if before is None or now is not None:
                    self._port.reopen(now.path if now is not None else first)
                    return went
            except TransportError:
                if limit.expired:
                    raise
            if limit.expired:
                self._port.reopen(first)
                return went
            clock.sleep(LOOK_SECONDS)

    def _ends(self, limit: Deadline) -> bool:
        """Whether the port is gone before the time is over."""
        try:
            while self._port.read_some(limit):
                pass
        except SerialGone:
            return True
        return False
