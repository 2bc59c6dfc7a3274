"""The STM32 system memory bootloader on any wire (ST's AN2606): which part it is, what is erased and written, how it is verified.

What is sent is the wire's (`Stm32Loader`), which part it is in identity.py, how it is erased in eraser.py. Two rules. What
carries no checksum on the wire and decides what is erased (which commands there are, which part it is, how large its flash is)
counts once it was read twice alike. And since the loader acknowledges what write protection keeps it from doing (AN3155, 3.6 to
3.8, and AN3154: "no error is returned"), the first unit that each erase command erases is looked at, and the image's first unit
is erased alone: a protected part is left as it was.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import PartProtected, ProfileWrong, check_part
from ..flasher import Capability, Identity, MemoryBootloader, Target
from ..image import Segment
from ..memory import Beside, MemoryMap, Range
from .codec import BLOCK, SILENCES
from .eraser import Eraser
from .identity import FoundPart, find_part
from .loader import UNLOCK_REMEDY, Stm32Loader
from .profile import EXAMPLE, Stm32PartProfile

BESIDE = (Beside("option bytes, OTP and system memory", 0x1FF0_0000, 0x10_0000, readable=True),)
"""Where the families have them (reference manuals, "Embedded flash memory"); some have option bytes elsewhere."""
UNKNOWN_BLOCK_SECONDS = 2.0
"""For a part of which only its memory is known."""


class Stm32Memory(MemoryBootloader):
    """A subclass brings the part into its bootloader, and has `_profile`, `_loader`, `_eraser` and `_changed`."""

    silences = SILENCES

    _profile: Stm32PartProfile
    _loader: Stm32Loader
    _eraser: Eraser
    _changed: bool
    _part: FoundPart | None = None

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        return replace(self._eraser.memory, beside=BESIDE)

    def check_erase(self, ranges: Sequence[Range]) -> None:
        self._eraser.check(ranges)

    def suspects(self, unit: Range) -> Sequence[int]:
        return self._eraser.suspects(unit)

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

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """The wire's time for writing and reading back, the part's typical time for programming, a quarter of its limit
        for erasing."""
        wire = self._wire_seconds(write_bytes)
        family = self._known.family
        if family is None:
            return wire
        program = write_bytes / family.write * family.program_seconds
        return wire + program + self._eraser.seconds_for(erase) / 4

    # For the subclasses.

    @abstractmethod
    def _wire_seconds(self, size: int) -> float:
        """What writing that many bytes and reading them back takes on the wire."""

    def _has_changed(self) -> None:
        self._changed = True

    def _identify(self) -> Identity:
        self._part = find_part(self._loader, self._profile)
        return self._part.identity

    def _accept(self, identity: Identity) -> None:
        """Raises WrongPart, PartProtected, ProfileWrong."""
        part = self._known
        name = part.family.name if part.family else ""
        check_part(self._profile.part, f"a {name or 'unknown STM32'}", name, f"0x{part.product:03X}")
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
