"""What every emulated part on a serial line has in common, whatever loader is in it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

from ..device import DeviceSpec, EmulatedDevice
from ..supply import Supply
from .board import Stage, UartBoard
from .wire import UartWire


class UartDevice(EmulatedDevice):
    """One part, alone on its line. A subclass makes its `board` and its `flash`, and starts the board."""

    bus_kind = "serial"
    board: UartBoard

    @abstractmethod
    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        """Raises BadDevice."""
        self.name = spec.name
        self.supply = Supply()

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: UartWire) -> Self:
        return cls(spec, wire)

    @property
    def application_version(self) -> str | None:
        running = self.board.running
        return running.version if self.board.stage is Stage.APPLICATION and running is not None else None

    def settle(self) -> None:
        self.board.settle()

    def close(self) -> None:
        self.board.close()
        self.flash.close()
