"""What a bench file says of an AVR behind a bootloader on a serial port: its profile."""

from __future__ import annotations

from typing import Annotated, Literal

from ...transports.serial import MOST_RATE
from ..flasher import Address
from ..formats import avr_memories
from ..memory_runs import MemoryRun, check_apart, listed
from ..serial.profile import SerialProfile
from ..serial.reset_line import ResetSettings
from ..settings import Before, Field
from .parts import AvrPart

MOST_FLASH, MOST_EEPROM = 0x80_0000, 0x1_0000
EXAMPLE = (
    "[{start = 0, size = 0x7800, erase_unit = 128}, {start = 0x7800, size = 0x800, erase_unit = 128, boot = true}, "
    "{start = 0x81_0000, size = 1024, erase_unit = 1}]"
)


class AvrAddress(Address):
    """The serial bus is the address: one part is on it."""


class AvrEntrySettings(ResetSettings):
    """How the part is brought into its bootloader."""

    touch: bool = False
    """Whether the application starts its bootloader when its USB serial port is opened at 1200 bit/s and closed with
    DTR low. The port then vanishes, and the bootloader's port comes at the same USB place."""
    touch_seconds: float = Field(default=10.0, gt=0, le=120)
    """Seconds that the bootloader's port may take to come."""


class AvrUsbEntrySettings(AvrEntrySettings):
    """Of a part that is its own USB device: by the touch, and no line resets it."""

    reset: Literal["dtr", "rts", "both", "none"] = "none"
    touch: bool = True


class AvrMemoryRun(MemoryRun):
    """A run of pages, of a part whose signature proxyflash does not know.

    Flash starts at 0, EEPROM at 0x810000 as in avr-libc. `erase_unit` is the flash page: a power of two from 16 to 1024, the
    same in all runs; 1 for EEPROM. A wrong `erase_unit` ends with E-PART-LAYOUT after the first page.
    """

    boot: bool = False
    """Whether the run is the boot section. The boot section is the last run of flash and is never written. Give
    `boot_size` if no run is the boot section."""

    @property
    def is_eeprom(self) -> bool:
        return self.start == avr_memories.EEPROM

    def check_together(self) -> None:
        super().check_together()
        page = self.erase_unit
        if self.is_eeprom:
            if self.size > MOST_EEPROM or self.boot:
                raise ValueError(f"EEPROM has at most {MOST_EEPROM} bytes, and no boot section")
        elif self.end > MOST_FLASH:
            raise ValueError(f"flash lies below 0x{MOST_FLASH:X}, and EEPROM begins at 0x{avr_memories.EEPROM:X}")
        elif page & (page - 1) or not 16 <= page <= 1024:
            raise ValueError(f"erase_unit = {page} is not a page of flash: a power of two from 16 to 1024")


def _listed(value: object) -> object:
    return listed(value, EXAMPLE)


class AvrProfile(SerialProfile):
    """How an AVR and its bootloader differ from the usual."""

    part: str | int = ""
    """The expected part: its name or a piece of the name (`"ATmega328"`), or its signature (`0x1E950F`). "": any
    part."""
    app_baudrate: int | None = Field(default=None, gt=0, le=MOST_RATE)
    """Bit rate of the application, in bit/s. Default: the bus's `baudrate`."""
    entry: AvrEntrySettings = AvrEntrySettings()
    """How the part is brought into its bootloader."""
    enter: str = ""
    """Text that makes the application start its bootloader, sent at the application's bit rate. "": nothing is sent."""
    boot_size: int | None = Field(default=None, gt=0)
    """Bytes of the boot section, if the fuses and the flash do not show it. Default: the largest boot section that
    the part can have."""
    memory: Annotated[tuple[AvrMemoryRun, ...], Before(_listed)] = ()
    """The memory of a part that proxyflash does not know, as a list of runs."""
    eeprom: bool | None = None
    """Whether the bootloader reads and writes EEPROM. Default: proxyflash finds out."""
    answer: float = Field(default=1.0, gt=0, le=60)
    """Seconds that the bootloader has for an answer. The time on the wire is added."""

    def check_together(self) -> None:
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
