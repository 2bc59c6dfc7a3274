"""What this host has for serial lines: USB adapters, permissions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..transport import HostCheck


def checks() -> Iterator[HostCheck]:
    ports = sorted([*Path("/dev").glob("ttyUSB*"), *Path("/dev").glob("ttyACM*")])
    if not ports:
        yield HostCheck("no USB serial adapter is attached", None, "Plug one in.")
    for port in ports:
        allowed = os.access(port, os.R_OK | os.W_OK)
        yield HostCheck(
            f"{port} may {'' if allowed else 'not '}be used", allowed, "sudo usermod -aG dialout $USER, then log in"
        )
