"""What Intel HEX and S-record have in common: lines of hex digits, whose data are gathered into contiguous runs.

The rule that keeps it cheap: one line at a time, of bounded length, straight into the run that it continues, so that
what is in memory grows with the bytes of the image and not with the text.
"""

from __future__ import annotations

from binascii import Error as OddDigits
from binascii import unhexlify
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import BinaryIO

from ..errors import ImageFormat, ImageOverlap
from ..image import Segment, join

LONGEST_LINE = 1024
"""Bytes. Longer than the longest record of either format, which has 255 bytes after its count: under 530 characters."""

BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "UTF-8 with a byte order mark",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""What editors and shells of Windows make of a text file."""

Piece = tuple[int, int, bytes]
"""Line number, address, data."""


def lines(stream: BinaryIO, source: str) -> Iterator[tuple[int, bytes]]:
    """The lines from the stream's start on that aren't blank, stripped, with their numbers from 1 on."""
    stream.seek(0)
    readline = stream.readline
    number = 0
    while line := readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise ImageFormat(f"{source}: line {number} is longer than any record")
        if number == 1:
            _refuse_marked(line, source)
        if stripped := line.strip():
            yield number, stripped


def _refuse_marked(line: bytes, source: str) -> None:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if line.startswith(mark):
            raise ImageFormat(
                f"{source}: line 1 begins with the bytes {mark.hex(' ').upper()}: the text is {encoding}, not ASCII",
                remedy="Take the file as the build made it, or save it again as ASCII.",
            )


def octets(digits: bytes, source: str, number: int) -> bytes:
    """The bytes that a record's hex digits stand for."""
    try:
        return unhexlify(digits)
    except OddDigits:
        strange = next((chr(digit) for digit in digits if digit not in b"0123456789abcdefABCDEF"), None)
        what = (
            f"has an odd number of hex digits ({len(digits)})" if strange is None else f"has {strange!r} in its digits"
        )
        raise ImageFormat(f"{source}: line {number} {what}") from None


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
