"""Components on USB: read from the descriptors, which needs no request to the running part."""

from __future__ import annotations

from . import Prober


class UsbProber(Prober):
    """The host's USB devices; those that a protocol knows by their descriptors may be components."""
