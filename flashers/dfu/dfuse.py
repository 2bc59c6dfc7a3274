"""DfuSe: addressed memory by commands in block 0 and data in blocks from 2 on (UM0391, AN2662, AN3156)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import ProtocolError
from ..flasher import MemoryAccess, Target
from ..image import Segment
from ..memory import Beside, Erase, MemoryMap, Range
from .codec import FIRST_DATA_BLOCK, LAST_BLOCK, DfuSeCommand, DfuState
from .session import DfuSession


class DfuSeMemory(MemoryAccess):
    """The memories that the alternate settings' names describe."""

    def __init__(self, session: DfuSession) -> None:
        self._session = session

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        """The memories of one alternate setting: the address's, or that of an image file."""
        session = self._session
        session.check_target(target or {})
        session.take_alternate(target or {}, sorted({number for number, _ in session.regions}))
        own = tuple(region for alternate, region in session.regions if alternate == session.wanted_alternate)
        beside = tuple(
            Beside(f"{region.name}, alternate setting {alternate}", region.start, region.size, readable=region.readable)
            for alternate, region in session.regions
            if not any(region.start < mine.end and mine.start < region.end for mine in own)
        )
        return MemoryMap(own, beside, {"alt_setting": session.wanted_alternate})

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        link = self._session.link
        done = 0
        if self._is_everything(ranges):
            self._session.select(0)
            link.command(bytes([DfuSeCommand.ERASE]), "erase all of the flash")
            yield sum(item.size for item in ranges)
            return
        for item in ranges:
            self._select_for(item.start)
            payload = bytes([DfuSeCommand.ERASE]) + item.start.to_bytes(4, "little")
            link.command(payload, f"erase {item}")
            done += item.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        self._select_for(segment.address)
        link = self._session.link
        view = memoryview(segment.data)
        size = self._session.block_size
        block = LAST_BLOCK + 1
        for offset in range(0, len(view), size):
            data = bytes(view[offset : offset + size])
            if self._needs_pointing(block, len(data)):
                link.point(segment.address + offset)
                block = FIRST_DATA_BLOCK
            what = f"write 0x{segment.address + offset:08X}"
            link.download(block, data, what)
            link.settle(what, (DfuState.dfuDNLOAD_IDLE,))
            block += 1
            yield offset + len(data)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        self._select_for(start)
        link = self._session.link
        step = self._session.block_size
        block = LAST_BLOCK + 1
        for offset in range(0, size, step):
            count = min(step, size - offset)
            if self._needs_pointing(block, count):
                self._session.become_idle()
                link.point(start + offset)
                link.abort()
                block = FIRST_DATA_BLOCK
            what = f"read 0x{start + offset:08X}"
            data = link.upload(block, count, what)
            if len(data) != count:
                raise ProtocolError(f"{what}: the device sent {len(data)} of {count} bytes")
            yield data
            block += 1
        self._session.become_idle()

    def _is_everything(self, ranges: Sequence[Range]) -> bool:
        """Whether to erase these is to erase all of the flash, by one command. What a device is wrong about, or hides from
        its layout, that command may take too."""
        flash = [region for alternate, region in self._session.regions if alternate == 0]
        if (
            not self._session.profile.mass_erase
            or not self._session.tells_its_layout
            or any(region.erase is Erase.NEVER or not region.writable for region in flash)
        ):
            return False
        inside = all(any(region.start <= item.start < region.end for region in flash) for item in ranges)
        return inside and sum(item.size for item in ranges) == sum(region.size for region in flash)

    def _select_for(self, address: int) -> None:
        """The alternate setting whose memory holds an address; the wanted one if several do."""
        found = [alternate for alternate, region in self._session.regions if region.start <= address < region.end]
        if not found:
            raise ProtocolError(f"no memory of the device holds 0x{address:08X}")
        wanted = self._session.wanted_alternate
        self._session.select(wanted if wanted in found else found[0])

    def _needs_pointing(self, block: int, size: int) -> bool:
        """Block numbers end, and count in blocks of this one's own size (AN2662, 4.4.1): a short one needs a pointer."""
        return block > LAST_BLOCK or (block > FIRST_DATA_BLOCK and size < self._session.functional.transfer_size)
