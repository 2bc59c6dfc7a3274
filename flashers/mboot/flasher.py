"""MBoot: what its protocols have in common, the memory that it erases, writes and reads.

The bootloader reports where its flash is, and which of it the bootloader itself fills: that is not part of the memory here. It
starts whatever begins with a stack pointer and a reset vector, so the engine erases the image's first unit before all others and
writes it last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from ..errors import PartProtected, ProfileWrong, WrongPart
from ..flasher import Bootloader, Capability, Identity, MemoryAccess, SlotAccess, Target
from ..image import Segment
from ..memory import EraseRun, MemoryMap, Range, Region
from ..memory_runs import regions
from ..vector_table import VectorTable
from .client import LOST, UNLOCK_REMEDY, Client
from .codec import (
    AROUND,
    LEAST_PACKET,
    MOST_PACKET,
    NOT_SECURE,
    SILENCES,
    Command,
    Frame,
    Property,
    short,
    version_text,
)
from .profile import EXAMPLE, MbootProfile
from .slot import SbSlot, Starting

WRITE_BYTES = 4096
"""Bytes of one WRITE MEMORY: after each the part may be stopped."""
START_TRIES = 1
"""RESET is sent once: after a second one the application would be cut."""


class MbootMemory(Bootloader, MemoryAccess):
    """A subclass brings the part into its bootloader, and has `_client`, `_profile` and `_changed`."""

    silences = SILENCES
    _client: Client
    _profile: MbootProfile
    _changed: bool
    _map: MemoryMap | None = None
    _slot: SbSlot | None = None

    def access(self) -> MemoryAccess | SlotAccess:
        if self._profile.sb:
            self._slot = self._slot or SbSlot(
                self._client, self._profile, Starting(self._let_go, self.start_application, self._restarted)
            )
            return self._slot
        return self

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        assert self._map is not None, "connect comes first"
        return self._map

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        done, memory = 0, self._profile.memory_id
        for unit in ranges:
            self._client.carry_out(
                Command.FLASH_ERASE_REGION, unit.start, unit.size, memory, seconds=self._profile.erase
            )
            self._changed = True
            done += unit.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        view = memoryview(segment.data)
        for offset in range(0, len(view), WRITE_BYTES):
            data = bytes(view[offset : offset + WRITE_BYTES])
            self._client.write_memory(segment.address + offset, data, self._profile.memory_id, self._profile.program)
            self._changed = True
            yield offset + len(data)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        yield from self._client.read_memory(start, size, self._profile.memory_id)

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """The wire's time for writing and reading back, and a tenth of the limit for erasing."""
        packet = self._client.packet
        each = self._client.link.seconds(AROUND + packet) + self._client.link.seconds(len(short(Frame.ACK)))
        return 2 * each * write_bytes / packet + len(erase) * self._profile.erase / 10

    def start_application(self) -> None:
        # It has heard RESET, or has not: what runs then is asked for.
        with suppress(*LOST):
            self._client.carry_out(Command.RESET, tries=START_TRIES)
        self._restarted()

    # For the subclasses.

    def _let_go(self) -> None:
        """The part's next reset starts its application, by whatever line there is."""

    def _restarted(self) -> None:
        """RESET was sent."""

    def ask(self) -> Identity:
        """Who a part is whose bootloader is in step. Raises PartError, TransportError."""
        client = self._client
        (version,) = client.properties(Property.BOOTLOADER_VERSION)[:1] or (0,)
        device = client.properties(Property.SYSTEM_DEVICE_ID)[:1]
        unique = client.properties(Property.UNIQUE_DEVICE_ID)
        details = {"system device id": f"0x{device[0]:08X}"} if device else {}
        return Identity(
            part=f"0x{device[0]:08X}" if device else "",
            serial="".join(f"{word:08x}" for word in unique),
            bootloader=version_text(version),
            manufacturer="NXP",
            details=details,
        )

    def _judged(self, identity: Identity) -> Identity:
        """Sets memory and capabilities. Raises WrongPart, PartProtected, ProfileWrong, PartError, TransportError."""
        client, profile = self._client, self._profile
        wanted = f"0x{profile.part:08X}" if isinstance(profile.part, int) else profile.part
        if wanted.lower() not in identity.part.lower():
            raise WrongPart(
                f"the part's system device id is {identity.part or 'not known'}, the profile wants {wanted}"
            )
        if any(state not in (0, NOT_SECURE) for state in client.properties(Property.FLASH_SECURITY_STATE)[:1]):
            raise PartProtected(
                "the part's flash security is on: its bootloader reads, writes and erases nothing", remedy=UNLOCK_REMEDY
            )
        (packet,) = client.properties(Property.MAX_PACKET_SIZE)[:1] or (LEAST_PACKET,)
        client.packet = packet if LEAST_PACKET <= packet <= MOST_PACKET else LEAST_PACKET
        if profile.sb:
            self.capabilities = Capability.BOOT
            return identity
        self._map = self._own_memory() or self._reported_memory()
        commands = client.properties(Property.AVAILABLE_COMMANDS)[:1]
        reads = not commands or bool(commands[0] >> Command.READ_MEMORY - 1 & 1)
        self.capabilities = Capability.BOOT | (Capability.READ if reads else Capability.NONE)
        flash = sum(region.size for region in self._map.regions)
        return replace(identity, details={**identity.details, "flash": f"{flash // 1024} KiB"})

    def _own_memory(self) -> MemoryMap | None:
        runs = self._profile.memory
        return MemoryMap(regions(runs, write_alignment=self._profile.write_alignment)) if runs else None

    def _reported_memory(self) -> MemoryMap:
        """The flash but what the bootloader has reserved, in whole sectors. Raises ProfileWrong."""
        client = self._client
        facts = [
            client.properties(tag)[:1]
            for tag in (Property.FLASH_START, Property.FLASH_SIZE, Property.FLASH_SECTOR_SIZE)
        ]
        start, size, sector = (values[0] if values else 0 for values in facts)
        if not size or not sector or size % sector or sector % self._profile.write_alignment or start + size > 1 << 32:
            raise ProfileWrong(
                f"the bootloader reports a flash of {size:,} bytes at 0x{start:08X} with sectors of {sector:,} bytes",
                remedy=f"Give its memory in the profile, by its reference manual: memory = {EXAMPLE}",
            )
        end = start + size
        edges = client.properties(Property.RESERVED_REGIONS)
        for first, last in zip(edges[::2], edges[1::2], strict=False):
            if first == last or last < start or first >= end:
                continue
            if first <= start:
                start = last + sector - (last - start) % sector
            else:
                end = first - (first - start) % sector
        if start >= end:
            raise ProfileWrong("the bootloader says that all of the flash is its own")
        head = VectorTable()
        units = (EraseRun((end - start) // sector, sector),)
        region = Region("flash", start, end - start, units, write_alignment=self._profile.write_alignment, head=head)
        return MemoryMap((region,))
