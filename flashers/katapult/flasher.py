"""Katapult: what its protocols have in common, the memory that it writes.

Katapult erases a page as the page's first block comes, and has no other way to erase one. It has no mark for a whole
application: it starts whatever begins with a word that is neither 0xFFFFFFFF nor, in later versions, 0. So the engine has
the application's first page erased before all others and written after them (`Erase.BY_WRITE`). A block that begins with
0xFFFFFFFF and goes on with zeros erases that page. A block of 0xFF would do so too, but flash with an ECC might not take
another block in its place later. Within the first page the first block is written before the others, because it would erase
them: a part whose supply fails meanwhile starts an application that is not whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import NoResponse, Step, WrongPart
from ..flasher import Capability, Identity, MemoryBootloader, Target
from ..image import Segment
from ..memory import MemoryMap, Range
from .client import Client, is_done
from .codec import AROUND, SILENCES, WORD, About, Command, size_with
from .parts import Part, memory_of, part_of
from .profile import KatapultProfile

BLANK = 0xFF
UNBOOTABLE = b"\xff" * WORD
START_TRIES = 2
"""How often COMPLETE is sent: once its answer was lost, the application hears it too."""


class KatapultMemory(MemoryBootloader):
    """A subclass brings the part into its bootloader, and has `_client`, `_profile` and `_changed`."""

    silences = SILENCES
    _client: Client
    _profile: KatapultProfile
    _changed: bool
    _about: About | None = None
    _part: Part | None = None
    _map: MemoryMap | None = None
    _unended = False
    """Whether blocks were sent and no EOF after them: some bootloaders keep the last ones until then."""

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        assert self._map is not None, "connect comes first"
        return self._map

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        done = 0
        for unit in ranges:
            is_head = unit.start == self._known.start
            block = (UNBOOTABLE if is_head else b"").ljust(self._known.block, b"\0" if is_head else b"\xff")
            self._send(unit.start, block)
            self._end()
            done += unit.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        block = self._known.block
        firsts = {unit.start for unit in self.memory_map().regions[0].erase_units(segment.address, segment.end)}
        for offset in range(0, segment.size, block):
            address = segment.address + offset
            data = bytes(segment.data[offset : offset + block]).ljust(block, b"\xff")
            if address in firsts or data.count(BLANK) != block:
                self._send(address, data, is_first=address in firsts)
            yield min(offset + block, segment.size)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        self._end()
        block = self._known.block
        for address in range(start - start % block, start + size, block):
            data = self._client.request_block(address, block)
            yield data[max(0, start - address) : max(0, start + size - address)]

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """The wire's time for writing and reading back, and a quarter of the limit for erasing."""
        block, link = self._known.block, self._client.link
        each = link.seconds(AROUND + WORD + block) + link.seconds(size_with(WORD))
        each += link.seconds(AROUND + WORD) + link.seconds(size_with(WORD + block))
        units = self.memory_map().regions[0].units
        erased = write_bytes / max(unit.size for unit in units) + len(erase)
        return each * write_bytes / block + erased * (self._part.erase_s if self._part else 0.0) / 4

    def start_application(self) -> None:
        self._end()
        try:
            self._client.request(Command.COMPLETE, tries=START_TRIES)
        except NoResponse:
            if not is_done(Step.START):
                raise
        self._restarted()

    # For the subclasses.

    def _restarted(self) -> None:
        """COMPLETE was sent."""

    def _identified(self, about: About) -> Identity:
        self._about = about
        details = {"protocol version": about.protocol, "application": f"0x{about.start:08X}"}
        return Identity(part=about.mcu, bootloader=about.software, details=details)

    def _judged(self, about: About) -> None:
        """Raises WrongPart, ProfileWrong."""
        wanted = self._profile.part
        if wanted.lower() not in about.mcu.lower():
            raise WrongPart(f"the part is {about.mcu}, the profile wants {wanted}")
        self._part = part_of(about, self._profile)
        self._map = memory_of(self._part, about)
        self.capabilities = Capability.READ | Capability.BOOT

    @property
    def _known(self) -> About:
        assert self._about is not None, "connect comes first"
        return self._about

    def _send(self, address: int, data: bytes, *, is_first: bool = True) -> None:
        assert self._part is not None
        self._client.send_block(address, data, self._part.erase_s if is_first else self._part.block_s)
        self._changed = self._unended = True

    def _end(self) -> None:
        if self._unended:
            assert self._part is not None
            self._client.request(Command.EOF, seconds=self._part.erase_s)
            self._unended = False
