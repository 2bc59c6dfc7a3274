"""MCUboot images: a header, the program, and a list of what is known of both.

After MCUboot's documentation, "Bootloader design", sections "Image format" and "Protected TLVs". Header (little endian):
magic, load address, header size, size of the protected TLVs, size of the program, flags, version, 4 bytes of padding.
After the program the protected TLVs, which its hash covers too, and the others: each list begins with a magic and its
own size. Every size is held against the bytes that are there before it is used, and the hash against them all.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import BinaryIO, NamedTuple

from ..errors import NOT_WHOLE, ImageFormat
from ..image import FirmwareImage, Segment, join
from ..vector_table import are_vectors
from .format import Format

HEADER = struct.Struct("<IIHHIIBBHII")
MAGIC = 0x96F3B83D
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
INFO = struct.Struct("<HH")
"""Magic and size, with itself, of a list of TLVs; type and size of one of them."""
INFO_MAGIC = 0x6907
PROTECTED_MAGIC = 0x6908
DEPENDENCY = struct.Struct("<BBHBBHI")
"""Number of the other image, its slot, padding, the lowest version that it must have."""
TRAILER_MAGIC = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")
"""The end of an image that was padded to its slot's size, and marked to be swapped in, of parts that write at most 8 bytes
at once."""
ALIGNED_TRAILER_MAGIC = bytes.fromhex("2de15d29410b8d77679c110f1f8a")
"""The same of parts that write more at once, after that number in 2 bytes (boot_img_magic, bootutil_public.h)."""


class Flag(IntFlag):
    ENCRYPTED_AES128 = 0x04
    ENCRYPTED_AES256 = 0x08
    NON_BOOTABLE = 0x10
    RAM_LOAD = 0x20
    ROM_FIXED = 0x100
    COMPRESSED_LZMA1 = 0x200
    COMPRESSED_LZMA2 = 0x400
    COMPRESSED_ARM_THUMB = 0x800


SEALED = (
    Flag.ENCRYPTED_AES128 | Flag.ENCRYPTED_AES256 | Flag.COMPRESSED_LZMA1 | Flag.COMPRESSED_LZMA2
    | Flag.COMPRESSED_ARM_THUMB
)  # fmt: skip
"""With one of these the file's bytes are not those that run: its hash may be that of others, and no vector shows."""


class Tlv(IntEnum):
    SHA256 = 0x10
    SHA384 = 0x11
    SHA512 = 0x12
    DEPENDENCY = 0x40


HASHES = {Tlv.SHA256: "sha256", Tlv.SHA384: "sha384", Tlv.SHA512: "sha512"}


class Version(NamedTuple):
    """MCUboot's image version, as it orders them."""

    major: int
    minor: int
    revision: int = 0
    build: int = 0

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """From "1.2.3", "1.2.3.4" or "1.2.3+4"; None if it is none."""
        found = re.fullmatch(r"(\d{1,10})\.(\d{1,10})(?:\.(\d{1,10}))?(?:[.+](\d{1,10}))?", text, re.ASCII)
        return cls(*(int(number or 0) for number in found.groups())) if found else None

    def __str__(self) -> str:
        """As a running part reports it: without a build number that is 0."""
        text = f"{self.major}.{self.minor}.{self.revision}"
        return f"{text}.{self.build}" if self.build else text


class Dependency(NamedTuple):
    """Another image of the same part must have this version at least."""

    image: int
    version: Version

    def __str__(self) -> str:
        return f"{self.image}>={self.version}"


class McubootImage(NamedTuple):
    """`size`: of the image in the file, without padding behind it. `hash`: what MCUboot, and whoever asks the part,
    knows the image by. `load_address`: None where it isn't fixed. `reset_vector`: of a Cortex-M program, None where it
    can't be seen. `is_cortex_m`: whether it is seen to be such a program, by its first two words."""

    version: Version
    flags: Flag
    size: int
    hash: bytes
    load_address: int | None
    reset_vector: int | None
    dependencies: tuple[Dependency, ...]
    is_cortex_m: bool = False


def parse_dependencies(text: str) -> list[Dependency]:
    """What an image's `target` has of them: "1>=2.0.0 2>=1.0.0"."""
    found = []
    for item in text.split():
        image, _, least = item.partition(">=")
        version = Version.parse(least)
        if version is not None and image.isdecimal():
            found.append(Dependency(int(image), version))
    return found


def recognises(head: bytes) -> bool:
    return head.startswith(MAGIC_BYTES)


def read(stream: BinaryIO, source: str) -> FirmwareImage:
    """The image without its padding, relocatable; `target` has what a part can be asked about. Raises ImageFormat."""
    data = stream.read()
    image = parse(data, source)
    target: dict[str, int | str] = {"image_hash": image.hash.hex(), "image_version": str(image.version)}
    if image.load_address is not None:
        target["load_address"] = image.load_address
    if image.reset_vector is not None:
        target["reset_vector"] = image.reset_vector
    if image.flags & Flag.NON_BOOTABLE:
        target["bootable"] = 0
    if image.dependencies:
        target["dependencies"] = " ".join(map(str, image.dependencies))
    segments = join([Segment(0, data[: image.size])])
    return FirmwareImage(segments, "mcuboot", source, target=target, relocatable=True, version=str(image.version))


class Mcuboot(Format):
    """A signed image for MCUboot."""

    name = "mcuboot"
    priority = 60
    addresses = False

    @staticmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        return recognises(head)

    read = staticmethod(read)


