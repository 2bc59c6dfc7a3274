"""The emulated part of a bench: the wires of its emulated buses, with the parts of its components on them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..transports import plugins
from .bench_wire import BenchWire
from .device import BadDevice, DeviceSpec, EmulatedDevice, PartKeys
from .faults import FaultPlan, Faults


@dataclass(frozen=True, slots=True)
class PartSpec:
    """One part of an emulated bus: its protocol's name, and what its device class takes."""

    protocol: str
    device: DeviceSpec


class EmulatedBus:
    """One wire with its parts, in this process. `kind`: of the bus."""

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
        self.wire = _wire(kind).make(f"{name}-{uuid.uuid4().hex[:8]}", settings, self.faults, pace)
        self.host_settings: dict[str, Any] = {**settings, **self.wire.host_settings()}
        self.devices: dict[str, EmulatedDevice] = {}
        try:
            for part in parts:
                device_class = plugins.load(plugins.EMULATORS, part.protocol)
                settings = dict(part.device.settings)
                common = PartKeys.of({key: settings.pop(key) for key in PartKeys.names() & settings.keys()})
                device = device_class.attach(replace(part.device, settings=settings), self.wire)
                self.devices[part.device.name] = device
                if not common.powered:
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


def _fault_plan(faults: Mapping[str, float]) -> FaultPlan:
    for key in faults:
        if key not in FaultPlan.names():
            raise BadDevice(f"faults.{key}", f"no kind of fault; there are: {', '.join(FaultPlan.names())}")
    whole = ("disconnect_after", "bus_off_after", "first", "last", "seed")
    return FaultPlan(**{key: int(value) if key in whole else float(value) for key, value in faults.items()})  # type: ignore[arg-type]


def _wire(kind: str) -> type[BenchWire]:
    if kind not in plugins.names(plugins.WIRES):
        raise BadDevice("emulated", f"buses of kind {kind!r} can't be emulated")
    wire: type[BenchWire] = plugins.load(plugins.WIRES, kind)
    return wire
