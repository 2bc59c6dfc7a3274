"""What a maker's ECU insists on beside the standard: an order of requests, blocks by number, a driver in RAM, two keys.

Data of the `emulated` table, under `maker`; written from ISO 14229-1:2020 and from what is publicly known of makers'
bootloaders, sharing nothing with the flasher. The rule: the ECU knows no list of steps. It knows, of a request, which
others it must have answered before.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import crcmod

from ..keys import Range, Table
from .memory import UdsMemory
from .nrc import Nrc, RequestRefused, location
from .security import SecurityAccess

_CRC16 = crcmod.mkCrcFun(0x11021, initCrc=0xFFFF, rev=False, xorOut=0)
"""CRC-16/IBM-3740."""


@dataclass(frozen=True, kw_only=True)
class Rule(Table):
    """A request that the ECU refuses until others were answered positively in this session."""

    request: bytes
    """The first bytes of the requests that the rule is for."""
    after: tuple[bytes, ...] = ()
    """The first bytes of the requests that must have been answered positively before."""
    since: bytes = b""
    """The first bytes of a request: each of `after` must have been answered since this request was answered last. While this
    request was not answered, the rule does not hold. "": since the begin of the session."""
    nrc: Annotated[int, Range(0, 0xFF)] = int(Nrc.REQUEST_SEQUENCE_ERROR)
    """Negative response code of the refusal."""
    functional: bool = False
    """Whether the request is refused also if it was not sent to all ECUs."""


@dataclass(frozen=True, kw_only=True)
class Maker(Table):
    """What an ECU's maker does otherwise."""

    rules: tuple[Rule, ...] = ()
    """The order that the ECU wants its requests in."""
    blocks: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Start and size of the memory that each block number stands for: `{"1" = [0x1_0000, 0x8000]}`. Requests then have a block
    number of one byte as their address."""
    ram: tuple[int, int] = (0, 0)
    """Start and size of the RAM that takes a flash driver."""
    erase: tuple[str, ...] = ("alfi", "address", "size")
    """The parameters of the erase routine, as words: bytes in hexadecimal, "alfi", "block", "address", "size", "crc32",
    "crc16", "signature"."""
    check: tuple[str, ...] = ("crc32",)
    """The parameters of the check routine, in the words of `erase`."""
    check_ram: tuple[str, ...] = ()
    """The parameters of the check routine for a flash driver, in the words of `erase`."""
    signature: bytes = b""
    """The bytes that the parameter "signature" has to be."""
    routines: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Further routines by their identifiers, with their parameters in the words of `erase`: `{"0x0301" = ["address"]}`."""
    formats: Mapping[int, Literal["zlib", "xor"]] = field(default_factory=dict)
    """What the ECU does with the data by their dataFormatIdentifier: `{"0x10" = "zlib", "0x01" = "xor"}`; "xor" is with
    0x55."""
    levels: Mapping[int, bytes] = field(default_factory=dict)
    """Secrets of further security levels, which only `rules` need: `{"0x11" = "5a5a"}`."""
    seed_data: bytes = b""
    """The bytes that have to follow the sub-function that requests the seed."""
    sessions: tuple[int, ...] = ()
    """Numbers of further sessions."""
    programming: Annotated[int, Range(0, 0x7F)] = 0x02
    """Number of the programming session."""
    settle: Annotated[float, Range(0)] = 0.0
    """Seconds after the begin of a session in which every request is refused (NRC 0x7F)."""
    keeps_key: bool = False
    """Whether a level that was unlocked stays unlocked in the programming session."""
    writes: tuple[int, ...] = ()
    """Further data identifiers that may be written."""
    names_length: bool = True
    """Whether the answer to RequestDownload names the longest block."""
    answers_checksum: bool = False
    """Whether the answer of the check routine is the CRC-32 of the memory instead of a status."""
    whole_after: Literal["dependencies", "check", "exit"] = "dependencies"
    """What declares the programming complete: the routine of the dependencies, the check routine, or "exit",
    RequestTransferExit."""
    confirm: Annotated[int, Range(0, 0xFFFF)] = 0
    """Identifier of a routine that the started application wants, unlocked, before it reports its version. 0: none."""


class Order:
    """The requests that the ECU has answered in this session, and the rules about them."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._done: list[bytes] = []

    def restarted(self) -> None:
        self._done.clear()

    def check(self, request: bytes, *, functional: bool) -> None:
        """Raises RequestRefused."""
        for rule in self._rules:
            if request.startswith(rule.request):
                if rule.functional and not functional:
                    raise RequestRefused(rule.nrc)
                done = self._done
                if rule.since:
                    last = max((at for at, item in enumerate(done) if item.startswith(rule.since)), default=None)
                    if last is None:
                        continue
                    done = done[last:]
                if not all(any(item.startswith(wanted) for item in done) for wanted in rule.after):
                    raise RequestRefused(rule.nrc)

    def answered(self, request: bytes) -> None:
        self._done.append(request[:8])


class Levels(SecurityAccess):
    """Several levels, each with a secret of its own. Only the main one opens the memory."""

    def __init__(self, main: SecurityAccess, others: Mapping[int, SecurityAccess], seed_data: bytes) -> None:
        self._main = main
        self._all = {main.level: main, **others}
        self._seed_data = seed_data
        self.level = main.level

    def lock(self) -> None:
        for level in self._all.values():
            level.lock()

    def restarted(self) -> None:
        for level in self._all.values():
            level.restarted()

    def need(self) -> None:
        self._main.need()

    def serve(self, data: bytes) -> bytes | None:
        kind = data[0] & 0x7F if data else 0
        level = self._all.get(kind) or self._all.get(kind - 1) or self._main
        if kind in self._all and data[1:] != self._seed_data:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        return level.serve(data)


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

    def transfer(self, data: bytes, *, repeats: bool = True) -> bytes:
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
