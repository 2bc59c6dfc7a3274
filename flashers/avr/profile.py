"""What a bench file says of an AVR behind a boot loader on a serial port: its profile."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ..flasher import Address
from ..formats import avr_memories
from ..memory_runs import MemoryRun, check_apart, listed
from ..serial.profile import SerialProfile
from ..serial.reset_line import ResetSettings
from .parts import AvrPart

MOST_FLASH, MOST_EEPROM = 0x80_0000, 0x1_0000
EXAMPLE = (
    "[{start = 0, size = 0x7800, erase_unit = 128}, {start = 0x7800, size = 0x800, erase_unit = 128, boot = true}, "
    "{start = 0x81_0000, size = 1024, erase_unit = 1}]"
)


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


class AvrMemoryRun(MemoryRun):
    """A run of pages, of a part whose signature is not among the known ones. Flash begins at 0, EEPROM at 0x810000.

    `erase_unit`: bytes of a flash page; of EEPROM 1. `boot`: the boot section, which is never written.
    """

    boot: bool = False

    @property
    def is_eeprom(self) -> bool:
        return self.start == avr_memories.EEPROM

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        page = self.erase_unit
        if self.is_eeprom:
            if self.size > MOST_EEPROM or self.boot:
                raise ValueError(f"EEPROM has at most {MOST_EEPROM} bytes, and no boot section")
        elif self.end > MOST_FLASH:
            raise ValueError(f"flash lies below 0x{MOST_FLASH:X}, and EEPROM begins at 0x{avr_memories.EEPROM:X}")
        elif page & (page - 1) or not 16 <= page <= 1024:
            raise ValueError(f"erase_unit = {page} is no page of flash: a power of two from 16 to 1024")
        return self


def _listed(value: object) -> object:
    return listed(value, EXAMPLE)


class AvrProfile(SerialProfile):
    """`part`: the expected part's name, or a piece of it, or its signature; "" for any. `baudrate`: of the loader, None
    for the bus's own. `app_baudrate`: of the application, None for the bus's own. `enter`: what makes the application
    jump into the loader, sent at the application's rate, "" for nothing. `boot_size`: bytes of the boot section where
    the fuses can't be asked and the loader isn't recognised. `memory`: its runs of pages, for a part that isn't known.
    `eeprom`: whether the loader writes EEPROM, None: it is found out where that is possible. `answer`: seconds that the
    loader has for an answer, the wire's time aside."""

    part: str | int = ""
    app_baudrate: int | None = Field(default=None, gt=0)
    entry: AvrEntrySettings = AvrEntrySettings()
    enter: str = ""
    boot_size: int | None = Field(default=None, gt=0)
    memory: Annotated[tuple[AvrMemoryRun, ...], BeforeValidator(_listed)] = ()
    eeprom: bool | None = None
    answer: float = Field(default=1.0, gt=0, le=60)

    @model_validator(mode="after")
    def _memory_holds(self) -> Self:
        flash = self._flash_runs
        end = 0
        for run in flash:
            if run.start != end:
                raise ValueError(f"the runs of flash follow one another from 0 on; none begins at 0x{end:X}")
            if run.erase_unit != flash[0].erase_unit or (run.boot and run is not flash[-1]):
                raise ValueError("flash has pages of one size, and its boot section last")
            end = run.end
        check_apart(self.memory)
        if self.memory and not flash:
            raise ValueError("memory has no run of flash")
        if flash and flash[-1].boot and self.boot_size not in (None, flash[-1].size):
            raise ValueError(f"boot_size is {self.boot_size}, and the run with boot = true has {flash[-1].size} bytes")
        if flash and (len(flash) == 1 if flash[-1].boot else not 0 < (self.boot_size or 0) < end):
            raise ValueError("the last run of flash has boot = true, behind one for the application; or give boot_size")
        return self

    @property
    def _flash_runs(self) -> list[AvrMemoryRun]:
        return sorted((run for run in self.memory if not run.is_eeprom), key=lambda run: run.start)

    @property
    def given_boot_size(self) -> int | None:
        """Bytes; None: not said."""
        flash = self._flash_runs
        return flash[-1].size if flash and flash[-1].boot else self.boot_size

    def described(self, signature: int) -> AvrPart | None:
        """The part that `memory` describes; None where it isn't given."""
        flash, boot = self._flash_runs, self.given_boot_size
        if not flash or boot is None:
            return None
        eeprom = sum(run.size for run in self.memory if run.is_eeprom)
        page = flash[0].erase_unit
        return AvrPart(signature, f"AVR 0x{signature:06X}", flash[-1].end, page, eeprom, -(-boot // page) * page)
