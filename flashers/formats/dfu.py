"""DFU files: a raw binary with a suffix (`dfu`), and ST's DfuSe, which has addresses (`dfuse`).

After USB-IF's "Device Firmware Upgrade Specification", revision 1.1, appendix B (the suffix), and ST's UM0391, "DfuSe
file format specification", revision 1. All numbers are little endian. Every size in the file is held against the bytes
that are there before it is used.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ..errors import NOT_WHOLE, ImageFormat, ImageNotWritten
from ..image import FirmwareImage, Segment, join
from . import raw as binary
from .format import Format

SUFFIX = struct.Struct("<4H3sBI")
"""bcdDevice, idProduct, idVendor, bcdDFU, ucDfuSignature, bLength, dwCRC."""
SUFFIX_SIGNATURE = b"UFD"
SUFFIX_SIGNATURE_TO_END = 8
"""Bytes from the suffix's signature to its end."""
BCD_DFU = 0x0100
BCD_DFUSE = 0x011A
ANY = 0xFFFF

PREFIX = struct.Struct("<5sBIB")
"""szSignature, bVersion, DFUImageSize (of all but the suffix), bTargets."""
PREFIX_SIGNATURE = b"DfuSe"
PREFIX_VERSION = 1
TARGET = struct.Struct("<6sBI255sII")
"""szSignature, bAlternateSetting, bTargetNamed, szTargetName, dwTargetSize (of all after it), dwNbElements."""
TARGET_SIGNATURE = b"Target"
ELEMENT = struct.Struct("<II")
"""dwElementAddress, dwElementSize."""

NXP_HEADER_SIZE = 16
"""What the boot ROM of NXP's LPC18xx and LPC43xx wants before an image (UM10503, "Boot image header format")."""


def has_suffix(tail: bytes) -> bool:
    """Whether a file that ends in these 16 bytes or more has a DFU suffix."""
    return len(tail) >= SUFFIX.size and tail[-8:-5] == SUFFIX_SIGNATURE and tail[-5] >= SUFFIX.size


def read(stream: BinaryIO, source: str) -> FirmwareImage:
    """The bytes before the suffix, relocatable; `target` has its vendor_id, product_id and device."""
    payload, target = _without_suffix(stream.read(), source)
    segments = join([Segment(0, payload)])
    return FirmwareImage(segments, "dfu", source, target=target, relocatable=True, version=_version(target))


def read_dfuse(stream: BinaryIO, source: str) -> FirmwareImage:
    """All elements of all targets; `target` also has alt_setting and name when there is but one target."""
    payload, target = _without_suffix(stream.read(), source)
    targets = list(_Reader(payload, source).targets())
    if len(targets) == 1:
        target["alt_setting"] = targets[0].alt_setting
        if targets[0].name:
            target["name"] = targets[0].name
    elements = [element for one in targets for element in one.elements]
    return FirmwareImage(join(elements, source=source), "dfuse", source, target=target, version=_version(target))


def write(image: FirmwareImage, stream: BinaryIO) -> None:
    """As a raw binary is written, and the suffix with the image's vendor_id, product_id and device."""
    checked = _Checksummed(stream)
    for chunk in binary.filled(image):
        checked.write(chunk)
    checked.finish(image, BCD_DFU)


def write_dfuse(image: FirmwareImage, stream: BinaryIO) -> None:
    """One target for the image's alt_setting, 0 if it has none, with an element for each segment."""
    if image.end > 1 << 32:
        raise ImageNotWritten(f"DfuSe addresses end at 4 GiB, and the image at 0x{image.end:X}")
    name = str(image.target.get("name", "")).encode("latin-1", "replace")[:254]
    size = sum(ELEMENT.size + segment.size for segment in image.segments)
    checked = _Checksummed(stream)
    checked.write(PREFIX.pack(PREFIX_SIGNATURE, PREFIX_VERSION, PREFIX.size + TARGET.size + size, 1))
    alt_setting = _number(image, "alt_setting", 0, 0xFF)
    checked.write(TARGET.pack(TARGET_SIGNATURE, alt_setting, bool(name), name, size, len(image.segments)))
    for segment in image.segments:
        checked.write(ELEMENT.pack(segment.address, segment.size))
        checked.write(segment.data)
    checked.finish(image, BCD_DFUSE)


