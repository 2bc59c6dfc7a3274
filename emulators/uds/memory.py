"""The memory of an emulated ECU as its bootloader sees it: erase, check, download, upload.

After ISO 14229-1:2020: ReadMemoryByAddress (11.3), RequestDownload, RequestUpload, TransferData, RequestTransferExit
(15.2 to 15.5). One transfer at a time; only its exit ends it, or who calls `abandon`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...transports import json_text, private_files
from .. import application
from ..errors import broken_state
from ..flash import NorFlash
from .nrc import Nrc, RequestRefused, location

MOST_BYTES = 16 << 20
"""Of a marker: every erase unit may be a segment of its own."""


class Marker:
    """What the bootloader notes of the last programming, kept where a cut does not reach it.

    `complete`: it was declared complete. `segments`: what was downloaded since the last erase, as (start, size).
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.complete, self.segments = (False, []) if path is None or not path.exists() else _noted(path)

    def note(self, *, complete: bool, segments: list[tuple[int, int]]) -> None:
        self.complete = complete
        self.segments = segments
        if self._path is not None:
            private_files.put(self._path, json.dumps({"complete": complete, "segments": segments}).encode())


def _noted(path: Path) -> tuple[bool, list[tuple[int, int]]]:
    """Raises StateFolder for what `note` doesn't write."""
    try:
        kept = json_text.parse(private_files.read(path), most=MOST_BYTES)
        complete, segments = kept["complete"], [(start, size) for start, size in kept["segments"]]
        numbers = [number for segment in segments for number in segment]
        if type(complete) is bool and all(type(number) is int and number >= 0 for number in numbers):
            return complete, segments
    except (ValueError, TypeError, KeyError):
        pass
    raise broken_state(path)


class UdsMemory:
    """`part`: its row of parts.toml. `check_answer`: what the check routine answers in place of a status."""

    check_answer = b""

    def __init__(self, flash: NorFlash, marker: Marker, part: Mapping[str, Any]) -> None:
        self.flash = flash
        self.marker = marker
        self._block_length: int = part["block_length"]
        self._uploads: bool = part["upload"]
        self.abandon()

    def abandon(self) -> None:
        """Forgets a transfer that was under way, as a new session does."""
        self._transfer: tuple[int, int] | None = None
        self._uploading = False
        self._next = 0
        self._counter = 0
        self._last_answer: bytes | None = None

    def application(self) -> application.Application | None:
        """What may be booted."""
        return application.find(self.flash, self.flash.base) if self.marker.complete else None

    # Routines.

    def erase(self, argument: bytes) -> None:
        start, size, rest = location(argument)
        if rest:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        self._inside(start, size)
        end = start + size
        self.marker.note(complete=False, segments=[])
        unit, _ = self.flash.unit_of(start)
        while unit < end:
            self.flash.erase(unit)
            unit += self.flash.unit_of(unit)[1]

    def check(self, argument: bytes) -> bool:
        """The CRC-32 of all that was downloaded since the erase; or of a range, with its address and size ahead."""
        if len(argument) == 4:
            crc = 0
            for start, size in sorted(self.marker.segments):
                crc = zlib.crc32(self.flash.read(start, size), crc)
            return crc == int.from_bytes(argument, "big")
        start, size, rest = location(argument)
        self._inside(start, size)
        if len(rest) != 4:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        return zlib.crc32(self.flash.read(start, size)) == int.from_bytes(rest, "big")

    def check_dependencies(self) -> bool:
        whole = application.find(self.flash, self.flash.base) is not None
        self.marker.note(complete=whole, segments=self.marker.segments)
        return whole

    def call(self, routine: int, argument: bytes) -> bool:
        """Runs a routine of the part's own, beyond the standard's; False: there is no such routine. Raises RequestRefused."""
        return False

    # Services.

    def read(self, data: bytes) -> bytes:
        start, size, rest = location(data)
        if rest:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        if not self._uploads:
            raise RequestRefused(Nrc.SERVICE_NOT_SUPPORTED)
        self._inside(start, size)
        if size >= self._block_length:
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        return self.flash.read(start, size)

    def request_transfer(self, data: bytes, *, uploading: bool) -> bytes:
        if uploading and not self._uploads:
            raise RequestRefused(Nrc.SERVICE_NOT_SUPPORTED)
        if len(data) < 2:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        start, size, rest = location(data[1:])
        if rest:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        if data[0] != 0:
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        self._inside(start, size)
        if self._transfer is not None:
            raise RequestRefused(Nrc.CONDITIONS_NOT_CORRECT)
        self.abandon()
        self._transfer, self._next, self._uploading = (start, size), start, uploading
        if not uploading:
            self.marker.note(complete=False, segments=self.marker.segments)
        return b"\x20" + self._block_length.to_bytes(2, "big")

    def transfer(self, data: bytes, *, repeats: bool = True) -> bytes:
        """`repeats`: whether a block that comes again is acknowledged again."""
        if not data:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        if self._transfer is None:
            raise RequestRefused(Nrc.REQUEST_SEQUENCE_ERROR)
        counter, block = data[0], data[1:]
        if repeats and counter == self._counter and self._last_answer is not None:
            return self._last_answer  # A repetition: its answer got lost (15.4.1). Nothing is done twice.
        if counter != (self._counter + 1) & 0xFF:
            raise RequestRefused(Nrc.WRONG_BLOCK_COUNTER)
        start, size = self._transfer
        left = start + size - self._next
        if not left:
            raise RequestRefused(Nrc.REQUEST_SEQUENCE_ERROR)
        answer = bytes([counter])
        if self._uploading:
            if block:
                raise RequestRefused(Nrc.INCORRECT_LENGTH)
            block = self.flash.read(self._next, min(self._block_length - 2, left))
            answer += block
        else:
            if not block:
                raise RequestRefused(Nrc.INCORRECT_LENGTH)
            if len(block) > left:
                raise RequestRefused(Nrc.TRANSFER_SUSPENDED)
            self.flash.program(self._next, block + b"\xff" * (-len(block) % self.flash.program_unit))
        self._next += len(block)
        self._counter = counter
        self._last_answer = answer
        return answer

    def exit_transfer(self, data: bytes) -> bytes:
        """`data`: nothing, or the CRC-32 of the segment."""
        if self._transfer is None or self._next != sum(self._transfer):
            raise RequestRefused(Nrc.REQUEST_SEQUENCE_ERROR)
        start, size = self._transfer
        if data and len(data) != 4:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        if data and zlib.crc32(self.flash.read(start, size)) != int.from_bytes(data, "big"):
            raise RequestRefused(Nrc.PROGRAMMING_FAILURE)
        if not self._uploading:
            self.marker.note(complete=False, segments=[*self.marker.segments, (start, size)])
        self.abandon()
        return b""

    def _inside(self, start: int, size: int) -> None:
        if size == 0 or start < self.flash.base or start + size > self.flash.end:
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
