"""ELF, against files laid out by hand from the System V ABI, arm-none-eabi-gcc, objcopy and pyelftools."""

from __future__ import annotations

import shutil
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import ImageEmpty, ImageError, ImageFormat, ImageOverlap
from proxyflash.flashers.formats import elf, load
from proxyflash.flashers.image import FirmwareImage

HOST_PROGRAM = Path("/bin/true")
ET_REL, ET_EXEC = 1, 2
PT_LOAD, PT_NOTE = 1, 4
EM_ARM, EM_X86_64, EM_AVR = 40, 62, 83


@dataclass
class Elf:
    """Puts an ELF file together as the ABI lays it out (figures 4-3 and 5-1). Program headers follow the header."""

    bits: int = 32
    order: str = "<"
    kind: int = ET_EXEC
    machine: int = EM_ARM
    entry: int = 0
    segments: list[tuple[int, int, int, bytes, int]] = field(default_factory=list)
    """p_type, p_vaddr, p_paddr, the bytes, p_memsz."""
    sections: list[tuple[int, int, int, int]] = field(default_factory=list)
    """sh_type, sh_flags, sh_offset, sh_size."""

    @property
    def header_size(self) -> int:
        return 52 if self.bits == 32 else 64

    @property
    def program_header_size(self) -> int:
        return 32 if self.bits == 32 else 56

    def offset(self, number: int) -> int:
        """Where a segment's bytes are."""
        return (
            self.header_size
            + self.program_header_size * len(self.segments)
            + sum(len(segment[3]) for segment in self.segments[:number])
        )

    def load(self, physical: int, data: bytes, *, virtual: int | None = None, extra: int = 0) -> Elf:
        self.segments.append((PT_LOAD, physical if virtual is None else virtual, physical, data, len(data) + extra))
        return self

    def build(self) -> bytes:
        word = "I" if self.bits == 32 else "Q"
        table = b""
        for number, (kind, virtual, physical, data, memory) in enumerate(self.segments):
            place = self.offset(number)
            if self.bits == 32:
                values = (kind, place, virtual, physical, len(data), memory, 5, 4)
                table += struct.pack(f"{self.order}8I", *values)
            else:
                table += struct.pack(f"{self.order}IIQQQQQQ", kind, 5, place, virtual, physical, len(data), memory, 4)
        body = table + b"".join(segment[3] for segment in self.segments)
        sections_at = self.header_size + len(body) if self.sections else 0
        for kind, flags, place, size in self.sections:
            body += struct.pack(f"{self.order}II{word}{word}{word}{word}II{word}{word}",
                                0, kind, flags, 0, place, size, 0, 0, 4, 0)  # fmt: skip
        ident = b"\x7fELF" + bytes([1 if self.bits == 32 else 2, 1 if self.order == "<" else 2, 1]) + bytes(9)
        return (
            ident
            + struct.pack(
                f"{self.order}HHI{word}{word}{word}IHHHHHH", self.kind, self.machine, 1, self.entry,
                self.header_size if self.segments else 0, sections_at, 0, self.header_size, self.program_header_size,
                len(self.segments), 40 if self.bits == 32 else 64, len(self.sections), 0,
            )
            + body
        )  # fmt: skip


def read(data: bytes) -> FirmwareImage:
    return elf.read(BytesIO(data), "fw.elf")


def contents(image: FirmwareImage) -> list[tuple[int, bytes]]:
    return [(segment.address, bytes(segment.data)) for segment in image.segments]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_class_and_byte_order(bits: int, order: str) -> None:
    file = Elf(bits, order, entry=0x08000101).load(0x08000000, b"text").load(0x08001000, b"data", virtual=0x20000000)
    image = read(file.build())
    assert contents(image) == [(0x08000000, b"text"), (0x08001000, b"data")]
    assert (image.format, image.entry, image.relocatable) == ("elf", 0x08000101, False)
    assert dict(image.target) == {"machine": "EM_ARM" if order == "<" else "EM_ARM (big endian)"}


def test_the_test_itself_builds_elf_files() -> None:
    for bits, order in ((32, "<"), (32, ">"), (64, "<"), (64, ">")):
        data = Elf(bits, order, entry=5, sections=[(1, 2, 60, 4)]).load(0x100, b"text", virtual=0x200).build()
        oracle = ELFFile(BytesIO(data))
        (segment,) = oracle.iter_segments("PT_LOAD")
        assert (segment["p_paddr"], segment["p_vaddr"], segment.data()) == (0x100, 0x200, b"text")
        assert (oracle["e_machine"], oracle["e_entry"], oracle.num_sections()) == ("EM_ARM", 5, 1)


