"""What of an image goes into an ECU's memory, and in which form. Pure: no requests.

The rule: whatever of an image the ECU could not take is found here, before it is asked to change anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import ImageWrongPart
from ..image import FirmwareImage, Segment, join
from ..memory import MemoryMap, Range
from .profile import UdsProfile


def fitted(image: FirmwareImage, profile: UdsProfile) -> FirmwareImage:
    """The image at its addresses; by id, each region's part of it as one segment. Raises ImageWrongPart."""
    memory = profile.memory_map()
    placed = image.at(memory.regions[0].start) if image.relocatable and image.segments else image
    _check_packed(placed, profile)
    if profile.address_by == "id":
        placed = _joined(placed, memory)
    if profile.routines.erase_all:
        check_all_covered(memory, placed.segments)
    return placed


def check_all_covered(memory: MemoryMap, segments: Sequence[Segment]) -> None:
    """Raises ImageWrongPart where one erase takes more than is named."""
    for region in memory.regions:
        if not any(item.address < region.end and item.end > region.start for item in segments):
            raise ImageWrongPart(
                f"this part erases all its memories at once (routines.erase_all), and there is nothing for {region.name}",
                remedy="Take an image for all of them.",
            )


def merged(ranges: Sequence[Range], memory: MemoryMap) -> Iterator[Range]:
    """Ranges that lie side by side in one region become one."""
    run: Range | None = None
    for item in ranges:
        if run is not None and run.end == item.start and memory.region_of(run.start) is memory.region_of(item.start):
            run = Range(run.start, run.size + item.size)
            continue
        if run is not None:
            yield run
        run = item
    if run is not None:
        yield run


def _check_packed(image: FirmwareImage, profile: UdsProfile) -> None:
    """Raises ImageWrongPart where compressed bytes are not one piece from the region's start on."""
    for region in profile.memory:
        parts = list(image.within(region.start, region.start + region.size))
        if region.announce and parts and (len(parts) > 1 or parts[0].address != region.start):
            raise ImageWrongPart(
                f"the image has more than one piece for {region.name}, or none at 0x{region.start:08X}; the ECU takes "
                "its compressed bytes (announce) as one piece from there on",
                remedy="Is it the right file? See what it holds: proxyflash image FILE",
            )


def _joined(image: FirmwareImage, memory: MemoryMap) -> FirmwareImage:
    """Each region's part of the image as one segment from the region's start on."""
    joined = []
    within = 0
    for region in memory.regions:
        parts = list(image.within(region.start, region.end))
        if parts:
            size = parts[-1].end - region.start
            joined.append(Segment(region.start, image.read(region.start, size, region.erased_value)))
            within += sum(part.size for part in parts)
    # What lies outside of all regions is refused as it is.
    return replace(image, segments=join(joined)) if within == image.size else image
