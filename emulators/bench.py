"""The emulated part of a bench: the wires of its emulated buses, with the parts of its components on them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..transports import plugins
from .device import BadDevice, DeviceSpec, EmulatedDevice
from .faults import FaultPlan, Faults


@dataclass(frozen=True, slots=True)
class PartSpec:
    """One part of an emulated bus: its protocol's name, and what its device class takes."""

    protocol: str
    device: DeviceSpec


class EmulatedBus:
    """One wire with its parts, in this process. `kind`: "can", "serial" or "usb"."""

    def __init__(
        self,
        name: str,
        kind: str,
        settings: Mapping[str, Any],
        parts: Sequence[PartSpec],
        *,
        faults: Mapping[str, float] | None = None,
        pace: float = 1.0,
    ) -> None:
        """Raises BadDevice, whose `key` is that of the component's `emulated` table or of the bus."""
        self.faults = Faults(_fault_plan(faults or {}))
        self.wire = _wire(kind, f"{name}-{uuid.uuid4().hex[:8]}", settings, self.faults, pace)
        self.host_settings: dict[str, Any] = {**settings, **_host_settings(kind, self.wire)}
        self.devices: dict[str, EmulatedDevice] = {}
        try:
            for part in parts:
                device_class = plugins.load(plugins.EMULATORS, part.protocol)
                settings = dict(part.device.settings)
                powered = settings.pop("powered", True)
                if type(powered) is not bool:
                    raise BadDevice("powered", f"{powered!r} is neither true nor false")
                device = device_class.attach(replace(part.device, settings=settings), self.wire)
                self.devices[part.device.name] = device
                if not powered:
                    device.supply.off()
        except BaseException as error:
            if isinstance(error, BadDevice):
                error.part = part.device.name
            self.close()
            raise

    def close(self) -> None:
        for device in self.devices.values():
            device.close()
        self.wire.close()


def _host_settings(kind: str, wire: Any) -> dict[str, Any]:
    """How a transport opens an emulated bus: the keys of its settings that lead to the wire."""
    if kind == "usb":
        from .usb.backend import EmulatedUsbBackend

        return {"backend": EmulatedUsbBackend(wire)}
    settings: dict[str, Any] = wire.host_settings()
    return settings


def _fault_plan(faults: Mapping[str, float]) -> FaultPlan:
    for key in faults:
        if key not in FaultPlan.names():
            raise BadDevice(f"faults.{key}", f"no kind of fault; there are: {', '.join(FaultPlan.names())}")
    whole = ("disconnect_after", "bus_off_after", "first", "last", "seed")
    return FaultPlan(**{key: int(value) if key in whole else float(value) for key, value in faults.items()})  # type: ignore[arg-type]


def _rate(settings: Mapping[str, Any], key: str, default: int) -> int:
    value = settings.get(key, default)
    if type(value) is not int or value < 1:
        raise BadDevice(key, f"{value!r} is no bit rate")
    return value


def _wire(kind: str, channel: str, settings: Mapping[str, Any], faults: Faults, pace: float) -> Any:
    if kind == "can":
        from .can.wire import CanWire

        bitrate = _rate(settings, "bitrate", 500_000)
        data_bitrate = _rate(settings, "data_bitrate", 2_000_000) if settings.get("fd") else None
        return CanWire(channel, bitrate=bitrate, data_bitrate=data_bitrate, faults=faults, pace=pace)
    if kind == "serial":
        from .serial.wire import UartWire

        return UartWire(channel, faults=faults, pace=pace)
    if kind == "usb":
        from .usb.wire import UsbWire

        return UsbWire(channel, faults=faults, pace=pace)
    raise BadDevice("emulated", f"buses of kind {kind!r} can't be emulated")
