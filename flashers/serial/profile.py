"""What the bench file says of any bootloader on a serial line."""

from __future__ import annotations

from ...transports.serial import MOST_RATE
from ..settings import Field, Settings


class SerialProfile(Settings):
    """What every profile of a bootloader on a serial line has."""

    baudrate: int | None = Field(default=None, gt=0, le=MOST_RATE)
    """Bit rate of the bootloader, in bit/s. Default: the bus's `baudrate`."""