def parse(data: bytes, source: str = "the image") -> McubootImage:
    """Raises ImageFormat for what MCUboot would not take: cut short, TLVs that don't add up, no hash or a wrong one."""
    return _Reader(data, source).image()


class _Reader:
    def __init__(self, data: bytes, source: str) -> None:
        self.data = data
        self.source = source

    def image(self) -> McubootImage:
        if len(self.data) < HEADER.size:
            raise self.error(0, f"no room for an MCUboot header of {HEADER.size} bytes")
        magic, load, header_size, protected, size, flags, *version, _ = HEADER.unpack_from(self.data)
        if magic != MAGIC:
            raise self.error(0, f"no MCUboot image: it begins with 0x{magic:08X}, not 0x{MAGIC:08X}")
        if header_size < HEADER.size:
            raise self.error(8, f"the header announces {header_size} bytes for itself, and has {HEADER.size}")
        end = header_size + size
        if not size or end > len(self.data):
            raise self.error(12, f"the header announces {end:,} bytes, and the file has {len(self.data):,}", NOT_WHOLE)
        hashed = end
        found: list[tuple[int, bytes]] = []
        if protected:
            hashed, entries = self.tlvs(end, PROTECTED_MAGIC)
            if hashed - end != protected:
                raise self.error(
                    10, f"the header announces {protected} bytes of protected TLVs, and {hashed - end} follow"
                )
            found += entries
        total, entries = self.tlvs(hashed, INFO_MAGIC)
        found += entries
        self.check_padding(total)
        sealed = bool(flags & SEALED)
        seen = not sealed and size >= 8
        stack, reset = struct.unpack_from("<II", self.data, header_size) if seen else (0, 0)
        return McubootImage(
            Version(*version),
            Flag(flags),
            total,
            self.hash(found, hashed, sealed),
            load if flags & (Flag.RAM_LOAD | Flag.ROM_FIXED) else None,
            reset if seen else None,
            tuple(self.dependencies(found)),
            are_vectors(stack, reset),
        )

    def tlvs(self, start: int, wanted: int) -> tuple[int, list[tuple[int, bytes]]]:
        """A list's end, and its types and values."""
        if start + INFO.size > len(self.data):
            raise self.error(start, "the file ends before its TLVs", NOT_WHOLE)
        magic, size = INFO.unpack_from(self.data, start)
        if magic != wanted:
            raise self.error(start, f"0x{magic:04X} where TLVs begin with 0x{wanted:04X}")
        end = start + size
        if size < INFO.size or end > len(self.data):
            what = f"the TLVs tell of {size} bytes, and {len(self.data) - start} are there"
            raise self.error(start + 2, what, NOT_WHOLE)
        return end, list(self.entries(start + INFO.size, end))

    def entries(self, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
        while offset < end:
            if offset + INFO.size > end:
                raise self.error(offset, f"{end - offset} bytes after the last TLV")
            kind, size = INFO.unpack_from(self.data, offset)
            offset += INFO.size
            if offset + size > end:
                raise self.error(offset - 2, f"a TLV announces {size} bytes, and {end - offset} are left")
            yield kind, self.data[offset : offset + size]
            offset += size

    def hash(self, found: list[tuple[int, bytes]], hashed: int, sealed: bool) -> bytes:
        hashes = [(Tlv(kind), value) for kind, value in found if kind in HASHES]
        if len(hashes) != 1:
            raise self.error(hashed, f"{len(hashes)} hashes among the TLVs, and MCUboot wants one")
        kind, value = hashes[0]
        digest = hashlib.new(HASHES[kind], self.data[:hashed])
        if len(value) != digest.digest_size:
            raise self.error(hashed, f"a {kind.name} of {len(value)} bytes")
        if not sealed and digest.digest() != value:
            what = f"its {kind.name} is {value.hex()[:16]}..., and its bytes give {digest.hexdigest()[:16]}..."
            raise self.error(hashed, what, NOT_WHOLE)
        return value

    def dependencies(self, found: list[tuple[int, bytes]]) -> Iterator[Dependency]:
        for kind, value in found:
            if kind != Tlv.DEPENDENCY:
                continue
            if len(value) != DEPENDENCY.size:
                raise self.error(0, f"a dependency of {len(value)} bytes, and one has {DEPENDENCY.size}")
            image, _, _, *version = DEPENDENCY.unpack(value)
            yield Dependency(image, Version(*version))

    def check_padding(self, end: int) -> None:
        """What follows an image may be blank, or end as a slot does whose image was marked."""
        rest = self.data[end:]
        if rest.strip(b"\xff") and rest.strip(b"\0") and not _ends_as_a_slot(rest):
            raise self.error(
                end,
                f"{len(rest):,} bytes follow the image, and are neither blank nor the end of a slot",
                "Are several images in the file? Give each in a file of its own, as imgtool sign writes it.",
            )

    def error(self, offset: int, what: str, remedy: str | None = None) -> ImageFormat:
        return ImageFormat(f"{self.source}: offset 0x{offset:X}: {what}", remedy=remedy)


def _ends_as_a_slot(rest: bytes) -> bool:
    """Whether the last 16 bytes are those of a slot whose image was marked to be swapped in."""
    magic = rest[-16:]
    aligned = int.from_bytes(magic[:2], "little")
    return magic == TRAILER_MAGIC or (
        magic[2:] == ALIGNED_TRAILER_MAGIC and aligned > 8 and not aligned & (aligned - 1)
    )
