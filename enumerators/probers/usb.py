"""Components on USB: read from the descriptors, which needs no request to the running part."""

from __future__ import annotations

from ...transports.usb.host import has_devices
from ..component import Unlisted
from . import Prober


class UsbProber(Prober):
    """The host's USB devices; those that a protocol knows by their descriptors may be components."""

    @classmethod
    def attached(cls) -> list[Unlisted]:
        return [Unlisted("", "the USB devices of this host", "usb", 'kind = "usb"')] if has_devices() else []
