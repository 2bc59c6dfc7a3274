"""`stm32-uart`: the STM32 system memory bootloader on a USART, by ST's AN3155 (the protocol) and AN2606 (the parts).

What is sent is in uart_commands.py and codec.py, how the part gets into its loader in serial/boot_pins.py, what is
known of the parts in parts.toml. Here is the order of things. Two rules. What carries no checksum on the wire and decides
what is erased (which commands there are, which part it is, how large its flash is) counts once it was read twice alike.
And since the loader acknowledges what write protection keeps it from doing (AN3155, 3.6 to 3.8: "no error is
returned"), the first unit that each erase command erases is looked at, and the image's first unit is erased alone: a
protected part is left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from ...transports.deadline import Deadline
from ...transports.serial.port import SerialPort
from ..errors import (
    OperationFailed,
    PartProtected,
    PartRefused,
    ProfileWrong,
)
from ..flasher import Capability, Digest, Identity, MemoryBootloader, Target
from ..image import Segment
from ..memory import Beside, MemoryMap, Range
from ..serial.boot_pins import BootPins
from ..serial.bootloader import SerialBootloader
from ..serial.entry import LineSettings
from ..serial.exchange import LOST
from ..serial.stable_read import read_stable
from .codec import BLOCK, WORD, Command, MassErase, crc32_mpeg2
from .erase_plan import chunks, erasures
from .parts import FLASH_START, Stm32Family, families
from .profile import EXAMPLE, Stm32Address, Stm32Profile
from .uart_commands import UNLOCK_REMEDY, Stm32Commands

BESIDE = (Beside("option bytes, OTP and system memory", 0x1FF0_0000, 0x10_0000, readable=True),)
"""Where the families have them (reference manuals, "Embedded flash memory"); some have option bytes elsewhere."""
ERASE_CHUNK_SECONDS = 0.5
"""About how long the pages of one Erase command take at most, so that progress and cancelling stay fine-grained."""
MAX_PAGES = 128
UNKNOWN_BLOCK_SECONDS = 2.0
UNKNOWN_ERASE_SECONDS = 5.0
UNKNOWN_MASS_SECONDS = 40.0
"""For a part of which only its memory is known."""
FOUND_SECONDS = 0.1
"""How long a loader has for an answer that runs already: the part is brought into it if none comes."""
LOOK = 16
"""Bytes read of what was erased, to see that it was."""
SAMPLE = 32
"""Bytes over which the loader's Get Checksum is tried."""
WRITE_PROTECTED_REMEDY = (
    "Lift its write protection, which proxyflash does not: stm32flash -u does, or ST's own tools. If it has none, the "
    "flash is worn out there."
)