def test_addresses_of_64_bits() -> None:
    image = read(Elf(64).load(0xFFFFFFFF_FFFFFFF0, bytes(16)).build())
    assert image.end == 1 << 64
    with pytest.raises(ImageFormat, match="beyond 64-bit addresses, from 0xFFFFFFFFFFFFFFF1 on"):
        read(Elf(64).load(0xFFFFFFFF_FFFFFFF1, bytes(16)).build())


def test_segments_in_any_order_are_joined() -> None:
    assert contents(read(Elf().load(0x104, b"ef").load(0x100, b"abcd").build())) == [(0x100, b"abcdef")]


def test_what_is_not_loaded_is_left_out() -> None:
    file = Elf().load(0x100, b"text").load(0x20000000, b"", extra=4096)
    file.segments.append((PT_NOTE, 0x900, 0x900, b"note", 4))
    assert contents(read(file.build())) == [(0x100, b"text")]


def test_only_what_is_in_the_file_is_loaded() -> None:
    assert contents(read(Elf().load(0x100, b"text", extra=1 << 31).build())) == [(0x100, b"text")]


def test_overlapping_loads_are_refused() -> None:
    with pytest.raises(ImageOverlap, match="0x00000102 is given twice") as raised:
        read(Elf().load(0x100, b"text").load(0x102, b"text").build())
    assert raised.value.exit_status == 12


def test_of_a_segment_what_no_section_holds_is_left_out() -> None:
    # As GNU ld does it when a page has room before .text: the segment begins with the file's headers. Whatever has no
    # bytes (SHT_NOBITS) or takes up no memory (without SHF_ALLOC) is not loaded, wherever its offset points.
    file = Elf().load(0x08000000, b"headers.textdata")
    start = file.offset(0)
    file.sections = [
        (0, 0, 0, 0),
        (1, 6, start + 8, 4),
        (1, 3, start + 12, 4),
        (8, 3, start + 2, 4),
        (1, 0, start, 9),
    ]
    assert contents(read(file.build())) == [(0x08000008, b"textdata")]


def test_without_sections_to_load_segments_are_taken_whole() -> None:
    file = Elf(sections=[(0, 0, 0, 0), (3, 0, 4, 9)]).load(0x100, b"text")
    assert contents(read(file.build())) == [(0x100, b"text")]


def test_an_entry_of_zero_is_none() -> None:
    assert read(Elf(entry=0).load(0, b"x").build()).entry is None


@pytest.mark.parametrize(
    ("machine", "name"), [(EM_ARM, "EM_ARM"), (EM_X86_64, "EM_X86_64"), (EM_AVR, "EM_AVR"), (0x9041, "EM_36929")]
)
def test_the_machine_is_told(machine: int, name: str) -> None:
    assert read(Elf(machine=machine).load(0, b"x").build()).target["machine"] == name


def test_machine_numbers_are_those_of_pyelftools() -> None:
    for number, name in elf.MACHINES.items():
        assert ELFFile(BytesIO(Elf(machine=number).build()))["e_machine"] == name


GOOD = Elf(sections=[(1, 6, 84, 4)]).load(0x100, b"text").build()
"""Header 0..51, program header 52..83, bytes 84..87, section header 88..127."""


