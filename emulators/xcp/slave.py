"""An XCP slave as the document has it (ASAM MCD-1 XCP 1.x, part 2), and what OpenBLT does differently. Shares nothing with the
flasher.

`Memory` programs what comes as it comes. `OpenBltMemory` collects it in blocks as OpenBLT does (flash.c of its STM32F1 port):
the block with the vector table is programmed at the end, with a checksum of the first seven vectors; a block that was programmed
is not programmed again with other bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from ..flash import FlashRefused, NorFlash

PGM = 0x10
SYNCH, BUSY, UNKNOWN, SYNTAX, RANGE, LOCKED, SEQUENCE, GENERIC, VERIFY = (
    0x00,
    0x10,
    0x20,
    0x21,
    0x22,
    0x25,
    0x29,
    0x31,
    0x32,
)
VECTORS = 7
SEED = bytes.fromhex("112233445566 7788")


class Refused(Exception):
    """The slave answers with an error. `rest`: what follows its number."""

    def __init__(self, number: int, rest: bytes = b"") -> None:
        super().__init__(f"0x{number:02X}")
        self.number = number
        self.rest = rest


class Memory:
    """Whole program units are programmed as their bytes have come."""

    def __init__(self, flash: NorFlash) -> None:
        self.flash = flash
        self._start = 0
        self._kept = bytearray()

    def write(self, address: int, data: bytes) -> None:
        """Raises FlashRefused."""
        end = self._start + len(self._kept)
        if self._kept and self._start <= address <= end:
            del self._kept[address - self._start :]
        else:
            self.done()
            unit = self.flash.program_unit
            self._start = address - address % unit
            self._kept = bytearray(self.flash.read(self._start, address - self._start))
        self._kept += data
        self._program_units()

    def done(self) -> None:
        unit = self.flash.program_unit
        self._kept += bytes([self.flash.erased]) * (-len(self._kept) % unit)
        self._program_units()

    def _program_units(self) -> None:
        whole = len(self._kept) // self.flash.program_unit * self.flash.program_unit
        data = bytes(self._kept[:whole])
        start, self._start = self._start, self._start + whole
        del self._kept[:whole]
        if data:
            program(self.flash, start, data)

    def erase(self, address: int, size: int) -> Iterator[None]:
        """Yields before each erase unit. Raises FlashRefused."""
        self.flash.unit_of(address + size - 1)
        at = address
        while at < address + size:
            start, length = self.flash.unit_of(at)
            yield
            self.flash.erase(start)
            at = start + length


def program(flash: NorFlash, start: int, data: bytes) -> None:
    """What is there already is left as it is. Raises FlashRefused."""
    unit = flash.program_unit
    held = flash.read(start, len(data))
    if held.count(flash.erased) == len(held):
        flash.program(start, data)
        return
    for at in range(0, len(data), unit):
        if held[at : at + unit] != data[at : at + unit]:
            flash.program(start + at, data[at : at + unit])


class Block:
    def __init__(self) -> None:
        self.base: int | None = None
        self.data = bytearray()


class OpenBltMemory(Memory):
    def __init__(self, flash: NorFlash, block: int, checksum: int) -> None:
        super().__init__(flash)
        self._size = block
        self._checksum = checksum
        self._boot, self._block = Block(), Block()

    @property
    def is_valid(self) -> bool:
        """Whether the sum of the vectors and of the checksum is 0."""
        head = self.flash.read(self.flash.base, self._size)
        words = [*struct.unpack_from(f"<{VECTORS}I", head), *struct.unpack_from("<I", head, self._checksum)]
        return not sum(words) & 0xFFFFFFFF

    def write(self, address: int, data: bytes) -> None:
        self.flash.unit_of(address)
        self.flash.unit_of(address + len(data) - 1)
        at = 0
        while at < len(data):
            base = (address + at) // self._size * self._size
            count = min(len(data) - at, base + self._size - address - at)
            block = self._boot if base == self.flash.base else self._block
            if block.base != base:
                if block.base is not None:
                    program(self.flash, block.base, bytes(block.data))
                block.base, block.data = base, bytearray(self.flash.read(base, self._size))
            offset = address + at - base
            block.data[offset : offset + count] = data[at : at + count]
            at += count

    def done(self) -> None:
        if self._boot.base is not None:
            total = sum(struct.unpack_from(f"<{VECTORS}I", self._boot.data))
            struct.pack_into("<I", self._boot.data, self._checksum, -total & 0xFFFFFFFF)
        for block in (self._boot, self._block):
            if block.base is not None:
                program(self.flash, block.base, bytes(block.data))


def add(element: int, width: int, order: str, data: bytes) -> int:
    total = 0
    for at in range(0, len(data) - element + 1, element):
        total += int.from_bytes(data[at : at + element], order)  # type: ignore[arg-type]
    return total % (1 << 8 * width)


def crc(width: int, polynomial: int, start: int, reflected: bool, data: bytes) -> int:
    """Bit by bit."""
    value, top, mask = start, 1 << width - 1, (1 << width) - 1
    for byte in data:
        bits = range(8) if reflected else range(7, -1, -1)
        for bit in bits:
            feed = bool(value & top) ^ bool(byte >> bit & 1)
            value = (value << 1 & mask) ^ (polynomial if feed else 0)
    return int(f"{value:0{width}b}"[::-1], 2) if reflected else value


def checksum(kind: int, order: str, data: bytes) -> int:
    """BUILD_CHECKSUM's types (part 2, table of checksum types)."""
    sums = {1: (1, 1), 2: (1, 2), 3: (1, 4), 4: (2, 2), 5: (2, 4), 6: (4, 4)}
    if kind in sums:
        return add(*sums[kind], order, data)
    if kind == 7:
        return crc(16, 0x8005, 0, True, data)
    if kind == 8:
        return crc(16, 0x1021, 0xFFFF, False, data)
    return zlib.crc32(data)


