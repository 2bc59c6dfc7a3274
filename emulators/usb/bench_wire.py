"""The wire of an emulated USB of a bench."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ..bench_wire import BenchWire, Served
from ..faults import Faults
from .backend import EmulatedUsbBackend
from .wire import UsbWire

ENUMERATION_SECONDS = 10.0
"""How long the kernel may take to configure the devices that are plugged into it."""


class BenchUsbWire(UsbWire, BenchWire):
    """pyusb opens it by a back end. Other programs see its devices only by way of the kernel."""

    kind = "usb"
    powers_parts = True
    kernel_driver = "vhci"

    @classmethod
    def make(cls, channel: str, settings: Mapping[str, Any], faults: Faults, pace: float) -> Self:
        return cls(channel, faults=faults, pace=pace)

    def host_settings(self) -> dict[str, Any]:
        return {"backend": EmulatedUsbBackend(self)}

    def serve_by_kernel(self, name: str) -> Served:
        from .vhci import VhciHost

        host = VhciHost(self)
        try:
            # So that who waits for this finds the devices.
            host.wait_enumerated(ENUMERATION_SECONDS)
        except BaseException:
            host.close()
            raise
        places = ", ".join(host.places())
        return Served(places, f"USB devices of this host at {places}", host.close)
