"""A part that is its own USB serial port: the port leaves with it at a reset, and comes back, maybe under another name."""

from __future__ import annotations

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import SerialAbsent, SerialBusy, SerialForbidden, SerialGone
from ...transports.serial.port import SerialPort
from ...transports.serial.usb_tty import Followed, listed, ports

LOOK_SECONDS = 0.02
"""Between two looks whether a device is back: there is no event."""
LEAVE_SECONDS = 2.0
"""How long a device may take to leave its bus; a device that doesn't is in its bootloader already, or stays where it is."""
OWN_PLACE_SECONDS = 1.0
"""How long only the device's own place and serial number count, before the only device that came is taken for it."""


class UsbReturn:
    """Of the part behind `port`, which is open when this is made."""

    def __init__(self, port: SerialPort) -> None:
        self._port = port
        self._followed = Followed(port.path, port.name)

    @property
    def can_leave(self) -> bool:
        """Whether the port is a USB device of this host, which can be found again."""
        return self._followed.device is not None

    def is_leaving(self) -> None:
        """The part is about to leave: what is there now beside it is not what comes back."""
        self._followed.see(self._port.path)

    def come_back(self, limit: Deadline, first: str = "") -> None:
        """Waits until the device is back, and opens its port. `first`: the URL of a port that is not on this
        host's USB; "": as it was opened before.

        Raises SerialAbsent, SerialBusy, SerialForbidden when it doesn't come in time.
        """
        began = clock.monotonic()
        while True:
            # Another device may have taken the name: the URL alone says nothing where the device is known.
            now = self._followed.now(only_one=clock.monotonic() - began >= OWN_PLACE_SECONDS)
            try:
                if now is not None or not self.can_leave:
                    self._port.reopen(now.path if now is not None else first)
                    self._followed.see(self._port.path)
                    return
            except (SerialAbsent, SerialBusy, SerialForbidden):
                # Not there yet, or not yet as udev will have it.
                if limit.expired:
                    raise
            if limit.expired:
                raise SerialAbsent(
                    f"{self._followed.device} left, and did not come back within {clock.monotonic() - began:.0f} s; USB serial "
                    f"ports that are there: {listed(ports())}",
                    remedy="If one of these is the part, give its bus that url. If the part takes longer, raise the time in "
                    "its profile.",
                )
            clock.sleep(LOOK_SECONDS)

    def leave_and_come_back(self, seconds: float, first: str = "", *, surely: bool = False) -> bool:
        """Waits until the port is gone, then for at most `seconds` until it is back; whether it was gone.

        A device that doesn't go is opened again as it is. `surely`: it goes, and has `seconds` for that too. Raises as
        `come_back`.
        """
        went = self._ends(Deadline.after(seconds if surely else min(seconds, LEAVE_SECONDS)))
        self._port.close()
        self.come_back(Deadline.after(seconds), first)
        return went

    def _ends(self, limit: Deadline) -> bool:
        """Whether the port is gone before the time is over."""
        try:
            while self._port.read_some(limit):
                pass
        except SerialGone:
            return True
        return False
