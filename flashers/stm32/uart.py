"""`stm32-uart`: the STM32 system memory bootloader on a USART, by ST's AN3155 (the protocol) and AN2606 (the parts).

What is sent is in uart_commands.py and codec.py, how the part gets into its loader in serial/boot_pins.py, which part it
is in identity.py, how it is erased in eraser.py. Here is the order of things. Two rules. What carries no checksum on the
wire and decides what is erased (which commands there are, which part it is, how large its flash is) counts once it was
read twice alike. And since the loader acknowledges what write protection keeps it from doing (AN3155, 3.6 to 3.8: "no
error is returned"), the first unit that each erase command erases is looked at, and the image's first unit is erased
alone: a protected part is left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ...transports.deadline import Deadline
from ...transports.serial.port import SerialPort
from ..errors import PartProtected, ProfileWrong
from ..flasher import Capability, Digest, Identity, MemoryBootloader, Target
from ..image import Segment
from ..memory import Beside, MemoryMap, Range
from ..serial.boot_pins import BootPins
from ..serial.bootloader import SerialBootloader
from ..serial.entry import LineSettings
from ..serial.exchange import LOST
from .codec import BLOCK, SILENCES, WORD, Command, crc32_mpeg2
from .eraser import Eraser
from .identity import FoundPart, find_part
from .parts import FLASH_START, families
from .profile import EXAMPLE, Stm32Address, Stm32Profile
from .uart_commands import UNLOCK_REMEDY, Stm32Commands

if TYPE_CHECKING:
    from ..describing import Describer

BESIDE = (Beside("option bytes, OTP and system memory", 0x1FF0_0000, 0x10_0000, readable=True),)
"""Where the families have them (reference manuals, "Embedded flash memory"); some have option bytes elsewhere."""
UNKNOWN_BLOCK_SECONDS = 2.0
"""For a part of which only its memory is known."""
FOUND_SECONDS = 0.1
"""How long a loader has for an answer that runs already: the part is brought into it if none comes."""
SAMPLE = 32
"""Bytes over which the loader's Get Checksum is tried."""


class Stm32UartFlasher(SerialBootloader, MemoryBootloader):
    """One part behind a serial port."""

    protocol = "stm32-uart"
    silences = SILENCES
    Address = Stm32Address
    Profile = Stm32Profile

    _profile: Stm32Profile
    _entry: BootPins
    _mute = (
        "the loader's 0x7F",
        "Is BOOT0 set, the part reset, its wires and its profile's entry right? Spoken to at another rate, it needs a reset.",
    )

    def __init__(self, port: SerialPort, profile: Stm32Profile) -> None:
        super().__init__(port, profile)
        self._loader = Stm32Commands(port, answer=profile.answer)
        self._part: FoundPart | None = None
        self._eraser = Eraser(self._loader, profile, self._has_changed)

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import Stm32Describer

        return Stm32Describer(name)

    @classmethod
    def _part_names(cls) -> Sequence[str]:
        return [family.name for family in families().values()]

    def _has_changed(self) -> None:
        self._changed = True

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
        return replace(self._eraser.memory, beside=BESIDE)

    def check_erase(self, ranges: Sequence[Range]) -> None:
        self._eraser.check(ranges)

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        return self._eraser.erase(ranges)

    def write(self, segment: Segment) -> Iterator[int]:
        family = self._known.family
        step = family.block if family else BLOCK
        blank = self._eraser.blank(segment.address)
        self._changed = True
        view = memoryview(segment.data)
        for offset in range(0, len(view), step):
            data = bytes(view[offset : offset + step])
            address = segment.address + offset
            self._loader.write_memory(address, data, blank=blank, seconds=self._block_seconds)
            if self._eraser.is_wary:
                self._eraser.look_at_block(address, data)
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
        family = self._known.family
        if family is None:
            return wire
        program = write_bytes / family.write * family.program_seconds
        return wire + program + self._eraser.seconds_for(erase) / 4

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
            # It was in a command, where it did not answer when it was looked for.
            self._found = True
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

    def _identify(self) -> Identity:
        self._part = find_part(self._loader, self._profile)
        return self._part.identity

    def _accept(self, identity: Identity) -> None:
        part = self._known
        name = part.family.name if part.family else ""
        self._check_part(f"a {name or 'unknown STM32'}", name, f"0x{part.product:03X}")
        if not part.is_readable:
            raise PartProtected(
                f"the readout protection of this {identity.part} is on: its loader reads, writes and erases nothing",
                remedy=UNLOCK_REMEDY,
            )
        if part.memory is None:
            raise ProfileWrong(
                f"nothing is known of the STM32 with product id 0x{part.product:03X}",
                remedy="Give its memory in the profile, by its reference manual: one run for each size of erase unit, as in "
                f"memory = {EXAMPLE}",
            )
        self._eraser.found(part, part.memory)
        self.capabilities = Capability.READ | Capability.BOOT
        if Command.GET_CHECKSUM in part.commands and self._learn_checksum():
            self.capabilities |= Capability.DIGEST

    def _learn_checksum(self) -> bool:
        return self._loader.learn_checksum(FLASH_START, self._loader.read_memory(FLASH_START, SAMPLE))

    @property
    def _known(self) -> FoundPart:
        assert self._part is not None, "connect comes first"
        return self._part

    @property
    def _block_seconds(self) -> float:
        """How long programming a block may take."""
        family = self._known.family
        if family is None:
            return UNKNOWN_BLOCK_SECONDS
        return 4 * BLOCK / family.write * family.program_seconds
