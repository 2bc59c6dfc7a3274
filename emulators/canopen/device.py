"""`CanopenDevice`: the bench file's keys of an emulated CANopen device, and its flash."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Self

from ..can.board import CanDevice
from ..can.wire import CanWire
from ..device import DeviceSpec, factory_content
from ..flash import NorFlash
from ..keys import Range, Table
from ..supply import Supply
from .lss import UNCONFIGURED
from .node import CanopenNode

SERIAL = 0x0001E240


@cache
def parts() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class CanopenKeys(Table):
    """The `emulated` table."""

    part: str = "encoder"
    """Which device it is."""
    firmware: str | None = None
    """Raw binary that the program memory of a new part holds. A relative path starts at the bench file's folder. Default: the
    memory is erased."""
    heartbeat: Annotated[int, Range(0, 0xFFFF)] = 0
    """Milliseconds between heartbeats. 0: none are sent."""


class CanopenDevice(CanDevice):
    """One node. The node id, `lss` and the serial number are those of the address, the program's number that of the profile."""

    keys = CanopenKeys
    node: CanopenNode

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        settings = CanopenKeys.of(spec.settings, self.part_names())
        part = dict(parts()[settings.part])
        part.update({key: spec.address[key] for key in ("vendor", "product", "revision") if key in spec.address})
        self.name = spec.name
        self.supply = Supply()
        fresh = spec.is_new
        self.flash = NorFlash.of_part(part, self.supply, spec.flash_path)
        factory_content(spec, self.flash, fresh=fresh)
        self.node = CanopenNode(
            spec.name,
            part,
            self.supply,
            wire,
            self.flash,
            UNCONFIGURED if spec.address.get("lss") else int(spec.address.get("node", 1)),
            serial=int(spec.address.get("serial", SERIAL)),
            program=int(spec.profile.get("program", 1)),
            heartbeat=settings.heartbeat / 1000,
            pace=spec.pace,
        )
        self.node.start()

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: CanWire) -> Self:
        return cls(spec, wire)

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

    def reset(self) -> None:
        self.node.reset()
