"""`YmodemDevice`: an emulated sensor whose loader takes a file by YMODEM. All of it is in modem_device.py."""

from __future__ import annotations

from .modem_device import ModemDevice


class YmodemDevice(ModemDevice):
    """See ModemDevice."""

    protocol = "ymodem"
