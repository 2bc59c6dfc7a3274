"""An emulated ECU: a bootloader that speaks UDS (ISO 14229-1:2020) over ISO-TP, and the application that it boots.

Which of the two stages runs is decided at reset: the application if its descriptor's CRC is right and the last
programming was declared complete (dependencies), else the bootloader.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar, Self

from .. import application
from ..board import Board
from ..can.isotp import EcuAddress
from ..can.wire import CanWire
from ..device import BadDevice, DeviceSpec, EmulatedDevice, factory_content
from ..flash import NorFlash
from ..supply import Supply
from .ecu import Ecu, Variation
from .maker import Maker
from .maker_memory import MakerMemory
from .memory import Marker, UdsMemory

TESTER = 0xF1
"""The tester's address where the bench file names none, as ISO 14229-3 assigns it."""


@dataclass(frozen=True, kw_only=True)
class UdsKeys(Variation):
    """The `emulated` table."""

    part: str = "acme-r77"
    """Which ECU it is."""
    serial: str = "0001"
    """Serial number of the ECU (F18C)."""
    firmware: str | None = None
    """Raw binary that the memory of a new part holds. A relative path starts at the bench file's folder. Default: the memory is
    erased."""
    maker: Maker = field(default_factory=Maker)
    """What the maker of the ECU does otherwise."""


class UdsDevice(EmulatedDevice):
    """One ECU on a CAN bus."""

    keys = UdsKeys
    bus_kind: ClassVar[str] = "can"

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        settings = UdsKeys.of(spec.settings, self.part_names())
        _check_security(settings)
        part, maker = _parts()[settings.part], settings.maker
        address = _address(spec)
        self.name = spec.name
        self.supply = Supply()
        fresh = spec.is_new
        self.flash = NorFlash(
            part["base"],
            [(sector["count"], sector["size"]) for sector in part["sectors"]],
            self.supply,
            program_unit=part["program_unit"],
            program_seconds=part["program_seconds"],
            erase_seconds=lambda size: float(part["erase_seconds"]),
            path=spec.flash_path,
        )
        factory_content(spec, self.flash, fresh=fresh)
        marker = Marker(spec.folder / f"{spec.name}.json" if spec.folder else None)
        found = application.find(self.flash, self.flash.base) if fresh else None
        if fresh:
            segments = [(self.flash.base, found.size)] if found is not None and found.size else []
            marker.note(complete=found is not None, segments=segments)
        rest = self.flash, marker, part
        memory = MakerMemory(maker, *rest) if maker != Maker() else UdsMemory(*rest)
        self._ecu = Ecu(
            spec.name, part, settings.serial, settings, self.supply, memory, wire, address, maker, pace=spec.pace
        )
        self._ecu.start()

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: CanWire) -> Self:
        return cls(spec, wire)

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(_parts())

    @property
    def board(self) -> Board:
        return self._ecu

    @property
    def application_version(self) -> str | None:
        running = self._ecu.running
        return None if running is None else running.version

    def settle(self) -> None:
        self._ecu.settle()

    def close(self) -> None:
        self._ecu.close()
        self._ecu.link.node.detach()
        self.flash.close()


@cache
def _parts() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))


def _check_security(settings: UdsKeys) -> None:
    """Raises BadDevice."""
    level = settings.security_level
    if level and level % 2 == 0:
        raise BadDevice("security_level", f"{level} is not an odd number from 1 to 0x7D, nor 0")
    try:
        secret = bytes.fromhex(settings.secret)
    except ValueError:
        secret = b""
    if level and not secret:
        raise BadDevice("secret", f"{settings.secret!r} is not hexadecimal bytes")


def _address(spec: DeviceSpec) -> EcuAddress:
    """The bench file's address, seen from the ECU."""
    address = spec.address
    kind = address.get("addressing", "normal")
    target, source = address.get("target", -1), address.get("source", TESTER)
    if kind != "normal" and target < 0:
        raise BadDevice("address", f"{kind} addressing needs target")
    if kind == "normal-fixed":
        base = 0x18DA0000
        return EcuAddress(base | target << 8 | source, 0x18DB3300 | source, base | source << 8 | target, True)
    if "request" not in address:
        raise BadDevice("address", "request is missing")
    request = address["request"]
    response = address.get("response", request + 8)
    extended_ids = bool(address.get("extended_ids", request > 0x7FF))
    functional = int(address.get("functional") or 0x7DF)
    prefixed = kind == "extended"
    return EcuAddress(
        request, functional, response, extended_ids, target if prefixed else None, source if prefixed else None
    )
