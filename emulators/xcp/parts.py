"""The parts of parts.toml, and their memory."""

from __future__ import annotations

import struct
import tomllib
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from .. import application
from ..application import Application
from ..flash import NorFlash
from .slave import VECTORS, Memory, OpenBltMemory

CRC_AT = 0x10C
"""Where the descriptor of a firmware has its CRC."""


@cache
def parts() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))


def memory_of(part: Mapping[str, Any], flash: NorFlash) -> Memory:
    """What a program that has just started knows of the flash."""
    return OpenBltMemory(flash, part["block"], part["vectors_checksum"]) if "block" in part else Memory(flash)


def started(part: Mapping[str, Any], flash: NorFlash) -> Application | None:
    """The application that runs after a reset; None: it is not whole."""
    found = application.find(flash, flash.base)
    return found if found is None or found.size or "block" in part else None


def firmware(part: Mapping[str, Any], version: str, product: str, manufacturer: str, *, size: int, seed: int) -> bytes:
    """As application.make, with OpenBLT's checksum where that lies within the firmware."""
    made = bytearray(application.make(version, product, manufacturer, size, start=part["base"], seed=seed))
    at = part.get("vectors_checksum")
    if at is not None and at + 4 <= size:
        total = sum(struct.unpack_from(f"<{VECTORS}I", made))
        struct.pack_into("<I", made, at, -total & 0xFFFFFFFF)
        struct.pack_into("<I", made, CRC_AT, 0xFFFFFFFF)
        struct.pack_into("<I", made, CRC_AT, zlib.crc32(made))
    return bytes(made)
