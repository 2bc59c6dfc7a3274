"""`SlotStrategy`: a whole image into a slot. What is there already, and how an upload goes on, only the part can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import events as ev
from . import plan as planning
from .errors import ImageError, ImageMisplaced, Unsupported
from .events import Phase
from .flasher import Bootloader, Capability, Slot, SlotAccess
from .image import FirmwareImage, Segment
from .memory import Erase, EraseRun, MemoryMap, Range, Region
from .plan import FlashPlan
from .reporter import Reporter
from .strategy import Strategy

UNTOLD = "the bootloader does not tell what it holds: only what is written can be verified, by its word"


def unerasable() -> Unsupported:
    """What the command to erase a slot alone ends with."""
    return Unsupported(
        "this part erases its memory for what is written to it, and at no other time",
        remedy="Flash another file in the place of what it holds.",
    )


class SlotStrategy(Strategy):
    def __init__(self, bootloader: Bootloader, slots: SlotAccess, reporter: Reporter) -> None:
        super().__init__(bootloader, reporter)
        self.slots = slots

    def memory_map(self) -> MemoryMap:
        return _map(self.slots.slot())

    def place(self, image: FirmwareImage) -> FirmwareImage:
        return _placed(image, _map(self.slots.slot(image.target)))

    def plan(self, image: FirmwareImage, *, compare: bool) -> FlashPlan:
        taken = self.slots.slot(image.target)
        memory = _map(taken)
        placed = _placed(image, memory)
        slot = memory.regions[0]
        name = "the slot" if slot.name == "slot" else slot.name
        return FlashPlan(
            placed, slot.size, (), (whole(placed),), replaces=name, regions=memory.regions, unchecked=taken.unchecked
        )

    def seconds_for(self, plan: FlashPlan) -> float | None:
        return self.slots.seconds_for(plan.write_bytes)

    def write(self, plan: FlashPlan) -> tuple[int, int]:
        data = _bytes(plan)
        before, acknowledged = self.reporter.touched, False
        with self.reporter.phase(Phase.WRITE, len(data)):
            self.reporter.touched = True
            try:
                for what in self.slots.prepare(data):
                    acknowledged = True
                    self.reporter.tell(ev.Preparing(self.reporter.component, what))
                    self.reporter.check_cancelled()
                for done in self.slots.upload(data):
                    acknowledged = True
                    self.reporter.progress(Phase.WRITE, done, len(data))
            except ImageError:
                # A loader that refuses a file by its name and size has taken nothing of it.
                self.reporter.touched = before or acknowledged
                raise
        return 0, len(data)

    def verify(self, plan: FlashPlan) -> str:
        data = _bytes(plan)
        with self.reporter.phase(Phase.VERIFY, len(data)) as finish:
            self.reporter.check_cancelled()
            if self.has(Capability.READ):
                self.compare_back(Segment(0, data), 0, len(data))
                method = "read back"
            else:
                method = self.slots.verdict(data)
            if not method:
                raise Unsupported(UNTOLD)
            finish(method)
        return method

    def read_piece(self, start: int, size: int) -> Iterator[bytes]:
        return self.slots.read(start, size)

    def check_read(self, count: int, wanted: Range) -> None:
        """The size of a slot is a limit: what the part sends up to there is all that it has."""
        if count != wanted.size and not (count and wanted.end == self.slots.slot().size):
            super().check_read(count, wanted)

    def replaced(self, image: FirmwareImage) -> tuple[list[Range], str]:
        name = self.slots.slot(image.target).name
        return [], f"{name} takes whole images, and how long the present one is can't be asked"

    def erase(self, ranges: Sequence[Range]) -> int:
        raise unerasable()

    def start(self, plan: FlashPlan | None) -> None:
        if plan is None:
            self.bootloader.start_application()
        else:
            self.slots.activate(_bytes(plan))


def _map(slot: Slot) -> MemoryMap:
    region = Region(slot.name, 0, slot.size, (EraseRun(1, slot.size),), erase=Erase.NEVER)
    return MemoryMap((region,), target=slot.target)


def _placed(image: FirmwareImage, memory: MemoryMap) -> FirmwareImage:
    """The image in its slot, which begins at 0. Raises what `planning.place` raises."""
    slot = memory.regions[0]
    if image.segments and not image.relocatable and not image.only and image.start:
        raise ImageMisplaced(
            f"{image.source or 'the image'} has addresses, from 0x{image.start:08X} on, and the {slot.name} takes a file as "
            "it is, at no address",
            remedy="Make a file without addresses of it: proxyflash image FILE --to FILE.bin",
        )
    return planning.place(image, memory)


def whole(image: FirmwareImage) -> Segment:
    """A placed image as one run from the slot's start on, with gaps filled."""
    end = image.segments[-1].end
    return Segment(0, image.read(0, end, 0xFF))


def _bytes(plan: FlashPlan) -> bytes:
    return bytes(whole(plan.image).data)
