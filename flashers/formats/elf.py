"""ELF, 32 and 64 bits, either byte order: what a linker made, by pyelftools.

After the "System V Application Binary Interface", chapters 4 and 5. The rule: a byte goes to its physical (load)
address, from which the startup code copies it where it runs. Of each PT_LOAD segment only what sections hold is taken,
as objcopy does, because linkers put the file's own headers into the first segment when its page has room for them; a
file without a section table is taken segment by segment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ..errors import ImageError, ImageFormat
from ..image import FirmwareImage, Segment, join

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"
MOST_SEGMENTS = 1024
"""Real firmware has fewer than ten; a damaged header could tell of millions."""
SMALLEST_SECTION_HEADER = 40
HIGHEST = 1 << 64


@dataclass(frozen=True, slots=True)
class _Piece:
    """`size` bytes at `offset` of the file."""

    offset: int
    size: int

    def holds(self, other: _Piece) -> bool:
        return self.offset <= other.offset and other.offset + other.size <= self.offset + self.size


def read(stream: BinaryIO, source: str) -> FirmwareImage:
    """Raises ImageFormat with the offset in the file; `target` has the machine by its ELF name, such as EM_ARM."""
    from elftools.elf.elffile import ELFFile

    try:
        return _image(ELFFile(stream), stream, source)
    except ImageError:
        raise
    # pyelftools meets a damaged file with whatever its parser, a codec or an arithmetic step happens to raise.
    except Exception as error:
        raise ImageFormat(f"{source}: offset 0x{stream.tell():X}: broken ELF header or table ({error})") from error


def _image(elf: ELFFile, stream: BinaryIO, source: str) -> FirmwareImage:
    file_size = os.fstat(stream.fileno()).st_size
    if elf.num_segments() > MOST_SEGMENTS or elf.num_sections() * SMALLEST_SECTION_HEADER > file_size:
        raise ImageFormat(
            f"{source}: the header at offset 0x0 tells of {elf.num_segments():,} segments and {elf.num_sections():,} "
            f"sections in {file_size:,} bytes"
        )
    sections = _sections(elf)
    placed: list[tuple[int, _Piece]] = []
    for header in elf.iter_segments("PT_LOAD"):
        whole = _Piece(header["p_offset"], header["p_filesz"])
        if whole.offset + whole.size > file_size:
            raise ImageFormat(
                f"{source}: a segment of {whole.size:,} bytes at offset 0x{whole.offset:X} goes beyond the file's "
                f"{file_size:,} bytes"
            )
        physical = header["p_paddr"]
        if physical + whole.size > HIGHEST:
            raise ImageFormat(f"{source}: the segment at offset 0x{whole.offset:X} goes beyond 64-bit addresses")
        pieces = [whole] if sections is None else filter(whole.holds, sections)
        placed.extend((physical + piece.offset - whole.offset, piece) for piece in pieces)
    # Many headers may tell of the same bytes: a small file would become a huge image.
    if (total := sum(piece.size for _, piece in placed)) > file_size:
        raise ImageFormat(f"{source}: its headers load {total:,} bytes, and the file has {file_size:,}")
    chunks = []
    for address, piece in placed:
        stream.seek(piece.offset)
        chunks.append(Segment(address, stream.read(piece.size)))
    return FirmwareImage(
        join(chunks, source=source),
        "elf",
        source,
        entry=elf["e_entry"] or None,
        target={"machine": elf["e_machine"]},
    )


def _sections(elf: ELFFile) -> list[_Piece] | None:
    """Where the allocated sections that have bytes lie in the file; None without a section table."""
    from elftools.elf.constants import SH_FLAGS

    if not elf.num_sections():
        return None
    return [
        _Piece(section["sh_offset"], section["sh_size"])
        for section in elf.iter_sections()
        if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_type"] != "SHT_NOBITS" and section["sh_size"]
    ]
