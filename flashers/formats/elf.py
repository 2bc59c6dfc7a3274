"""ELF, 32 and 64 bits, either byte order: what a linker made.

After the "System V Application Binary Interface", chapters 4 and 5. The rule: a byte goes to its physical (load)
address, from which the startup code copies it where it runs. Of each PT_LOAD segment only what sections hold is taken,
as objcopy does, because linkers put the file's own headers into the first segment when its page has room for them; a
file without sections to load is taken segment by segment. Only headers and loaded bytes are read: debug information may
be a hundred times as much.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..errors import NOT_WHOLE, ImageFormat
from ..image import HIGHEST, FirmwareImage, Segment, join
from .format import Format

MAGIC = b"\x7fELF"
IDENT_SIZE = 16
ET_REL = 1
ET_CORE = 4
PT_LOAD = 1
SHT_NOBITS = 8
SHF_ALLOC = 2
MOST_SEGMENTS = 1024
"""Real firmware has fewer than ten; a damaged header could tell of thousands."""
MOST_BEYOND = 1 << 16
"""Sections that begin in a segment and end beyond it, counted for each segment. No linker makes one."""

MACHINES = {
    2: "EM_SPARC",
    3: "EM_386",
    4: "EM_68K",
    8: "EM_MIPS",
    20: "EM_PPC",
    40: "EM_ARM",
    42: "EM_SH",
    44: "EM_TRICORE",
    62: "EM_X86_64",
    83: "EM_AVR",
    94: "EM_XTENSA",
    105: "EM_MSP430",
    183: "EM_AARCH64",
    243: "EM_RISCV",
}
"""By the number in e_machine, as the ABI's registry names them; those that firmware is built for, and hosts."""
EITHER_ORDER = (40, 183)
"""Machines that programs of either byte order are built for, which run little endian as Cortex-M does."""


class _Class(NamedTuple):
    """The layouts of ELFCLASS32 or ELFCLASS64; where the latter has its fields in another order, `segment` has it."""

    header: str
    """e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, and each table's entry size and
    count (e_phentsize, e_phnum, e_shentsize, e_shnum), e_shstrndx."""
    program_header: str
    segment: tuple[int, int, int, int]
    """Where p_type, p_offset, p_paddr and p_filesz come in it."""
    section_header: str
    """sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, and four more."""


CLASSES = {
    1: _Class("HHIIIIIHHHHHH", "8I", (0, 1, 3, 4), "10I"),
    2: _Class("HHIQQQIHHHHHH", "2I6Q", (0, 2, 4, 5), "2I4Q2I2Q"),
}
BYTE_ORDERS = {1: "<", 2: ">"}


class _Piece(NamedTuple):
    """`size` bytes at `offset` of the file."""

    offset: int
    size: int

    def holds(self, other: _Piece) -> bool:
        return self.offset <= other.offset and other.offset + other.size <= self.offset + self.size


def _offset(piece: _Piece) -> int:
    return piece.offset


def read(stream: BinaryIO, source: str) -> FirmwareImage:
    """Raises ImageFormat with the offset in the file; `target` has the machine by its ELF name, such as EM_ARM.

    An Arm program in big endian byte order is "EM_ARM (big endian)".
    """
    return _Reader(stream, source).image()


class Elf(Format):
    """Executable and Linkable Format."""

    name = "elf"
    endings = (".elf", ".axf", ".out")
    priority = 10

    @staticmethod
    def recognises(head: bytes, tail: bytes) -> bool:
        return head.startswith(MAGIC)

    read = staticmethod(read)


