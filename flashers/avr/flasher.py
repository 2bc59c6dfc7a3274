"""`AvrFlasher`: an AVR behind a bootloader on a serial port, whatever that loader speaks.

The base of `stk500v1`, `stk500v2` and `avr109`, which bring an `AvrLoader`. Three rules. The boot section is never
written: where it begins is found out before the memory map is given, and `write` takes no address in it.
While not all pages of an image are there, the first one starts nothing (boot_section.parked), so that a cut leaves no
mixture that runs. And since nothing on this wire carries a checksum but stk500v2's messages, what decides where
is written counts once it was read twice alike, and everything is read back. What the part has is in identity.py.

EEPROM has the addresses that avr-libc's linker scripts give it, from 0x810000 on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import ClassVar, TypeVar

from ...transports.deadline import Deadline
from ...transports.errors import SerialGone, SerialTimeout
from ...transports.serial.port import SerialPort
from ..errors import ImageWrongPart, PartRefused, ProfileWrong, ProtocolError, Unsupported, check_part
from ..flasher import Capability, Identity, MemoryBootloader, Target
from ..image import Segment
from ..memory import MemoryMap, Range
from ..retries import retried
from ..serial.bootloader import SerialBootloader
from ..serial.exchange import LOST
from ..serial.stable_read import read_stable
from ..settings import Settings
from . import boot_section
from .entry import AvrEntry
from .identity import EEPROM_START, FoundPart, learn
from .loader import AvrLoader, MemoryKind
from .parts import parts
from .profile import EXAMPLE, AvrAddress, AvrProfile

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
        "the first command to its bootloader",
        "Are its wires, its rate and its profile's entry right? Without a line to its reset: reset it, and start at once.",
    )

    def __init__(self, port: SerialPort, profile: AvrProfile) -> None:
        super().__init__(port, profile)
        self._loader = self.make_loader(port, profile)
        self._found_part: FoundPart | None = None
        self._is_parked = False

    @classmethod
    def _part_names(cls) -> Sequence[str]:
        return [part.name for part in parts().values()]

    @classmethod
    @abstractmethod
    def make_loader(cls, port: SerialPort, profile: AvrProfile) -> AvrLoader: ...

    def _make_entry(self) -> AvrEntry:
        return AvrEntry(self._port, self._profile)

    # The interface.

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        """Of files, ELF and MCUboot images say what they are for."""
        target = target or {}
        if "image_hash" in target:
            raise ImageWrongPart(
                "the file is an MCUboot image, and the bootloader of an AVR starts the bare program",
                remedy="Give the program itself: the .hex or .elf of the build.",
            )
        machine = target.get("machine", AVR)
        if machine != AVR:
            raise ImageWrongPart(f"the file is built for {machine}, and the part is an AVR ({AVR})")
        return self._known.memory_map(self._loader)

    def check_erase(self, ranges: Sequence[Range]) -> None:
        loader = self._loader
        if loader.erases_pages and loader.erases_in_order and ranges and ranges[0].start:
            raise Unsupported(
                f"this loader erases from the first page on, and what is to be written begins at {ranges[0]}",
                remedy="Flash a file that has the whole application.",
            )

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        """Of a loader that erases pages as it writes them: writes empty ones.

        The first one is left as `parked` as long as others stay.
        """
        part = self._known.part
        done = 0
        if not self._loader.erases_pages:
            self._changed = True
            self._loader.erase_all()
            yield sum(unit.size for unit in ranges)
            return
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
        part = self._known.part
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
        step = self._loader.read_block(self._known.part)
        while address < end:
            count = min(step, end - address)
            yield self._read_block(memory, address, count)
            address += count

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """The wire's time for writing and reading back, and the part's for its pages."""
        pages = write_bytes / self._known.part.page + (len(erase) if self._loader.erases_pages else 0)
        return self._port.wire_seconds(int(2 * write_bytes + pages * 24)) + pages * PAGE_SECONDS

    def start_application(self) -> None:
        """Has the loader start the application; where it doesn't answer, a reset does, after the loader's time-out. Without a
        reset line a loader that answers late, or still, gets the command again."""
        try:
            self._loader.leave()
        except LOST:
            if not (self._entry.resets and self._entry.reset()):
                with suppress(SerialGone):  # The part's own port leaves with the loader.
                    late = self._loader.line.outwait()
                    if self._loader.sync():
                        self._loader.leave()
                    elif not late:
                        raise
        self._started()

    # Into the loader, and who it is.

    def abandon(self) -> None:
        self._found = self._found or self._entry.is_untouched
        super().abandon()

    def _sync(self) -> bool:
        return self._loader.sync()

    def _is_found(self) -> bool:
        """Of a loader that each reset starts, and that starts the application unasked, it is not asked; of a part
        on its own USB port the touch shows it."""
        return not (self._entry.resets or self._profile.entry.touch) and super()._is_found()

    def _enter(self) -> None:
        is_first = self._found is None
        super()._enter()
        self._found = self._found or (is_first and self._entry.is_untouched)

    def _find(self, deadline: Deadline) -> Identity | None:
        """A loader that answers while there is an application was just reset, as by opening the port: it gets
        the command to go on, and the application is there to be asked. Opening a part's own USB port resets nothing: a
        loader that waits there is left waiting, for its application may be half written."""
        identity = super()._find(deadline)
        by_opening = not self._profile.entry.touch
        if identity is not None and by_opening and self._found_part is not None and self._has_application():
            self._loader.leave()
            return None
        return identity

    def _accept(self, identity: Identity) -> None:
        found = self._found_part
        if found is None:
            raise ProfileWrong(
                "the bootloader's signature belongs to no AVR in the table of parts",
                remedy=f"Give its memory in the profile, by its data sheet, as in memory = {EXAMPLE}",
            )
        check_part(self._profile.part, f"an {found.part.name}", found.part.name, f"0x{found.part.signature:06X}")
        found.check_lock()
        self.capabilities = Capability.READ | Capability.BOOT

    def _leave_as_found(self, error: Exception) -> None:
        self._loader.leave()
        self._entry.await_application()

    def _identify(self) -> Identity:
        loader, profile = self._loader, self._profile
        self._found_part = None
        signature = self._again(lambda: read_stable(loader.signature), SerialTimeout)
        about = self._again(lambda: read_stable(loader.about), SerialTimeout)
        part = profile.described(signature) or parts().get(signature)
        if part is not None:
            self._found_part = self._again(lambda: learn(loader, part, profile), SerialTimeout)
        details = {"signature": f"0x{signature:06X}"}
        if self._found_part is not None:
            details |= self._found_part.details()
        return Identity(
            part=part.name if part else f"AVR 0x{signature:06X}",
            bootloader=f"{about.name} {about.version}".strip(),
            manufacturer="Microchip",
            details=details,
        )

    def _has_application(self) -> bool:
        first = self._read_block(MemoryKind.FLASH, 0, boot_section.HEAD)
        return not first.startswith(BLANK_WORD) and first != self._parked()[: boot_section.HEAD]

    def _parked(self) -> bytes:
        return boot_section.parked(self._known.part, self._known.app.end, jumps=self._loader.may_be_jumped_to)

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
        part = self._known.part
        self._again(lambda: self._loader.write(part, memory, address, data))

    def _read_block(self, memory: MemoryKind, address: int, size: int) -> bytes:
        """Addresses on the wire are those of words: an odd one is read from the byte before."""
        part = self._known.part
        odd = address % 2
        return self._again(lambda: self._loader.read(part, memory, address - odd, size + odd))[odd:]

    def _write_eeprom(self, segment: Segment) -> Iterator[int]:
        step = self._loader.eeprom_block(self._known.part)
        view = memoryview(segment.data)
        offset = 0
        while offset < len(view):
            address = segment.address - EEPROM_START + offset
            before = self._read_block(MemoryKind.EEPROM, address - 1, 1) if address % 2 else b""
            data = bytes(view[offset : offset + step - len(before)])
            self._write_block(MemoryKind.EEPROM, address - len(before), before + data)
            offset += len(data)
            yield offset

    def _again(self, action: Callable[[], T], errors: type[Exception] | tuple[type[Exception], ...] = LOST) -> T:
        """Does one block, again where the loader fell out of step: a page is written whole each time. Or asks a question.

        Without a line to its reset only a loader that answers `sync` in the middle of its work comes back.
        """

        def come_back(error: Exception) -> None:
            if isinstance(error, SerialTimeout):
                self._outwait()
            self._loader.take_care()
            if self._can_reset:
                self._enter()
            elif not self._loader.sync():
                raise error
            if self._found_part is not None:
                self._loader.prepare(self._found_part.part)

        return retried(action, TRIES, errors, come_back)

    def _outwait(self) -> None:
        self._loader.take_care()
        if not self._loader.numbers_answers and (self._can_reset or self._loader.is_patient):
            self._loader.line.outwait()

    @property
    def _known(self) -> FoundPart:
        assert self._found_part is not None, "connect comes first"
        return self._found_part

    @property
    def _erasable(self) -> Range:
        return self._known.erasable(self._loader)
