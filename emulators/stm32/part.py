"""An STM32 as its system-memory bootloader sees it, whatever the wire: memories, protections, identity.

Follows AN2606 (system memory boot mode) and the families' reference manuals; the facts of each part are in
parts.toml. The rule: a method that changes the flash answers with what the loader would report, which for
write-protected sectors is success without effect (AN3155, sections 3.6 to 3.8: "no error is returned").
"""

from __future__ import annotations

import json
import tomllib
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import crcmod

from ...transports import json_text, private_files
from ..errors import broken_state
from ..flash import FlashRefused, NorFlash
from ..supply import Supply

MOST_OPTION_BYTES = 1 << 16
"""Of the file with the option bytes."""


@dataclass(frozen=True, slots=True)
class Area:
    """A range of addresses."""

    start: int
    size: int

    def holds(self, address: int, size: int) -> bool:
        return self.start <= address and address + size <= self.start + self.size


@dataclass(frozen=True, slots=True)
class Stm32Part:
    """The facts of one part: a table of parts.toml, which says what each means. Times in seconds."""

    name: str
    product_id: int
    erase: str
    protocol_version: int
    checksum: bool
    loader_version: Mapping[str, int]
    base: int
    sectors: tuple[Mapping[str, Any], ...]
    erased: int
    program_unit: int
    program_seconds: float
    ecc: bool
    banks: int
    protect_units: int
    ram: Area
    system: Area
    registers: Area
    read_alignment: int
    uid: tuple[int, ...]
    flash_size: int
    rdp_open: int
    mass_erase: float | None = None
    options: Area = Area(0, 0)

    @property
    def units(self) -> list[tuple[int, int]]:
        """The flash's erase units: (count, bytes)."""
        return [(sector["count"], sector["size"]) for sector in self.sectors]


@cache
def parts() -> Mapping[str, Stm32Part]:
    """All parts, by name."""
    text = resources.files(__package__).joinpath("parts.toml").read_text()
    return {name: _part(name, table) for name, table in tomllib.loads(text).items()}


def _part(name: str, table: dict[str, Any]) -> Stm32Part:
    for key in ("ram", "system", "registers", "options"):
        if key in table:
            table[key] = Area(**table[key])
    for key in ("sectors", "uid"):
        table[key] = tuple(table[key])
    return Stm32Part(name, **table)


@dataclass(frozen=True, slots=True)
class OptionBytes:
    """The option bytes: readout protection level 0 or 1, and the write-protected sectors, numbered from 0."""

    rdp: int = 0
    write_protected: frozenset[int] = frozenset()