class Stm32UartFlasher(SerialBootloader, MemoryBootloader):
    """One part behind a serial port."""

    protocol = "stm32-uart"
    Address = Stm32Address
    Profile = Stm32Profile

    _profile: Stm32Profile
    _entry: BootPins
    _mute = (
        "the loader's 0x7F",
        "Is BOOT0 set, and the part reset? Are its wires and its profile's entry right?",
    )

    def __init__(self, port: SerialPort, profile: Stm32Profile) -> None:
        super().__init__(port, profile)
        self._loader = Stm32Commands(port, answer=profile.answer)
        self._commands: frozenset[int] = frozenset()
        self._family: Stm32Family | None = None
        self._product = 0
        self._flash_size: int | None = None
        self._memory: MemoryMap | None = None
        self._more: bool | None = None
        self._numbers: dict[int, int] = {}
        self._erased: set[int] = set()
        self._wary = False
        """Something was erased for a second time, so it didn't hold what was written: every step is looked at."""

    def _make_entry(self) -> BootPins:
        port, profile = self._port, self._profile
        return BootPins(
            port,
            profile.entry,
            text=profile.enter,
            text_seconds=profile.answer,
            loader=LineSettings(profile.baudrate, profile.parity),
            application=LineSettings(profile.app_baudrate or port.baudrate, profile.app_parity or port.parity),
        )

    # The interface.

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        assert self._memory is not None, "connect comes first"
        return replace(self._memory, beside=BESIDE)

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        """By a mass erase where everything is to be erased, by a bank's where all of it is, else by pages."""
        done = 0
        self._wary |= any(unit.start in self._erased for unit in ranges)
        for what, units in self._erasures(ranges):
            if what is not None and self._mass_erased(what):
                self._look(units)
                done += sum(unit.size for unit in units)
                yield done
                continue
            for chunk in chunks(units, self._pages_at_once):
                self._erase_pages(chunk)
                self._look(chunk)
                done += sum(unit.size for unit in chunk)
                yield done

    def write(self, segment: Segment) -> Iterator[int]:
        step = self._family.block if self._family else BLOCK
        blank = self._blank(segment.address)
        self._changed = True
        view = memoryview(segment.data)
        for offset in range(0, len(view), step):
            data = bytes(view[offset : offset + step])
            address = segment.address + offset
            self._loader.write_memory(address, data, blank=blank, seconds=self._block_seconds)
            if self._wary:
                self._look_at_block(address, data)
            yield offset + len(data)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        for offset in range(0, size, BLOCK):
            yield self._loader.read_memory(start + offset, min(BLOCK, size - offset))

    def digest(self, start: int, size: int) -> Digest | None:
        """The loader computes over whole words; the few bytes before and after them are read, and follow in the value."""
        before, after = -start % WORD, (start + size) % WORD
        words = size - before - after
        value = self._loader.get_checksum(start + before, words) if words > 0 else None
        if value is None:
            return None
        edges = b"".join((*self.read(start, before), *self.read(start + size - after, after)))

        def compute(data: bytes) -> int:
            outside = data[:before] + data[before + words :]
            return crc32_mpeg2(data[before : before + words]) << 8 * len(outside) | int.from_bytes(outside, "big")

        return Digest("CRC-32", value << 8 * len(edges) | int.from_bytes(edges, "big"), compute)

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """The wire's time for writing and reading back, the part's typical time for programming, a quarter of its limit
        for erasing."""
        blocks = write_bytes / BLOCK
        wire = self._port.wire_seconds(int(2 * write_bytes + blocks * 24))
        if self._family is None:
            return wire
        program = write_bytes / self._family.write * self._family.program_seconds
        limits = sum(
            self._family.mass_seconds if what else len(units) * self._family.erase_seconds
            for what, units in self._erasures(erase)
        )
        return wire + program + limits / 4

    def start_application(self) -> None:
        by_reset = self._profile.boot == "reset" or (self._profile.boot == "auto" and self._entry.is_wired)
        if not (by_reset and self._entry.reset()):
            self._loader.go(FLASH_START)
        self._started()

    # Into the loader, and who it is.

    def _sync(self) -> bool:
        if self._can_reset:
            # A part that was just reset is in no command: filling one up would only spoil its bit rate.
            return self._loader.sync_started()
        if self._loader.sync():
            return True
        with suppress(*LOST):
            self._loader.resync()
            return True
        return False

    def _answers(self) -> bool:
        return self._loader.sync(FOUND_SECONDS)

    @property
    def _enters_again(self) -> bool:
        return self._can_reset

    def _find(self, deadline: Deadline) -> Identity | None:
        """By 0x7F alone: what fills up a command would be noise to another program."""
        return self._identify() if self._loader.sync() else None

    def _accept(self, identity: Identity) -> None:
        name = self._family.name if self._family else ""
        self._check_part(f"a {name or 'unknown STM32'}", name, f"0x{self._product:03X}")
        if identity.details["readout_protection"] == "on":
            raise PartProtected(
                f"the readout protection of this {identity.part} is on: its loader reads, writes and erases nothing",
                remedy=UNLOCK_REMEDY,
            )
        if self._memory is None:
            raise ProfileWrong(
                f"nothing is known of the STM32 with product id 0x{self._product:03X}",
                remedy="Give its memory in the profile, by its reference manual: one run for each size of erase unit, as in "
                f"memory = {EXAMPLE}",
            )
        self.capabilities = Capability.READ | Capability.BOOT
        if Command.GET_CHECKSUM in self._commands and self._learn_checksum():
            self.capabilities |= Capability.DIGEST

    def _identify(self) -> Identity:
        version, self._commands = read_stable(self._loader.get)
        details: dict[str, str] = {}
        if Command.GET_VERSION in self._commands:
            version, options = self._loader.get_version()
            details["option_bytes"] = options.hex(" ")
        self._product = read_stable(self._loader.get_id)
        self._family = families().get(self._product)
        uid, self._flash_size, readable = self._registers()
        if self._family is not None and readable:
            self._family = self._family.by_option(self._option_word(self._family))
        self._memory = self._make_memory() if readable else None
        self._more = None
        details |= {"product_id": f"0x{self._product:03X}", "readout_protection": "off" if readable else "on"}
        if self._memory is not None:
            details["flash"] = f"{sum(region.size for region in self._memory.regions) // 1024} KiB"
        return Identity(
            part=self._family.name if self._family else f"STM32 0x{self._product:03X}",
            serial=uid,
            bootloader=f"{version >> 4}.{version & 0xF}",
            manufacturer="ST",
            details=details,
        )

    def _make_memory(self) -> MemoryMap | None:
        """What the profile says goes before what is known; None where neither says anything."""
        own = self._profile.memory_map()
        if own is not None:
            self._numbers = self._profile.numbers()
            return own
        if self._family is None:
            return None
        self._numbers = self._family.page_numbers()
        return MemoryMap(self._family.regions(self._flash_size))

    def _registers(self) -> tuple[str, int | None, bool]:
        """Unique id, flash size in bytes (None: not known), and whether memory can be read at all.

        Read Memory is the first command that readout protection refuses (AN3155, table 2).
        """
        try:
            self._loader.read_memory(FLASH_START, 4)
        except PartProtected:
            return "", None, False
        family = self._family
        if family is None:
            return "", None, True
        with suppress(PartRefused):
            uid, kibibytes = read_stable(lambda: (self._unique_id(family), self._size_register(family)))
            size = int.from_bytes(kibibytes, "little") * 1024
            return uid.hex(), size if 0 < size <= family.flash else None, True
        return "", None, True

    def _option_word(self, family: Stm32Family) -> int:
        """Of a family whose option bytes choose its sectors; as delivered where they can't be read."""
        option = family.option
        if option is None:
            return 0
        with suppress(PartRefused):
            return read_stable(lambda: int.from_bytes(self._loader.read_memory(option.address, 4), "little"))
        return (1 - option.value) << option.bit

    def _size_register(self, family: Stm32Family) -> bytes:
        return self._register(family, family.size, 2) if family.size else b""

    def _unique_id(self, family: Stm32Family) -> bytes:
        if not family.uid:
            return b""
        data = self._register(family, family.uid, family.uid_words[-1] + 4)
        return b"".join(data[word : word + 4] for word in family.uid_words)

    def _register(self, family: Stm32Family, address: int, size: int) -> bytes:
        """Some loaders read registers only from certain addresses on."""
        before = address % family.registers_from
        return self._loader.read_memory(address - before, before + size)[before:]

    def _learn_checksum(self) -> bool:
        return self._loader.learn_checksum(FLASH_START, self._loader.read_memory(FLASH_START, SAMPLE))

    # Erasing, and looking at what became of it.

    def _erasures(self, units: Sequence[Range]) -> Iterator[tuple[MassErase | None, Sequence[Range]]]:
        return erasures(units, self.memory_map(), self._banks, mass=self._takes_mass_erase(units))

    def _takes_mass_erase(self, units: Sequence[Range]) -> bool:
        """Whether a mass erase erases these and nothing else. Parts may have more flash than they say: what lies beyond
        would go with it."""
        everything = sum(region.size for region in self.memory_map().regions)
        if not self._has_mass_erase or sum(unit.size for unit in units) != everything:
            return False
        if self._more is None:
            region = self.memory_map().regions[-1]
            try:
                self._more = not self._holds(region.end, bytes([region.erased_value]) * LOOK)
            except PartRefused:
                self._more = False
        return not self._more

    @property
    def _banks(self) -> dict[MassErase, Range]:
        if not (self._extended and self._has_mass_erase) or self._family is None or self._profile.memory:
            return {}
        found = {
            MassErase.BANK_1: self._family.bank(1, self._flash_size),
            MassErase.BANK_2: self._family.bank(2, self._flash_size),
        }
        return {what: bank for what, bank in found.items() if bank is not None}

    def _mass_erased(self, what: MassErase) -> bool:
        """False where the loader refuses it."""
        seconds = self._family.mass_seconds if self._family else UNKNOWN_MASS_SECONDS
        return self._loader.mass_erase(what, extended=self._extended, seconds=seconds)

    def _erase_pages(self, units: Sequence[Range]) -> None:
        seconds = self._family.erase_seconds if self._family else UNKNOWN_ERASE_SECONDS
        numbers = [self._numbers[unit.start] for unit in units]
        self._loader.erase_pages(numbers, extended=self._extended, seconds=seconds * len(units))

    def _look(self, erased: Sequence[Range]) -> None:
        """Looks whether the first of these units was erased, or all of them where something failed before.

        Raises PartProtected if not.
        """
        self._changed = True
        self._erased.update(unit.start for unit in erased)
        for unit in erased if self._wary else erased[:1]:
            if not self._holds(unit.start, bytes([self._blank(unit.start)]) * min(LOOK, unit.size)):
                raise PartProtected(
                    f"the loader acknowledged erasing {unit}, and nothing was erased: it is write-protected",
                    remedy=WRITE_PROTECTED_REMEDY,
                )

    def _look_at_block(self, address: int, data: bytes) -> None:
        """Raises PartProtected where the block was acknowledged and not written, OperationFailed where it is another one."""
        if self._holds(address, data):
            return
        if self._holds(address, bytes([self._blank(address)]) * len(data)):
            raise PartProtected(
                f"the loader acknowledged the block at 0x{address:08X}, and nothing was written: it is write-protected",
                remedy=WRITE_PROTECTED_REMEDY,
            )
        raise OperationFailed(f"the block at 0x{address:08X} was acknowledged, and holds something else")

    def _holds(self, address: int, data: bytes) -> bool:
        """A read that the wire garbled is no evidence: it is read once more."""
        return any(self._loader.read_memory(address, len(data)) == data for _ in range(2))

    def _blank(self, address: int) -> int:
        region = self.memory_map().region_of(address)
        return region.erased_value if region is not None else 0xFF

    # What the part and its loader can.

    @property
    def _extended(self) -> bool:
        return Command.EXTENDED_ERASE in self._commands

    @property
    def _has_mass_erase(self) -> bool:
        if self._profile.mass_erase is not None:
            return self._profile.mass_erase
        return self._family is not None and self._family.mass and not self._profile.memory

    @property
    def _pages_at_once(self) -> int:
        if self._profile.memory:
            return 1  # The engine looks what became of each.
        seconds = (self._family.erase_seconds if self._family else UNKNOWN_ERASE_SECONDS) / 10
        return max(1, min(MAX_PAGES, int(ERASE_CHUNK_SECONDS / seconds)))

    @property
    def _block_seconds(self) -> float:
        """How long programming a block may take."""
        if self._family is None:
            return UNKNOWN_BLOCK_SECONDS
        return 4 * BLOCK / self._family.write * self._family.program_seconds
