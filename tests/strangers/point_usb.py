"""Runs pyusb's own tests over the emulated backend, in its folder `tests`, and prints how each of them ended, as JSON.

Its suites are single tests that call one method after the other and end with the first that fails; here each method
counts for itself. The device is that for which they were written, the benchmark firmware of libusb-win32: loops on a
bulk, an interrupt and an isochronous pair of endpoints, one in each alternate setting, and a buffer that vendor requests
write and read.
"""

from __future__ import annotations

import functools
import json
import sys
import unittest
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import usb.backend.libusb0
import usb.backend.libusb1
import usb.backend.openusb
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.device import (
    BULK,
    INTERRUPT,
    SETUP,
    Descriptors,
    EndpointDescriptor,
    InterfaceDescriptor,
    Stall,
    UsbFunction,
)
from proxyflash.emulators.usb.wire import UsbWire

SET_BUFFER, GET_BUFFER = (0x40, 0x10), (0xC0, 0x11)
"""bmRequestType and bRequest."""
ISOCHRONOUS = 1
OLD_NAMES = {"assertEquals": "assertEqual", "assertNotEquals": "assertNotEqual"}
"""Assertions by names that the suite uses, and that unittest has no longer since Python 3.12."""
FILES = ("test_backend", "test_control", "test_find", "test_integration", "test_interop", "test_legacy", "test_util")


class Loop:
    """Both endpoints of a pair: what the host sends comes back in the pieces that it was sent in."""

    def __init__(self) -> None:
        self._held: deque[bytes] = deque()

    def take(self, data: bytes) -> int:
        self._held.append(data)
        return len(data)

    def give(self, size: int) -> bytes | None:
        return self._held.popleft()[:size] if self._held else None


class Benchmark(UsbFunction):
    """The device."""

    buffer = b""

    def control(self, setup: bytes, data: bytes) -> bytes:
        kind, request, _, _, length = SETUP.unpack(setup)
        if (kind, request) == SET_BUFFER:
            self.buffer = data
            return b""
        if (kind, request) == GET_BUFFER:
            return self.buffer[:length]
        return super().control(setup, data)


def device() -> Benchmark:
    pairs = ((1, BULK, 16, 0), (2, INTERRUPT, 16, 1), (3, ISOCHRONOUS, 64, 1))
    interfaces = tuple(
        InterfaceDescriptor(
            0, alternate, 0, 0, 0,
            endpoints=tuple(EndpointDescriptor(way | number, kind, size, interval) for way in (0, 0x80)),
        )
        for alternate, (number, kind, size, interval) in enumerate(pairs)
    )  # fmt: skip
    loops = {number: Loop() for number, *_ in pairs}

    def refused(*request: object) -> bytes:
        raise Stall

    return Benchmark(
        Descriptors(
            0x04D8, 0xFA2E, 1, "Travis Robinson", "Benchmark Device", "LUSBW1", interfaces, max_packet=8,
            self_powered=True,
        ),
        refused,
        lambda: None,
        endpoints={way | number: loop for number, loop in loops.items() for way in (0, 0x80)},
    )  # fmt: skip


def noted(name: str, method: Callable[..., Any], ends: dict[str, str]) -> Callable[..., Any]:
    """The method, which raises no more; how it ended is noted, once it has failed for good."""

    @functools.wraps(method)
    def run(*arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
            ends[name] = "failed"
        else:
            ends.setdefault(name, "passed")

    return run


def note(module: ModuleType, ends: dict[str, str]) -> None:
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase) and kind.__module__ == module.__name__:
            for name, method in list(vars(kind).items()):
                if name.startswith("test_"):
                    setattr(kind, name, noted(f"{module.__name__}::{kind.__name__}::{name}", method, ends))


def main() -> None:
    wire = UsbWire("pyusb", pace=0)
    wire.plug(wire.new_port(), device())
    backend = EmulatedUsbBackend(wire)
    usb.backend.libusb1.get_backend = lambda *arguments, **more: backend
    usb.backend.libusb0.get_backend = usb.backend.openusb.get_backend = lambda *arguments, **more: None
    sys.path.insert(0, str(Path.cwd()))
    for old, new in OLD_NAMES.items():
        setattr(unittest.TestCase, old, getattr(unittest.TestCase, new))
    ends: dict[str, str] = {}
    for name in FILES:
        module = __import__(name)
        note(module, ends)
        unittest.TextTestRunner(stream=sys.stderr).run(module.get_suite())
    wire.close()
    sys.stdout.write(json.dumps(ends))


if __name__ == "__main__":
    main()
