"""Components on USB: read from the descriptors, which needs no request to the running part."""

from __future__ import annotations

from collections.abc import Sequence

from ...transports.usb.host import has_devices
from ..benchfile.schema import BenchEntry
from ..component import Unlisted
from . import Prober


class UsbProber(Prober):
    """The host's USB devices; those that a protocol knows by their descriptors may be components."""

    @classmethod
    def attached(cls) -> list[Unlisted]:
        return [Unlisted("", "the USB devices of this host", "usb", 'kind = "usb"')] if has_devices() else []

    def unasked(self, entries: Sequence[BenchEntry]) -> str:
        if entries:
            return ""
        return (
            "a part may show its bootloader's interface in its bootloader only: hold its boot pin or button while it "
            "starts, then scan again"
        )
