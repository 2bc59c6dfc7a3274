"""An AVR as its bootloader sees it: flash by pages through SPM, EEPROM, fuses and lock bits.

Follows the ATmega328P's datasheet (chapters "Boot Loader Support" and "Memory Programming"), which the other parts share;
the facts of each are in parts.toml. Two rules of the silicon matter to whoever programs it. SPM into a section that
the lock bits keep it from does nothing, without an error; and writing a page clears bits, in a page that nobody erased
too.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ...transports import private_files
from .. import application
from ..application import Application
from ..device import BadDevice, DeviceSpec, factory_content
from ..errors import broken_state
from ..flash import NorFlash
from ..supply import Supply

BLB01, BLB11 = 0x04, 0x10
"""Lock bits: 0 keeps SPM from writing the application section, and the boot section (datasheet, tables of boot lock
bits)."""
JMP = bytes.fromhex("0c 94 40 00")
"""JMP 0x40, in words (AVR instruction set manual): how a firmware for tests begins."""
NOWHERE = range(0)
"""No vector table makes a firmware without a descriptor an application."""


@dataclass(frozen=True, slots=True)
class AvrPart:
    """The facts of one part and its loader: a table of parts.toml, which says what each means. Times in seconds."""

    name: str
    loader: str
    signature: int
    flash: int
    page: int
    eeprom: int
    nrww: int
    boot: int
    begins: str
    fuses: tuple[int, int, int]
    lock: int
    baudrate: int
    version: tuple[int, int]
    led_seconds: float
    window: float
    patience: float
    startup_seconds: float
    page_seconds: float
    eeprom_seconds: float

    @property
    def signature_bytes(self) -> bytes:
        """In the order of their addresses."""
        return self.signature.to_bytes(3, "big")

    @property
    def loader_code(self) -> bytes:
        """What its boot section holds: how the loader begins, and bytes that look like code."""
        begins = bytes.fromhex(self.begins)
        return begins + random.Random(self.name).randbytes(self.flash - self.boot - len(begins))


@cache
def parts() -> Mapping[str, AvrPart]:
    """All parts, by name."""
    text = resources.files(__package__).joinpath("parts.toml").read_text()
    return {name: _part(name, table) for name, table in tomllib.loads(text).items()}


def _part(name: str, table: dict[str, Any]) -> AvrPart:
    for key in ("fuses", "version"):
        table[key] = tuple(table[key])
    return AvrPart(name, **table)


class AvrMemory:
    """All memories of one part.

    `path`: the file of the flash contents, beside which `<stem>.eeprom` and `<stem>.lock` keep the rest; None: all are
    kept in memory. `lock`: the lock bits of a part that has no file yet. `busy`, `eeprom_busy`: see NorFlash.
    """

    def __init__(
        self,
        part: AvrPart,
        supply: Supply,
        *,
        lock: int,
        path: Path | None = None,
        busy: Callable[[float], None] = lambda seconds: None,
        eeprom_busy: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.part = part
        self.flash = NorFlash(
            0,
            [(part.flash // part.page, part.page)],
            supply,
            program_unit=part.page,
            path=path,
            strict=False,
            erase_seconds=lambda size: part.page_seconds,
            program_seconds=part.page_seconds,
            busy=busy,
        )
        self.eeprom = NorFlash(
            0,
            [(part.eeprom, 1)],
            supply,
            path=None if path is None else path.with_suffix(".eeprom"),
            erase_seconds=lambda size: part.eeprom_seconds / 2,
            program_seconds=part.eeprom_seconds / 2,
            busy=eeprom_busy,
        )
        self._lock_path = None if path is None else path.with_suffix(".lock")
        self.lock = lock
        if self._lock_path is not None:
            with suppress(FileNotFoundError):
                text = private_files.read(self._lock_path)
                try:
                    (self.lock,) = bytes.fromhex(text.decode("ascii"))
                except ValueError:
                    raise broken_state(self._lock_path) from None
        self._page: dict[int, int] = {}

    def leave_the_factory(self, spec: DeviceSpec, *, fresh: bool) -> None:
        """Its boot section holds a loader, and its application section what the settings say. Raises BadDevice."""
        if fresh:
            self.flash.load(self.part.boot, self.part.loader_code)
            factory_content(spec, self.flash, fresh=True)
            if self.flash.read(self.part.boot, len(self.part.loader_code)) != self.part.loader_code:
                raise BadDevice("firmware", f"it does not fit below the boot section at 0x{self.part.boot:X}")

    # The page buffer, and what SPM does with it.

    def fill(self, address: int, data: bytes) -> None:
        """Into the page buffer, at this place of a page. A place that was filled before stays as it is."""
        for offset, byte in enumerate(data):
            self._page.setdefault((address + offset) % self.part.page, byte)

    def erase_page(self, address: int) -> None:
        """Raises PowerLost."""
        if self._spm_may_write(address):
            self.flash.erase(self._page_of(address))

    def write_page(self, address: int) -> None:
        """Writes the page buffer, which is blank afterwards. Raises PowerLost."""
        data = bytes(self._page.get(offset, 0xFF) for offset in range(self.part.page))
        self._page.clear()
        if self._spm_may_write(address):
            self.flash.program(self._page_of(address), data)

    def set_lock(self, bits: int) -> None:
        """Lock bits that are 0 here are programmed; only a chip erase from outside takes that back."""
        self.lock &= bits
        if self._lock_path is not None:
            private_files.put(self._lock_path, f"{self.lock:02x}\n".encode())

    def _spm_may_write(self, address: int) -> bool:
        return bool(self.lock & (BLB11 if self._page_of(address) >= self.part.boot else BLB01))

    def _page_of(self, address: int) -> int:
        """Bits of the address beyond the flash don't count."""
        return address % self.part.flash // self.part.page * self.part.page

    # Reading, and the EEPROM.

    def read(self, address: int, size: int) -> bytes:
        """Beyond the end it goes on at the start."""
        start = address % self.part.flash
        return (self.flash.read(start, self.part.flash - start) + self.flash.read(0, start))[:size].ljust(size, b"\xff")

    def read_eeprom(self, address: int, size: int) -> bytes:
        return b"".join(self.eeprom.read((address + offset) % self.part.eeprom, 1) for offset in range(size))

    def write_eeprom(self, address: int, data: bytes) -> None:
        """Each byte is erased and written. Raises PowerLost."""
        for offset, byte in enumerate(data):
            place = (address + offset) % self.part.eeprom
            self.eeprom.erase(place)
            self.eeprom.program(place, bytes([byte]))

    # What it would run.

    @property
    def runs_into_boot_section(self) -> bool:
        """Whether the reset vector leads there: blank words are passed over, and what comes first is a jump into it, or
        the boot section itself (RJMP, JMP: AVR instruction set manual)."""
        code = self.flash.read(0, self.part.boot)
        start = (len(code) - len(code.lstrip(b"\xff"))) // 2 * 2
        if start >= self.part.boot:
            return True
        first, second = (int.from_bytes(code[start + at : start + at + 2], "little") for at in (0, 2))
        if first & 0xFE0E == 0x940C:
            target = 2 * ((first >> 4 & 0x1F) << 17 | (first & 1) << 16 | second)
        elif first & 0xF000 == 0xC000:
            words = (first & 0xFFF) - (0x1000 if first & 0x800 else 0)
            target = (start + 2 + 2 * words) % self.part.flash
        else:
            return False
        return self.part.boot <= target < self.part.flash

    @property
    def starts_blank(self) -> bool:
        """Its first word is: what loaders look at to see whether there is an application."""
        return self.flash.read(0, 2) == b"\xff\xff"

    def application(self) -> Application | None:
        """What runs from the reset vector on; None: nothing whole, or nothing that is known here.

        An AVR starts whatever there is. Flash without a descriptor looks like a torn application, and is taken for one.
        """
        return application.find(self.flash, 0, ram=NOWHERE)


def firmware(version: str, product: str, manufacturer: str, size: int, *, seed: int = 0) -> bytes:
    """A firmware of `size` bytes for tests, as `application.make` has it, that begins as an AVR's program does."""
    return application.make(version, product, manufacturer, size, seed=seed, vectors=JMP)
