"""An emulated ECU: a bootloader that speaks UDS (ISO 14229-1:2020) over ISO-TP, and the application that it boots.

Which of the two stages runs is decided at reset: the application if its descriptor's CRC is right and the last
programming was declared complete (dependencies), else the bootloader.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
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
from .ecu import ENDINGS, Ecu, Variation
from .maker import Maker, MakerMemory
from .memory import Marker, UdsMemory

TESTER = 0xF1
"""The tester's address where the bench file names none, as ISO 14229-3 assigns it."""


class UdsDevice(EmulatedDevice):
    """Keys of the `emulated` table: `part` (of parts.toml), `serial`, `firmware`, `maker` (see Maker), and those of
    Variation."""

    bus_kind: ClassVar[str] = "can"

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        settings = dict(spec.settings)
        part = _part(settings.pop("part", "acme-r77"))
        serial = str(settings.pop("serial", "0001"))
        settings.pop("firmware", None)
        maker = Maker.of(settings.pop("maker", {}))
        variation = _variation(settings)
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
        self._ecu = Ecu(spec.name, part, serial, variation, self.supply, memory, wire, address, maker, pace=spec.pace)
        self._ecu.start()

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: CanWire) -> Self:
        return cls(spec, wire)

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


def _part(name: object) -> dict[str, Any]:
    parts = _parts()
    if name not in parts:
        raise BadDevice("part", f"{name!r} is none of {', '.join(parts)}")
    return parts[str(name)]


def _variation(settings: Mapping[str, Any]) -> Variation:
    known = {name: type(getattr(Variation(), name)) for name in Variation.__slots__}
    for key, value in settings.items():
        if key not in known:
            raise BadDevice(
                key, f"no key of an emulated ECU; there are: part, serial, firmware, maker, {', '.join(known)}"
            )
        if type(value) is not known[key] and not (known[key] is float and type(value) is int):
            raise BadDevice(key, f"{value!r} is not of type {known[key].__name__}")
    variation = Variation(**settings)
    if variation.download_ends not in ENDINGS:
        raise BadDevice("download_ends", f"{variation.download_ends!r} is none of {', '.join(ENDINGS)}")
    level = variation.security_level
    if level != 0 and (level % 2 == 0 or not 0 < level < 0x7F):
        raise BadDevice("security_level", f"{level} is not an odd number from 1 to 0x7D, nor 0")
    try:
        secret = bytes.fromhex(variation.secret)
    except ValueError:
        secret = b""
    if level and not secret:
        raise BadDevice("secret", f"{variation.secret!r} is not hexadecimal bytes")
    return variation


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
