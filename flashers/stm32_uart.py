"""STM32 system memory bootloader on a USART: ST's AN3155 (USART protocol), with AN2606 for what differs by part.

A command is its code and complement; the loader answers 0x79 (ACK) or 0x1F (NACK). Its arguments follow in groups, each
with an XOR checksum and an answer of its own. Each group goes out in one write. The rule that keeps a retry safe: after
anything unexpected, the loader is brought back to where it waits for a command (`_resynchronise`) before anything else.

Get Checksum (0xA1, protocol 3.3) is sent as address, size in bytes, polynomial and initial value, each of four bytes,
highest first, with its XOR; not seen against silicon here. A loader that refuses it, or whose answer's own checksum is
wrong, is read back instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import reduce
from operator import xor
from typing import Literal, Self

from pydantic import Field

from ..transports.deadline import Deadline
from ..transports.errors import SerialTimeout, TransportError
from ..transports.serial import SerialPort
from .base import Capability, Digest, Flasher, Identity, Settings, Sighting, State
from .devices.stm32 import FLASH_START, Stm32Family, families
from .errors import (
    PartConfused,
    PartFailed,
    PartMute,
    PartProtected,
    PartRefused,
    PartWrongFamily,
    ProfileWrong,
)
from .image import Segment
from .memory import EraseRun, MemoryMap, Range, Region

ACK = 0x79
NACK = 0x1F
SYNCHRONISE = 0x7F
"""AN3155, 2 and 3: the byte by which the loader measures the bit rate; once synchronised it NACKs it."""


class Command(IntEnum):
    """AN3155, table 2."""

    GET = 0x00
    GET_VERSION = 0x01
    GET_ID = 0x02
    READ_MEMORY = 0x11
    GO = 0x21
    WRITE_MEMORY = 0x31
    ERASE = 0x43
    EXTENDED_ERASE = 0x44
    WRITE_PROTECT = 0x63
    WRITE_UNPROTECT = 0x73
    READOUT_PROTECT = 0x82
    READOUT_UNPROTECT = 0x92
    GET_CHECKSUM = 0xA1


class MassErase(IntEnum):
    """Page counts of Extended Erase that mean more than pages (AN3155, 3.8)."""

    ALL = 0xFFFF
    BANK_1 = 0xFFFE
    BANK_2 = 0xFFFD


BLOCK = 256
"""Most bytes of one Read or Write Memory command."""
SYNC_TRIES = 3
BLOCK_TRIES = 3
ERASE_CHUNK_SECONDS = 0.5
"""About how long the pages of one Erase command take at most, so that progress and cancelling stay fine-grained."""
MAX_PAGES = 128
PROBE_SECONDS = 0.3
QUIET_SECONDS = 0.05
"""How long the line is silent when nothing more comes: longer than any USB adapter holds a byte back."""
REGISTER_ALIGNMENT = 256
"""Some loaders read identity registers from multiples of this address on only (F4, L0)."""
CRC_POLYNOMIAL = 0x04C11DB7
CRC_INITIAL = 0xFFFFFFFF
UNLOCK_REMEDY = (
    "Readout protection is active. Lifting it (ST's own tools do, proxyflash does not) erases the part whole."
)


class Stm32Address(Settings):
    """The serial bus is the address: one part is on it."""


class Entry(Settings):
    """How the modem lines bring the part into its loader.

    `reset`, `boot0`: which line drives NRST and BOOT0, "none" for by hand. `reset_asserted`, `boot0_asserted`: whether
    the line asserted (low on the wire) is what resets, and what selects the loader. Times in seconds.
    """

    reset: Literal["dtr", "rts", "none"] = "none"
    boot0: Literal["dtr", "rts", "none"] = "none"
    reset_asserted: bool = True
    boot0_asserted: bool = True
    hold: float = Field(default=0.01, gt=0, le=5)
    settle: float = Field(default=0.05, ge=0, le=5)


class Memory(Settings):
    """The flash of a part whose product id is not among the known ones. Sizes in bytes."""

    size: int = Field(gt=0)
    erase_unit: int = Field(gt=0)
    write_alignment: int = Field(default=8, ge=1, le=256)
    erased_value: int = Field(default=0xFF, ge=0, le=255)
    mass_erase: bool = True


class Stm32Profile(Settings):
    """`part`: the expected family's name or product id, "" for any. `parity`: of the loader, "N" for BlueNRG.
    `baudrate`: of the loader, None for the bus's own. `enter`: what makes the application jump into the loader, sent at
    the application's settings, "" for nothing. `boot`: how the application is started: by Go, by a reset through
    the modem lines, or by what is there ("auto": a reset if the lines can). `app_parity`: of the application. `answer`: seconds
    that the loader has for an answer, its work aside."""

    part: str | int = ""
    parity: Literal["N", "E", "O"] = "E"
    baudrate: int | None = Field(default=None, gt=0)
    entry: Entry = Entry()
    enter: str = ""
    boot: Literal["auto", "go", "reset"] = "auto"
    app_parity: Literal["N", "E", "O"] = "N"
    app_baudrate: int | None = Field(default=None, gt=0)
    memory: Memory | None = None
    answer: float = Field(default=1.0, gt=0, le=60)


class Stm32UartFlasher(Flasher):
    """One part behind a serial port."""

    protocol = "stm32-uart"
    bus_kind = "serial"
    Address = Stm32Address
    Profile = Stm32Profile

    def __init__(self, port: SerialPort, profile: Stm32Profile) -> None:
        self._port = port
        self._profile = profile
        self._commands: frozenset[int] = frozenset()
        self._family: Stm32Family | None = None
        self._region: Region | None = None
        self._at_loader_settings = False

    @classmethod
    def attach(cls, bus: SerialPort, address: Stm32Address, profile: Stm32Profile) -> Self:
        return cls(bus, profile)

    @classmethod
    def sight(
        cls, bus: SerialPort, address: Stm32Address, profile: Stm32Profile, *, active: bool, deadline: Deadline
    ) -> Sighting | None:
        """With `active` only: asks whether the loader is there, by 0x7F. Touches no modem line."""
        if not active:
            return None
        flasher = cls(bus, profile)
        try:
            flasher._use_loader_settings()
            if not flasher._probe():
                return None
            return Sighting(State.BOOTLOADER, flasher._identify())
        except (TransportError, PartConfused, PartRefused, PartWrongFamily, PartProtected, ProfileWrong):
            return None
        finally:
            flasher.close()

    # The Flasher interface.

    def connect(self) -> Identity:
        if self._profile.enter:
            with suppress(TransportError):
                self._port.write(self._profile.enter.encode(), self._soon())
        self._reset_into(loader=True)
        self._use_loader_settings()
        if not self._synchronise():
            raise PartMute(
                f"no answer on {self._port.name} to the loader's 0x7F",
                remedy="Is BOOT0 set, and the part reset? Are its wires and the entry lines of its profile right?",
            )
        identity = self._identify()
        self.capabilities = Capability.READ | Capability.BOOT
        if Command.GET_CHECKSUM in self._commands:
            self.capabilities |= Capability.DIGEST
        self._check_readable()
        return identity

    def memory_map(self) -> MemoryMap:
        assert self._region is not None, "connect comes first"
        return MemoryMap((self._region,))

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        region = self.memory_map().regions[0]
        total = sum(item.size for item in ranges)
        if total == region.size and self._has_mass_erase:
            self._extended_erase(MassErase.ALL) if self._extended else self._global_erase()
            yield total
            return
        numbers = {unit.start: number for number, unit in enumerate(region.erase_units(region.start, region.end))}
        done = 0
        for chunk in _chunks(ranges, self._pages_at_once):
            self._erase_pages([numbers[item.start] for item in chunk])
            done += sum(item.size for item in chunk)
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        step = self._family.block if self._family else BLOCK
        view = memoryview(segment.data)
        for offset in range(0, len(view), step):
            data = bytes(view[offset : offset + step])
            self._write_block(segment.address + offset, data)
            yield offset + len(data)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        for offset in range(0, size, BLOCK):
            yield self._read_block(start + offset, min(BLOCK, size - offset))

    def digest(self, start: int, size: int) -> Digest | None:
        if start % 4 or size % 4 or not size:
            return None
        try:
            value = self._get_checksum(start, size)
        except (PartRefused, PartConfused):
            return None
        return Digest("CRC-32", value, crc32_mpeg2)

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """The wire's time for writing and reading back, the part's typical time for programming, half its limit for
        erasing."""
        bits = 11 if self._profile.parity != "N" else 10
        per_byte = bits / (self._profile.baudrate or self._port.baudrate)
        blocks = write_bytes / BLOCK
        wire = (2 * write_bytes + blocks * 24) * per_byte
        if self._family is None:
            return wire
        program = write_bytes / self._family.write * self._family.program_seconds
        return wire + program + len(erase) * self._family.erase_seconds / 4

    def boot(self) -> None:
        lines = self._profile.entry.reset != "none"
        if self._profile.boot == "reset" or (self._profile.boot == "auto" and lines):
            self._reset_into(loader=False)
        else:
            self._command(Command.GO)
            self._group(FLASH_START.to_bytes(4, "big"), "Go")
        self._use_application_settings()

    def close(self) -> None:
        with suppress(TransportError):
            self._use_application_settings()

    # Line settings and modem lines.

    def _use_loader_settings(self) -> None:
        self._port.set_line(baudrate=self._profile.baudrate, parity=self._profile.parity)
        self._at_loader_settings = True
        self._port.drain()

    def _use_application_settings(self) -> None:
        if self._at_loader_settings:
            rate = self._profile.app_baudrate or (self._port.baudrate if self._profile.baudrate else None)
            self._port.set_line(baudrate=rate, parity=self._profile.app_parity)
            self._at_loader_settings = False

    def _reset_into(self, *, loader: bool) -> None:
        entry = self._profile.entry
        if entry.boot0 != "none":
            self._drive(entry.boot0, loader == entry.boot0_asserted)
        if entry.reset != "none":
            self._drive(entry.reset, entry.reset_asserted)
            time.sleep(entry.hold)
            self._drive(entry.reset, not entry.reset_asserted)
            time.sleep(entry.settle)

    def _drive(self, line: str, asserted: bool) -> None:
        if line == "dtr":
            self._port.set_modem(dtr=asserted)
        else:
            self._port.set_modem(rts=asserted)

    # Coming into step.

    def _synchronise(self) -> bool:
        """Whether a loader answers. One that is in the middle of a command is brought out of it first."""
        for attempt in range(SYNC_TRIES):
            if self._probe():
                return True
            if attempt == 0:
                self._resynchronise()
        return False

    def _probe(self) -> bool:
        """0x7F: ACK from a loader that measures its bit rate by it. One that is in step already takes it for the first
        byte of a command, and a second one for a wrong complement: NACK."""
        self._port.drain()
        for _ in range(2):
            self._port.write(bytes([SYNCHRONISE]), self._soon())
            with suppress(SerialTimeout):
                answer = self._port.read_exactly(1, self._soon(min(PROBE_SECONDS, self._profile.answer)))
                # More than one byte is the tail of something else.
                return answer[0] in (ACK, NACK) and not self._port.read_some(Deadline.after(QUIET_SECONDS))
        return False

    def _resynchronise(self) -> None:
        """Brings a loader that may be anywhere in a command to where it waits for the next one.

        It may wait, without limit, for the rest of what an earlier run left unfinished, at most a block of data. So it
        is given as many bytes as that takes, of a value that is no command. One time in 256 they happen to complete the
        block's checksum, and the block is written with them at its end: it lies in memory that was being written, and
        holds what comparing and verifying see. All else the loader NACKs.
        """
        self._port.write(b"\xff" * (BLOCK + 4), self._soon())
        while self._port.read_some(Deadline.after(QUIET_SECONDS)):
            pass

    def _identify(self) -> Identity:
        version, commands = self._get()
        self._commands = frozenset(commands)
        product = self._get_id()
        self._family = families().get(product)
        self._check_family(product)
        size, uid = self._registers()
        self._region = self._make_region(product, size)
        name = self._family.name if self._family else f"STM32 0x{product:03X}"
        return Identity(
            part=name,
            serial=uid,
            bootloader=f"{version >> 4}.{version & 0xF}",
            manufacturer="ST",
            details={"product_id": f"0x{product:03X}", "flash": f"{self._region.size // 1024} KiB"},
        )

    def _check_family(self, product: int) -> None:
        wanted = self._profile.part
        if wanted == "":
            return
        name = self._family.name if self._family else ""
        fits = wanted == product if isinstance(wanted, int) else wanted.lower() in name.lower()
        if not fits:
            raise PartWrongFamily(
                f"the part is a {name or 'unknown STM32'} (0x{product:03X}), the profile wants {wanted!r}"
            )

    def _make_region(self, product: int, size: int | None) -> Region:
        own = self._profile.memory
        if own is not None:
            return Region(
                "flash", FLASH_START, own.size, (EraseRun(own.size // own.erase_unit, own.erase_unit),),
                write_alignment=own.write_alignment, erased_value=own.erased_value, vector_table=True,
            )  # fmt: skip
        if self._family is None:
            raise ProfileWrong(
                f"nothing is known of the STM32 with product id 0x{product:03X}",
                remedy="Give its memory in the profile: memory = {size = ..., erase_unit = ...}",
            )
        return self._family.region(size)

    def _registers(self) -> tuple[int | None, str]:
        """Flash size in bytes and unique id; None and "" where the loader does not let them be read."""
        family = self._family
        if family is None:
            return None, ""
        try:
            uid = b"".join(self._register(family.uid + word, 4) for word in family.uid_words).hex()
            kilobytes = int.from_bytes(self._register(family.size, 2), "little")
        except (PartRefused, PartProtected):
            self._port.drain()
            return None, ""
        return kilobytes * 1024 if 0 < kilobytes * 1024 <= family.flash else None, uid

    def _register(self, address: int, size: int) -> bytes:
        try:
            return self._read_block(address, size)
        except PartRefused:
            start = address // REGISTER_ALIGNMENT * REGISTER_ALIGNMENT
            return self._read_block(start, address - start + size)[-size:]

    def _check_readable(self) -> None:
        """Read Memory is the first command that readout protection refuses (AN3155, 3.4)."""
        self._read_block(FLASH_START, 4)

    # Commands.

    def _soon(self, seconds: float | None = None) -> Deadline:
        return Deadline.after(self._profile.answer if seconds is None else seconds)

    def _answer(self, what: str, deadline: Deadline) -> None:
        """Waits for ACK. Raises PartRefused on NACK, PartConfused on anything else."""
        answer = self._port.read_exactly(1, deadline)[0]
        if answer == NACK:
            raise PartRefused(f"the loader refuses {what}")
        if answer != ACK:
            raise PartConfused(f"the loader answered {what} with 0x{answer:02X}")

    def _command(self, command: Command) -> None:
        self._port.write(bytes([command, command ^ 0xFF]), self._soon())
        self._answer(command.name, self._soon())

    def _group(self, data: bytes, what: str, deadline: Deadline | None = None) -> None:
        """Arguments with their XOR, in one write, and the answer to them."""
        self._port.write(data + bytes([reduce(xor, data)]), self._soon())
        self._answer(what, deadline or self._soon())

    def _get(self) -> tuple[int, bytes]:
        """Loader version and command codes (AN3155, 3.1)."""
        self._command(Command.GET)
        count = self._port.read_exactly(1, self._soon())[0]
        data = self._port.read_exactly(count + 1, self._soon())
        self._answer("GET", self._soon())
        return data[0], data[1:]

    def _get_id(self) -> int:
        """Product id (AN3155, 3.3)."""
        self._command(Command.GET_ID)
        count = self._port.read_exactly(1, self._soon())[0]
        data = self._port.read_exactly(count + 1, self._soon())
        self._answer("GET_ID", self._soon())
        return int.from_bytes(data, "big")

    def _read_block(self, address: int, size: int) -> bytes:
        """AN3155, 3.4. Raises PartProtected when the loader refuses the command itself."""
        for left in reversed(range(BLOCK_TRIES)):
            try:
                return self._read_once(address, size)
            except (SerialTimeout, PartConfused):
                if not left:
                    raise
                self._resynchronise()
        raise AssertionError("unreachable: the last try returns or raises")

    def _read_once(self, address: int, size: int) -> bytes:
        try:
            self._command(Command.READ_MEMORY)
        except PartRefused as error:
            raise PartProtected("the loader refuses to read memory", remedy=UNLOCK_REMEDY) from error
        self._group(address.to_bytes(4, "big"), f"the address 0x{address:08X}")
        self._port.write(bytes([size - 1, size - 1 ^ 0xFF]), self._soon())
        self._answer(f"the length {size}", self._soon())
        return self._port.read_exactly(size, self._soon(self._profile.answer + size * 12 / 1200))

    def _write_block(self, address: int, data: bytes) -> None:
        """AN3155, 3.6. After a lost or garbled answer it looks whether the block is there before it writes again."""
        for left in reversed(range(BLOCK_TRIES)):
            try:
                self._write_once(address, data)
                return
            except (SerialTimeout, PartConfused, PartRefused) as error:
                if isinstance(error, PartRefused) and "WRITE_MEMORY" in error.cause:
                    raise PartProtected("the loader refuses to write memory", remedy=UNLOCK_REMEDY) from error
                if not left:
                    raise
                self._resynchronise()
                there = self._read_block(address, len(data))
                if there == data:
                    return
                blank = self._region.erased_value if self._region else 0xFF
                if there != bytes([blank]) * len(data):
                    raise PartFailed(f"the block at 0x{address:08X} is half written") from error

    def _write_once(self, address: int, data: bytes) -> None:
        self._command(Command.WRITE_MEMORY)
        self._group(address.to_bytes(4, "big"), f"the address 0x{address:08X}")
        self._group(bytes([len(data) - 1]) + data, f"the block at 0x{address:08X}", self._soon(self._block_seconds))

    @property
    def _block_seconds(self) -> float:
        """How long a block may take: its bytes on a slow line, and its programming."""
        if self._family is None:
            return self._profile.answer + 2.0
        return self._profile.answer + 2.0 + 4 * BLOCK / self._family.write * self._family.program_seconds

    @property
    def _extended(self) -> bool:
        return Command.EXTENDED_ERASE in self._commands

    @property
    def _has_mass_erase(self) -> bool:
        if self._profile.memory is not None:
            return self._profile.memory.mass_erase
        return self._family is not None and self._family.mass

    @property
    def _pages_at_once(self) -> int:
        seconds = self._family.erase_seconds / 10 if self._family else 0.05
        return max(1, min(MAX_PAGES, int(ERASE_CHUNK_SECONDS / seconds)))

    def _erase_seconds(self, pages: int) -> float:
        return self._profile.answer + (self._family.erase_seconds if self._family else 5.0) * max(1, pages)

    def _erase_pages(self, pages: Sequence[int]) -> None:
        """AN3155, 3.7 and 3.8: by page numbers; as many are announced as follow, less one."""
        self._start_erase()
        if self._extended:
            data = (len(pages) - 1).to_bytes(2, "big") + b"".join(page.to_bytes(2, "big") for page in pages)
        else:
            data = bytes([len(pages) - 1, *pages])
        self._finish_erase(data, f"to erase {len(pages)} pages", self._erase_seconds(len(pages)))

    def _start_erase(self) -> None:
        try:
            self._command(Command.EXTENDED_ERASE if self._extended else Command.ERASE)
        except PartRefused as error:
            raise PartProtected("the loader refuses to erase memory", remedy=UNLOCK_REMEDY) from error

    def _finish_erase(self, data: bytes, what: str, seconds: float) -> None:
        try:
            self._group(data, what, self._soon(seconds))
        except PartRefused as error:
            raise PartFailed(f"the loader refuses {what}: no such page, or it could not be erased") from error

    def _extended_erase(self, what: MassErase) -> None:
        self._start_erase()
        self._finish_erase(what.to_bytes(2, "big"), f"a mass erase ({what.name})", self._mass_seconds)

    def _global_erase(self) -> None:
        """AN3155, 3.7: 0xFF and its complement, without a further checksum."""
        self._start_erase()
        self._port.write(b"\xff\x00", self._soon())
        self._answer("a global erase", self._soon(self._mass_seconds))

    @property
    def _mass_seconds(self) -> float:
        return self._profile.answer + (self._family.mass_seconds if self._family else 40.0)

    def _get_checksum(self, start: int, size: int) -> int:
        """AN3155, 3.13: four groups; then ACK, the CRC and its XOR."""
        self._command(Command.GET_CHECKSUM)
        self._group(start.to_bytes(4, "big"), f"the address 0x{start:08X}")
        self._group(size.to_bytes(4, "big"), f"the size {size}")
        self._group(CRC_POLYNOMIAL.to_bytes(4, "big"), "the polynomial")
        self._group(CRC_INITIAL.to_bytes(4, "big"), "the initial value", self._soon(10.0))
        data = self._port.read_exactly(5, self._soon())
        if reduce(xor, data):
            raise PartConfused("the checksum's own checksum is wrong")
        return int.from_bytes(data[:4], "big")


def _chunks(ranges: Sequence[Range], count: int) -> Iterator[Sequence[Range]]:
    for first in range(0, len(ranges), count):
        yield ranges[first : first + count]


def crc32_mpeg2(data: bytes) -> int:
    """CRC-32/MPEG-2 over little-endian 32-bit words, as ST's CRC unit takes them: highest bit of each word first."""
    import crcmod

    swapped = b"".join(data[offset : offset + 4][::-1] for offset in range(0, len(data), 4))
    compute = crcmod.mkCrcFun(0x100000000 | CRC_POLYNOMIAL, initCrc=CRC_INITIAL, rev=False, xorOut=0)
    value: int = compute(swapped)
    return value
