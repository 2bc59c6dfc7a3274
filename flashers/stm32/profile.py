"""What a bench file says of a part behind the STM32 system memory bootloader: its profile, on any wire and on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from ...transports.serial import MOST_RATE
from ..can.question import CanEnter, CanVersion, QuestionAddress
from ..flasher import Address
from ..memory import MemoryMap
from ..memory_runs import MemoryRun, check_apart, listed, regions
from ..serial.boot_pins import Output, PinSettings
from ..serial.profile import SerialProfile
from ..settings import Before, Field, Settings, in_words
from ..vector_table import VectorTable
from .codec import WORD
from .parts import FLASH_START, Stm32Family

DEFAULT_ALIGNMENT = 8
"""Bytes to which writes are aligned where nothing is known of the part."""

LAST_UNIT = 0xFFF0
"""The highest number of an erase unit: those above mean more than one (AN3155, 3.8)."""
EXAMPLE = "[{start = 0x0800_0000, size = 0x2_0000, erase_unit = 0x800}]"
Parity = Literal["N", "E", "O"]


class Stm32Address(Address):
    """The serial bus is the address: one part is on it."""


class Stm32Pins(PinSettings):
    """How the modem lines bring the part into its bootloader: BOOT0 high while the part leaves its reset (AN2606, 4)."""

    boot0: Output = "none"
    """The modem line that drives BOOT0. `"none"`: a person sets BOOT0."""
    boot0_asserted: bool = True
    """Whether the asserted line (low on the wire) selects the bootloader."""

    @property
    def select_line(self) -> tuple[Output, bool]:
        return self.boot0, self.boot0_asserted


class Stm32MemoryRun(MemoryRun):
    """A run of erase units, of a part whose product id proxyflash does not know or knows wrongly."""

    number: int | None = Field(default=None, ge=0, le=0xFFF0)
    """Number of the run's first erase unit in the Erase command. Default: counts on from the run before, from 0 at
    0x08000000."""
    write_alignment: int | None = Field(default=None, ge=WORD, le=256)
    """Bytes to which each write is aligned: a power of two. Default: as the part's family is known to have it, else 8."""
    erased_value: int | None = Field(default=None, ge=0, le=255)
    """The value of an erased byte. Default: as the part's family is known to have it, else 0xFF."""

    def check_together(self) -> None:
        super().check_together()
        alignment = self.write_alignment or DEFAULT_ALIGNMENT
        if alignment & (alignment - 1):
            raise ValueError(f"write_alignment = {alignment} is not a power of two")
        if self.start % alignment or self.erase_unit % alignment:
            raise ValueError("start and erase_unit are multiples of write_alignment")

    def facts(self, family: Stm32Family | None) -> tuple[int, int]:
        """Write alignment and erased value."""
        known = family.write_alignment if family is not None else DEFAULT_ALIGNMENT
        fits = not self.start % known and not self.erase_unit % known
        alignment = self.write_alignment or (known if fits else DEFAULT_ALIGNMENT)
        usual = family.erased if family is not None else 0xFF
        return alignment, usual if self.erased_value is None else self.erased_value


def _numbered(runs: Sequence[Stm32MemoryRun]) -> dict[int, int]:
    """What Erase calls each unit, by its address. Raises ValueError where that isn't given, or two are called the same."""
    numbers: dict[int, int] = {}
    ordered = sorted(runs, key=lambda run: run.start)
    address, number = min([FLASH_START, *(run.start for run in ordered)]), 0
    for run in ordered:
        if run.number is None and run.start != address:
            raise ValueError(
                f"the run at 0x{run.start:08X} needs number: nothing lies before it that could be counted on from"
            )
        number = number if run.number is None else run.number
        for index in range(run.units.count):
            numbers[run.start + index * run.erase_unit] = number + index
        address, number = run.end, number + run.units.count
    if len(set(numbers.values())) < len(numbers) or max(numbers.values(), default=0) > LAST_UNIT:
        raise ValueError(f"two erase units have the same number, or one above {LAST_UNIT}")
    return numbers


def _listed(value: object) -> object:
    return listed(value, EXAMPLE)


