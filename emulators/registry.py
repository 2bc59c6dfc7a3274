"""The emulated wires of this process, by the channel name under which libraries' plug-ins find them.

`proxyflash` as a python-can interface, `emulated://` as a pyserial URL, and the pyusb backend all look here.
"""

from __future__ import annotations

from typing import Any

_wires: dict[str, Any] = {}


def register(channel: str, wire: Any) -> None:
    if channel in _wires:
        raise ValueError(f"an emulated wire is called {channel!r} already")
    _wires[channel] = wire


def find(channel: str) -> Any | None:
    return _wires.get(channel)


def forget(channel: str) -> None:
    _wires.pop(channel, None)
