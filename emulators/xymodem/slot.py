"""The flash that a loader writes a file into, page by page as it comes, and a RAM that it loads one into before that."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ..flash import NorFlash
from .receiver import Ended


@dataclass(frozen=True, slots=True)
class LoaderPart:
    """The facts of one part and its loader: a table of loaders.toml, which says what each means."""

    name: str
    loader: str
    protocols: tuple[str, ...]
    base: int
    pages: tuple[int, int]
    program_unit: int
    program_seconds: float
    erase_seconds: float
    ram: int
    ram_size: int
    timeout: float
    asks: int


@cache
def parts() -> dict[str, LoaderPart]:
    """All parts, by name."""
    text = resources.files(__package__).joinpath("loaders.toml").read_text()
    found = {}
    for name, table in tomllib.loads(text).items():
        for key in ("protocols", "pages"):
            table[key] = tuple(table[key])
        found[name] = LoaderPart(name, **table)
    return found


class FlashSlot:
    """All of a flash. `accept`: looks at the file's first bytes before anything is erased, and raises Ended if it is not
    for this part. `judge`: whether what was written is whole, before its end is acknowledged. `at_once`: all of the
    flash is erased before the first byte, else a page when it is come to."""

    def __init__(
        self,
        flash: NorFlash,
        *,
        accept: Callable[[bytes], None] | None = None,
        judge: Callable[[], bool] = lambda: True,
        head: int = 512,
        at_once: bool = False,
    ) -> None:
        self._flash = flash
        self._accept = accept
        self._judge = judge
        self._head = head
        self._at_once = at_once
        self._waiting = b""
        self._position = flash.base
        self._erased_to = flash.base
        self.name = ""
        self.received = 0

    def begin(self, name: str, size: int | None) -> None:
        """Raises Ended where the file is too large."""
        self.name = name
        if size is not None and size > self._flash.size:
            raise Ended("full")
        if self._at_once:
            self._erase_up_to(self._flash.end)

    def take(self, data: bytes) -> None:
        self.received += len(data)
        self._waiting += data
        if self._accept is None or self.received >= self._head:
            self._look()
            self._program(len(self._waiting) // self._flash.program_unit * self._flash.program_unit)

    def finish(self) -> None:
        """What is left is filled up and programmed. Raises Ended."""
        self._look()
        self._waiting += bytes([self._flash.erased]) * (-len(self._waiting) % self._flash.program_unit)
        self._program(len(self._waiting))
        if not self._judge():
            raise Ended("verify")

    def _look(self) -> None:
        if self._accept is not None:
            accept, self._accept = self._accept, None
            accept(self._waiting)

    def _program(self, count: int) -> None:
        if self._position + count > self._flash.end:
            raise Ended("full")
        data, self._waiting = self._waiting[:count], self._waiting[count:]
        self._erase_up_to(self._position + count)
        if data:
            self._flash.program(self._position, data)
        self._position += count

    def _erase_up_to(self, end: int) -> None:
        while self._erased_to < end:
            start, size = self._flash.unit_of(self._erased_to)
            self._flash.erase(start)
            self._erased_to = start + size


class RamSlot:
    """A RAM of `size` bytes from `base` on."""

    def __init__(self, base: int, size: int) -> None:
        self.base = base
        self.cells = bytearray(size)
        self.name = ""
        self.received = 0

    def begin(self, name: str, size: int | None) -> None:
        self.name = name
        self.received = 0

    def take(self, data: bytes) -> None:
        end = self.received + len(data)
        if end > len(self.cells):
            raise Ended("full")
        self.cells[self.received : end] = data
        self.received = end

    def finish(self) -> None:
        """It is all there."""
