"""MCUboot's images as a bootloader sees them in its flash (MCUboot, docs/design.md: "Image Format", "Integrity Check").

An image is a header, the firmware, and tag-length-value records: those that its hash covers ("protected"), if it has
any, and then those with the hash. All numbers are little endian.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from .. import application
from ..flash import NorFlash

MAGIC = 0x96F3B83D
HEADER = struct.Struct("<IIHHIIBBHII")
"""Magic, load address, header size, size of the protected records, firmware size, flags, major, minor, revision, build
number, and four bytes that nobody uses."""
RECORDS = struct.Struct("<HH")
"""What a run of records begins with: magic, and the size of the run, this included."""
RECORDS_MAGIC = 0x6907
PROTECTED_MAGIC = 0x6908
SHA256 = 0x10
NON_BOOTABLE = 0x10
HASH_SIZE = 32

Version = tuple[int, int, int, int]
"""Major, minor, revision, build number."""


class BadImage(Exception):
    """There is no image, or none that can be read. `reason`: "none", "magic", "no records", "no hash", "hashes"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Image:
    """What the header and the records of an image say; nothing of it has been checked against the firmware.

    `hashed`: bytes from the start that the hash covers; `size`: of all of it, with its records.
    """

    version: Version
    flags: int
    header_size: int
    hashed: int
    size: int
    hash: bytes

    @property
    def version_text(self) -> str:
        """As MCUboot and Zephyr write it: the build number only if it isn't 0."""
        return ".".join(str(part) for part in (self.version if self.version[3] else self.version[:3]))


def find(flash: NorFlash, start: int, room: int) -> Image:
    """The image at `start`, of at most `room` bytes. Raises BadImage."""
    magic, _, header_size, protected, firmware, flags, *version, _ = HEADER.unpack(flash.read(start, HEADER.size))
    if magic == 0xFFFFFFFF:
        raise BadImage("none")
    if magic != MAGIC:
        raise BadImage("magic")
    hashed = header_size + firmware + protected
    if protected and _run(flash, start, room, header_size + firmware, PROTECTED_MAGIC) != protected:
        raise BadImage("no records")
    size = hashed + _run(flash, start, room, hashed, RECORDS_MAGIC)
    digest = _hash(flash.read(start + hashed + RECORDS.size, size - hashed - RECORDS.size))
    return Image((version[0], version[1], version[2], version[3]), flags, header_size, hashed, size, digest)


def is_whole(flash: NorFlash, start: int, image: Image) -> bool:
    """Whether its hash is that of what is there."""
    return hashlib.sha256(flash.read(start, image.hashed)).digest() == image.hash


def _run(flash: NorFlash, start: int, room: int, offset: int, wanted: int) -> int:
    """The size of the run of records at `offset`."""
    if offset + RECORDS.size > room:
        raise BadImage("no records")
    magic, size = RECORDS.unpack(flash.read(start + offset, RECORDS.size))
    if magic != wanted or size < RECORDS.size or offset + size > room:
        raise BadImage("no records")
    return int(size)


def _hash(records: bytes) -> bytes:
    found = []
    while len(records) >= 4:
        kind, _, length = struct.unpack_from("<BBH", records)
        if kind == SHA256 and length == HASH_SIZE:
            found.append(records[4 : 4 + length])
        records = records[4 + length :]
    if len(found) > 1:
        raise BadImage("hashes")
    if not found or len(found[0]) != HASH_SIZE:
        raise BadImage("no hash")
    return found[0]


def make(
    firmware: bytes, version: Version, *, header_size: int = 0x200, load_address: int = 0, flags: int = 0
) -> bytes:
    """An image for tests, without a signature, as `imgtool sign` without a key makes it."""
    header = HEADER.pack(MAGIC, load_address, header_size, 0, len(firmware), flags, *version, 0)
    hashed = header.ljust(header_size, b"\0") + firmware
    record = struct.pack("<BBH", SHA256, 0, HASH_SIZE) + hashlib.sha256(hashed).digest()
    return hashed + RECORDS.pack(RECORDS_MAGIC, RECORDS.size + len(record)) + record


def around_firmware(version: str, product: str, manufacturer: str, size: int, *, start: int, seed: int = 0) -> bytes:
    """An image of `size` bytes in all, for a slot at `start`, around a firmware for tests (application.make).

    `version`: three numbers. Its header has no more than 32 bytes, so that a small one has room.
    """
    major, minor, revision = (int(number) for number in version.split("."))
    inside = size - len(make(b"", (0, 0, 0, 0), header_size=HEADER.size))
    firmware = application.make(version, product, manufacturer, inside, start=start + HEADER.size, seed=seed)
    return make(firmware, (major, minor, revision, 0), header_size=HEADER.size)