class Stm32Memory:
    """All memories of one part.

    `path`: the file of the flash contents, beside which `<stem>.options.json` keeps the option bytes; None: both are
    kept in memory. `uid`: 12 bytes. `options`: those of a part that has no file yet. `busy`: see NorFlash.
    """

    def __init__(
        self,
        part: Stm32Part,
        supply: Supply,
        *,
        uid: bytes,
        options: OptionBytes,
        path: Path | None = None,
        busy: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.part = part
        self.flash = NorFlash(
            part.base,
            part.units,
            supply,
            program_unit=part.program_unit,
            erased=part.erased,
            path=path,
            strict=part.ecc,
            erase_seconds=self._erase_seconds,
            program_seconds=part.program_seconds,
            busy=busy,
        )
        self._numbers = {self.flash.unit(number)[0]: number for number in range(self.flash.unit_count)}
        self._ram = bytearray(part.ram.size)
        self._unit_seconds = {sector["size"]: float(sector["erase_seconds"]) for sector in part.sectors}
        self._mass_erasing = False
        self._uid = uid
        self._options_path = None if path is None else path.with_suffix(".options.json")
        self.options = self._stored_options() or options

    def forget_ram(self) -> None:
        """The supply was off."""
        self._ram[:] = bytes(len(self._ram))

    # Reading.

    def is_readable(self, address: int, size: int = 1) -> bool:
        part = self.part
        if part.registers.holds(address, size):
            return address % part.read_alignment == 0
        return self._in_flash(address, size) or any(
            area.holds(address, size) for area in (part.ram, part.system, part.options)
        )

    def read(self, address: int, size: int) -> bytes:
        """What the loader sends for a readable range."""
        if self._in_flash(address, size):
            return self.flash.read(address, size)
        ram = self.part.ram
        if ram.holds(address, size):
            return bytes(self._ram[address - ram.start : address - ram.start + size])
        return bytes(self._fixed(at) for at in range(address, address + size))

    def _fixed(self, address: int) -> int:
        """One byte of system memory, the registers or the option bytes."""
        part = self.part
        if address == part.loader_version["address"]:
            return part.loader_version["value"]
        for index, word in enumerate(part.uid):
            if word <= address < word + 4:
                return self._uid[4 * index + address - word]
        if part.flash_size <= address < part.flash_size + 2:
            return (self.flash.size // 1024).to_bytes(2, "little")[address - part.flash_size]
        if part.options.size and address == part.options.start:
            return part.rdp_open if self.options.rdp == 0 else 0xBB
        return 0xFF

    def crc(self, address: int, size: int, polynomial: int, initial: int) -> int:
        """What the CRC unit makes of these words: 32 bits, most significant first, each word as it is in a register."""
        words = array("I", self.read(address, size))
        words.byteswap()
        return int(crcmod.mkCrcFun(1 << 32 | polynomial, initial, rev=False, xorOut=0)(words.tobytes()))

    # Writing.

    def is_writable(self, address: int) -> bool:
        return self._in_flash(address, 1) or self.part.ram.holds(address, 1)

    def write(self, address: int, data: bytes) -> bool:
        """False if the flash refused it. Units that are protected are left as they are. Raises PowerLost."""
        ram = self.part.ram
        if ram.holds(address, len(data)):
            self._ram[address - ram.start : address - ram.start + len(data)] = data
            return True
        data += bytes([self.part.erased]) * (-len(data) % self.part.program_unit)
        if not self._in_flash(address, len(data)):
            return False
        try:
            while data:
                start, size = self.flash.unit_of(address)
                piece, data = data[: start + size - address], data[start + size - address :]
                if not self._is_protected(address):
                    self.flash.program(address, piece)
                address += len(piece)
        except FlashRefused:
            return False
        return True

    # Erasing.

    def erase(self, pages: Iterable[int]) -> bool:
        """Erases these units, in order; False at the first that the part hasn't. Raises PowerLost."""
        for page in pages:
            if not 0 <= page < self.flash.unit_count:
                return False
            address, _ = self.flash.unit(page)
            if not self._is_protected(address):
                self.flash.erase(address)
        return True

    def erase_all(self, bank: int | None = None) -> bool:
        """Mass erase, of bank 1 or 2 or of all; False if the loader has none. A protected sector stops it silently."""
        if self.part.mass_erase is None or (bank is not None and bank > self.part.banks):
            return False
        count = self.flash.unit_count
        share = count // self.part.banks
        pages = range(count) if bank is None else range((bank - 1) * share, bank * share)
        if not any(self._is_protected(self.flash.unit(page)[0]) for page in pages):
            self._erase_quickly(pages)
        return True

    def _erase_quickly(self, pages: Iterable[int]) -> None:
        self._mass_erasing = True
        try:
            for page in pages:
                self.flash.erase(self.flash.unit(page)[0])
        finally:
            self._mass_erasing = False

    def _erase_seconds(self, size: int) -> float:
        if self._mass_erasing and self.part.mass_erase is not None:
            return self.part.mass_erase / self.flash.unit_count
        return self._unit_seconds[size]

    # Protections.

    def protect(self, sectors: Iterable[int]) -> None:
        """Write-protects these sectors and no others (AN3155, section 3.9)."""
        self._set_options(OptionBytes(self.options.rdp, frozenset(sectors)))

    def protect_readout(self) -> None:
        self._set_options(OptionBytes(1, self.options.write_protected))

    def unprotect_readout(self) -> None:
        """Mass-erases the flash, protected sectors too, then goes back to level 0. Raises PowerLost."""
        self._erase_quickly(range(self.flash.unit_count))
        self._set_options(OptionBytes(0, self.options.write_protected))

    def _is_protected(self, address: int) -> bool:
        if not self.options.write_protected:
            return False
        unit = self._numbers[self.flash.unit_of(address)[0]]
        return unit // self.part.protect_units in self.options.write_protected

    def _in_flash(self, address: int, size: int) -> bool:
        return self.flash.base <= address and address + size <= self.flash.end

    def _stored_options(self) -> OptionBytes | None:
        if self._options_path is None or not self._options_path.exists():
            return None
        path = self._options_path
        try:
            stored = json_text.parse(private_files.read(path), most=MOST_OPTION_BYTES)
            rdp, protected = stored["rdp"], stored["write_protected"]
            if all(type(number) is int and number >= 0 for number in (rdp, *protected)):
                return OptionBytes(rdp, frozenset(protected))
        except (ValueError, TypeError, KeyError):
            pass
        raise broken_state(path)

    def _set_options(self, options: OptionBytes) -> None:
        self.options = options
        if self._options_path is not None:
            stored = {"rdp": options.rdp, "write_protected": sorted(options.write_protected)}
            private_files.put(self._options_path, (json.dumps(stored) + "\n").encode())
