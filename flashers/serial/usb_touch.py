"""The touch: an application on its own USB serial port becomes its bootloader when the port is closed at 1200 bit/s.

The port vanishes then, and one of the bootloader's comes; on the way out it is the other way round.
"""

from __future__ import annotations

from contextlib import suppress

from ...transports.errors import SerialGone
from ...transports.serial.port import SerialPort
from .usb_return import UsbReturn

TOUCH_RATE = 1200
"""bit/s at which letting go of DTR asks an application to become its bootloader (Arduino's CDC ports)."""


def touch(port: SerialPort, back: UsbReturn, seconds: float) -> bool:
    """Asks the application to become its bootloader, and opens the bootloader's port within `seconds`; whether the port went.

    Raises TransportError.
    """
    back.is_leaving()
    with suppress(SerialGone):
        port.set_line(baudrate=TOUCH_RATE)
        port.set_modem(dtr=False)
    return back.leave_and_come_back(seconds)
