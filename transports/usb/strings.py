"""Opening a pyusb device and reading its strings (USB 2.0, 9.6.7), so that none can hold up the reading of others."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import usb.util

from ..errors import TransportError, UsbForbidden, UsbGone, UsbTimeout
from .failures import FAILURES, kind_of

STRING_TIMEOUT = 500
"""Milliseconds for a string descriptor (USB 2.0, 9.2.6.4: the first data packet of a request within 500 ms)."""


class Strings:
    """A device's string descriptors, "" for each that it has not or does not tell. Asks no more once it is mute."""

    failure: type[TransportError] | None = None

    def __init__(self, device: Any) -> None:
        self._device = device
        self._known: dict[int, str] = {0: ""}
        device.default_timeout = STRING_TIMEOUT
        try:
            open_handle(device)
        except FAILURES as error:
            self.failure = kind_of(error)

    def read(self, index: int) -> str:
        if index not in self._known:
            self._known[index] = "" if self.failure else self._ask(index)
        return self._known[index]

    def _ask(self, index: int) -> str:
        try:
            return str(usb.util.get_string(self._device, index)).rstrip("\0")
        except FAILURES as error:
            kind = kind_of(error)
            if kind in (UsbTimeout, UsbGone, UsbForbidden):
                self.failure = kind
        except (ValueError, IndexError):
            # No language, or no UTF-16: some devices answer anything.
            pass
        return ""


def open_handle(device: Any) -> None:
    """Opens a pyusb device. Raises `FAILURES`."""
    # pyusb opens devices as a side effect of other calls, some of which swallow the reason why it fails.
    device._ctx.managed_open()


def release(device: Any) -> None:
    """Closes a pyusb device, with what it had claimed."""
    with suppress(*FAILURES):
        usb.util.dispose_resources(device)