class DfuSe(Format):
    """ST's DfuSe, a .dfu file with addresses."""

    name = "dfuse"
    endings = (".dfu",)
    priority = 20
    is_written = True

    @staticmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        return head.startswith(PREFIX_SIGNATURE + b"\1")

    read = staticmethod(read_dfuse)
    write = staticmethod(write_dfuse)


class Dfu(Format):
    """A DFU file with its suffix alone."""

    name = "dfu"
    endings = (".dfu",)
    priority = 30
    addresses = False
    is_written = True

    @staticmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        return has_suffix(tail)

    read = staticmethod(read)
    write = staticmethod(write)


class _Checksummed:
    """A stream that computes the suffix's CRC over what passes: CRC-32 without the inversion at its end (JAMCRC)."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.crc = 0

    def write(self, data: bytes | memoryview) -> None:
        self.crc = zlib.crc32(data, self.crc)
        self.stream.write(data)

    def finish(self, image: FirmwareImage, bcd_dfu: int) -> None:
        ids = [_number(image, key, ANY, 0xFFFF) for key in ("device", "product_id", "vendor_id")]
        self.write(SUFFIX.pack(*ids, bcd_dfu, SUFFIX_SIGNATURE, SUFFIX.size, 0)[:-4])
        self.stream.write((self.crc ^ 0xFFFFFFFF).to_bytes(4, "little"))


def _number(image: FirmwareImage, key: str, default: int, most: int) -> int:
    number = image.target.get(key, default)
    if not isinstance(number, int) or not 0 <= number <= most:
        raise ImageNotWritten(f"a DFU file holds a {key} of 0 to 0x{most:X}, and the image's is {number!r}")
    return number


def _without_suffix(data: bytes, source: str) -> tuple[bytes, dict[str, int | str]]:
    if not has_suffix(data[-SUFFIX.size :]):
        raise _no_suffix(data, source)
    device, product_id, vendor_id, _, _, length, crc = SUFFIX.unpack_from(data, len(data) - SUFFIX.size)
    if length > len(data):
        raise ImageFormat(
            f"{source}: offset 0x{len(data) - 5:X}: the DFU suffix announces {length} bytes, and the file has {len(data)}"
        )
    covered = memoryview(data)[:-4]
    computed = _jamcrc(covered)
    if crc != computed and not (_has_nxp_header(data) and crc == _jamcrc(covered[NXP_HEADER_SIZE:])):
        raise ImageFormat(
            f"{source}: offset 0x{len(data) - 4:X}: the DFU suffix has the CRC 0x{crc:08X}, and the bytes before it "
            f"give 0x{computed:08X}",
            remedy="Was the file copied whole? If it is right all the same, cut off its last "
            f"{length} bytes and add a new suffix with dfu-suffix.",
        )
    told = {"vendor_id": vendor_id, "product_id": product_id, "device": device}
    return data[:-length], {key: value for key, value in told.items() if value != ANY}


def _no_suffix(data: bytes, source: str) -> ImageFormat:
    """What is known of a file that does not end in a suffix."""
    end = data.rfind(SUFFIX_SIGNATURE + bytes([SUFFIX.size])) + SUFFIX_SIGNATURE_TO_END
    if SUFFIX.size <= end < len(data) and data[end - 4 : end] == _jamcrc(memoryview(data)[: end - 4]).to_bytes(
        4, "little"
    ):
        return ImageFormat(
            f"{source}: offset 0x{end:X}: {len(data) - end:,} bytes after the DFU suffix",
            remedy=f"Cut them off: the file has {end:,} bytes without them.",
        )
    cause = f"{source}: offset 0x{max(0, len(data) - SUFFIX.size):X}: no DFU suffix"
    if len(data) >= PREFIX.size and PREFIX.unpack_from(data)[:3] == (PREFIX_SIGNATURE, PREFIX_VERSION, len(data)):
        return ImageFormat(
            f"{cause}; all that its DfuSe prefix announces is there",
            remedy="Add a suffix: dfu-suffix --spec 0x011A --add FILE",
        )
    return ImageFormat(
        cause,
        remedy="Is it cut short? If it is a raw binary, add a suffix with dfu-suffix, or let its name end in .bin.",
    )


def _jamcrc(data: memoryview) -> int:
    """The suffix's CRC: CRC-32 without the inversion at its end."""
    return zlib.crc32(data) ^ 0xFFFFFFFF


