"""What an AVR has, by its loader: its fuses, where its boot section begins, its EEPROM; and the memory map of all that.

What decides where is written counts once it was read twice alike.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ..errors import PartProtected, PartRefused
from ..formats import avr_memories as avr
from ..memory import Beside, Erase, MemoryMap, Range, Watch, uniform
from ..serial.stable_read import read_stable
from . import boot_section
from .loader import AvrLoader, Fuses, MemoryKind
from .parts import AvrPart
from .profile import AvrProfile

EEPROM_START = avr.EEPROM


@dataclass(frozen=True, slots=True)
class FoundPart:
    """A part that is known. `fuses`: None each where they could not be read. `has_eeprom`: the loader writes it.

    `is_given`: a person gave its sizes.
    """

    part: AvrPart
    fuses: Fuses
    boot_size: int
    has_eeprom: bool
    is_given: bool

    @property
    def app(self) -> Range:
        return Range(0, self.part.flash - self.boot_size)

    def erasable(self, loader: AvrLoader) -> Range:
        return Range(0, min(self.app.end, self.part.flash - loader.unerased(self.part)))

    def details(self) -> dict[str, str]:
        found = {
            "flash": f"{self.part.flash // 1024} KiB",
            "boot_section": f"0x{self.app.end:05X}, {self.boot_size} bytes",
            "eeprom": f"{self.part.eeprom} bytes" if self.has_eeprom else "not by this loader",
        }
        for name in ("low", "high", "extended", "lock"):
            if (value := getattr(self.fuses, name)) is not None:
                found["lock_bits" if name == "lock" else f"{name}_fuse"] = f"0x{value:02X}"
        return found

    def check_lock(self) -> None:
        """Boot lock bits 0 (data sheets, "Boot Loader Lock Bits"): may the loader write the application, and read it?

        Bits 7:6 are none and read as 1; a byte without them is not a lock byte. Raises PartProtected.
        """
        lock = self.fuses.lock
        if lock is not None and lock >> 6 == 3 and lock >> 2 & 3 != 3:
            raise PartProtected(
                f"its lock bits, 0x{lock:02X}, keep the loader from writing or reading the application section",
                remedy="A programmer lifts them by erasing the chip, loader and all; proxyflash does not.",
            )

    def memory_map(self, loader: AvrLoader) -> MemoryMap:
        """The application section, the boot section, which is not written, and the EEPROM where the loader writes it.

        Nor is that written which the loader never erases: it could be once, and then no more.
        """
        part, app, end, pages = self.part, self.app.end, self.erasable(loader).end, loader.erases_pages
        regions = [
            uniform(
                "flash",
                0,
                end,
                part.page if pages else end,
                write_alignment=part.page,
                erase=Erase.BY_WRITE if pages else Erase.BY_UNIT,
                watch=Watch.FIRST if self.is_given else Watch.NO,
            ),
            *([uniform("not erased by the loader", end, app - end, part.page, writable=False)] if end < app else []),
            uniform("boot section", app, self.boot_size, part.page, writable=False),
        ]
        if self.has_eeprom:
            regions.append(uniform("eeprom", EEPROM_START, part.eeprom, part.eeprom, erase=Erase.NEVER))
        return MemoryMap(tuple(regions), self._beside())

    def _beside(self) -> tuple[Beside, ...]:
        """Fuses, lock bits and signature, as files of avr-gcc have them. avr-libc has the signature's bytes in reverse."""
        fuses, signature = self.fuses, tuple(self.part.signature.to_bytes(3, "big"))
        places = [
            Beside("fuses", avr.FUSES, 3, ((fuses.low, fuses.high, fuses.extended),)),
            Beside("lock bits", avr.LOCK, 1, ((fuses.lock,),)),
            Beside("signature", avr.SIGNATURE, 3, (signature[::-1], signature), names_part=True),
        ]
        if self.part.eeprom and not self.has_eeprom:
            places.insert(0, Beside("eeprom", EEPROM_START, self.part.eeprom))
        return tuple(places)


def learn(loader: AvrLoader, part: AvrPart, profile: AvrProfile) -> FoundPart:
    """Asks a loader that is in step. Raises PartError, TransportError."""
    loader.prepare(part)
    fuses = _believed(loader, part, read_stable(loader.fuses))
    given = profile.given_boot_size

    def read(address: int, size: int) -> bytes:
        return _flash(loader, part, address, size)

    boot_size = min(boot_section.size(part, fuses, given, read), part.flash - part.page)
    wanted = profile.eeprom
    if part.eeprom and wanted is None:
        wanted = _tells_eeprom_from_flash(loader, part, boot_size)
    return FoundPart(part, fuses, boot_size, bool(part.eeprom and wanted), bool(profile.memory))


def _flash(loader: AvrLoader, part: AvrPart, address: int, size: int) -> bytes:
    return read_stable(lambda: loader.read(part, MemoryKind.FLASH, address, size))


def _believed(loader: AvrLoader, part: AvrPart, fuses: Fuses) -> Fuses:
    """A loader that is late to read them gets what the flash has at the same addresses: 0, 3, 2, and 1 for the lock
    (data sheets, "Reading the Fuse and Lock Bits from Software")."""
    first = _flash(loader, part, 0, 4)
    return Fuses() if (fuses.low, fuses.lock, fuses.extended, fuses.high) == tuple(first) else fuses


def _tells_eeprom_from_flash(loader: AvrLoader, part: AvrPart, boot_size: int) -> bool:
    """Loaders without EEPROM (Optiboot as a rule) take the flash instead, for reading and for writing.

    On a part without an application both may be blank at 0: the EEPROM wraps then at the loader's own address.
    """

    def differ(start: int) -> bool:
        flash = _flash(loader, part, start, boot_section.HEAD)
        return read_stable(lambda: loader.read(part, MemoryKind.EEPROM, start, boot_section.HEAD)) != flash

    with suppress(PartRefused):
        if loader.tells_memories_apart:
            return bool(loader.read(part, MemoryKind.EEPROM, 0, 2))
        return differ(0) or differ(part.flash - boot_size)
    return False
