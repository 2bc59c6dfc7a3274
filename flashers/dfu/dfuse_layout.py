"""DfuSe memory layout: the name of an alternate setting, as UM0391, 10.3.2 describes it.

    @Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg

A name after "@", then for each memory "/address/" and its runs of sectors: count, "*", size, a unit ("B" or " ": bytes,
"K", "M") and a letter whose low three bits say what the sectors take: 1 read, 2 erase, 4 write.
"""

from __future__ import annotations

import re
from itertools import pairwise

from ..errors import ProtocolError
from ..memory import Erase, EraseRun, Region
from ..vector_table import VectorTable

_ADDRESS = re.compile(r"\s*(?:0[xX])?([0-9A-Fa-f]{1,16})\s*")
_SECTORS = re.compile(r"\s*([0-9]{1,6})\s*\*\s*([0-9]{1,6})\s*([ BKM]?)([a-g])\s*")
_UNITS = {"": 1, " ": 1, "B": 1, "K": 1 << 10, "M": 1 << 20}
READABLE, ERASABLE, WRITABLE = 1, 2, 4
FLASH_START = 0x08000000
"""Where ST's parts have their flash, and their vector table."""
MAX_MEMORY = 1 << 32
MOST_CHARACTERS = 1024
"""Of a name. A string descriptor has 126 (USB 2.0, 9.6.7)."""


def parse_layout(name: str, write_alignment: int) -> list[Region]:
    """The regions of an alternate setting's name; runs that take the same are one region. Raises ProtocolError."""
    if len(name) > MOST_CHARACTERS:
        raise ProtocolError(f"the memory layout {name[:40]!r}... has {len(name):,} characters, too many for a name")
    title, *fields = name.removeprefix("@").split("/")
    if not fields or len(fields) % 2:
        raise ProtocolError(f"the memory layout {name!r} has no address and sectors after its name")
    regions: list[Region] = []
    for address, sectors in zip(fields[::2], fields[1::2], strict=True):
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise ProtocolError(f"the memory layout {name!r} has no address in {address!r}")
        start = int(match[1], 16)
        for run, kind in _runs(sectors, name):
            if regions and regions[-1].end == start and _kind(regions[-1]) == kind:
                last = regions.pop()
                regions.append(_region(title, last.start, (*last.units, run), kind, write_alignment))
            else:
                regions.append(_region(title, start, (run,), kind, write_alignment))
            start = regions[-1].end
            if start > MAX_MEMORY:
                raise ProtocolError(f"the memory layout {name!r} goes beyond 4 GiB")
    ordered = sorted(regions, key=lambda region: region.start)
    if any(one.end > other.start for one, other in pairwise(ordered)):
        raise ProtocolError(f"the memory layout {name!r} has memories that overlap")
    return regions


def _runs(sectors: str, name: str) -> list[tuple[EraseRun, int]]:
    found = []
    for text in sectors.split(","):
        match = _SECTORS.fullmatch(text)
        if match is None or not int(match[1]) or not int(match[2]):
            raise ProtocolError(f"the memory layout {name!r} has no sectors in {text!r}")
        found.append((EraseRun(int(match[1]), int(match[2]) * _UNITS[match[3]]), ord(match[4]) & 7))
    return found


def _region(title: str, start: int, units: tuple[EraseRun, ...], kind: int, write_alignment: int) -> Region:
    return Region(
        title.strip(),
        start,
        sum(run.count * run.size for run in units),
        units,
        write_alignment=write_alignment,
        readable=bool(kind & READABLE),
        writable=bool(kind & WRITABLE),
        erase=Erase.BY_UNIT if kind & ERASABLE else Erase.NEVER,
        head=VectorTable() if start == FLASH_START else None,
    )


def _kind(region: Region) -> int:
    return (READABLE * region.readable) | (ERASABLE * (region.erase is Erase.BY_UNIT)) | (WRITABLE * region.writable)
