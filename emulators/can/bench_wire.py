"""The wire of an emulated CAN bus of a bench."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from ..bench_wire import BenchWire, Served
from ..device import BadDevice
from ..faults import Faults
from .server import serve_can
from .wire import CanWire

LONGEST_SOCKET = 100
"""Bytes that a Unix socket's path may have, below Linux's 108."""


class BenchCanWire(CanWire, BenchWire):
    """The bit rates are the bus's; other programs get a Unix socket."""

    kind = "can"

    @classmethod
    def make(cls, channel: str, settings: Mapping[str, Any], faults: Faults, pace: float) -> Self:
        bitrate = _rate(settings, "bitrate", 500_000)
        data_bitrate = _rate(settings, "data_bitrate", 2_000_000) if settings.get("fd") else None
        return cls(channel, bitrate=bitrate, data_bitrate=data_bitrate, faults=faults, pace=pace)

    def serve(self, name: str, folder: Path) -> Served:
        socket = folder / f"{name}.sock"
        if len(str(socket)) > LONGEST_SOCKET:
            raise OSError(errno.ENAMETOOLONG, "the path is too long for a socket", str(socket))
        opens = f'python-can: interface "proxyflash", channel "unix:{socket}"'
        return Served(str(socket), opens, serve_can(self, socket))

    def join(self, place: str, name: str) -> Callable[[], object]:
        """`place`: INTERFACE:CHANNEL of python-can."""
        from ...transports.can.opening import open_bus
        from .bridge import bridge

        interface, _, channel = place.partition(":")
        opened = open_bus(name, {"interface": interface, "channel": channel, "fd": self.data_bitrate is not None})
        try:
            end = bridge(self, opened)
        except BaseException:
            opened.shutdown()
            raise

        def close() -> None:
            end()
            opened.shutdown()

        return close


def _rate(settings: Mapping[str, Any], key: str, default: int) -> int:
    value = settings.get(key, default)
    if type(value) is not int or value < 1:
        raise BadDevice(key, f"{value!r} is not a bit rate")
    return value
