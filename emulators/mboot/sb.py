"""Boot images (.sb, version 1, not encrypted) as the bootloader carries them out, after `sbloader.h` and `sbloader.c` of the
source that NXP publishes (Kinetis Bootloader 2.0).

A file is a row of chunks of 16 bytes: three of a header, then sections. A section begins with a tag, and goes on with commands,
each one chunk, and the data of a load. A command has a checksum, a load the CRC of its data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator

CHUNK = 16
SUCCESS = 0
ABORTED = 10002
SIGNATURE, SECTION_LENGTH, UNENCRYPTED_ONLY, CHECKSUM, CRC_ERROR, UNKNOWN = 10101, 10102, 10103, 10105, 10106, 10107
NOP, TAG, LOAD, FILL, JUMP, CALL, MODE, ERASE, RESET = range(9)
Write = Callable[[int, bytes], int]
Erase = Callable[[int, int], int]


def crc32(data: bytes) -> int:
    """CRC-32/MPEG-2, bit by bit (check value 0x0376E6E7)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


def checksum(chunk: bytes) -> int:
    return (0x5A + sum(chunk[1:])) & 0xFF


class SbLoader:
    """`write` and `erase` return a status. `resets`: the file has asked for a reset."""

    def __init__(self, write: Write, erase: Erase) -> None:
        self.resets = False
        self._write = write
        self._erase = erase
        self._kept = bytearray()
        self._course = self._run()
        next(self._course)

    def feed(self, data: bytes) -> int:
        """The status after these bytes of the file."""
        self._kept += data
        while len(self._kept) >= CHUNK:
            chunk = bytes(self._kept[:CHUNK])
            del self._kept[:CHUNK]
            if status := self._course.send(chunk):
                return status
        return SUCCESS

    def _run(self) -> Generator[int, bytes, None]:
        """Gets chunk by chunk, and gives the status after each."""
        yield SUCCESS
        head = yield SUCCESS
        if head[4:8] != b"STMP" or head[8] > 1:
            yield SIGNATURE
        total = int.from_bytes(head[12:16], "little")
        head = yield SUCCESS
        first, _, keys = struct.unpack_from("<IIH", head)
        if not 3 <= first < total:
            yield SECTION_LENGTH
        if keys:
            yield UNENCRYPTED_ONLY
        for _ in range(first - 3):
            yield SUCCESS
        while True:
            command = yield SUCCESS
            if command[0] != checksum(command):
                yield CHECKSUM
            tag, _, address, count, data = struct.unpack_from("<xBHIII", command)
            if tag in (NOP, TAG):
                continue
            if tag == LOAD:
                yield from self._load(address, count, data)
            elif tag == ERASE:
                if status := self._erase(address, count):
                    yield status
            elif tag == RESET:
                self.resets = True
                yield ABORTED
            else:
                yield UNKNOWN

    def _load(self, address: int, count: int, crc: int) -> Generator[int, bytes, None]:
        whole = b""
        while len(whole) < count:
            chunk = yield SUCCESS
            left = count - len(whole)
            if status := self._write(address + len(whole), chunk[:left]):
                yield status
            whole += chunk
        if crc32(whole) != crc:
            yield CRC_ERROR


def chunk(tag: int, address: int = 0, count: int = 0, data: int = 0, flags: int = 0) -> bytes:
    """A command."""
    body = struct.pack("<BHIII", tag, flags, address, count, data)
    return bytes((checksum(b"\0" + body),)) + body


def make(start: int, image: bytes, unit: int, *, reset: bool) -> bytes:
    """A file that erases whole units of this size from `start` on, loads the image there, its vector table last, and resets the
    part, if asked to."""
    body = chunk(ERASE, start, -(-len(image) // unit) * unit)
    for at, part in ((CHUNK, image[CHUNK:]), (0, image[:CHUNK])):
        padded = part + bytes(-len(part) % CHUNK)
        body += chunk(LOAD, start + at, len(part), crc32(padded)) + padded
    body += chunk(RESET) if reset else b""
    total = 4 + len(body) // CHUNK
    head = bytes(CHUNK) + struct.pack("<4s4sBBHI", bytes(4), b"STMP", 1, 1, 0, total)
    head += struct.pack("<IIHHHH", 3, 1, 0, 3, 3, 1)
    return head + chunk(TAG, 1, len(body) // CHUNK, 1) + body