def patched(offset: int, layout: str, *values: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into(layout, data, offset, *values)
    return bytes(data)


BROKEN = {
    "nothing": (b"", "offset 0x0: the ELF identification should have 16 bytes, and the file ends at 0x0"),
    "a magic alone": (GOOD[:4], "offset 0x0: the ELF identification should have 16 bytes, and the file ends at 0x4"),
    "another magic": (b"\x7fELG" + GOOD[4:], "offset 0x0: no ELF file"),
    "class": (patched(4, "B", 3), "offset 0x4: the ELF class is 3"),
    "byte order": (patched(5, "B", 0), "offset 0x5: the ELF byte order is 0"),
    "half a header": (GOOD[:40], "offset 0x10: the ELF header should have 36 bytes, and the file ends at 0x28"),
    "half a table": (GOOD[:80], "offset 0x34: 1 program headers should have 32 bytes, and the file ends at 0x50"),
    "no sections": (GOOD[:100], "offset 0x58: 1 section headers should have 40 bytes, and the file ends at 0x64"),
    "the table beyond": (patched(28, "<I", 0xFFFFFFFF), "offset 0xFFFFFFFF: 1 program headers should have 32 bytes"),
    "many segments": (patched(44, "<H", 0xFFFF), "offset 0x0: the header announces 65,535 segments"),
    "many sections": (patched(48, "<H", 0xFFFF), "offset 0x58: 65,535 section headers should have 2,621,400 bytes"),
    "entry size": (patched(42, "<H", 16), "offset 0x0: the ELF header announces 16 bytes for a program header, which"),
    "section entry size": (patched(46, "<H", 64), "offset 0x0: the ELF header announces 64 bytes for a section header"),
    "bytes beyond": (patched(56, "<I", 0x1000), "offset 0x1000: a segment should have 4 bytes, and the file ends"),
    "size beyond": (patched(68, "<I", 0xFFFFFFFF), "offset 0x54: a segment should have 4,294,967,295 bytes"),
    "an object file": (patched(16, "<H", ET_REL), "offset 0x10: an object file, which no linker has placed yet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said_with_its_offset(name: str) -> None:
    data, cause = BROKEN[name]
    with pytest.raises(ImageFormat) as raised:
        read(data)
    assert raised.value.cause.startswith(f"fw.elf: {cause}")
    assert raised.value.exit_status == 12


def test_many_headers_of_the_same_bytes_are_refused() -> None:
    # A small file that would become a huge image.
    file = Elf()
    for number in range(1000):
        file.load(number * 0x100000, b"")
    data = bytearray(file.build()) + bytes(100000)
    for number in range(1000):
        struct.pack_into("<I", data, 52 + 32 * number + 16, 100000)
        struct.pack_into("<I", data, 52 + 32 * number + 4, 32052)
    with pytest.raises(ImageFormat, match="200,000 bytes and more to load in a file of 132,052"):
        read(bytes(data))


def test_a_file_with_nothing_to_load_is_empty(tmp_path: Path) -> None:
    (tmp_path / "fw.elf").write_bytes(Elf().load(0x20000000, b"", extra=64).build())
    with pytest.raises(ImageEmpty):
        load(tmp_path / "fw.elf")


def test_a_program_for_this_host_says_so() -> None:
    if not HOST_PROGRAM.exists():
        pytest.skip(f"{HOST_PROGRAM} is not there")
    with HOST_PROGRAM.open("rb") as stream:
        oracle = ELFFile(stream)
        assert load(HOST_PROGRAM).target["machine"] == oracle["e_machine"]


# Against a linker and objcopy.

SCRIPTS = {
    "plain": "SECTIONS { .text 0x08000000 : { *(.text*) *(.rodata*) } .data 0x20000000 : { *(.data*) } }",
    "data loaded behind the text": """
        MEMORY { FLASH (rx) : ORIGIN = 0x08000000, LENGTH = 64K  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 32K }
        SECTIONS {
          .text : { *(.text*) *(.rodata*) } > FLASH
          .data : { *(.data*) } > RAM AT > FLASH
          .bss : { *(.bss*) *(COMMON) } > RAM
        }""",
    "a vector table and a hole": """
        SECTIONS {
          .vectors 0x08000000 : { LONG(0x20002000) LONG(ABSOLUTE(start) | 1) }
          .text 0x08000400 : { *(.text*) *(.rodata*) }
          .data 0x20000000 : AT(0x08002000) { *(.data*) }
          .ram 0x20001000 (NOLOAD) : { . += 512; }
          .bss : { *(.bss*) *(COMMON) }
        }""",
    "headers in the first segment": """
        PHDRS { text PT_LOAD FILEHDR PHDRS; data PT_LOAD; }
        SECTIONS {
          . = 0x08000000 + SIZEOF_HEADERS;
          .text : { *(.text*) *(.rodata*) } :text
          .data 0x20000000 : AT(0x08004000) { *(.data*) } :data
          .bss : { *(.bss*) *(COMMON) } :data
        }""",
}
PROGRAM = """
    int table[300] = {1, 2, 3}; const char text[] = "firmware"; int later[4000];
    int start(void) { return table[1] + text[2] + later[3]; }
"""


def tool(*arguments: str | Path) -> None:
    if shutil.which(str(arguments[0])) is None:
        package = "gcc-arm-none-eabi" if "gcc" in str(arguments[0]) else "binutils-arm-none-eabi"
        pytest.skip(f"{package} is not installed")
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("page", ["-n", "-zmax-page-size=4096"], ids=["pages", "no pages"])
def test_what_objcopy_takes_is_taken(name: str, page: str, tmp_path: Path) -> None:
    (tmp_path / "fw.c").write_text(PROGRAM)
    (tmp_path / "fw.ld").write_text(SCRIPTS[name])
    built = tmp_path / "fw.elf"
    tool("arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb", "-Os", "-g", "-ffreestanding", "-nostdlib", "-Wl,-estart",
         f"-Wl,{page}", f"-Wl,-T{tmp_path / 'fw.ld'}", "-Wl,--no-warn-rwx-segments", "-Wl,--build-id=none",
         "-o", built, tmp_path / "fw.c")  # fmt: skip
    tool("arm-none-eabi-objcopy", "-O", "ihex", built, tmp_path / "fw.hex")
    image, oracle = load(built), load(tmp_path / "fw.hex")
    assert contents(image) == contents(oracle)
    assert image.sha256 == oracle.sha256
    assert image.entry == oracle.entry
    assert image.size > 1200


# Whatever comes in.


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_an_image_or_an_image_error(data: bytes) -> None:
    with suppress(ImageError):
        read(data)
    with suppress(ImageError):
        read(GOOD[:16] + data)


@given(
    st.sampled_from([(32, "<"), (32, ">"), (64, "<"), (64, ">")]),
    st.lists(st.tuples(st.integers(0, 250), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5),
    st.integers(0, 60),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_gives_an_image_or_an_image_error(
    kind: tuple[int, str], patches: list[tuple[int, bytes]], cut: int
) -> None:
    file = Elf(*kind, entry=0x101).load(0x100, b"text" * 4).load(0x1000, b"data" * 4, virtual=0x20000000, extra=64)
    file.sections = [
        (0, 0, 0, 0),
        (1, 6, file.offset(0), 16),
        (1, 3, file.offset(1), 16),
        (8, 3, file.offset(1) + 16, 64),
    ]
    data = bytearray(file.build())
    for offset, new in patches:
        place = offset % len(data)
        data[place : place + len(new)] = new
    del data[len(data) - cut :]
    with suppress(ImageError):
        image = read(bytes(data))
        assert image.size <= len(data)
        assert image.sha256


def crowded(segments: int, sections: int, *, offset: int, size: int) -> bytes:
    """A file with headers of both kinds, each section with bytes from `offset` on, segments of the first byte."""
    name = 52 + 32 * segments
    header = bytearray(Elf().build()[:52])
    struct.pack_into("<I", header, 28, 52)
    struct.pack_into("<I", header, 32, name)
    struct.pack_into("<HHHH", header, 42, 32, segments, 40, sections)
    program = struct.pack("<8I", PT_LOAD, 52, 0, 0, 16, 16, 5, 4) * segments
    section = struct.pack("<10I", 0, 1, 2, 0, offset, size, 0, 0, 0, 0) * sections
    return bytes(header) + program + section


def looked_at(monkeypatch: pytest.MonkeyPatch, data: bytes) -> int:
    """How often a segment is compared with a section while the file is refused or read."""
    count = 0
    holds = elf._Piece.holds

    def counted(piece: elf._Piece, other: elf._Piece) -> bool:
        nonlocal count
        count += 1
        return holds(piece, other)

    monkeypatch.setattr(elf._Piece, "holds", counted)
    with suppress(ImageError):
        read(data)
    return count


@pytest.mark.parametrize(
    ("offset", "size"), [(52, 4), (52, 40), (60, 1000), (4000, 8)], ids=["inside", "beyond", "far beyond", "elsewhere"]
)
def test_1024_segments_and_65535_sections_are_not_compared_one_by_one(
    monkeypatch: pytest.MonkeyPatch, offset: int, size: int
) -> None:
    data = crowded(1024, 65535, offset=offset, size=size)
    # 67 million times, if each were.
    assert looked_at(monkeypatch, data) <= len(data)


def test_bytes_to_load_are_no_more_added_up_once_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    data = crowded(1000, 1000, offset=52, size=16)
    with pytest.raises(ImageFormat, match="bytes and more to load in a file of"):
        read(data)
    assert looked_at(monkeypatch, data) <= len(data) // 16 + 1
