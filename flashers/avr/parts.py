"""AVR parts, from parts.toml beside this file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

BOOTSZ_SHIFT = 1
"""BOOTSZ1:0 are bits 2:1 of their fuse byte; programmed is 0, so 0b11 is the smallest section."""


@dataclass(frozen=True, slots=True)
class AvrPart:
    """One row; the file's head says what each value means. Sizes in bytes."""

    signature: int
    name: str
    flash: int
    page: int
    eeprom: int
    boot: int
    bootsz: Literal["high", "extended"] = "high"

    @property
    def boot_sizes(self) -> tuple[int, ...]:
        """The sizes that the boot section can have, the smallest first."""
        return tuple(self.boot << times for times in range(4) if self.boot << times < self.flash)

    def boot_size(self, fuse: int) -> int:
        """The boot section's size by the fuse byte that holds BOOTSZ."""
        return self.boot << (3 - (fuse >> BOOTSZ_SHIFT & 3))


@cache
def parts() -> dict[int, AvrPart]:
    """All parts by signature."""
    rows: list[dict[str, Any]] = tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))["part"]
    return {row["signature"]: AvrPart(**row) for row in rows}
