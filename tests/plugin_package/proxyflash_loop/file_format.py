"""Firmware files of parts on a ring: "LOOP1", the address and the CRC-32 of the bytes, then the bytes."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from proxyflash.flashers.errors import ImageFormat
from proxyflash.flashers.formats.format import Format
from proxyflash.flashers.formats.raw import filled
from proxyflash.flashers.image import FirmwareImage, Segment

HEAD = struct.Struct(">5sII")
MAGIC = b"LOOP1"


class LoopFile(Format):
    """One stretch of memory."""

    name = "loop"
    endings = (".loop",)
    is_written = True

    @staticmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        return head.startswith(MAGIC)

    @staticmethod
    def read(stream: BinaryIO, source: str) -> FirmwareImage:
        head, data = stream.read(HEAD.size), stream.read()
        if len(head) < HEAD.size:
            raise ImageFormat(f"{source} ends at byte {len(head)}, within its head")
        _, address, crc = HEAD.unpack(head)
        if zlib.crc32(data) != crc:
            raise ImageFormat(f"{source}: its CRC-32 is 0x{crc:08X}, and that of its bytes 0x{zlib.crc32(data):08X}")
        return FirmwareImage((Segment(address, data),), "loop", source)

    @staticmethod
    def write(image: FirmwareImage, stream: BinaryIO) -> None:
        data = b"".join(filled(image))
        stream.write(HEAD.pack(MAGIC, image.start, zlib.crc32(data)) + data)
