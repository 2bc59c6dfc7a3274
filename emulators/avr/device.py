"""What the emulated sensors on AVRs have in common, whichever loader is in them: the bench file's keys, and the part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..device import BadDevice, DeviceSpec
from ..keys import Range
from ..serial.board import Stage
from ..serial.device import UartDevice
from ..serial.keys import UartKeys
from ..serial.wire import UartWire
from . import part as avr_part
from .board import AvrBoard, AvrLoader, ResetLine
from .part import AvrMemory, AvrPart, parts

_RESET_LINE = re.compile(r"(!?)(dtr|rts)-reset")


@dataclass(frozen=True, kw_only=True)
class AvrKeys(UartKeys):
    """The `emulated` table. Every method raises BadDevice."""

    part: str
    """Which part it is, and which bootloader is in it."""
    firmware: str | None = None
    """Raw binary that the flash of a new part holds from address 0 on. A relative path starts at the bench file's folder.
    Default: the application's flash is erased."""
    wiring: str = "dtr-reset"
    """The adapter's output that is coupled to RESET by a capacitor: "dtr-reset", "rts-reset", or "none". An assertion of the
    output resets the part once. With "!" before the output, its release does."""
    power_on: bool = False
    """Whether power on counts as a reset from outside, after which each bootloader serves. Default: as the real bootloader
    takes it."""
    boot_window: Annotated[float, Range(0)] | None = None
    """Seconds that the bootloader waits for the first byte. Later waits are scaled by the same factor. 0: forever. Default:
    the real bootloader's value."""
    lock: Annotated[int, Range(0, 0xFF)] | None = None
    """Lock bits of a new part. Default: as the part, with its boot section locked."""
    mute: bool = False
    """Whether the part never answers."""

    def reset_line(self) -> ResetLine | None:
        found = _RESET_LINE.fullmatch(self.wiring)
        if found is None and self.wiring != "none":
            raise BadDevice(
                "wiring", f'{self.wiring!r} is none of "dtr-reset", "!dtr-reset", "rts-reset", "!rts-reset", "none"'
            )
        return None if found is None else ResetLine(found[2], inverted=bool(found[1]))

    def waits(self, part: AvrPart) -> tuple[float | None, float | None]:
        """For a first byte, and for later ones."""
        window = part.window if self.boot_window is None else self.boot_window
        return (window, window * part.patience / part.window) if window else (None, None)


@dataclass(frozen=True, kw_only=True)
class UsbAvrKeys(AvrKeys):
    """Of a part that is a USB device itself."""

    wiring: str = "none"
    reenumerate: Annotated[float, Range(0)] = 0.0
    """Seconds that the port is gone when bootloader and application follow one another. 0: the port stays. A port that was
    gone has to be opened again."""


class AvrDevice(UartDevice):
    """One part, alone on its line.

    Its loader serves after the resets that it serves after, for as long as it waits; then the application runs if the
    flash holds one, which answers the bench file's version question (`send`, and a line that `match` fits, such as "FW
    1.5.0") and ignores everything else. A part whose flash holds no whole application runs something that answers
    nothing, until it is reset.

    EEPROM and lock bits are kept beside the flash contents, and outlive the settings.
    """

    keys: ClassVar[type[AvrKeys]] = AvrKeys
    board: AvrBoard
    loaders: ClassVar[dict[str, type[AvrLoader]]]
    """By the name in the part's table."""

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = self.keys.of(spec.settings, self.part_names())
        part = parts()[settings.part]
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = AvrBoard(
            spec.name,
            self.supply,
            wire,
            settings.sensor(spec.version),
            settings.reset_line(),
            reenumerates=settings.reenumerate if isinstance(settings, UsbAvrKeys) else None,
            enters_at_power_on=settings.power_on,
            mute=settings.mute,
            pace=spec.pace,
        )
        memory = AvrMemory(
            part,
            self.supply,
            lock=part.lock if settings.lock is None else settings.lock,
            path=spec.flash_path,
            busy=self.board.spm_busy,
            eeprom_busy=self.board.work,
        )
        window, patience = settings.waits(part)
        self.memory = memory
        self.flash = memory.flash
        memory.leave_the_factory(spec, fresh=fresh)
        self.board.memory = memory
        self.board.loader = self.loaders[part.loader](self.board, memory, window=window, patience=patience)
        self.board.start()

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return [name for name, part in parts().items() if part.loader in cls.loaders]

    def make_firmware(self, version: str, product: str, manufacturer: str, size: int, *, seed: int = 0) -> bytes:
        return avr_part.firmware(version, product, manufacturer, size, seed=seed)

    def reset(self) -> None:
        self.board.reset()

    def settle(self) -> None:
        """Until it waits for something, and not for its loader's time to be over before it starts its application."""
        super().settle()
        if self._starts_by_itself:
            with self.board.changed:
                self.board.changed.wait_for(lambda: self.board.stage is Stage.APPLICATION or not self.supply.is_on, 60)

    @property
    def _starts_by_itself(self) -> bool:
        waits = self.board.stage is Stage.LOADER and self.board.loader.window is not None
        return waits and self.memory.application() is not None

    def close(self) -> None:
        super().close()
        self.memory.eeprom.close()
