"""How an AVR gets into its bootloader: a reset through a modem line, a text, or the touch of its port at 1200 bit/s.

A loader runs after each reset and gives the application the part when nothing comes for a while: about a second of
Optiboot's. What drives the reset pin is the board's: the profile says it.
"""

from __future__ import annotations

from ...transports.errors import SerialGone
from ...transports.serial.port import SerialPort
from ..serial.entry import LineSettings, SerialEntry
from ..serial.reset_line import ResetLine
from ..serial.usb_touch import touch
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
        self._always_leaves = entry.touch
        self._return_seconds = entry.touch_seconds
        self.is_untouched = False
        """Whether the touch changed nothing: of a part that answers, its loader has the port."""

    @property
    def _leaves_usb(self) -> bool:
        return self._always_leaves or super()._leaves_usb

    @property
    def resets(self) -> bool:
        return self._reset_line.is_driven

    def enter(self) -> bool:
        self.send_text()
        if self._always_leaves:
            self.is_untouched = not touch(self._port, self._return, self._return_seconds)
            self._has_left |= not self.is_untouched
        driven = self.reset() if self.resets else True
        self.use_loader_settings()
        return driven

    def reset(self) -> bool:
        return self._reset_line.pulse()

    def follow(self, gone: SerialGone) -> None:
        super().follow(gone)
        self.is_untouched = False
