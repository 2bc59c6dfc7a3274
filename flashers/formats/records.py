"""What Intel HEX and S-record have in common: lines of hex digits, whose data are gathered into contiguous runs.

The rule that keeps it cheap: one line at a time, of bounded length, straight into the run that it continues, so that
what is in memory grows with the bytes of the image and not with the text.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from binascii import Error as OddDigits
from binascii import unhexlify
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import BinaryIO, ClassVar

from ..errors import ImageFormat, ImageOverlap
from ..image import FirmwareImage, Segment, join

LONGEST_LINE = 1024
"""Bytes. Longer than the longest record of either format, which has 255 bytes after its count: under 530 characters."""
CHUNK = 1 << 16
"""Bytes that are read at once."""
COMMENTS = (b";", b"#", b"//")
"""What lines begin with that assemblers, linkers and people leave between the records."""
FILLING = b"\0\x1a"
"""What follows the end of a text file of CP/M and DOS, and that of a file in blocks of a fixed size."""

ENCODINGS = (
    (re.compile(rb"\xef\xbb\xbf"), "UTF-8 with a byte order mark"),
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"), "UTF-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff"), "UTF-16"),
    (re.compile(rb"([:S]\0|\0[:S])([0-9A-Fa-f]\0|\0[0-9A-Fa-f])"), "UTF-16 without a byte order mark"),
)
"""How a text file begins that editors and shells of Windows have made."""

NO_TEXT = rb"[\0-\x08\x0e-\x1a\x1c-\x1f]"
"""Bytes that only a raw binary has, but for FILLING at the end."""

BEFORE = rb"(?:\s*(?:;|#|//)[^\r\n]*[\r\n])*\s*"
"""What may come before a file's first record: blank lines and comments."""
HEX_DIGITS = b"0123456789abcdefABCDEF"

Piece = tuple[int, int, bytes]
"""Line number, address, data."""


def lines(stream: BinaryIO, source: str) -> Iterator[tuple[int, bytes]]:
    """The lines from the stream's start on that are neither blank nor comments, stripped, with their numbers from 1 on."""
    for number, line in enumerate(_all_lines(stream), 1):
        if number == 1:
            _refuse_marked(line, source)
        if len(line) >= LONGEST_LINE:
            raise ImageFormat(f"{source}: line {number} is longer than any record")
        stripped = line.strip()
        if stripped.strip(FILLING) and not _is_comment(stripped):
            yield number, stripped


def _is_comment(line: bytes) -> bool:
    return line.startswith(COMMENTS) and holds_no_record(line)


def holds_no_record(text: bytes) -> bool:
    """A record whose first character was damaged is not a comment, nor is one after a line feed that was."""
    return re.search(rb":[0-9A-Fa-f]{10}|S[0-9][0-9A-Fa-f]{8}|^.[0-9A-Fa-f]{8,}$", text) is None


def _all_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Each line, or the beginning of a line that is too long. A line feed, a carriage return or both end a line; one file may
    have all three ends."""
    stream.seek(0)
    rest = b""
    while chunk := stream.read(CHUNK):
        if chunk.endswith(b"\r"):
            chunk += stream.read(1)
        *whole, rest = (rest + chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")).split(b"\n")
        yield from whole
        if len(rest) >= LONGEST_LINE:
            break
    yield rest


def _refuse_marked(line: bytes, source: str) -> None:
    for mark, encoding in ENCODINGS:
        if found := mark.match(line):
            raise ImageFormat(
                f"{source}: line 1 begins with the bytes {found[0].hex(' ').upper()}: the text is {encoding}, not ASCII",
                remedy="Take the file as the build made it, or save it again as ASCII.",
            )
    found = re.search(NO_TEXT, line.strip().strip(FILLING))
    if found and holds_no_record(line):
        raise ImageFormat(
            f"{source}: line 1 has the byte 0x{found[0].hex().upper()}, which no text has: this is not a file of records",
            remedy="If it is a raw binary, name the format: --format bin",
        )


def octets(digits: bytes, source: str, number: int, overhead: int) -> bytes:
    """The bytes that a record's hex digits stand for. Text after a whole record is a comment (avrdude writes such).

    `overhead`: bytes of a whole record that its first byte, the count, doesn't count.
    """
    try:
        return unhexlify(digits)
    except OddDigits:
        strange = next((at for at, digit in enumerate(digits) if digit not in HEX_DIGITS), None)
        if strange is None:
            what = f"has an odd number of hex digits ({len(digits)})"
        elif strange >= 2 and strange == 2 * (int(digits[:2], 16) + overhead) and holds_no_record(digits[strange:]):
            return unhexlify(digits[:strange])
        else:
            what = f"has {chr(digits[strange])!r} in its digits"
        raise ImageFormat(f"{source}: line {number} {what}") from None


class Parser(ABC):
    """One file. `format`: its name; `end`: what the record is called that ends a file. `entry`: by the records so far."""

    format: ClassVar[str]
    end: ClassVar[str]

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self.stream = stream
        self.source = source
        self.entry: int | None = None

    @abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """The data of each record; starts afresh. Raises ImageFormat with the number of the line."""

    def image(self) -> FirmwareImage:
        """Raises ImageFormat and ImageOverlap with the numbers of the lines."""
        segments = gather(self.pieces, self.source)
        return FirmwareImage(segments, self.format, self.source, entry=self.entry)

    def error(self, number: int, what: str, remedy: str | None = None) -> ImageFormat:
        return ImageFormat(f"{self.source}: line {number} {what}", remedy=remedy)

    def after_end(self, number: int) -> ImageFormat:
        return self.error(
            number,
            f"comes after the {self.end}",
            remedy="Is it several files in one? Join them by a tool that knows the format, as srec_cat.",
        )

    def without_end(self, number: int, line: str) -> ImageFormat:
        """`line`: the record that is not there."""
        return self.error(
            number,
            f"is the last, and no {self.end} follows",
            remedy=f"Copy or build it again. If the tool that made it writes no end, add the line {line}",
        )


def gather(pieces: Callable[[], Iterable[Piece]], source: str) -> tuple[Segment, ...]:
    """Joins the data of all records, in whatever order they come.

    `pieces` reads the file from its start; it is called again to name the lines of an overlap.
    """
    runs: list[Segment] = []
    run, start, end = bytearray(), 0, -1
    for _, address, data in pieces():
        if address != end:
            runs.append(Segment(start, bytes(run)))
            run, start, end = bytearray(), address, address
        run += data
        end += len(data)
    runs.append(Segment(start, bytes(run)))
    del run
    try:
        return join(runs, source=source)
    except ImageOverlap as overlap:
        twice = overlap.address or 0
        claims = (line for line, address, data in pieces() if address <= twice < address + len(data))
        first, second = islice(claims, 2)
        raise ImageOverlap(f"{overlap.cause}, by lines {first} and {second}", address=twice) from None
