"""The memory of an emulated ECU with a maker's requests: blocks by number, a driver in RAM, blocks that carry their addresses.

Data of `Maker`; written from ISO 14229-1:2020 and from what is publicly known of makers' bootloaders. The rule: what a request
carries is checked word by word, as the maker's data lists them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import crcmod

from .maker import Maker
from .memory import UdsMemory
from .nrc import Nrc, RequestRefused, location

_X25 = crcmod.mkCrcFun(0x11021, initCrc=0, rev=True, xorOut=0xFFFF)
"""CRC-16/IBM-SDLC, as HDLC's frames have it (ITU-T X.25)."""
_CRC16 = crcmod.mkCrcFun(0x11021, initCrc=0xFFFF, rev=False, xorOut=0)
"""CRC-16/IBM-3740."""


class MakerMemory(UdsMemory):
    """The memory of an ECU with a maker's requests."""

    def __init__(self, maker: Maker, *rest: Any) -> None:
        self.maker = maker
        self._ram = bytearray()
        self._was_ram = False
        self._form = ""
        self._packed: bytearray | None = None
        super().__init__(*rest)

    def abandon(self) -> None:
        self._packed = None
        self._placed: list[tuple[int, int]] | None = None
        """What came in blocks that have their addresses with them."""
        super().abandon()

    def _arguments(self, words: Sequence[str], argument: bytes) -> dict[str, int]:
        """What the words name in a routine's argument. Raises RequestRefused."""
        found: dict[str, int] = {}
        signature = self.maker.signature
        widths = {"alfi": 1, "block": 1, "address": 4, "size": 4, "crc32": 4, "crc16": 2, "signature": len(signature)}
        for word in words:
            wanted = b"" if word in widths else bytes.fromhex(word)
            width = widths.get(word, len(wanted))
            part, argument = argument[:width], argument[width:]
            if len(part) != width:
                raise RequestRefused(Nrc.INCORRECT_LENGTH)
            if wanted and part != wanted:
                raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
            if word == "signature" and part != signature:
                raise RequestRefused(Nrc.PROGRAMMING_FAILURE)
            found[word] = int.from_bytes(part, "big")
            if word == "alfi":
                widths |= {"address": part[0] & 0x0F, "size": part[0] >> 4}
        if argument:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        if "block" in found:
            if found["block"] not in self.maker.blocks:
                raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
            found["address"], found["size"] = self.maker.blocks[found["block"]]
        return found

    def erase(self, argument: bytes) -> None:
        found = self._arguments(self.maker.erase, argument)
        start, size = found.get("address", self.flash.base), found.get("size", self.flash.end - self.flash.base)
        super().erase(b"\x44" + start.to_bytes(4, "big") + size.to_bytes(4, "big"))

    def check(self, argument: bytes) -> bool:
        """What was downloaded to RAM, the range, what was downloaded to the block or at all: against its checksum."""
        ram = bool(self.maker.check_ram) and self._was_ram
        found = self._arguments(self.maker.check_ram if ram else self.maker.check, argument)
        taken = sorted(self.marker.segments)
        if "address" in found and "block" not in found:
            ram = self._is_ram(found["address"], found["size"])
        if ram:
            data = bytes(self._ram)
        elif "address" in found and "block" not in found:
            self._inside(found["address"], found["size"])
            data = self.flash.read(found["address"], found["size"])
        elif "block" in found:
            inside = [item for item in taken if found["address"] <= item[0] < found["address"] + found["size"]]
            data = b"".join(self.flash.read(start, size) for start, size in inside)
        else:
            data = b"".join(self.flash.read(start, size) for start, size in taken)
        crc32, crc16 = zlib.crc32(data), _CRC16(data)
        if self.maker.answers_checksum:
            self.check_answer = crc32.to_bytes(4, "big")
        passed = found.get("crc32", crc32) == crc32 and found.get("crc16", crc16) == crc16
        if passed and not ram and self.maker.whole_after == "check":
            return self.check_dependencies()
        return passed

    def _is_ram(self, start: int, size: int) -> bool:
        ram, ram_size = self.maker.ram
        return ram <= start and start + size <= ram + ram_size

    def call(self, routine: int, argument: bytes) -> bool:
        if routine not in self.maker.routines:
            return False
        self._arguments(self.maker.routines[routine], argument)
        return True

    def request_transfer(self, data: bytes, *, uploading: bool) -> bytes:
        if len(data) < 2:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        if self.maker.download and not uploading:
            if data[0] and data[0] not in self.maker.formats:
                raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
            self._arguments(self.maker.download, data[1:])
            return self._request_blocks()
        start, size, _ = location(data[1:])
        if self.maker.blocks:
            if start not in self.maker.blocks:
                raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
            start, most = self.maker.blocks[start]
            if size > most:
                raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        self._was_ram = self._is_ram(start, size)
        self._form = self.maker.formats.get(data[0], "") if data[0] else ""
        if data[0] and not self._form:
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        if self._transfer is not None:
            raise RequestRefused(Nrc.CONDITIONS_NOT_CORRECT)
        if not self._was_ram and not self._form:
            where = b"\0\x44" + start.to_bytes(4, "big") + size.to_bytes(4, "big")
            answer = super().request_transfer(where, uploading=uploading)
            return answer if self.maker.names_length else b""
        if not self._was_ram:
            self._inside(start, size)
            self.marker.note(complete=False, segments=self.marker.segments)
        self.abandon()
        self._transfer, self._packed = (start, size), bytearray()
        return b"\x20" + self._block_length.to_bytes(2, "big") if self.maker.names_length else b""

    def _request_blocks(self) -> bytes:
        """A download whose blocks have their addresses with them."""
        if self._placed is not None:
            raise RequestRefused(Nrc.CONDITIONS_NOT_CORRECT)
        self.abandon()
        self._placed = []
        self.marker.note(complete=False, segments=self.marker.segments)
        return b"\x20" + self._block_length.to_bytes(2, "big") if self.maker.names_length else b"\x10\x00"

    def _take_block(self, counter: int, block: bytes) -> bytes:
        """The data of a block, and with `download` also where it lies. Raises RequestRefused."""
        words = self.maker.block
        widths = {"address": 3, "length": 1, "crc16-x25": 2}
        ahead, behind = words[: words.index("data")], words[words.index("data") + 1 :]
        width = sum(widths[word] for word in words if word != "data")
        if len(block) <= width:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        data = block[sum(widths[word] for word in ahead) : len(block) - sum(widths[word] for word in behind)]
        at, found = 0, {}
        for word in words:
            if word == "crc16-x25" and _X25(bytes([0x36, counter]) + block[:at]) != int.from_bytes(
                block[at : at + 2], "big"
            ):
                raise RequestRefused(Nrc.PROGRAMMING_FAILURE)
            length = len(data) if word == "data" else widths[word]
            found[word] = int.from_bytes(block[at : at + length], "big")
            at += length
        if found.get("length", len(data)) != len(data):
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        if self._placed is not None:
            start = found["address"]
            self._inside(start, len(data))
            self.flash.program(start, data + b"\xff" * (-len(data) % self.flash.program_unit))
            self._placed.append((start, len(data)))
        return data

    def transfer(self, data: bytes, *, repeats: bool = True) -> bytes:
        if data and self.maker.block and not self._uploading:
            return self._transfer_block(data[0], data[1:], repeats=repeats)
        return self._transfer_plain(data, repeats=repeats)

    def _transfer_block(self, counter: int, block: bytes, *, repeats: bool) -> bytes:
        status = self.maker.block_status
        if self._placed is None:
            if self._transfer is None:
                raise RequestRefused(Nrc.REQUEST_SEQUENCE_ERROR)
            return self._transfer_plain(bytes([counter]) + self._take_block(counter, block), repeats=repeats) + status
        if repeats and counter == self._counter and self._last_answer is not None:
            return self._last_answer
        if counter != (self._counter + 1) & 0xFF:
            raise RequestRefused(Nrc.WRONG_BLOCK_COUNTER)
        self._take_block(counter, block)
        self._counter, self._last_answer = counter, bytes([counter]) + status
        return self._last_answer

    def _transfer_plain(self, data: bytes, *, repeats: bool) -> bytes:
        if self._packed is None or not data:
            return super().transfer(data, repeats=repeats)
        counter, block = data[0], data[1:]
        if repeats and counter == self._counter and self._last_answer is not None:
            return self._last_answer
        if counter != (self._counter + 1) & 0xFF:
            raise RequestRefused(Nrc.WRONG_BLOCK_COUNTER)
        if len(self._packed) + len(block) > 1 << 20:
            raise RequestRefused(Nrc.TRANSFER_SUSPENDED)
        self._packed += block
        self._counter, self._last_answer = counter, bytes([counter])
        return self._last_answer

    def exit_transfer(self, data: bytes) -> bytes:
        if self._placed is not None:
            if data or not self._placed:
                raise RequestRefused(Nrc.INCORRECT_LENGTH if data else Nrc.REQUEST_SEQUENCE_ERROR)
            self.marker.note(complete=False, segments=[*self.marker.segments, *self._placed])
            self.abandon()
            if self.maker.whole_after == "exit":
                self.check_dependencies()
            return b""
        before = len(self.marker.segments)
        answer = self._exit_one(data)
        if not self.maker.exit_answer:
            return answer
        content = b"".join(self.flash.read(start, size) for start, size in self.marker.segments[before:])
        if not content:
            content = bytes(self._ram)
        return (
            zlib.crc32(content).to_bytes(4, "big")
            if self.maker.exit_answer == "crc32"
            else _CRC16(content).to_bytes(2, "big")
        )

    def _exit_one(self, data: bytes) -> bytes:
        if self._packed is None or self._transfer is None:
            answer = super().exit_transfer(data)
            if self.maker.whole_after == "exit":
                self.check_dependencies()
            return answer
        start, size = self._transfer
        plain = bytes(self._packed)
        if self._form == "zlib":
            try:
                plain = zlib.decompressobj().decompress(plain, size + 1)
            except zlib.error:
                raise RequestRefused(Nrc.PROGRAMMING_FAILURE) from None
        elif self._form == "xor":
            plain = bytes(byte ^ 0x55 for byte in plain)
        if len(plain) != size:
            raise RequestRefused(Nrc.PROGRAMMING_FAILURE)
        if self._was_ram:
            self._ram[:] = plain
        else:
            self.flash.program(start, plain + b"\xff" * (-size % self.flash.program_unit))
            self.marker.note(complete=False, segments=[*self.marker.segments, (start, size)])
        self.abandon()
        return b""
