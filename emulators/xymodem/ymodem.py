"""`YmodemDevice`: an emulated sensor whose loader takes a file by YMODEM. All of it is in device.py."""

from __future__ import annotations

from .device import ModemDevice


class YmodemDevice(ModemDevice):
    """See ModemDevice."""

    protocol = "ymodem"
