"""The files that a profile names beside the image: the flash driver, and signatures.

Files whose name goes by the image's are read when the image is known; all others when the profile is checked. The rule:
every file is read and checked before the ECU is asked to change anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...transports import named_files
from ..errors import ImageWrongPart, ProfileWrong
from ..formats import load
from ..image import FirmwareImage, Segment
from .parameters import Subject
from .profile import FlashDriver, UdsProfile

IMAGE = "{image}"
MOST_BYTES = 1 << 16
"""Of a signature."""


class FilesOfProfile:
    """Raises ProfileWrong, and what reading a firmware file raises."""

    def __init__(self, profile: UdsProfile) -> None:
        self._profile = profile
        self._image, self._is_alone = "", False
        self._signatures: dict[str, bytes] = {}
        self._driver: tuple[Segment, ...] = ()
        self.driver_entry = 0
        """Where the flash driver starts."""
        self._read(IMAGE)

    def keep(self, image: FirmwareImage) -> FirmwareImage:
        """Keeps what the image brings for the ECU's RAM, reads what lies beside it, and returns the rest of it.

        Raises ImageWrongPart where the image has no flash driver.
        """
        self._image, self._is_alone = image.source, image.is_alone
        self._read("")
        driver = self._profile.driver
        if driver is None or driver.file:
            return image
        end = driver.start + driver.size
        inside = () if image.relocatable else tuple(image.within(driver.start, end))
        if not inside and self._driver:
            return image  # What is left of the image after an attempt.
        if not inside:
            raise ImageWrongPart(
                f"{image.source or 'the image'} holds no flash driver at 0x{driver.start:08X}..0x{end - 1:08X}",
                remedy="Name the flash driver's file as driver.file in the profile, or take an image that holds it.",
            )
        self._take(inside)
        rest = [
            part.slice(low, high)
            for part in image.segments
            for low, high in ((part.address, min(part.end, driver.start)), (max(part.address, end), part.end))
            if low < high
        ]
        return replace(image, segments=tuple(rest))

    def driver(self) -> tuple[Segment, ...]:
        if not self._driver:
            raise ProfileWrong(
                "the flash driver is in the image, and there is no image here",
                remedy="Name the flash driver's file as driver.file in the profile.",
            )
        return self._driver

    def signature(self, name: str) -> bytes:
        """What the file holds; b"" for no file."""
        if name and name not in self._signatures:
            raise ProfileWrong(f"the signature {name} goes by the image's name, and there is no image here")
        return self._signatures.get(name, b"")

    def subject(self, segment: Segment) -> Subject:
        """What a request about this segment is about."""
        region = self._profile.region_at(segment.address)
        signature = self.signature(region.signature) if region is not None else b""
        return Subject(
            segment.address, segment.size, bytes(segment.data), self._profile.region_id(segment.address), signature
        )

    def _read(self, later: str) -> None:
        """Reads what is named. `later`: names that begin so are left for later; "": none are."""
        driver = self._profile.driver
        for name in _signatures(self._profile):
            if name and not (later and name.startswith(later)):
                self._signatures[name] = _signature(self._path(name))
        if driver is not None and driver.file and not (later and driver.file.startswith(later)):
            self._load(driver, self._path(driver.file))

    def _path(self, name: str) -> Path:
        if not name.startswith(IMAGE):
            return Path(name)
        if not self._image:
            raise ProfileWrong(f"{name} goes by the image's name, and the image is of no file")
        if self._is_alone:
            raise ProfileWrong(
                f"{name} would lie beside the image, where the update does not vouch for it",
                remedy="Name a file in the bench file's folder in the profile, or put the flash driver into the image.",
            )
        return Path(str(Path(self._image).with_suffix("")) + name.removeprefix(IMAGE))

    def _load(self, driver: FlashDriver, path: Path) -> None:
        image = load(path)
        placed = image.at(driver.start) if image.relocatable else image
        if placed.start < driver.start or placed.end > driver.start + driver.size:
            raise ProfileWrong(
                f"the flash driver {path} has bytes at 0x{placed.start:08X}..0x{placed.end - 1:08X}, outside of "
                f"0x{driver.start:08X}..0x{driver.start + driver.size - 1:08X}",
                remedy="Correct driver.start and driver.size in the profile, or driver.file.",
            )
        self._take(placed.segments)
        self.driver_entry = self.driver_entry if placed.entry is None else placed.entry

    def _take(self, segments: tuple[Segment, ...]) -> None:
        self._driver = segments
        self.driver_entry = segments[0].address


def files_named(profile: UdsProfile) -> Iterator[Path]:
    """Those that don't go by the image's name."""
    for name in [*_signatures(profile), profile.driver.file if profile.driver else ""]:
        if name and not name.startswith(IMAGE):
            yield Path(name)


def _signatures(profile: UdsProfile) -> list[str]:
    return [region.signature for region in profile.memory] + [profile.driver.signature if profile.driver else ""]


def _signature(path: Path) -> bytes:
    try:
        found = named_files.read(path, MOST_BYTES)
    except OSError as error:
        raise ProfileWrong(f"the signature {path} can't be read: {error.strerror}") from error
    if not 0 < len(found) <= MOST_BYTES:
        raise ProfileWrong(f"the signature {path} has {'no' if not found else f'more than {MOST_BYTES:,}'} bytes")
    return found
