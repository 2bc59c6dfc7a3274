"""What a bench file says of a part behind the STM32 system memory bootloader on a serial port: its profile."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..flasher import Address, Settings
from ..memory import EraseRun, Region
from ..serial.boot_pins import Output, PinSettings
from ..serial.profile import SerialProfile
from ..vector_table import VectorTable
from .codec import WORD
from .parts import FLASH_START

Parity = Literal["N", "E", "O"]


class Stm32Address(Address):
    """The serial bus is the address: one part is on it."""


class Stm32Pins(PinSettings):
    """How the modem lines bring the part into its loader: BOOT0 high while the part leaves its reset (AN2606, 4).

    `boot0`: which line drives BOOT0, "none" for by hand. `boot0_asserted`: whether the line asserted (low on the wire) is
    what selects the loader.
    """

    boot0: Output = "none"
    boot0_asserted: bool = True

    @property
    def select_line(self) -> tuple[Output, bool]:
        return self.boot0, self.boot0_asserted


class Stm32MemorySizes(Settings):
    """The flash of a part whose product id is not among the known ones. Sizes in bytes."""

    size: int = Field(gt=0, le=0x1000_0000)
    erase_unit: int = Field(gt=0)
    write_alignment: int = Field(default=8, ge=1, le=256)
    erased_value: int = Field(default=0xFF, ge=0, le=255)
    mass_erase: bool = True

    @model_validator(mode="after")
    def _whole_units(self) -> Stm32MemorySizes:
        if self.size % self.erase_unit:
            raise ValueError(f"size = {self.size} is not a multiple of erase_unit = {self.erase_unit}")
        if self.write_alignment & (self.write_alignment - 1):
            raise ValueError(f"write_alignment = {self.write_alignment} is no power of two")
        return self

    def region(self) -> Region:
        return Region(
            "flash",
            FLASH_START,
            self.size,
            (EraseRun(self.size // self.erase_unit, self.erase_unit),),
            write_alignment=max(WORD, self.write_alignment),
            erased_value=self.erased_value,
            head=VectorTable(),
        )


class Stm32Profile(SerialProfile):
    """`part`: the expected family's name, or a part of it, or the product id; "" for any. `parity`: of the loader, "N"
    for BlueNRG. `baudrate`: of the loader, None for the bus's own. `enter`: what makes the application jump into the
    loader, sent at the application's settings, "" for nothing. `boot`: how the application is started: by Go, by a
    reset through the modem lines, or by what is there ("auto": a reset where the lines drive both NRST and BOOT0, else
    Go). `app_parity`, `app_baudrate`: of the application, None for the bus's own. `answer`: seconds that the loader has
    for an answer, its work and the wire's time aside."""

    part: str | int = ""
    parity: Parity = "E"
    entry: Stm32Pins = Stm32Pins()
    enter: str = ""
    boot: Literal["auto", "go", "reset"] = "auto"
    app_parity: Parity | None = None
    app_baudrate: int | None = Field(default=None, gt=0)
    memory: Stm32MemorySizes | None = None
    answer: float = Field(default=1.0, gt=0, le=60)
