"""`AvrFlasher`: an AVR behind a boot loader on a serial port, whatever that loader speaks.

The base of `stk500v1`, `stk500v2` and `avr109`, which bring an `AvrLoader`. Three rules. The boot section is never
written: where it begins is found out before the memory map is given, and a page in it is no address that `write` takes.
While not all pages of an image are there, the first one starts nothing (boot_section.parked), so that a cut leaves no
mixture that runs. And since nothing on this wire carries a checksum but stk500v2's messages, what decides where
is written counts once it was read twice alike, and everything is read back.

EEPROM has the addresses that avr-libc's linker scripts give it, from 0x810000 on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import ClassVar, TypeVar

from ...transports.deadline import Deadline
from ...transports.serial.port import SerialPort
from ..errors import (
    ImageWrongPart,
    PartProtected,
    PartRefused,
    ProfileWrong,
    ProtocolError,
    Unsupported,
)
from ..flasher import Capability, Identity, MemoryBootloader, Settings, Target
from ..formats import avr_memories as avr
from ..image import Segment
from ..memory import Beside, Erase, MemoryMap, Range, Watch, uniform
from ..retries import retried
from ..serial.bootloader import SerialBootloader
from ..serial.exchange import LOST
from ..serial.stable_read import read_stable
from . import boot_section
from .entry import AvrEntry
from .loader import AvrLoader, Fuses, MemoryKind
from .parts import AvrPart, parts
from .profile import AvrAddress, AvrProfile

EEPROM_START = avr.EEPROM
AVR = "EM_AVR"
"""The machine of ELF files for these parts."""
TRIES = 3
"""How often a block is tried, where a reset brings the loader back."""
PAGE_SECONDS = 0.009
"""Erasing and writing a page: 4.5 ms each at most (data sheets, "Serial Programming Characteristics", t_WD_FLASH)."""
BLANK_WORD = b"\xff\xff"

T = TypeVar("T")


class AvrFlasher(SerialBootloader, MemoryBootloader):
    """One part behind a serial port. A class below it says which loader it speaks to."""

    Address = AvrAddress
    Profile: ClassVar[type[Settings]] = AvrProfile

    _profile: AvrProfile
    _entry: AvrEntry
    _mute = (
        "what the boot loader is greeted with",
        "Are its wires, its rate and its profile's entry right? Without a line to its reset: reset it, and start at once.",
    )

    def __init__(self, port: SerialPort, profile: AvrProfile) -> None:
        super().__init__(port, profile)
        self._loader = self.make_loader(port, profile)
        self._part: AvrPart | None = None
        self._fuses = Fuses()
        self._has_eeprom = False
        self._boot_size = 0
        self._is_parked = False

    @classmethod
    @abstractmethod
    def make_loader(cls, port: SerialPort, profile: AvrProfile) -> AvrLoader: ...

    def _make_entry(self) -> AvrEntry:
        return AvrEntry(self._port, self._profile)

    # The interface.

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        """The application section, the boot section, which is not written, and the EEPROM where the loader writes it.

        Nor is that written which the loader never erases: it could be once, and then no more. Of files, ELF and MCUboot
        images say what they are for.
        """
        target = target or {}
        if "image_hash" in target:
            raise ImageWrongPart(
                "the file is an MCUboot image, and the boot loader of an AVR starts the bare program",
                remedy="Give the program itself: the .hex or .elf of the build.",
            )
        machine = target.get("machine", AVR)
        if machine != AVR:
            raise ImageWrongPart(f"the file is built for {machine}, and the part is an AVR ({AVR})")
        part = self._known()
        app, end = self._app.end, self._erasable.end
        pages = self._loader.erases_pages
        regions = [
            uniform(
                "flash",
                0,
                end,
                part.page if pages else end,
                write_alignment=part.page,
                erase=Erase.BY_WRITE if pages else Erase.BY_UNIT,
                watch=Watch.FIRST if self._profile.memory is not None else Watch.NO,
            ),
            *([uniform("not erased by the loader", end, app - end, part.page, writable=False)] if end < app else []),
            uniform("boot section", app, self._boot_size, part.page, writable=False),
        ]
        if self._has_eeprom:
            regions.append(uniform("eeprom", EEPROM_START, part.eeprom, part.eeprom, erase=Erase.NEVER))
        return MemoryMap(tuple(regions), self._beside(part))

    def _beside(self, part: AvrPart) -> tuple[Beside, ...]:
        """Fuses, lock bits and signature, as files of avr-gcc have them. avr-libc has the signature's bytes in reverse."""
        fuses, signature = self._fuses, tuple(part.signature.to_bytes(3, "big"))
        places = [
            Beside("fuses", avr.FUSES, 3, ((fuses.low, fuses.high, fuses.extended),)),
            Beside("lock bits", avr.LOCK, 1, ((fuses.lock,),)),
            Beside("signature", avr.SIGNATURE, 3, (signature[::-1], signature), names_part=True),
        ]
        if part.eeprom and not self._has_eeprom:
            places.insert(0, Beside("eeprom", EEPROM_START, part.eeprom))
        return tuple(places)

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        """Of a loader that erases pages as it writes them: writes empty ones.

        The first one is left as `parked` as long as others stay.
        """
        part = self._known()
        done = 0
        if not self._loader.erases_pages:
            self._changed = True
            self._loader.erase_all()
            yield sum(unit.size for unit in ranges)
            return
        if self._loader.erases_in_order and ranges and ranges[0].start:
            raise Unsupported(
                f"this loader erases from the first page on, and what is to be written begins at {ranges[0]}",
                remedy="Flash a file that has the whole application.",
            )
        self._changed = True
        all_of_it = sum(unit.size for unit in ranges) == self._erasable.size
        for unit in ranges:
            for address in range(unit.start, unit.end, part.page):
                empty = b"\xff" * part.page
                if address == 0 and not all_of_it:
                    empty = self._parked()
                    self._is_parked = True
                self._write_block(MemoryKind.FLASH, address, empty)
            done += unit.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        part = self._known()
        self._changed = True
        if segment.address >= EEPROM_START:
            yield from self._write_eeprom(segment)
            return
        if segment.end > self._erasable.end:
            raise PartRefused(f"{Range(segment.address, segment.size)} reaches into what the loader is not to write")
        if segment.address == 0 and self._loader.erases_in_order:
            self._check_still_parked()
        view = memoryview(segment.data)
        for offset in range(0, len(view), part.page):
            self._write_block(MemoryKind.FLASH, segment.address + offset, bytes(view[offset : offset + part.page]))
            yield min(offset + part.page, len(view))

    def read(self, start: int, size: int) -> Iterator[bytes]:
        memory, address = (
            (MemoryKind.EEPROM, start - EEPROM_START) if start >= EEPROM_START else (MemoryKind.FLASH, start)
        )
        end = address + size
        step = self._loader.read_block(self._known())
        while address < end:
            count = min(step, end - address)
            yield self._read_block(memory, address, count)
            address += count

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """The wire's time for writing and reading back, and the part's for its pages."""
        pages = write_bytes / self._known().page + (len(erase) if self._loader.erases_pages else 0)
        return self._port.wire_seconds(int(2 * write_bytes + pages * 24)) + pages * PAGE_SECONDS

    def start_application(self) -> None:
        """Has the loader start the application; where it doesn't answer, a reset does, after the loader's time-out."""
        try:
            self._loader.leave()
        except LOST:
            if not (self._entry.resets and self._entry.reset()):
                raise
        self._entry.await_application()
        self._started()

    # Into the loader, and who it is.

    def _sync(self) -> bool:
        return self._loader.sync()

    def _is_found(self) -> bool:
        """Of a loader that each reset starts, and that gives the application the part by itself, it is not asked; of a part
        on its own USB port the touch shows it."""
        return not (self._entry.resets or self._profile.entry.touch) and super()._is_found()

    def _enter(self) -> None:
        is_first = self._found is None
        super()._enter()
        self._found = self._found or (is_first and self._entry.is_untouched)

    def _find(self, deadline: Deadline) -> Identity | None:
        """A loader that answers while there is an application is one that was just reset, as by opening the port: it is
        told to go on, and the application is there to be asked. Opening a part's own USB port resets nothing: a loader that
        waits there is left waiting, for its application may be half written."""
        identity = super()._find(deadline)
        by_opening = not self._profile.entry.touch
        if identity is not None and by_opening and self._part is not None and self._has_application():
            self._loader.leave()
            return None
        return identity

    def _accept(self, identity: Identity) -> None:
        part = self._part
        if part is None:
            raise ProfileWrong(
                "nothing is known of the AVR with the signature that the loader tells",
                remedy="Give its memory in the profile: memory = {flash = ..., page = ..., boot_size = ...}",
            )
        self._check_part(f"an {part.name}", part.name, f"0x{part.signature:06X}")
        self._check_lock()
        self.capabilities = Capability.READ | Capability.BOOT

    def _leave_as_found(self, error: Exception) -> None:
        self._loader.leave()
        self._entry.await_application()

    def _identify(self) -> Identity:
        signature = read_stable(self._loader.signature)
        about = read_stable(self._loader.about)
        own = self._profile.memory
        self._part = own.part(signature) if own is not None else parts().get(signature)
        details = {"signature": f"0x{signature:06X}"}
        if self._part is not None:
            self._learn(self._part)
            details |= {
                "flash": f"{self._part.flash // 1024} KiB",
                "boot_section": f"0x{self._app.end:05X}, {self._boot_size} bytes",
                "eeprom": f"{self._part.eeprom} bytes" if self._has_eeprom else "not by this loader",
            }
            for name in ("low", "high", "extended", "lock"):
                if (value := getattr(self._fuses, name)) is not None:
                    details["lock_bits" if name == "lock" else f"{name}_fuse"] = f"0x{value:02X}"
        return Identity(
            part=self._part.name if self._part else f"AVR 0x{signature:06X}",
            bootloader=f"{about.name} {about.version}".strip(),
            manufacturer="Microchip",
            details=details,
        )

    def _learn(self, part: AvrPart) -> None:
        """The fuses, the boot section, and whether the loader has the EEPROM."""
        self._loader.prepare(part)
        self._fuses = self._believed(part, read_stable(self._loader.fuses))
        given = self._profile.memory.boot_size if self._profile.memory else self._profile.boot_size

        def read(address: int, size: int) -> bytes:
            return read_stable(lambda: self._loader.read(part, MemoryKind.FLASH, address, size))

        self._boot_size = min(boot_section.size(part, self._fuses, given, read), part.flash - part.page)
        wanted = self._profile.eeprom
        if part.eeprom and wanted is None:
            wanted = self._tells_eeprom_from_flash(part)
        self._has_eeprom = bool(part.eeprom and wanted)

    def _believed(self, part: AvrPart, fuses: Fuses) -> Fuses:
        """A loader that is late to read them gets what the flash has at the same addresses: 0, 3, 2, and 1 for the lock
        (data sheets, "Reading the Fuse and Lock Bits from Software")."""
        first = read_stable(lambda: self._loader.read(part, MemoryKind.FLASH, 0, 4))
        return Fuses() if (fuses.low, fuses.lock, fuses.extended, fuses.high) == tuple(first) else fuses

    def _tells_eeprom_from_flash(self, part: AvrPart) -> bool:
        """Loaders without EEPROM (Optiboot as a rule) take the flash instead, for reading and for writing.

        On a part without an application both may be blank at 0: the EEPROM wraps then at the loader's own address.
        """

        def differ(start: int) -> bool:
            flash = read_stable(lambda: self._loader.read(part, MemoryKind.FLASH, start, boot_section.HEAD))
            return read_stable(lambda: self._loader.read(part, MemoryKind.EEPROM, start, boot_section.HEAD)) != flash

        with suppress(PartRefused):
            if self._loader.tells_memories_apart:
                return bool(self._loader.read(part, MemoryKind.EEPROM, 0, 2))
            return differ(0) or differ(part.flash - self._boot_size)
        return False

    def _check_lock(self) -> None:
        """Boot lock bits 0 (data sheets, "Boot Loader Lock Bits"): may the loader write the application, and read it?

        Bits 7:6 are none and read as 1; a byte without them is no lock byte.
        """
        lock = self._fuses.lock
        if lock is not None and lock >> 6 == 3 and lock >> 2 & 3 != 3:
            raise PartProtected(
                f"its lock bits, 0x{lock:02X}, keep the loader from writing or reading the application section",
                remedy="A programmer lifts them by erasing the chip, loader and all; proxyflash does not.",
            )

    def _has_application(self) -> bool:
        first = self._read_block(MemoryKind.FLASH, 0, boot_section.HEAD)
        return not first.startswith(BLANK_WORD) and first != self._parked()[: boot_section.HEAD]

    def _parked(self) -> bytes:
        return boot_section.parked(self._known(), self._app.end, jumps=self._loader.may_be_jumped_to)

    def _check_still_parked(self) -> None:
        """A loader that was reset unseen counts from 0 again: it has erased this page with what it wrote since, and none
        of the others. Raises ProtocolError."""
        if (
            self._is_parked
            and self._read_block(MemoryKind.FLASH, 0, boot_section.HEAD) != self._parked()[: boot_section.HEAD]
        ):
            raise ProtocolError("the part was reset while it was written", remedy="Run the same command again.")

    # Blocks, and the smallest safe retry.

    def _write_block(self, memory: MemoryKind, address: int, data: bytes) -> None:
        part = self._known()
        self._again(lambda: self._loader.write(part, memory, address, data))

    def _read_block(self, memory: MemoryKind, address: int, size: int) -> bytes:
        """Addresses on the wire are those of words: an odd one is read from the byte before."""
        part = self._known()
        odd = address % 2
        return self._again(lambda: self._loader.read(part, memory, address - odd, size + odd))[odd:]

    def _write_eeprom(self, segment: Segment) -> Iterator[int]:
        step = self._loader.eeprom_block(self._known())
        view = memoryview(segment.data)
        offset = 0
        while offset < len(view):
            address = segment.address - EEPROM_START + offset
            before = self._read_block(MemoryKind.EEPROM, address - 1, 1) if address % 2 else b""
            data = bytes(view[offset : offset + step - len(before)])
            self._write_block(MemoryKind.EEPROM, address - len(before), before + data)
            offset += len(data)
            yield offset

    def _again(self, action: Callable[[], T]) -> T:
        """Does one block, again where the loader fell out of step: a page is written whole each time.

        Without a line to its reset only a loader that answers `sync` in the middle of its work comes back.
        """

        def come_back(error: Exception) -> None:
            self._loader.take_care()
            if self._can_reset:
                self._enter()
            elif not self._loader.sync():
                raise error
            self._loader.prepare(self._known())

        return retried(action, TRIES, LOST, come_back)

    @property
    def _app(self) -> Range:
        return Range(0, self._known().flash - self._boot_size)

    @property
    def _erasable(self) -> Range:
        part = self._known()
        return Range(0, min(self._app.end, part.flash - self._loader.unerased(part)))

    def _known(self) -> AvrPart:
        assert self._part is not None, "connect comes first"
        return self._part
