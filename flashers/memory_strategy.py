"""`MemoryStrategy`: an image into addressed memory. Erases and writes what differs, in the order of the plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from . import plan as planning
from .errors import PartProtected, PartRefused, PartWrongMode, SecurityDenied, Unsupported, VerifyMismatch, WrongLayout
from .events import Phase
from .flasher import Bootloader, Capability, MemoryAccess, compare_digest
from .image import FirmwareImage, Segment
from .lookout import Lookout
from .memory import Erase, MemoryMap, Range, Region, Watch, listed
from .plan import FlashPlan
from .reporter import Reporter
from .strategy import Strategy

SAMPLE = 64
"""Bytes read of an erase unit to see whether reading the rest of it may be worth while."""
MISSES = 4
"""When this many units in a row differ, the rest is taken to differ too."""
UNVERIFIABLE = "this part gives no way to verify what it holds"
DESCRIBED_REMEDY = (
    "If its profile gives the part's memory: are start and erase_unit (page_size) right, and write_alignment if it is a key? "
    "Then run the same command again."
)
REFUSALS = (PartProtected, PartRefused, PartWrongMode, SecurityDenied, Unsupported)
"""Answers by which a part says that it did not do what was asked."""


class MemoryStrategy(Strategy):
    def __init__(self, bootloader: Bootloader, memory: MemoryAccess, reporter: Reporter) -> None:
        super().__init__(bootloader, reporter)
        self.memory = memory

    def memory_map(self) -> MemoryMap:
        return self.memory.memory_map()

    def place(self, image: FirmwareImage) -> FirmwareImage:
        return self._placed(self.memory.fit(image), self.memory.memory_map(image.target))

    def plan(self, image: FirmwareImage, *, compare: bool) -> FlashPlan:
        memory = self.memory.memory_map(image.target)
        placed = self._placed(self.memory.fit(image), memory)
        present = self._present(placed, memory) if compare else []
        used = [region for region in planning.headless(placed, memory) if self._starts_something(region)]
        plan = planning.make(placed, memory, present, used)
        self.memory.check_erase(plan.erase)
        return plan

    def seconds_for(self, plan: FlashPlan) -> float | None:
        return self.memory.seconds_for(plan.erase, plan.write_bytes)

    def check_verifiable(self) -> None:
        if not self.has(Capability.CHECK | Capability.DIGEST | Capability.READ):
            remedy = "To write it all the same, and verify nothing: proxyflash flash NAME IMAGE --no-verify"
            raise Unsupported(UNVERIFIABLE, remedy=remedy)

    def write(self, plan: FlashPlan) -> tuple[int, int]:
        written = 0
        self.reporter.headless.difference_update(unit.start for unit in plan.present)
        try:
            for erase, writes in self.memory.turns(plan.erase, plan.writes):
                self._erase(erase)
                written += self._write(writes)
        finally:
            if self.memory.changed_in_turns and not self.reporter.touched:
                self.reporter.enter(Phase.ERASE)
                self.reporter.touched = True
        return plan.erased_bytes, written

    def read_piece(self, start: int, size: int) -> Iterator[bytes]:
        return self.memory.read(start, size)

    def replaced(self, image: FirmwareImage) -> tuple[list[Range], str]:
        memory = self.memory.memory_map()
        found: list[Range] = []
        if not self.has(Capability.READ):
            return found, "the part does not let its memory be read"
        for region in memory.regions:
            if not region.readable and any(image.within(region.start, region.end)):
                return [], f"{region.name} can't be read"
            for segment in image.within(region.start, region.end):
                for unit in region.erase_units(segment.address, segment.end):
                    if found and found[-1].start <= unit.start < found[-1].end:
                        continue
                    # Units that follow each other are read as one.
                    if found and found[-1].end == unit.start and unit.start != region.start:
                        found[-1] = Range(found[-1].start, found[-1].size + unit.size)
                    else:
                        found.append(unit)
        return found, ""

    def erase(self, ranges: Sequence[Range]) -> int:
        memory = self.memory.memory_map()
        units: dict[int, Range] = {}
        for item in ranges:
            region = memory.region_of(item.start)
            if region is None or region.erase is Erase.NEVER or item.end > region.end:
                able = listed(one for one in memory.regions if one.erase is not Erase.NEVER)
                raise Unsupported(
                    f"{item} is not memory of this part that can be erased",
                    remedy=f"Give --start and --size within one of: {able}." if able else None,
                )
            units |= {unit.start: unit for unit in region.erase_units(item.start, item.end)}
        return self._erase(tuple(units[start] for start in sorted(units)))

    def start(self, plan: FlashPlan | None) -> None:
        self.bootloader.start_application()

    # What the part holds already.

    def _starts_something(self, region: Region) -> bool:
        """Whether its first bytes are there; False where they can't be read."""
        blank = Segment(region.start, bytes([region.erased_value]) * planning.HEAD)
        return self.has(Capability.READ) and region.readable and not self._holds(blank)

    def _placed(self, image: FirmwareImage, memory: MemoryMap) -> FirmwareImage:
        """What can't be written is compared where the part can be read."""

        def holds(part: Segment) -> bool | None:
            try:
                return self._digest_equal(part) if self.has(Capability.DIGEST) else self._holds(part)
            except REFUSALS:
                return None

        return planning.place(image, memory, holds if self.has(Capability.READ) else None)

    def _present(self, image: FirmwareImage, memory: MemoryMap) -> list[Range]:
        """The units that hold what the image has for them already."""
        if not self.has(Capability.DIGEST | Capability.READ):
            return []
        units = planning.units_of(image, memory)
        loose = list(planning.never_erased(image, memory))
        total = sum(unit.size for _, unit in units) + sum(part.size for part in loose)
        found = []
        done = misses = 0
        with self.reporter.phase(Phase.COMPARE, total):
            # The first unit is written last, so after an interruption it says least: ask for it last.
            for region, unit in units[1:] + units[:1]:
                parts = memory.compared(image.within(unit.start, unit.end))
                if self.has(Capability.DIGEST):
                    same = all(self._digest_equal(part) for part in parts)
                else:
                    same = region.readable and misses < MISSES and self._read_equal(parts)
                misses = 0 if same else misses + 1
                if same:
                    found.append(unit)
                done += unit.size
                self.reporter.progress(Phase.COMPARE, done, total)
            for part in loose:
                owner = memory.region_of(part.address)
                if owner is not None and owner.readable and self.has(Capability.READ) and self._read_equal([part]):
                    found.append(Range(part.address, part.size))
                done += part.size
                self.reporter.progress(Phase.COMPARE, done, total)
        return found

    def _digest_equal(self, part: Segment) -> bool:
        digest = self.memory.digest(part.address, part.size)
        if digest is None:
            return self.has(Capability.READ) and self._read_equal([part])
        return digest.value == digest.compute(bytes(part.data))

    def _read_equal(self, parts: Sequence[Segment]) -> bool:
        for part in parts:
            sample = min(SAMPLE, part.size)
            if not self._holds(part.slice(part.address, part.address + sample)):
                return False
        return all(self._holds(part.slice(part.address + SAMPLE, part.end)) for part in parts if part.size > SAMPLE)

    def _holds(self, part: Segment) -> bool:
        offset = 0
        view = memoryview(part.data)
        for piece in self.memory.read(part.address, part.size):
            if view[offset : offset + len(piece)] != piece:
                return False
            offset += len(piece)
            self.reporter.check_cancelled()
        return offset == part.size

    # Changing what it holds, and verifying that.

    def _erase(self, units: Sequence[Range]) -> int:
        if not units:
            return 0
        total = sum(unit.size for unit in units)
        before, acknowledged = self.reporter.touched, False
        self.memory.check_erase(units)
        memory = self.memory.memory_map()
        starts, ends = memory.starts, accumulate(unit.size for unit in units)
        heads = [(unit.start, end) for unit, end in zip(units, ends, strict=True) if unit.start in starts]
        with self.reporter.phase(Phase.ERASE, total):
            lookout = Lookout(self._read_at, memory, units if self.has(Capability.READ) else (), self.memory.suspects)
            self.reporter.touched = True
            try:
                for done in self.memory.erase(units):
                    acknowledged = True
                    self.reporter.headless.update(start for start, end in heads if end <= done)
                    lookout.after(done)
                    self.reporter.progress(Phase.ERASE, done, total)
            except WrongLayout:
                lookout.after_refusal()
                raise
            except REFUSALS:
                lookout.after_refusal()
                # What the part refuses it has not done; anything else may have happened all the same.
                self.reporter.touched = before or acknowledged
                raise
        return total

    def _read_at(self, start: int, size: int) -> bytes:
        return b"".join(self.memory.read(start, size))

    def _write(self, segments: Sequence[Segment]) -> int:
        if not segments:
            return 0
        total = sum(segment.size for segment in segments)
        before = 0
        with self.reporter.phase(Phase.WRITE, total):
            self.reporter.touched = True
            for segment in segments:
                heads = {start for start in self.reporter.headless if start in range(segment.address, segment.end)}
                if self._boots_early(segment):
                    self.reporter.headless -= heads
                for done in self.memory.write(segment):
                    self.reporter.progress(Phase.WRITE, before + done, total)
                before += segment.size
                self.reporter.headless -= heads
        return total

    def _boots_early(self, segment: Segment) -> bool:
        """Whether its first bytes are written before the rest of it: the part may start what is not whole."""
        region = self.memory.memory_map().region_of(segment.address)
        return region is not None and region.erase is Erase.BY_WRITE and segment.size > region.write_alignment

    def verify(self, plan: FlashPlan) -> str:
        """What was read and compared for the plan is not read again. A part judges what was written to it just now; what it
        held before is compared, where that can be done."""
        memory = self.memory.memory_map()
        parts = memory.compared(plan.unproven())
        total = sum(part.size for part in parts)
        with self.reporter.phase(Phase.VERIFY, total) as finish:
            self.reporter.check_cancelled()
            if not parts:
                # A part's own check may be one of its last download, and that may have been another image.
                method = "checksum by the part" if self.has(Capability.DIGEST) else "read back"
            elif self.has(Capability.CHECK) and (plan.writes or not self.has(Capability.DIGEST | Capability.READ)):
                method = self.memory.judge(plan.image.segments)
            elif not self.has(Capability.DIGEST | Capability.READ):
                raise Unsupported(UNVERIFIABLE)
            else:
                try:
                    method = self._verify_parts(parts, total)
                except VerifyMismatch as error:
                    raise self._advised(error, plan) from None
            method += _left_out(plan, memory)
            finish(method)
        return method

    def _advised(self, error: VerifyMismatch, plan: FlashPlan) -> VerifyMismatch:
        """Written in blocks of a wrong size, a part holds something else than the image each time."""
        region = self.memory.memory_map().region_of(plan.writes[0].address) if plan.writes else None
        return error.advised(DESCRIBED_REMEDY) if region is not None and region.watch is not Watch.NO else error

    def _verify_parts(self, parts: Sequence[Segment], total: int) -> str:
        done = 0
        method = "read back"
        for part in parts:
            digest = self.memory.digest(part.address, part.size) if self.has(Capability.DIGEST) else None
            if digest is not None:
                compare_digest(digest, part)
                method = f"{digest.name} by the part"
                done += part.size
                self.reporter.progress(Phase.VERIFY, done, total)
                continue
            self.require(Capability.READ, "verify what it holds")
            done = self.compare_back(part, done, total)
        return method


def _left_out(plan: FlashPlan, memory: MemoryMap) -> str:
    """The bytes of the image that were not compared, in words; "": all were."""
    own = [own for region in memory.regions for own in region.own if any(plan.image.within(own.start, own.end))]
    return "".join(f", without the {item.size} bytes at 0x{item.start:08X} that the bootloader writes" for item in own)
