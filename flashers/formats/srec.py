"""Motorola S-record: lines of `S` type, count address data checksum, in hex digits.

After Motorola's "M68000 Family Programmer's Reference Manual" (M68000PM/AD, revision 1), appendix C. The count is of
the bytes that follow it. All of a record's bytes, its checksum with them, add up to 0xFF modulo 256. A file ends with
one termination record, S7, S8 or S9; where it has none, a count of all its data records shows as well that it is whole,
and that of a later block does not. A list of symbols may come before the records, between two lines that begin with
`$$`, as `objcopy -O symbolsrec` writes it.
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
SYMBOLS = b"$$"
SYMBOL = re.compile(rb"\S+ \$[0-9A-Fa-f]+")
"""A symbol's name and its address."""


class RecordType(IntEnum):
    """The digit after the S, section C.2; S4 is reserved."""

    HEADER = 0
    DATA_16 = 1
    DATA_24 = 2
    DATA_32 = 3
    COUNT_16 = 5
    COUNT_24 = 6
    TERMINATION_32 = 7
    TERMINATION_24 = 8
    TERMINATION_16 = 9


ADDRESS_SIZE = {
    RecordType.HEADER: 2,
    RecordType.DATA_16: 2,
    RecordType.DATA_24: 3,
    RecordType.DATA_32: 4,
    RecordType.COUNT_16: 2,
    RecordType.COUNT_24: 3,
    RecordType.TERMINATION_32: 4,
    RecordType.TERMINATION_24: 3,
    RecordType.TERMINATION_16: 2,
}
"""Bytes of each type's address field, which is the number of data records in S5 and S6."""

BY_TYPE = [(RecordType(kind), ADDRESS_SIZE[RecordType(kind)]) if kind != 4 else None for kind in range(10)]


def read(stream: BinaryIO, source: str) -> FirmwareImage:
    """Raises ImageFormat and ImageOverlap with the numbers of the lines."""
    return _Parser(stream, source).image()


def write(image: FirmwareImage, stream: BinaryIO) -> None:
    """Records of 32 bytes with the shortest addresses that hold the image and its entry, a count and a termination."""
    entry = image.entry or 0
    top = max(image.end - 1, entry)
    if top >= 1 << 32:
        raise ImageNotWritten(f"S-record addresses have 32 bits, and the image needs 0x{top:X}")
    size = 2 if top < 1 << 16 else 3 if top < 1 << 24 else 4
    stream.write(_record(RecordType.HEADER, 0))
    count = 0
    for segment in image.segments:
        data = memoryview(segment.data)
        for offset in range(0, segment.size, BYTES_PER_RECORD):
            chunk = bytes(data[offset : offset + BYTES_PER_RECORD])
            stream.write(_record(RecordType(size - 1), segment.address + offset, chunk))
            count += 1
    if count < 1 << 24:
        stream.write(_record(RecordType.COUNT_16 if count < 1 << 16 else RecordType.COUNT_24, count))
    stream.write(_record(RecordType(11 - size), entry))


class SRecord(Format):
    """Motorola S-records."""

    name = "srec"
    endings = (".s19", ".srec", ".mot", ".s28", ".s37")
    priority = 50
    is_written = True

    @staticmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        return re.match(records.BEFORE + rb"([Ss][0-9][0-9A-Fa-f]{8}|\$\$ [\x20-\x7e]+([\r\n]|$))", head) is not None

    read = staticmethod(read)
    write = staticmethod(write)


def _record(kind: RecordType, address: int, data: bytes = b"") -> bytes:
    size = ADDRESS_SIZE[kind]
    body = bytes((size + len(data) + 1,)) + address.to_bytes(size, "big") + data
    return b"S%d" % kind + (body + bytes((~sum(body) & 0xFF,))).hex().upper().encode() + b"\n"


class _Parser(records.Parser):
    format = "srec"
    end = "termination record"

    def pieces(self) -> Iterator[records.Piece]:
        count, block, number, ended, counted = 0, 0, 0, False, False
        in_symbols = False
        for number, line in records.lines(self.stream, self.source):
            if ended:
                raise self.after_end(number)
            if line.startswith(SYMBOLS):
                in_symbols = not in_symbols
                continue
            if in_symbols and SYMBOL.fullmatch(line) and records.holds_no_record(line):
                continue
            kind, size = self.kind(number, line)
            record = self.checked(number, line, size)
            address = int.from_bytes(record[1 : 1 + size], "big")
            counted = False
            if 1 <= kind <= 3:
                count += 1
                if address + len(record) - size - 2 > 1 << 8 * size:
                    raise self.error(number, f"runs over the end of its {8 * size}-bit addresses")
                yield number, address, record[1 + size : -1]
            elif kind >= RecordType.TERMINATION_32:
                ended = True
                # Writers that know no start address put 0 there.
                self.entry = address or None
            elif kind in (RecordType.COUNT_16, RecordType.COUNT_24):
                # The count of a block (C.2), or of all the file before it; what doesn't fit its field is lost.
                counted = address == count % (1 << 8 * size)
                if not counted and address != count - block:
                    raise self.error(
                        number, f"announces {address} data records, and there are {count} before it", NOT_WHOLE
                    )
                block = count
        if number and not ended and not counted:
            raise self.without_end(number, "S9030000FC")

    def kind(self, number: int, line: bytes) -> tuple[RecordType, int]:
        """The record's type and the bytes of its address."""
        if line[:1] not in b"Ss":
            raise self.error(number, "does not begin with 'S'")
        known = BY_TYPE[line[1] - 0x30] if len(line) > 1 and 0x30 <= line[1] <= 0x39 else None
        if known is None:
            raise self.error(
                number, f"has the record type {line[:2].decode('latin-1')!r}, which S-record does not know"
            )
        return known

    def checked(self, number: int, line: bytes, size: int) -> bytes:
        """The record's bytes, count to checksum, after its length and its checksum have been compared."""
        record = records.octets(line[2:], self.source, number, 1)
        if not record or len(record) != record[0] + 1:
            told = f"{record[0]} bytes" if record else "no count"
            raise self.error(number, f"announces {told} after its count and has {max(0, len(record) - 1)}")
        if len(record) < size + 2:
            raise self.error(number, f"has no room for its address of {size} bytes")
        if (total := sum(record) & 0xFF) != 0xFF:
            wanted = (record[-1] + 0xFF - total) & 0xFF
            raise self.error(
                number, f"has the checksum 0x{record[-1]:02X}, and its bytes give 0x{wanted:02X}", NOT_WHOLE
            )
        return record
