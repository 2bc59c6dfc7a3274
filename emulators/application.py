"""The application stage of an emulated part: checks what it is to boot, and knows how the running sensor answers.

The firmware of the emulated sensors carries a descriptor, as sensors' firmware does, found by its magic at a multiple
of 4 bytes. Layout, little endian, 64 bytes:

| offset | size | what |
|---|---|---|
| 0  | 8  | magic "SENSORFW" |
| 8  | 4  | size of the image in bytes, from its start |
| 12 | 4  | CRC-32 (ISO-HDLC) of the image, taking these 4 bytes for 0xFFFFFFFF |
| 16 | 16 | version, ASCII, NUL-padded |
| 32 | 16 | product, ASCII, NUL-padded |
| 48 | 16 | manufacturer, ASCII, NUL-padded |

A firmware without a descriptor (a stock image) boots when it begins with a plausible ARM vector table; it has no
version.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from .flash import NorFlash

MAGIC = b"SENSORFW"
LAYOUT = struct.Struct("<8sII16s16s16s")
SEARCHED = 4096
"""The descriptor lies in the first bytes of the image."""


@dataclass(frozen=True, slots=True)
class Application:
    """What a part boots; "" where its firmware doesn't tell."""

    version: str
    product: str
    manufacturer: str
    size: int


def find(flash: NorFlash, start: int, *, ram: range = range(0x10000000, 0x40000000)) -> Application | None:
    """The application at `start`, None when there is none that may be booted: blank, torn, or not whole."""
    head = flash.read(start, min(SEARCHED, flash.end - start))
    offset = _descriptor_at(head)
    if offset is not None:
        return _described(flash, start, offset, head)
    stack, reset = struct.unpack_from("<II", head)
    if stack in ram and stack % 4 == 0 and reset & 1 and start <= reset - 1 < flash.end:
        return Application("", "", "", 0)
    return None


def told_size(head: bytes) -> int | None:
    """The size that a firmware's descriptor gives, from the first `SEARCHED` bytes of it; None if it has none."""
    offset = _descriptor_at(head[:SEARCHED])
    return None if offset is None else int(LAYOUT.unpack_from(head, offset)[1])


def _descriptor_at(head: bytes) -> int | None:
    offset = head.find(MAGIC)
    while offset >= 0 and offset % 4:
        offset = head.find(MAGIC, offset + 1)
    return offset if offset >= 0 and offset + LAYOUT.size <= len(head) else None


def _described(flash: NorFlash, start: int, offset: int, head: bytes) -> Application | None:
    _, size, crc, version, product, manufacturer = LAYOUT.unpack_from(head, offset)
    if not offset + LAYOUT.size <= size <= flash.end - start:
        return None
    image = bytearray(flash.read(start, size))
    image[offset + 12 : offset + 16] = b"\xff\xff\xff\xff"
    if zlib.crc32(image) != crc:
        return None
    texts = [field.rstrip(b"\0").decode("ascii", "replace") for field in (version, product, manufacturer)]
    return Application(texts[0], texts[1], texts[2], size)


def make(
    version: str,
    product: str,
    manufacturer: str,
    size: int,
    *,
    start: int = 0x08000000,
    seed: int = 0,
    vectors: bytes | None = None,
) -> bytes:
    """A firmware of `size` bytes for tests: a vector table, a descriptor at 0x100, bytes that look like code.

    `vectors`: what it begins with; None: an ARM's vector table.
    """
    import random

    body = bytearray(random.Random(f"{version} {product} {seed}").randbytes(size))
    vectors = struct.pack("<II", 0x20004000, start + 0x141) if vectors is None else vectors
    body[: len(vectors)] = vectors
    fields = (version.encode(), product.encode(), manufacturer.encode())
    LAYOUT.pack_into(body, 0x100, MAGIC, size, 0xFFFFFFFF, *fields)
    struct.pack_into("<I", body, 0x10C, zlib.crc32(body))
    return bytes(body)