class Slave:
    """`part`: its row of parts.toml. `secret`: with which a seed makes its key; b"": it wants no key.

    `restarts`: PROGRAM_RESET has come. `programs`: PROGRAM_START has come.
    """

    def __init__(self, part: Mapping[str, Any], memory: Memory, secret: bytes) -> None:
        self._part = part
        self._memory = memory
        self._secret = secret
        self._order = "big" if part.get("big_endian") else "little"
        self._ag = int(part.get("granularity", 1))
        self._cto = int(part["max_cto"])
        self._is_openblt = "block" in part
        self.connected = self.programs = self.restarts = False
        self._locked = PGM if secret else 0
        self._mta = 0
        self._name = 0
        """What is left of the name to upload; 0: the MTA is in the memory."""
        self._seed_left = b""
        self._key = b""
        self._block = bytearray()
        self._wanted = 0
        """Elements of the block that are still to come."""

    def take(self, packet: bytes) -> Iterator[bytes]:
        """The answers to a packet, and what it sends before. Raises PowerLost, ResetPulled."""
        if not packet or (not self.connected and packet[0] != 0xFF):
            return
        try:
            yield from self._carried_out(packet)
        except FlashRefused:
            yield bytes((0xFE, GENERIC))
        except Refused as refused:
            yield bytes((0xFE, refused.number)) + refused.rest

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, self._order)  # type: ignore[arg-type]

    def _bytes(self, number: int, size: int) -> bytes:
        return number.to_bytes(size, self._order)  # type: ignore[arg-type]

    def _carried_out(self, packet: bytes) -> Iterator[bytes]:
        command = packet[0]
        if self._wanted and command != 0xCA:
            self._wanted = 0
        if 0xC8 <= command <= 0xD2:
            if self._locked & PGM:
                raise Refused(LOCKED)
            if not self.programs and command != 0xD2 and not self._is_openblt:
                raise Refused(SEQUENCE)
            yield from self._programmed(command, packet)
            return
        answer = self._answer(command, packet)
        yield b"\xff" + answer

    def _answer(self, command: int, packet: bytes) -> bytes:
        match command:
            case 0xFF:
                self.connected = True
                self._locked = PGM if self._secret else 0
                self._wanted, self._name = 0, 0
                mode = int(self._order == "big") | {1: 0, 2: 2, 4: 4}[self._ag]
                return (
                    bytes((self._part.get("resources", PGM | 1), mode, self._cto))
                    + self._bytes(self._cto, 2)
                    + b"\x01\x01"
                )
            case 0xFE:
                self.connected = False
                return b""
            case 0xFD:
                return bytes((0, self._locked, 0, 0, 0))
            case 0xFC:
                raise Refused(SYNCH)
            case 0xFA:
                if not self._is_openblt and packet[1] > 1:
                    raise Refused(RANGE)
                self._name = len(self._part["name"])
                return bytes(3) + self._bytes(self._name, 4)
            case 0xF8:
                return self._seed(packet[1])
            case 0xF7:
                return self._unlocked(packet)
            case 0xF6:
                self._mta, self._name = self._number(packet[4:8]) * self._ag, 0
                return b""
            case 0xF5 | 0xF4:
                return self._uploaded(command, packet)
            case 0xF3:
                return self._summed(packet)
        raise Refused(UNKNOWN)

    def _seed(self, mode: int) -> bytes:
        if mode == 0:
            self._seed_left = SEED[: self._part.get("seed", 2)] if self._locked else b""
            self._key = b""
        size, most = len(self._seed_left), self._cto - 2
        piece, self._seed_left = self._seed_left[:most], self._seed_left[most:]
        return bytes((size,)) + piece

    def _unlocked(self, packet: bytes) -> bytes:
        size = packet[1]
        self._key += packet[2 : 2 + size]
        if len(packet) - 2 >= size:
            seed = SEED[: self._part.get("seed", 2)]
            wanted = (
                bytes(byte ^ self._secret[at % len(self._secret)] for at, byte in enumerate(seed))
                if self._secret
                else b""
            )
            key, self._key = self._key, b""
            if key[: len(wanted)] != wanted:
                self.connected = False
                raise Refused(LOCKED)
            self._locked = 0
        return bytes((self._locked,))

    def _uploaded(self, command: int, packet: bytes) -> bytes:
        count = packet[1]
        if not 0 < count <= (self._cto - self._ag) // self._ag:
            raise Refused(RANGE)
        if command == 0xF4:
            self._mta, self._name = self._number(packet[4:8]) * self._ag, 0
        size = count * self._ag
        if self._name:
            text: bytes = self._part["name"].encode()
            data = text[len(text) - self._name :][:size].ljust(size, b"\0")
            self._name = max(0, self._name - size)
        elif self._part.get("mute"):
            data = bytes(size)
        else:
            data = self._memory.flash.read(self._mta, size)
            self._mta += size
        return bytes(self._ag - 1) + data

    def _summed(self, packet: bytes) -> bytes:
        size, most = self._number(packet[4:8]) * self._ag, self._part.get("most_summed", 0)
        if "checksum" not in self._part:
            raise Refused(UNKNOWN)
        if most and size > most:
            raise Refused(RANGE, bytes(2) + self._bytes(most // self._ag, 4))
        kind = self._part["checksum"]
        data = bytes(size) if self._part.get("mute") else self._memory.flash.read(self._mta, size)
        self._mta += size
        return bytes((kind, 0, 0)) + self._bytes(checksum(kind, self._order, data), 4)

    def _programmed(self, command: int, packet: bytes) -> Iterator[bytes]:
        part = self._part
        match command:
            case 0xD2:
                self.programs = True
                blocks = part.get("max_bs", 0)
                yield bytes((0xFF, 0, int(blocks > 0), self._cto, blocks, part.get("min_st", 0), 0))
            case 0xD1:
                yield from self._cleared(packet)
            case 0xD0:
                yield from self._begun(packet)
            case 0xCA:
                yield from self._gone_on(packet)
            case 0xC9 if not part.get("no_max"):
                size = self._cto - self._ag
                self._written(packet[self._ag : self._ag + size].ljust(size, b"\x5a"))
                yield b"\xff"
            case 0xC8 if not self._is_openblt:
                if packet[1] != 0 or len(packet) < 8:
                    raise Refused(SYNTAX)
                yield b"\xff"
            case 0xCC if self._is_openblt:
                raise Refused(GENERIC)
            case 0xCF:
                self.restarts = True
                if not self._is_openblt:
                    yield b"\xff"
            case _:
                raise Refused(UNKNOWN)

    def _cleared(self, packet: bytes) -> Iterator[bytes]:
        flash, number = self._memory.flash, self._number(packet[4:8])
        start, size = self._mta, number * self._ag
        if packet[1]:
            if not self._part.get("functional") or number != 2:
                raise Refused(RANGE)
            start, size = flash.base, flash.size
        elif self._part.get("functional"):
            raise Refused(UNKNOWN)
        for _ in self._memory.erase(start, size):
            if self._part.get("pending"):
                yield b"\xfd\x05"
        yield b"\xff"

    def _begun(self, packet: bytes) -> Iterator[bytes]:
        count, start = packet[1], max(2, self._ag)
        if not count:
            self._memory.done()
            yield b"\xff"
            return
        most = (self._cto - start) // self._ag
        if count > most * max(1, self._part.get("max_bs", 0)):
            raise Refused(RANGE)
        here = min(count, most)
        data = packet[start : start + here * self._ag]
        if count <= most:
            self._written(data)
            yield b"\xff"
            return
        self._block, self._wanted = bytearray(data), count - here

    def _gone_on(self, packet: bytes) -> Iterator[bytes]:
        start = max(2, self._ag)
        if not self._wanted or packet[1] != self._wanted:
            raise Refused(SEQUENCE, bytes((self._wanted,)))
        here = min(self._wanted, (self._cto - start) // self._ag)
        self._block += packet[start : start + here * self._ag]
        self._wanted -= here
        if not self._wanted:
            self._written(bytes(self._block))
            yield b"\xff"

    def _written(self, data: bytes) -> None:
        self._memory.write(self._mta, data)
        self._mta += len(data)
