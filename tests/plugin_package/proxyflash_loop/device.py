"""The emulated part of a ring, with its bootloader. It has its own code for the frames: nothing of it is the flasher's."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from proxyflash.emulators import application
from proxyflash.emulators.application import Application
from proxyflash.emulators.device import BadDevice, DeviceSpec, EmulatedDevice, factory_content
from proxyflash.emulators.flash import FlashRefused, NorFlash
from proxyflash.emulators.keys import Table
from proxyflash.emulators.supply import PowerLost, Supply

from .wire import LoopWire

BASE, UNITS, UNIT = 0x1000, 64, 0x400
NOT_IN_BOOTLOADER, NO_ADDRESS, NOT_ERASED, NO_FIRMWARE = range(1, 5)
LARGEST_LABEL = 16


class _Refused(Exception):
    """`args`: the reason's number."""


@dataclass(frozen=True, kw_only=True)
class LoopKeys(Table):
    """The `emulated` table."""

    serial: str = "0001"
    """Serial number of the part."""
    firmware: str | None = None
    """Raw binary that the flash of a new part holds."""
    label: str = ""
    """A name that the part keeps."""


class LoopDevice(EmulatedDevice):
    """One part on a ring."""

    keys = LoopKeys
    bus_kind: ClassVar[str] = "loop"

    def __init__(self, spec: DeviceSpec, wire: LoopWire) -> None:
        settings = LoopKeys.of(spec.settings)
        self.name = spec.name
        self.supply = Supply()
        fresh = spec.is_new
        self.flash = NorFlash(BASE, [(UNITS, UNIT)], self.supply, program_unit=4, path=spec.flash_path)
        factory_content(spec, self.flash, fresh=fresh)
        self._serial = settings.serial
        self._kept = spec.folder / f"{spec.name}.label" if spec.folder else None
        self._label = self._kept_label(self._kept) or settings.label
        self._running: Application | None = None
        self._wire, self._node = wire, int(spec.address.get("node", 0))
        if self._node in wire.nodes:
            raise BadDevice("address", f"node {self._node} is taken")
        wire.nodes[self._node] = self._answered
        self.supply.listen(self._powered)
        self._powered(True)

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: LoopWire) -> Self:
        return cls(spec, wire)

    @property
    def application_version(self) -> str | None:
        return None if self._running is None else self._running.version

    def close(self) -> None:
        self._wire.nodes.pop(self._node, None)
        self.flash.close()

    @staticmethod
    def _kept_label(path: Path | None) -> str:
        return path.read_text(encoding="ascii") if path is not None and path.is_file() else ""

    def _powered(self, is_on: bool) -> None:
        self._running = application.find(self.flash, BASE) if is_on else None

    def _answered(self, frame: bytes) -> bytes | None:
        """The answer; None: it can't, or the frame is damaged."""
        if not self.supply.is_on or len(frame) < 2 or sum(frame[:-1]) % 256 != frame[-1]:
            return None
        try:
            body = bytes([0x80 | frame[0]]) + self._done(frame[0], frame[1:-1])
        except _Refused as refused:
            body = bytes([0xFF, refused.args[0]])
        except FlashRefused as refused:
            body = bytes([0xFF, NOT_ERASED if refused.reason == "not erased" else NO_ADDRESS])
        except PowerLost:
            return None
        return body + bytes([sum(body) % 256])

    def _done(self, command: int, payload: bytes) -> bytes:
        match command:
            case 1:
                version = self._running.version if self._running else ""
                return bytes([self._running is None]) + f"LOOP-M1;{self._serial};{version}".encode()
            case 2:
                self._running = None
                return b""
            case 7:
                self._powered(True)
                if self._running is None:
                    raise _Refused(NO_FIRMWARE)
                return b""
            case 8:
                return self._label.encode()
            case 9:
                self._label = payload[:LARGEST_LABEL].decode("ascii", "replace")
                if self._kept is not None:
                    self._kept.write_text(self._label, encoding="ascii", errors="replace")
                return b""
        if self._running is not None:
            raise _Refused(NOT_IN_BOOTLOADER)
        address = int.from_bytes(payload[:4], "big")
        match command:
            case 3:
                self.flash.erase(address)
                return b""
            case 4:
                if self.flash.read(address, len(payload) - 4) != payload[4:]:
                    self.flash.program(address, payload[4:])
                return b""
            case 5:
                return self.flash.read(address, payload[4])
            case 6:
                return struct.pack(">I", zlib.crc32(self.flash.read(address, int.from_bytes(payload[4:8], "big"))))
        raise _Refused(0)
