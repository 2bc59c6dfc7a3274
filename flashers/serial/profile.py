"""What the bench file says of any bootloader on a serial line."""

from __future__ import annotations

from pydantic import Field

from ..flasher import Settings


class SerialProfile(Settings):
    """`baudrate`: of the bootloader, None for the bus's own."""

    baudrate: int | None = Field(default=None, gt=0)
