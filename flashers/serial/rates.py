"""Bit rates that a bench file gives a part beside that of its bus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...transports.serial.opening import LEAST_RATE

KEYS = ("baudrate", "app_baudrate", "recovery_baudrate")
"""The keys of profiles that are bit rates."""


def surprises(profile: Any) -> Iterator[str]:
    """The bit rates of a profile that are likely not meant, and how they are written otherwise."""
    for key in KEYS:
        rate = getattr(profile, key, None)
        if rate is not None and rate < LEAST_RATE:
            yield f"profile.{key} = {rate} is in bit/s; is another rate meant, such as 115_200?"
