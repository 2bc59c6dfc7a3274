"""What a bench file says of an AVR behind a boot loader on a serial port: its profile."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..flasher import Address, Settings
from ..serial.profile import SerialProfile
from ..serial.reset_line import ResetSettings
from .parts import AvrPart


class AvrAddress(Address):
    """The serial bus is the address: one part is on it."""


class AvrEntrySettings(ResetSettings):
    """How the part comes into its loader. `touch`: the application is told to jump into the loader by opening its USB serial
    port at 1200 bit/s and closing it with DTR low; the port then vanishes and one of the loader's comes at the same USB
    place, within `touch_seconds`."""

    touch: bool = False
    touch_seconds: float = Field(default=10.0, gt=0, le=120)


class AvrUsbEntrySettings(AvrEntrySettings):
    """Of a part that is its own USB device: by the touch, and no line resets it."""

    reset: Literal["dtr", "rts", "both", "none"] = "none"
    touch: bool = True


class AvrMemorySizes(Settings):
    """The memory of a part whose signature is not among the known ones. Sizes in bytes."""

    flash: int = Field(gt=0, le=0x80_0000)
    page: int = Field(ge=16, le=1024)
    boot_size: int = Field(gt=0)
    eeprom: int = Field(default=0, ge=0, le=0x1_0000)

    @model_validator(mode="after")
    def _whole_pages(self) -> AvrMemorySizes:
        if self.page & (self.page - 1):
            raise ValueError(f"page = {self.page} is no power of two")
        if self.flash % self.page or self.boot_size % self.page:
            raise ValueError(f"flash and boot_size are multiples of page = {self.page}")
        if self.boot_size >= self.flash:
            raise ValueError(f"boot_size = {self.boot_size} leaves nothing of the flash")
        return self

    def part(self, signature: int) -> AvrPart:
        return AvrPart(signature, f"AVR 0x{signature:06X}", self.flash, self.page, self.eeprom, self.boot_size)


class AvrProfile(SerialProfile):
    """`part`: the expected part's name, or a piece of it, or its signature; "" for any. `baudrate`: of the loader, None
    for the bus's own. `app_baudrate`: of the application, None for the bus's own. `enter`: what makes the application
    jump into the loader, sent at the application's rate, "" for nothing. `boot_size`: bytes of the boot section where
    the fuses can't be asked and the loader isn't recognised. `eeprom`: whether the loader writes EEPROM, None: it is
    found out where that is possible. `answer`: seconds that the loader has for an answer, the wire's time aside."""

    part: str | int = ""
    app_baudrate: int | None = Field(default=None, gt=0)
    entry: AvrEntrySettings = AvrEntrySettings()
    enter: str = ""
    boot_size: int | None = Field(default=None, gt=0)
    memory: AvrMemorySizes | None = None
    eeprom: bool | None = None
    answer: float = Field(default=1.0, gt=0, le=60)
