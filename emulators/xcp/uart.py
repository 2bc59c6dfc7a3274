"""An emulated board on a serial line with OpenBLT, and the application that it starts.

OpenBLT waits 50 ms after a reset for CONNECT (its back door), and then starts an application whose checksum is right. The
application answers the bench file's question for its version, and restarts into OpenBLT at CONNECT, without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from ...transports import clock
from ..device import DeviceSpec, factory_content
from ..flash import NorFlash
from ..keys import Range
from ..serial.board import Sensor, Silence, Stage, UartBoard
from ..serial.device import UartDevice
from ..serial.keys import UartKeys
from ..serial.line import Line
from ..serial.wire import UartWire
from ..supply import Supply
from .parts import firmware, parts, started
from .slave import OpenBltMemory, Slave

BACK_DOOR_SECONDS = 0.05
BYTE_GAP = 0.2
"""Within which the bytes of a packet follow one another, else it is forgotten."""
RESET_SECONDS = 0.005
BAUDRATE = 57_600


def boards() -> dict[str, dict[str, Any]]:
    """The parts with OpenBLT."""
    return {name: part for name, part in parts().items() if "block" in part and part["max_cto"] != 64}


class XcpBoard(UartBoard):
    """`line`: OpenBLT's. `sums`: whether each packet ends with its sum."""

    flash: NorFlash

    def __init__(
        self,
        name: str,
        supply: Supply,
        wire: UartWire,
        sensor: Sensor,
        part: Mapping[str, Any],
        line: Line,
        *,
        secret: bytes,
        sums: bool,
        pace: float,
    ) -> None:
        super().__init__(name, supply, wire, sensor, pace=pace)
        self._part = part
        self._line = line
        self._secret = secret
        self._sums = sums
        self.may_start = False
        """Whether OpenBLT starts the application once nobody is connected."""

    def firmware(self) -> None:
        self.running = None
        self.clock = self._started_at
        self._uart.line = self._line
        memory = OpenBltMemory(self.flash, self._part["block"], self._part["vectors_checksum"])
        self.may_start = memory.is_valid
        self._enter(Stage.LOADER)
        self._wait_for_connect(Slave(self._part, memory, self._secret), memory)
        self.may_start = False
        self._released(max(self.clock, self._uart.free_at))
        found = self.running = started(self._part, self.flash)
        if found is None:
            self._enter(Stage.HUNG)
            return
        self._uart.line = self._sensor.line
        self._enter(Stage.APPLICATION)
        self._answers_until(self._framed(b"\xff\x00"), found)
        self.reset_itself()

    def _wait_for_connect(self, slave: Slave, memory: OpenBltMemory) -> None:
        """Returns when OpenBLT starts the application."""
        until = clock.monotonic() + BACK_DOOR_SECONDS
        while True:
            self.may_start = memory.is_valid
            waits = self.may_start and not slave.connected
            try:
                length = self.receive(1, max(0.0, until - clock.monotonic()) if waits else None)[0]
            except Silence:
                return
            try:
                packet = self.receive(length, BYTE_GAP) if length else b""
                end = self.receive(1, BYTE_GAP) if self._sums else b""
            except Silence:
                continue
            if self._sums and self._framed(packet)[-1:] != end:
                continue
            for answer in slave.take(packet):
                self.send(self._framed(answer))
            if slave.restarts:
                self.work(RESET_SECONDS)
                self.reset_itself()

    def _framed(self, packet: bytes) -> bytes:
        frame = bytes((len(packet),)) + packet
        return frame + bytes((sum(frame) & 0xFF,)) if self._sums else frame

    def reset(self) -> None:
        super().reset()
        self._uart.discard_unsent()
        self._released(clock.monotonic())


@dataclass(frozen=True, kw_only=True)
class XcpUartKeys(UartKeys):
    """The `emulated` table."""

    part: str
    """Which board it is."""
    secret: bytes = b""
    """Bytes in hexadecimal. The key is the seed xor these bytes. "": no key is wanted."""
    checksum: bool = False
    """Whether each packet ends with its sum."""
    baudrate: Annotated[int, Range(1)] = BAUDRATE
    """Bit rate of OpenBLT's line in bit/s."""


class XcpUartDevice(UartDevice):
    """One part, alone on its line."""

    keys = XcpUartKeys
    board: XcpBoard

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = XcpUartKeys.of(spec.settings, self.part_names())
        self.part = parts()[settings.part]
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = XcpBoard(
            spec.name,
            self.supply,
            wire,
            settings.sensor(spec.version),
            self.part,
            Line(settings.baudrate),
            secret=settings.secret,
            sums=settings.checksum,
            pace=spec.pace,
        )
        self.flash = self.board.flash = NorFlash.of_part(self.part, self.supply, spec.flash_path)
        self.flash.busy = self.board.work
        factory_content(spec, self.flash, fresh=fresh)
        self.board.start()

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(boards())

    def make_firmware(self, version: str, product: str, manufacturer: str, size: int, *, seed: int = 0) -> bytes:
        return firmware(self.part, version, product, manufacturer, size=size, seed=seed)

    def settle(self) -> None:
        """Also until the back door is closed, unless somebody is connected."""
        self.board.settle()
        until = clock.monotonic() + 4 * BACK_DOOR_SECONDS
        while self.board.may_start and self.supply.is_on and clock.monotonic() < until:
            clock.sleep(BACK_DOOR_SECONDS / 5)

    def reset(self) -> None:
        self.board.reset()
