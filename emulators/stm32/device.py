"""`Stm32UartDevice`: an emulated sensor on an STM32, updated through its system-memory bootloader on a serial line.

The loader is in loader.py, the part in part.py and parts.toml; this module has the bench file's keys.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ..device import BadDevice, DeviceSpec, factory_content
from ..keys import Range, Table
from ..serial.device import UartDevice
from ..serial.keys import BootPinKeys
from ..serial.wire import UartWire
from .board import Stm32Board
from .loader import ChecksumForm, Stm32Loader
from .part import OptionBytes, Stm32Memory, parts


@dataclass(frozen=True, kw_only=True)
class Stm32PartKeys(Table):
    """The keys of an STM32 on any wire. Every method raises BadDevice."""

    part: str
    """Which part it is."""
    serial: str | None = None
    """The 96-bit unique id of the part: 24 hexadecimal digits in the order of memory. Default: made from the component's
    name."""
    firmware: str | None = None
    """Raw binary that the flash of a new part holds. A relative path starts at the bench file's folder. Default: the flash is
    erased."""
    boot0: bool = False
    """Whether BOOT0 is held high."""
    rdp: Literal[0, 1] = 0
    """Readout protection level of a new part."""
    write_protected: tuple[Annotated[int, Range(0, 255)], ...] = ()
    """Numbers of the write-protected sectors of a new part."""
    mute: bool = False
    """Whether the part never answers."""

    def uid(self, name: str) -> bytes:
        """A part's own id, made from its name where none is given, stays the same."""
        text = self.serial or hashlib.sha256(name.encode()).hexdigest()[:24]
        if not re.fullmatch(r"[0-9A-Fa-f]{24}", text):
            raise BadDevice("serial", f"{text!r} is not 24 hexadecimal digits")
        return bytes.fromhex(text)

    def options(self) -> OptionBytes:
        return OptionBytes(self.rdp, frozenset(self.write_protected))


@dataclass(frozen=True, kw_only=True)
class Stm32Keys(Stm32PartKeys, BootPinKeys):
    """The `emulated` table. Every method raises BadDevice."""

    strap: ClassVar[str] = "boot0"

    wiring: str = "none"
    """What the adapter's outputs drive: "dtr-reset,rts-boot0", "rts-reset,dtr-boot0", or one of the two alone. An asserted
    output pulls its pin low. With "!" before an output ("dtr-reset,!rts-boot0") a transistor turns that round. While no program
    has the port open, both outputs are released."""
    checksum: bool | None = None
    """Whether the bootloader has the command Get Checksum. Default: as the part."""
    checksum_unit: Literal[1, 4] = 4
    """Bytes that the size in Get Checksum counts."""
    checksum_announced: bool = True
    """Whether the bootloader sends a separate ACK before the CRC of Get Checksum."""
    byte_timeout: Annotated[float, Range(0)] = 0.0
    """Seconds after which the bootloader gives up a command whose bytes don't come, with a NACK. 0: never."""

    def checksum_form(self, default: bool) -> ChecksumForm | None:
        form = ChecksumForm(self.checksum_unit, self.checksum_announced)
        return form if (default if self.checksum is None else self.checksum) else None


class Stm32UartDevice(UartDevice):
    """One part, alone on its line.

    After a reset it starts the loader if BOOT0 is high or its flash begins with no application that can be booted,
    else the application, which answers the bench file's version question (`send`, and a line that `match` fits, such
    as "FW 1.5.0") and ignores everything else.

    Protections are kept beside the flash contents, and outlive the settings.
    """

    keys = Stm32Keys
    board: Stm32Board

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = Stm32Keys.of(spec.settings, self.part_names())
        part = parts()[settings.part]
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = Stm32Board(
            spec.name,
            self.supply,
            wire,
            settings.pins(),
            settings.sensor(spec.version),
            mute=settings.mute,
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
        silence = settings.byte_timeout or None
        checksum = settings.checksum_form(part.checksum)
        self.memory = memory
        self.flash = memory.flash
        factory_content(spec, self.flash, fresh=fresh)
        self.board.memory = memory
        self.board.loader = Stm32Loader(self.board, memory, checksum=checksum, silence=silence).run
        self.board.start()

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

    def reset(self) -> None:
        self.board.reset()
