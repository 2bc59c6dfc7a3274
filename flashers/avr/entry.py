"""How an AVR gets into its boot loader: a reset through a modem line, a text, or the touch of its port at 1200 bit/s.

A loader runs after each reset and gives the application the part when nothing comes for a while: about a second of
Optiboot's. What drives the reset pin is the board's: the profile says it.
"""

from __future__ import annotations

from ...transports.serial.port import SerialPort
from ..serial.entry import LineSettings, SerialEntry
from ..serial.reset_line import ResetLine
from ..serial.usb_touch import UsbTouch
from .profile import AvrProfile


class AvrEntry(SerialEntry):
    """The port's rate as it was when this was made is the application's, where the profile names no other."""

    def __init__(self, port: SerialPort, profile: AvrProfile) -> None:
        entry = profile.entry
        super().__init__(
            port,
            text=profile.enter,
            text_seconds=profile.answer,
            settle=entry.settle,
            loader=LineSettings(profile.baudrate),
            application=LineSettings(profile.app_baudrate or port.baudrate),
        )
        self._reset_line = ResetLine(port, entry)
        self._usb = UsbTouch(port, entry.touch_seconds) if entry.touch else None
        self.is_untouched = False
        """Whether the touch changed nothing: of a part that answers, its loader has the port."""

    @property
    def resets(self) -> bool:
        return self._reset_line.is_driven

    def enter(self) -> bool:
        self.send_text()
        if self._usb is not None:
            self.is_untouched = not self._usb.touch()
        driven = self.reset() if self.resets else True
        self.use_loader_settings()
        return driven

    def reset(self) -> bool:
        return self._reset_line.pulse()

    def await_application(self) -> None:
        """Of a part that is its own USB device; another one keeps its port."""
        if self._usb is not None:
            self._usb.await_application()
