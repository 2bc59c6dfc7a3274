"""The wire of an emulated USB of a bench."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ..bench_wire import BenchWire
from ..faults import Faults
from .backend import EmulatedUsbBackend
from .wire import UsbWire


class BenchUsbWire(UsbWire, BenchWire):
    """pyusb opens it by a back end. Other programs see its devices only by way of the kernel."""

    kind = "usb"
    powers_parts = True

    @classmethod
    def make(cls, channel: str, settings: Mapping[str, Any], faults: Faults, pace: float) -> Self:
        return cls(channel, faults=faults, pace=pace)

    def host_settings(self) -> dict[str, Any]:
        return {"backend": EmulatedUsbBackend(self)}
