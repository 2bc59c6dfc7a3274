"""The parts of parts.toml, and their flash."""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from ..device import DeviceSpec
from ..flash import NorFlash
from ..supply import Supply


@cache
def parts() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))


def unique_of(name: str) -> bytes:
    """A part's own id stays the same."""
    return hashlib.sha256(name.encode()).digest()[:16]


def flash_of(part: dict[str, Any], spec: DeviceSpec, supply: Supply) -> NorFlash:
    return NorFlash(
        part["base"],
        [(count, size) for count, size in part["sectors"]],
        supply,
        program_unit=part["program_unit"],
        program_seconds=part["program_seconds"],
        erase_seconds=lambda size: float(part["erase_seconds"]),
        path=spec.flash_path,
    )