class _Reader:
    """Takes headers and loaded bytes from a stream; every offset and size is held against the file's."""

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self.stream = stream
        self.source = source
        self.beyond = 0
        self.file_size = stream.seek(0, os.SEEK_END)
        ident = self.bytes_at(0, IDENT_SIZE, "the ELF identification")
        if not ident.startswith(MAGIC):
            raise self.error(0, "no ELF file")
        if ident[4] not in CLASSES:
            raise self.error(4, f"the ELF class is {ident[4]}, neither 32 nor 64 bits")
        if ident[5] not in BYTE_ORDERS:
            raise self.error(5, f"the ELF byte order is {ident[5]}, neither little nor big endian")
        self.layout = CLASSES[ident[4]]
        self.order = BYTE_ORDERS[ident[5]]

    def image(self) -> FirmwareImage:
        header = struct.Struct(self.order + self.layout.header)
        fields = header.unpack(self.bytes_at(IDENT_SIZE, header.size, "the ELF header"))
        kind, machine, _, entry, program_headers, section_headers = fields[:6]
        if kind == ET_REL:
            raise self.error(
                IDENT_SIZE,
                "an object file, which no linker has placed yet",
                "Give the linker's output: the build's .elf.",
            )
        if kind == ET_CORE:
            raise self.error(
                IDENT_SIZE, "the memory of a program that crashed (a core file)", "Give the program: the build's .elf."
            )
        if fields[9] > MOST_SEGMENTS:
            raise self.error(0, f"the header announces {fields[9]:,} segments")
        segments = self.table(program_headers, fields[8], fields[9], self.layout.program_header, "program header")
        sections = self.table(section_headers, fields[10], fields[11], self.layout.section_header, "section header")
        # Many headers may tell of the same bytes: a small file would become a huge image.
        placed, total = [], 0
        for address, piece in self.placed(segments, self.loaded_sections(sections)):
            total += piece.size
            if total > self.file_size:
                raise self.error(program_headers, f"{total:,} bytes and more to load in a file of {self.file_size:,}")
            placed.append((address, piece))
        chunks = [Segment(address, self.bytes_at(piece.offset, piece.size, "a segment")) for address, piece in placed]
        return FirmwareImage(
            join(chunks, source=self.source),
            "elf",
            self.source,
            entry=entry or None,
            target={"machine": self.name(machine)},
        )

    def name(self, machine: int) -> str:
        name = MACHINES.get(machine, f"EM_{machine}")
        return f"{name} (big endian)" if self.order == ">" and machine in EITHER_ORDER else name

    def placed(self, segments: list[tuple[int, ...]], sections: list[_Piece]) -> Iterator[tuple[int, _Piece]]:
        """Each piece of the file that is loaded, with its address."""
        for header in segments:
            kind, offset, physical, size = (header[index] for index in self.layout.segment)
            if kind != PT_LOAD or not size:
                continue
            whole = _Piece(offset, size)
            self.check(whole, "a segment")
            if physical + size > HIGHEST:
                raise self.error(offset, f"a segment that goes beyond 64-bit addresses, from 0x{physical:X} on")
            for piece in self.held(whole, sections) if sections else [whole]:
                yield physical + piece.offset - offset, piece

    def held(self, segment: _Piece, sections: list[_Piece]) -> Iterator[_Piece]:
        """The sections that lie in a segment. `sections`: by their offsets, so that the others are not looked at."""
        for place in range(bisect_left(sections, segment.offset, key=_offset), len(sections)):
            piece = sections[place]
            if piece.offset >= segment.offset + segment.size:
                return
            if segment.holds(piece):
                yield piece
                continue
            self.beyond += 1
            if self.beyond > MOST_BEYOND:
                raise self.error(piece.offset, "sections begin in segments and end beyond them, again and again")

    def loaded_sections(self, headers: list[tuple[int, ...]]) -> list[_Piece]:
        """Where the sections lie that take up memory and have bytes in the file, by their offsets."""
        found = [
            _Piece(offset, size)
            for _, kind, flags, _, offset, size, *_ in headers
            if flags & SHF_ALLOC and kind != SHT_NOBITS and size
        ]
        return sorted(found, key=_offset)

    def table(self, offset: int, entry_size: int, count: int, layout: str, what: str) -> list[tuple[int, ...]]:
        entry = struct.Struct(self.order + layout)
        if not offset or not count:
            return []
        if entry_size != entry.size:
            raise self.error(0, f"the ELF header announces {entry_size} bytes for a {what}, which has {entry.size}")
        return list(entry.iter_unpack(self.bytes_at(offset, count * entry.size, f"{count:,} {what}s")))

    def bytes_at(self, offset: int, size: int, what: str) -> bytes:
        self.check(_Piece(offset, size), what)
        self.stream.seek(offset)
        data = self.stream.read(size)
        if len(data) < size:
            raise self.error(offset + len(data), "the file ended while it was read", NOT_WHOLE)
        return data

    def check(self, piece: _Piece, what: str) -> None:
        if piece.offset + piece.size > self.file_size:
            raise self.error(
                piece.offset,
                f"{what} should have {piece.size:,} bytes, and the file ends at 0x{self.file_size:X}",
                NOT_WHOLE,
            )

    def error(self, offset: int, what: str, remedy: str | None = None) -> ImageFormat:
        return ImageFormat(f"{self.source}: offset 0x{offset:X}: {what}", remedy=remedy)
