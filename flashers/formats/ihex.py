"""Intel HEX: lines of `:` count address type data checksum, in hex digits.

After Intel's "Hexadecimal Object File Format Specification", revision A, 6 January 1988. All of a record's bytes, its
checksum with them, add up to 0 modulo 256. A data record's address has 16 bits; what it is added to was set last by an
extended segment address record (its addresses wrap within 64 KiB) or an extended linear one (they run on).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import BinaryIO

from ..errors import NOT_WHOLE, ImageNotWritten
from ..image import FirmwareImage
from . import records
from .format import Format

BYTES_PER_RECORD = 32
END = b":00000001FF"
KIB_64 = 0x10000
GIB_4 = 0x1_0000_0000


class RecordType(IntEnum):
    """RECTYP, section 2 and following."""

    DATA = 0
    END_OF_FILE = 1
    EXTENDED_SEGMENT_ADDRESS = 2
    START_SEGMENT_ADDRESS = 3
    EXTENDED_LINEAR_ADDRESS = 4
    START_LINEAR_ADDRESS = 5


UNIVERSAL = range(0x0A, 0x0F)
"""Record types that the micro:bit's "Universal Hex Specification", version 0.4.0, adds."""

DATA_LENGTH = {
    RecordType.END_OF_FILE: 0,
    RecordType.EXTENDED_SEGMENT_ADDRESS: 2,
    RecordType.START_SEGMENT_ADDRESS: 4,
    RecordType.EXTENDED_LINEAR_ADDRESS: 2,
    RecordType.START_LINEAR_ADDRESS: 4,
}


def read(stream: BinaryIO, source: str) -> FirmwareImage:
    """Raises ImageFormat and ImageOverlap with the numbers of the lines."""
    return _Parser(stream, source).image()


def write(image: FirmwareImage, stream: BinaryIO) -> None:
    """Records of 32 bytes that end at multiples of 32, linear addressing, and the entry if there is one."""
    if image.end > GIB_4:
        raise ImageNotWritten(f"Intel HEX addresses end at 4 GiB, and the image at 0x{image.end:X}")
    upper = 0
    for segment in image.segments:
        address, data = segment.address, memoryview(segment.data)
        while address < segment.end:
            if address >> 16 != upper:
                upper = address >> 16
                stream.write(_record(RecordType.EXTENDED_LINEAR_ADDRESS, 0, upper.to_bytes(2, "big")))
            end = min(address - address % BYTES_PER_RECORD + BYTES_PER_RECORD, segment.end)
            chunk = data[address - segment.address : end - segment.address]
            stream.write(_record(RecordType.DATA, address & 0xFFFF, bytes(chunk)))
            address = end
    if image.entry is not None:
        if image.entry >= GIB_4:
            raise ImageNotWritten(f"Intel HEX has 32 bits for the entry point, which is 0x{image.entry:X}")
        stream.write(_record(RecordType.START_LINEAR_ADDRESS, 0, image.entry.to_bytes(4, "big")))
    stream.write(_record(RecordType.END_OF_FILE, 0, b""))


class IntelHex(Format):
    """Intel HEX."""

    name = "ihex"
    endings = (".hex", ".ihex", ".ihx")
    priority = 40
    is_written = True

    @staticmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        return re.match(records.BEFORE + rb":[0-9A-Fa-f]{10}", head) is not None

    read = staticmethod(read)
    write = staticmethod(write)


def _record(kind: RecordType, address: int, data: bytes) -> bytes:
    body = bytes((len(data), address >> 8, address & 0xFF, kind)) + data
    return b":" + (body + bytes((-sum(body) & 0xFF,))).hex().upper().encode() + b"\n"


class _Parser(records.Parser):
    format = "ihex"
    end = "end-of-file record"

    def pieces(self) -> Iterator[records.Piece]:
        base, wraps, number, ended = 0, False, 0, False
        for number, line in records.lines(self.stream, self.source):
            if ended:
                if line[:11] == END:
                    continue
                raise self.after_end(number)
            record = self.checked(number, line)
            if not record[3]:
                offset = record[1] << 8 | record[2]
                size = record[0]
                room = KIB_64 - offset if wraps else GIB_4 - base - offset
                if size <= room:
                    yield number, base + offset, record[4:-1]
                else:
                    yield number, base + offset, record[4 : 4 + room]
                    yield number, base if wraps else 0, record[4 + room : -1]
                continue
            kind, value = self.control(number, record)
            if kind is RecordType.END_OF_FILE:
                ended = True
            elif kind is RecordType.EXTENDED_SEGMENT_ADDRESS:
                base, wraps = value << 4, True
            elif kind is RecordType.EXTENDED_LINEAR_ADDRESS:
                base, wraps = value << 16, False
            elif kind is RecordType.START_SEGMENT_ADDRESS:
                self.entry = ((value >> 16) << 4) + (value & 0xFFFF)
            else:
                self.entry = value
        if number and not ended:
            raise self.without_end(number, END.decode())

    def checked(self, number: int, line: bytes) -> bytes:
        """The record's bytes, count to checksum, after its length and its checksum have been compared."""
        if line[:1] != b":":
            raise self.error(number, "does not begin with ':'")
        record = records.octets(line[1:], self.source, number, 5)
        if len(record) < 5 or len(record) != record[0] + 5:
            told = f"{record[0]} bytes of data" if record else "no count"
            raise self.error(number, f"announces {told} and has {max(0, len(record) - 5)}")
        if total := sum(record) & 0xFF:
            wanted = (record[-1] - total) & 0xFF
            raise self.error(
                number, f"has the checksum 0x{record[-1]:02X}, and its bytes give 0x{wanted:02X}", NOT_WHOLE
            )
        return record

    def control(self, number: int, record: bytes) -> tuple[RecordType, int]:
        """The type of a record that isn't data, and its data as a number."""
        try:
            kind = RecordType(record[3])
        except ValueError:
            if record[3] in UNIVERSAL:
                raise self.error(
                    number,
                    f"has the record type 0x{record[3]:02X}: this is a Universal Hex, with programs for several boards",
                    "Give the .hex file of this board's own build.",
                ) from None
            raise self.error(number, f"has the record type 0x{record[3]:02X}, which Intel HEX does not know") from None
        if record[0] != DATA_LENGTH[kind]:
            raise self.error(number, f"has {record[0]} bytes of data, and its type {DATA_LENGTH[kind]}")
        return kind, int.from_bytes(record[4:-1], "big")
