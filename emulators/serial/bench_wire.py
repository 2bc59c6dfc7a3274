"""The wire of an emulated serial line of a bench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ..bench_wire import BenchWire, Served
from ..faults import Faults
from .pty import serve_pty
from .wire import UartWire


class BenchUartWire(UartWire, BenchWire):
    """Other programs get a PTY."""

    kind = "serial"
    kernel_driver = "acm"

    @classmethod
    def make(cls, channel: str, settings: Mapping[str, Any], faults: Faults, pace: float) -> Self:
        return cls(channel, faults=faults, pace=pace)

    def rejoin(self) -> None:
        self.plug()

    def serve(self, name: str, folder: Path) -> Served:
        path, close = serve_pty(self)
        link = folder / f"{name}.pty"
        link.unlink(missing_ok=True)
        link.symlink_to(path)

        def end() -> None:
            link.unlink(missing_ok=True)
            close()

        return Served(str(link), f"a serial port at {link} ({path})", end)

    def serve_by_kernel(self, name: str) -> Served:
        from .acm_tty import AcmTty

        tty = AcmTty(self, name)
        return Served(tty.path, f"a serial port at {tty.path}", tty.close)
