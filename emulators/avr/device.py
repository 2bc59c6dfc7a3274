"""What the emulated sensors on AVRs have in common, whichever loader is in them: the bench file's keys, and the part."""

from __future__ import annotations

import re
from typing import ClassVar

from ..device import BadDevice, DeviceSpec
from ..serial.board import Stage
from ..serial.device import UartDevice
from ..serial.settings import UartSettings
from ..serial.wire import UartWire
from . import part as avr_part
from .board import AvrBoard, AvrLoader, ResetLine
from .part import AvrMemory, AvrPart, parts

_RESET_LINE = re.compile(r"(!?)(dtr|rts)-reset")


class AvrDevice(UartDevice):
    """One part, alone on its line.

    Its loader serves after the resets that it serves after, for as long as it waits; then the application runs if the
    flash holds one, which answers the bench file's version question (`send`, and a line that `match` fits, such as "FW
    1.5.0") and ignores everything else. A part whose flash holds no whole application runs something that answers
    nothing, until it is reset.

    The keys of the `emulated` table:

    - `part`: a table of parts.toml whose loader speaks this protocol; needed.
    - `firmware`: raw binary that a new part's flash holds from address 0 on.
    - `wiring`: the adapter's output that is coupled to RESET by a capacitor, "dtr-reset" or "rts-reset", with "!" before
      it if through something that turns it round; "none". An assertion resets the part. Default "dtr-reset", "none" of
      a part that is a USB device.
    - `power_on`: true: the supply counts as a reset from outside. Default false: as the loader takes it.
    - `boot_window`: seconds that the loader waits for a first byte, and for later ones as many times longer as it does;
      0: for ever. Default: as the loader.
    - `lock`: the lock bits of a new part. Default: as the part, whose boot section can't be written.
    - `app_baudrate`, `app_parity`: the application's line. Default 115200, "N".
    - `reenumerate`: of a USB device: seconds that its port is gone when loader and application follow one another;
      0: the port stays. Default 0.
    - `mute`: true: the part never answers.

    EEPROM and lock bits are kept beside the flash contents, and outlive the settings.
    """

    board: AvrBoard
    loaders: ClassVar[dict[str, type[AvrLoader]]]
    """By the name in the part's table."""
    is_usb: ClassVar[bool] = False
    """Whether it is a USB device itself."""

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = _Settings(spec.settings)
        part = settings.part(self.loaders)
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = AvrBoard(
            spec.name,
            self.supply,
            wire,
            settings.sensor(spec.version),
            settings.reset_line("none" if self.is_usb else "dtr-reset"),
            reenumerates=settings.number("reenumerate", 0) if self.is_usb else None,
            enters_at_power_on=settings.choice("power_on", False),
            mute=settings.choice("mute", False),
            pace=spec.pace,
        )
        memory = AvrMemory(
            part,
            self.supply,
            lock=settings.lock(part),
            path=spec.flash_path,
            busy=self.board.spm_busy,
            eeprom_busy=self.board.work,
        )
        window, patience = settings.waits(part)
        settings.refuse_others()
        self.memory = memory
        self.flash = memory.flash
        memory.leave_the_factory(spec, fresh=fresh)
        self.board.memory = memory
        self.board.loader = self.loaders[part.loader](self.board, memory, window=window, patience=patience)
        self.board.start()

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


class _Settings(UartSettings):
    """The `emulated` table. Every method raises BadDevice."""

    def part(self, loaders: dict[str, type[AvrLoader]]) -> AvrPart:
        return self.one_of({name: part for name, part in parts().items() if part.loader in loaders})

    def reset_line(self, default: str) -> ResetLine | None:
        wiring = self._get("wiring", str, default)
        found = _RESET_LINE.fullmatch(wiring)
        if found is None and wiring != "none":
            raise BadDevice(
                "wiring", f'{wiring!r} is none of "dtr-reset", "!dtr-reset", "rts-reset", "!rts-reset", "none"'
            )
        return None if found is None else ResetLine(found[2], inverted=bool(found[1]))

    def lock(self, part: AvrPart) -> int:
        bits: int = self._get("lock", int, part.lock)
        if not 0 <= bits <= 0xFF:
            raise BadDevice("lock", f"{bits} is not a byte")
        return bits

    def waits(self, part: AvrPart) -> tuple[float | None, float | None]:
        """For a first byte, and for later ones."""
        window = self.number("boot_window", part.window)
        return (window, window * part.patience / part.window) if window else (None, None)
