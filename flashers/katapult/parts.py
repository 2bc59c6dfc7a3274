"""What is known of the microcontrollers that Katapult runs on, from parts.toml beside this file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ..errors import ProfileWrong, WrongPart
from ..memory import Erase, EraseRun, MemoryMap, Region, Watch
from ..vector_table import VectorTable
from .codec import About
from .profile import KatapultProfile

UNKNOWN_SECONDS = 8.0
"""What erasing a unit of an unknown part may take."""
BLOCK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Part:
    """One row; the file's head says what each value means. `is_described`: a person gave the erase units."""

    mcu: str
    base: int
    flash: int
    sectors: list[tuple[int, int]]
    erase_s: float
    block_s: float = BLOCK_SECONDS
    in_order: bool = False
    is_described: bool = False


@cache
def parts() -> tuple[Part, ...]:
    rows = tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))["part"]
    return tuple(Part(**row) for row in rows)


def part_of(about: About, profile: KatapultProfile) -> Part:
    """The part that a Katapult says that it is on, with what the profile says of it.

    Raises WrongPart for a part that takes blocks in order alone, ProfileWrong for an unknown one.
    """
    known = next((part for part in parts() if about.mcu.startswith(part.mcu)), None)
    if known is not None and known.in_order:
        raise WrongPart(
            f"Katapult on this {about.mcu} takes blocks from the application's start on only, so that the page by which the "
            "application starts can't be written last",
            remedy="Flash it by Katapult's own flashtool.py: proxyflash does not flash this part.",
        )
    size, page = profile.flash_size, profile.page_size
    if known is None and (size is None or page is None):
        raise ProfileWrong(
            f"nothing is known of the flash of {about.mcu!r}, which the bootloader says that it is on",
            remedy="Give page_size and flash_size in the profile, by the part's reference manual.",
        )
    base = known.base if known else about.start & 0xFF00_0000
    flash = size or (known.flash if known else 0)
    sectors = [(1, page)] if page else known.sectors if known else []
    return Part(
        about.mcu,
        base,
        flash,
        sectors,
        known.erase_s if known else UNKNOWN_SECONDS,
        known.block_s if known else UNKNOWN_SECONDS,
        is_described=page is not None,
    )


def memory_of(part: Part, about: About) -> MemoryMap:
    """The flash from the application's start on. Raises ProfileWrong where that is not at the start of an erase unit of it."""
    units: list[EraseRun] = []
    address, end = part.base, part.base + part.flash
    for size in _sizes(part.sectors):
        if address >= end:
            break
        if address >= about.start:
            units.append(EraseRun(1, min(size, end - address)))
        elif address + size > about.start:
            units.clear()
            break
        address += size
    if not units or about.start < part.base:
        raise ProfileWrong(
            f"the application begins at 0x{about.start:08X}, which is not the start of an erase unit of this {part.mcu}",
            remedy="Give page_size and flash_size in the profile, by the part's reference manual.",
        )
    region = Region(
        "flash",
        about.start,
        sum(unit.size for unit in units),
        tuple(units),
        write_alignment=about.block,
        erase=Erase.BY_WRITE,
        head=VectorTable(),
        watch=Watch.FIRST if part.is_described else Watch.NO,
    )
    return MemoryMap((region,))


def _sizes(sectors: list[tuple[int, int]]) -> Iterator[int]:
    """One after the other, the last one for ever."""
    for count, size in sectors:
        yield from (size for _ in range(count))
    while sectors:
        yield sectors[-1][1]
