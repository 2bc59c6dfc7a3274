"""What the bench file says of any bootloader on a serial line."""

from __future__ import annotations

from ..settings import Field, Settings

MOST_RATE = 0x7FFF_FFFF
"""Bit/s. pyserial gives Linux a bit rate as a signed number of 32 bits."""


class SerialProfile(Settings):
    """What every profile of a bootloader on a serial line has."""

    baudrate: int | None = Field(default=None, gt=0, le=MOST_RATE)
    """Bit rate of the bootloader, in bit/s. Default: the bus's `baudrate`."""
