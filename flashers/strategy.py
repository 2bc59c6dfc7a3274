"""`Strategy`: how the engine brings an image into one kind of bootloader, and `compare`, by which each verifies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from .errors import ProtocolError, Unsupported, VerifyMismatch
from .events import Phase
from .flasher import Bootloader, Capability
from .image import FirmwareImage, Segment
from .memory import MemoryMap, Range
from .plan import FlashPlan
from .reporter import Reporter


class Strategy(ABC):
    """For a connected part. Erases, writes and starts nothing but what the caller asks for."""

    def __init__(self, bootloader: Bootloader, reporter: Reporter) -> None:
        self.bootloader = bootloader
        self.reporter = reporter

    @abstractmethod
    def memory_map(self) -> MemoryMap:
        """The part's memory, or its slot, as a region that nothing but an upload erases."""

    @abstractmethod
    def place(self, image: FirmwareImage) -> FirmwareImage:
        """The image at the addresses that it will have, checked against the part. Raises what the part refuses."""

    @abstractmethod
    def plan(self, image: FirmwareImage, *, compare: bool) -> FlashPlan:
        """What is to be done for this image. `compare`: asks the part what it holds already."""

    @abstractmethod
    def seconds_for(self, plan: FlashPlan) -> float | None:
        """About how long a plan takes; None if not known."""

    def check_verifiable(self) -> None:  # noqa: B027 - most can tell
        """Raises Unsupported where it is known that nothing would show what the part holds then."""

    @abstractmethod
    def write(self, plan: FlashPlan) -> tuple[int, int]:
        """Carries out a plan, without verifying; bytes erased and bytes written."""

    @abstractmethod
    def verify(self, plan: FlashPlan) -> str:
        """How it is known that the part holds the plan's image, in words. Raises VerifyMismatch, Unsupported."""

    @abstractmethod
    def read_piece(self, start: int, size: int) -> Iterator[bytes]:
        """Reads from the part."""

    @abstractmethod
    def replaced(self, image: FirmwareImage) -> tuple[list[Range], str]:
        """What a placed image would replace, and why that can't be read; "": it can."""

    @abstractmethod
    def erase(self, ranges: Sequence[Range]) -> int:
        """Erases the units that the ranges touch; bytes erased. Raises Unsupported."""

    @abstractmethod
    def start(self, plan: FlashPlan | None) -> None:
        """Starts the plan's image; None: whatever the part holds."""

    def has(self, capability: Capability) -> bool:
        return bool(self.bootloader.capabilities & capability)

    def require(self, capability: Capability, what: str) -> None:
        """Raises Unsupported."""
        if not self.has(capability):
            raise Unsupported(f"this part can't {what}")

    def read(self, ranges: Sequence[Range]) -> list[Segment]:
        """Raises Unsupported where the part can't."""
        self.require(Capability.READ, "read its memory")
        total = sum(item.size for item in ranges)
        found = []
        done = 0
        with self.reporter.phase(Phase.READ, total):
            for item in ranges:
                data = bytearray()
                for piece in self.read_piece(item.start, item.size):
                    data += piece
                    done += len(piece)
                    self.reporter.progress(Phase.READ, done, total)
                self.check_read(len(data), item)
                found.append(Segment(item.start, bytes(data)))
        return found

    def check_read(self, count: int, wanted: Range) -> None:
        """Raises ProtocolError where fewer bytes came than are there."""
        check_complete(count, wanted)

    def compare_back(self, part: Segment, done: int, total: int) -> int:
        """Reads a segment back; how much of `total` is verified then. Raises VerifyMismatch."""
        view = memoryview(part.data)
        offset = 0
        for piece in self.read_piece(part.address, part.size):
            wanted = view[offset : offset + len(piece)]
            if wanted != piece:
                index = next(i for i, (a, b) in enumerate(zip(wanted, piece, strict=False)) if a != b)
                address = part.address + offset + index
                raise VerifyMismatch(
                    f"at 0x{address:08X} the part holds 0x{piece[index]:02X}, the image has 0x{wanted[index]:02X}"
                )
            offset += len(piece)
            self.reporter.progress(Phase.VERIFY, done + offset, total)
        check_complete(offset, Range(part.address, part.size))
        return done + offset


def check_complete(count: int, wanted: Range) -> None:
    """Raises ProtocolError."""
    if count != wanted.size:
        raise ProtocolError(f"the part sent {count:,} of the {wanted.size:,} bytes of {wanted}")
