"""What a bench file says of a part behind the STM32 system memory bootloader on a serial port: its profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ..flasher import Address
from ..memory import MemoryMap
from ..memory_runs import MemoryRun, check_apart, listed, regions
from ..serial.boot_pins import Output, PinSettings
from ..serial.profile import SerialProfile
from ..vector_table import VectorTable
from .codec import WORD
from .parts import FLASH_START

LAST_UNIT = 0xFFF0
"""The highest number of an erase unit: those above mean more than one (AN3155, 3.8)."""
EXAMPLE = "[{start = 0x0800_0000, size = 0x2_0000, erase_unit = 0x800}]"
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


class Stm32MemoryRun(MemoryRun):
    """A run of erase units of a part whose product id is not among the known ones, or is wrong. Sizes in bytes.

    `number`: what Erase calls its first unit; by default the numbers count on from the run before, from 0 where the flash
    begins.
    """

    number: int | None = Field(default=None, ge=0, le=0xFFF0)
    write_alignment: int = Field(default=8, ge=WORD, le=256)
    erased_value: int = Field(default=0xFF, ge=0, le=255)

    @model_validator(mode="after")
    def _aligned(self) -> Stm32MemoryRun:
        if self.write_alignment & (self.write_alignment - 1):
            raise ValueError(f"write_alignment = {self.write_alignment} is no power of two")
        if self.start % self.write_alignment or self.erase_unit % self.write_alignment:
            raise ValueError("start and erase_unit are multiples of write_alignment")
        return self


def _numbered(runs: Sequence[Stm32MemoryRun]) -> dict[int, int]:
    """What Erase calls each unit, by its address. Raises ValueError where that isn't told, or two are called the same."""
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


class Stm32Profile(SerialProfile):
    """`part`: the expected family's name, or a part of it, or the product id; "" for any. `parity`: of the loader, "N"
    for BlueNRG. `baudrate`: of the loader, None for the bus's own. `enter`: what makes the application jump into the
    loader, sent at the application's settings, "" for nothing. `boot`: how the application is started: by Go, by a
    reset through the modem lines, or by what is there ("auto": a reset where the lines drive both NRST and BOOT0, else
    Go). `app_parity`, `app_baudrate`: of the application, None for the bus's own. `memory`: its runs of erase units, for a
    part that isn't known, or is wrongly. `mass_erase`: whether all at once may be erased where all is to be; None: where
    the part is known to have it, and `memory` isn't given. `answer`: seconds that the loader has for an answer, its work
    and the wire's time aside."""

    part: str | int = ""
    parity: Parity = "E"
    entry: Stm32Pins = Stm32Pins()
    enter: str = ""
    boot: Literal["auto", "go", "reset"] = "auto"
    app_parity: Parity | None = None
    app_baudrate: int | None = Field(default=None, gt=0)
    memory: Annotated[tuple[Stm32MemoryRun, ...], BeforeValidator(_listed)] = ()
    mass_erase: bool | None = None
    answer: float = Field(default=1.0, gt=0, le=60)

    @model_validator(mode="after")
    def _memory_holds(self) -> Stm32Profile:
        check_apart(self.memory)
        if sum(run.units.count for run in self.memory) > LAST_UNIT + 1:
            raise ValueError(f"memory has more than {LAST_UNIT + 1} erase units")
        _numbered(self.memory)
        return self

    def numbers(self) -> dict[int, int]:
        """What Erase calls each unit of `memory`, by its address."""
        return _numbered(self.memory)

    def memory_map(self) -> MemoryMap | None:
        """None where `memory` isn't given."""
        if not self.memory:
            return None
        kinds = {(run.write_alignment, run.erased_value) for run in self.memory}
        found = [
            replace(region, head=VectorTable() if region.start == FLASH_START else None)
            for alignment, erased in kinds
            for region in regions(
                [run for run in self.memory if (run.write_alignment, run.erased_value) == (alignment, erased)],
                write_alignment=alignment,
                erased_value=erased,
            )
        ]
        return MemoryMap(tuple(sorted(found, key=lambda region: region.start)))
