"""`Stm32UartDevice`: an emulated sensor on an STM32, updated through its system-memory bootloader on a serial line.

The loader is in loader.py, the part in part.py and parts.toml; this module has the bench file's keys.
"""

from __future__ import annotations

import hashlib
import re

from ..device import BadDevice, DeviceSpec, factory_content
from ..serial.device import UartDevice
from ..serial.settings import UartSettings
from ..serial.wire import UartWire
from .board import Stm32Board
from .loader import ChecksumForm, Stm32Loader
from .part import OptionBytes, Stm32Memory, parts


class Stm32UartDevice(UartDevice):
    """One part, alone on its line.

    After a reset it starts the loader if BOOT0 is high or its flash begins with no application that can be booted,
    else the application, which answers the bench file's version question (`send`, and a line that `match` fits, such
    as "FW 1.5.0") and ignores everything else.

    The keys of the `emulated` table:

    - `part`: a table of parts.toml, such as "stm32f103xb"; needed.
    - `firmware`: raw binary that a new part's flash holds.
    - `serial`: the 96-bit unique id, as 24 hexadecimal digits in the order of memory; by default made from the name.
    - `boot0`: true holds BOOT0 high. Default false.
    - `wiring`: what the adapter's outputs drive: "dtr-reset,rts-boot0", "rts-reset,dtr-boot0", or one of the two
      alone. Wired directly, an asserted output pulls its pin low; "!" before it ("!dtr-reset") is a transistor
      between, which turns that round. While no program has the port open both outputs are released: a part that
      runs its application then is "dtr-reset,!rts-boot0". Default "none".
    - `rdp`: readout protection level 0 or 1 of a new part. Default 0.
    - `write_protected`: list of the write-protected sectors of a new part.
    - `app_baudrate`, `app_parity`: the application's line. Default 115200, "N".
    - `checksum`: whether the loader has Get Checksum. Default: as the part. `checksum_unit` and `checksum_announced`: as
      in `ChecksumForm`, 4 and true unless given.
    - `byte_timeout`: seconds after which the loader gives up a command whose bytes don't come, with NACK. Default 0:
      it waits for ever.
    - `mute`: true: the part never answers.

    Protections are kept beside the flash contents, and outlive the settings.
    """

    board: Stm32Board

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = _Settings(spec.settings)
        part = settings.one_of(parts())
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = Stm32Board(
            spec.name,
            self.supply,
            wire,
            settings.pins("boot0"),
            settings.sensor(spec.version),
            mute=settings.choice("mute", False),
            pace=spec.pace,
        )
        memory = Stm32Memory(
            part,
            self.supply,
            uid=settings.uid(spec.name),
            options=settings.options(),
            path=spec.flash_path,
            busy=self.board.work,
        )
        silence = settings.number("byte_timeout", 0) or None
        checksum = settings.checksum(part.checksum)
        settings.refuse_others()
        self.memory = memory
        self.flash = memory.flash
        factory_content(spec, self.flash, fresh=fresh)
        self.board.memory = memory
        self.board.loader = Stm32Loader(self.board, memory, checksum=checksum, silence=silence).run
        self.board.start()

    def reset(self) -> None:
        self.board.reset()


class _Settings(UartSettings):
    """The `emulated` table. Every method raises BadDevice."""

    def uid(self, name: str) -> bytes:
        """A part's own id, made from its name where none is given, stays the same."""
        text = self._get("serial", str, hashlib.sha256(name.encode()).hexdigest()[:24])
        if not re.fullmatch(r"[0-9A-Fa-f]{24}", text):
            raise BadDevice("serial", f"{text!r} is not 24 hexadecimal digits")
        return bytes.fromhex(text)

    def options(self) -> OptionBytes:
        level = self._get("rdp", int, 0)
        if level not in (0, 1):
            raise BadDevice("rdp", f"{level} is neither 0 nor 1")
        sectors = self._get("write_protected", list, [])
        if not all(isinstance(sector, int) and 0 <= sector < 256 for sector in sectors):
            raise BadDevice("write_protected", f"{sectors} is not a list of sector numbers")
        return OptionBytes(level, frozenset(sectors))

    def checksum(self, default: bool) -> ChecksumForm | None:
        unit = self._get("checksum_unit", int, 4)
        if unit not in (1, 4):
            raise BadDevice("checksum_unit", f"{unit} is neither 1 nor 4")
        form = ChecksumForm(unit, self.choice("checksum_announced", True))
        return form if self.choice("checksum", default) else None