class Stm32PartProfile(Settings):
    """How an STM32 differs from the usual."""

    part: str | int = ""
    """The expected part: the family's name or a piece of it (`"STM32F40x"`), or the product id (`0x413`). "": any
    part."""
    memory: Annotated[tuple[Stm32MemoryRun, ...], Before(_listed)] = ()
    """The flash of a part that proxyflash does not know, or of a clone with another flash, as a list of runs."""
    mass_erase: bool | None = None
    """Whether one command may erase the whole flash when all of it is to be erased. Default: true if the part is
    known to have the command and `memory` is not given."""
    answer: float = Field(default=1.0, gt=0, le=60)
    """Seconds that the bootloader has for an answer. The time for its work and on the wire is added."""

    def check_together(self) -> None:
        check_apart(self.memory)
        if sum(run.units.count for run in self.memory) > LAST_UNIT + 1:
            raise ValueError(f"memory has more than {LAST_UNIT + 1} erase units")
        _numbered(self.memory)

    def numbers(self) -> dict[int, int]:
        """What Erase calls each unit of `memory`, by its address."""
        return _numbered(self.memory)

    def memory_map(self, family: Stm32Family | None = None) -> MemoryMap | None:
        """None where `memory` isn't given. `family`: the part's, where it is known."""
        if not self.memory:
            return None
        kinds = {run.facts(family) for run in self.memory}
        found = [
            replace(region, head=VectorTable() if region.start == FLASH_START else None)
            for alignment, erased in kinds
            for region in regions(
                [run for run in self.memory if run.facts(family) == (alignment, erased)],
                write_alignment=alignment,
                erased_value=erased,
            )
        ]
        return MemoryMap(tuple(sorted(found, key=lambda region: region.start)))


class Stm32Profile(Stm32PartProfile, SerialProfile):
    """How an STM32 and its board differ from the usual."""

    parity: Parity = "E"
    """Parity of the bootloader: `"N"` for BlueNRG."""
    entry: Stm32Pins = Stm32Pins()
    """How the modem lines bring the part into its bootloader."""
    enter: str = ""
    """Text that makes the application start its bootloader, sent with the application's line settings. "": nothing is
    sent."""
    boot: Literal["auto", "go", "reset"] = "auto"
    """How the application is started: `"go"` by the bootloader's Go command, `"reset"` by the modem lines, `"auto"`
    by a reset if the lines drive both NRST and BOOT0, else by Go."""
    app_parity: Parity | None = None
    """Parity of the application. Default: the bus's `parity`."""
    app_baudrate: int | None = Field(default=None, gt=0, le=MOST_RATE)
    """Bit rate of the application, in bit/s. Default: the bus's `baudrate`."""


class Stm32CanAddress(QuestionAddress):
    """The bus is the address: one part on it may be in its bootloader. Which part that is to be, and how its application is asked
    for its version."""

    serial: Annotated[str, Field(pattern="^([0-9A-Fa-f]{24})?$"), in_words("24 hexadecimal digits")] = ""
    """The part's unique id, as `info` shows it. A part with another id is refused before anything is erased. "": any part."""

    def label(self) -> str:
        return self.serial

    @property
    def serial_number(self) -> str:
        return self.serial.lower()


class Stm32FdcanProfile(Stm32PartProfile):
    """How an STM32 on CAN FD differs from the usual, and how it gets into its bootloader."""

    enter: CanEnter = CanEnter()
    """The frame by which the application starts its bootloader."""
    start: float = Field(default=5.0, gt=0, le=600)
    """Seconds until the bootloader answers once the application was asked to start it."""
    version: CanVersion = CanVersion()
    """How the application is asked for its version."""


class Stm32CanProfile(Stm32FdcanProfile):
    """How an STM32 on CAN differs from the usual, and how it gets into its bootloader."""

    first_bitrate: Literal[125_000, 250_000, 500_000, 1_000_000] | None = None
    """Bit rate at which the bootloader begins, in bit/s, where it is not the bus's `bitrate`: `125_000` for ST's ROMs. The
    adapter is opened with it, and the bootloader has to change to the bus's. Other nodes on the bus are disturbed meanwhile.
    Default: the bus's `bitrate`."""
