"""`XmodemDevice`: an emulated sensor whose loader takes a file by XMODEM. All of it is in device.py."""

from __future__ import annotations

from .device import ModemDevice


class XmodemDevice(ModemDevice):
    """See ModemDevice."""

    protocol = "xmodem"