def _has_nxp_header(data: bytes) -> bool:
    """Whether it begins as an image that is not encrypted does for an LPC18xx or LPC43xx.

    Makers put that header in front of a file that has its suffix already, so that the CRC is that of the rest.
    """
    return data[0] & 0x3F == 0x1A and data[1] & 0x3F == 0x3F and data[12:16] == b"\xff" * 4


def _version(target: dict[str, int | str]) -> str:
    """bcdDevice as JJ.M.N (USB 2.0, section 9.6.1)."""
    device = target.get("device")
    return f"{device >> 8:x}.{device >> 4 & 0xF:x}.{device & 0xF:x}" if isinstance(device, int) else ""


class _Target(NamedTuple):
    alt_setting: int
    name: str
    elements: list[Segment]


class _Reader:
    """Takes a DfuSe file without its suffix apart, from its start on."""

    def __init__(self, data: bytes, source: str) -> None:
        self.data = data
        self.source = source
        self.offset = 0

    def targets(self) -> Iterator[_Target]:
        signature, version, size, count = self.unpack(PREFIX, len(self.data), "DfuSe prefix")
        if signature != PREFIX_SIGNATURE or version != PREFIX_VERSION:
            raise self.error(0, f"no DfuSe prefix of version {PREFIX_VERSION}")
        # UM0391 calls it the total length of the file; ST's own tools leave the suffix out.
        if size not in (len(self.data), len(self.data) + SUFFIX.size):
            raise self.error(
                6, f"the prefix announces {size:,} bytes before the suffix, and there are {len(self.data):,}", NOT_WHOLE
            )
        for _ in range(count):
            yield self.target()
        if rest := len(self.data) - self.offset:
            raise self.error(self.offset, f"{rest:,} bytes after the last target")

    def target(self) -> _Target:
        start = self.offset
        signature, alt_setting, named, name, size, count = self.unpack(TARGET, len(self.data), "target prefix")
        if signature != TARGET_SIGNATURE:
            raise self.error(start, "no target prefix")
        end = self.offset + size
        if end > len(self.data):
            raise self.error(start + 266, f"the target announces {size:,} bytes, {end - len(self.data):,} too many")
        # Each has 8 bytes at least, so a count that lies ends at the target's end.
        elements = [self.element(end) for _ in range(count)]
        if self.offset != end:
            raise self.error(self.offset, f"{end - self.offset:,} bytes after the target's last element")
        return _Target(alt_setting, name.split(b"\0")[0].decode("latin-1") if named else "", elements)

    def element(self, end: int) -> Segment:
        start = self.offset
        address, size = self.unpack(ELEMENT, end, "element")
        if self.offset + size > end:
            raise self.error(start + 4, f"the element announces {size:,} bytes, {self.offset + size - end:,} too many")
        if address + size > 1 << 32:
            raise self.error(start, f"the element at 0x{address:08X} goes beyond 32-bit addresses")
        self.offset += size
        return Segment(address, self.data[self.offset - size : self.offset])

    def unpack(self, layout: struct.Struct, end: int, what: str) -> tuple[Any, ...]:
        if self.offset + layout.size > end:
            raise self.error(self.offset, f"no room for the {what} of {layout.size} bytes", NOT_WHOLE)
        values = layout.unpack_from(self.data, self.offset)
        self.offset += layout.size
        return values

    def error(self, offset: int, what: str, remedy: str | None = None) -> ImageFormat:
        return ImageFormat(f"{self.source}: offset 0x{offset:X}: {what}", remedy=remedy)
