"""A NOR-flash memory that refuses what real flash refuses, counts its operations, and can lose its supply at each.

The model: erasing sets a whole erase unit to the erased value; programming only clears bits, in whole program units, in
place that is erased. An operation is the erasing of one unit or the programming of one program unit. A cut during an
operation leaves it torn: an erase has cleared part of the unit, a program has cleared some of the bits it should have.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from ..transports import private_files
from .supply import PowerLost, Supply


class FlashRefused(Exception):
    """The memory refuses an operation, and is as before. `reason`: "range", "alignment" or "not erased"."""

    def __init__(self, reason: str, address: int) -> None:
        super().__init__(f"{reason} at 0x{address:08X}")
        self.reason = reason
        self.address = address


class NorFlash:
    """A flash memory of `units` (count, bytes), from address `base` on.

    `program_unit`: bytes that are programmed at once (a power of two). `erase_seconds`: for each unit, a function of
    its size in bytes; `program_seconds`: for each program unit. `busy` is called with the seconds that an operation takes
    (a board's `busy`; the default takes none). `path`: the file that keeps the contents, made if it isn't there; None:
    they are kept in memory. `strict`: programming over programmed bits is refused; without it bits are cleared as the
    cells do (NOR flash without an ECC).
    """

    @classmethod
    def of_part(cls, part: Mapping[str, Any], supply: Supply, path: Path | None) -> Self:
        """As a table of a family's parts.toml has it; `sectors` are [count, bytes]."""
        return cls(
            part["base"],
            [(count, size) for count, size in part["sectors"]],
            supply,
            program_unit=part["program_unit"],
            program_seconds=part["program_seconds"],
            erase_seconds=lambda size: float(part["erase_seconds"]),
            path=path,
        )

    def __init__(
        self,
        base: int,
        units: Sequence[tuple[int, int]],
        supply: Supply,
        *,
        program_unit: int = 1,
        erased: int = 0xFF,
        path: Path | None = None,
        strict: bool = True,
        erase_seconds: Callable[[int], float] = lambda size: 0.0,
        program_seconds: float = 0.0,
        busy: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.base = base
        self.size = sum(count * size for count, size in units)
        self.supply = supply
        self.program_unit = program_unit
        self.erased = erased
        self.strict = strict
        self.erases = 0
        self.programs = 0
        self._erase_seconds = erase_seconds
        self._program_seconds = program_seconds
        self.busy = busy
        self._starts: list[tuple[int, int]] = []
        start = base
        for count, size in units:
            for _ in range(count):
                self._starts.append((start, size))
                start += size
        self._cells = self._open(path)

    def _open(self, path: Path | None) -> mmap.mmap:
        if path is None:
            cells = mmap.mmap(-1, self.size)
            cells[:] = bytes([self.erased]) * self.size
            return cells
        with private_files.told(path):
            private_files.folder(path.parent)
            number = private_files.opened(path, os.O_RDWR | os.O_CREAT)
            with os.fdopen(number, "r+b") as file:
                if os.fstat(number).st_size != self.size:
                    self._blank(file, path)
                return mmap.mmap(number, self.size)

    def _blank(self, file: BinaryIO, path: Path) -> None:
        """A file that has no room for the whole memory is removed: it would be taken for a memory that was used before."""
        try:
            file.truncate(0)
            file.write(bytes([self.erased]) * self.size)
            file.flush()
        except OSError:
            path.unlink()
            raise

    @property
    def end(self) -> int:
        return self.base + self.size

    def unit_of(self, address: int) -> tuple[int, int]:
        """The erase unit that holds this address: its start and size."""
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            if self._starts[middle][0] <= address:
                low = middle
            else:
                high = middle
        start, size = self._starts[low]
        if not start <= address < start + size:
            raise FlashRefused("range", address)
        return start, size

    def unit(self, index: int) -> tuple[int, int]:
        """Erase unit number `index`: its start and size."""
        if not 0 <= index < len(self._starts):
            raise FlashRefused("range", self.end)
        return self._starts[index]

    @property
    def unit_count(self) -> int:
        return len(self._starts)

    def read(self, address: int, size: int) -> bytes:
        """Raises FlashRefused outside of the memory."""
        if address < self.base or address + size > self.end or size < 0:
            raise FlashRefused("range", address)
        offset = address - self.base
        return self._cells[offset : offset + size]

    def load(self, address: int, data: bytes) -> None:
        """Puts bytes there as a factory does: no rules, no time, no count."""
        if address < self.base or address + len(data) > self.end:
            raise FlashRefused("range", address)
        offset = address - self.base
        self._cells[offset : offset + len(data)] = data

    def erase(self, address: int) -> None:
        """Erases the unit that holds this address. Raises FlashRefused, PowerLost."""
        start, size = self.unit_of(address)
        offset = start - self.base
        if self.supply.operation():
            half = size // 2
            self._cells[offset : offset + half] = bytes([self.erased]) * half
            self.supply.off()
            raise PowerLost
        self._cells[offset : offset + size] = bytes([self.erased]) * size
        self.erases += 1
        self.busy(self._erase_seconds(size))

    def program(self, address: int, data: bytes) -> None:
        """Programs whole program units. Raises FlashRefused (nothing was changed), PowerLost."""
        if address < self.base or address + len(data) > self.end:
            raise FlashRefused("range", address)
        unit = self.program_unit
        if address % unit or len(data) % unit:
            raise FlashRefused("alignment", address)
        offset = address - self.base
        old = self._cells[offset : offset + len(data)]
        is_blank = old.count(self.erased) == len(old)
        if self.strict and not is_blank:
            raise FlashRefused("not erased", address)
        new = data if is_blank else bytes(before & after for before, after in zip(old, data, strict=True))
        for done in range(0, len(new), unit):
            if self.supply.operation():
                self._tear(offset + done, old[done : done + unit], new[done : done + unit])
            self._cells[offset + done : offset + done + unit] = new[done : done + unit]
            self.programs += 1
        self.busy(self._program_seconds * (len(new) // unit))

    def _tear(self, offset: int, old: bytes, new: bytes) -> None:
        """Half of the bits that should have been cleared are; then the supply is gone."""
        torn = bytes(after | (before & 0x55) for before, after in zip(old, new, strict=True))
        self._cells[offset : offset + len(torn)] = torn
        self.supply.off()
        raise PowerLost

    def close(self) -> None:
        """The file has the contents, also for other programs. Nobody waits until they are on the disk."""
        self._cells.close()
