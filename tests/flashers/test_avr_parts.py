"""AVR parts against avr-libc's headers and avrdude's list; where a boot section begins, and the page that starts nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers import plan as planning
from proxyflash.flashers.avr import boot_section
from proxyflash.flashers.avr.loader import Fuses
from proxyflash.flashers.avr.parts import AvrPart, parts
from proxyflash.flashers.avr.profile import AvrProfile
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.memory import Erase, MemoryMap, Range, uniform
from pydantic import ValidationError

M8, M168, M328P, M2560, M32U4 = (parts()[number] for number in (0x1E9307, 0x1E9406, 0x1E950F, 0x1E9801, 0x1E9587))


def first_name(part: AvrPart) -> str:
    return part.name.partition("/")[0]


@pytest.mark.parametrize("part", parts().values(), ids=first_name)
def test_a_part_is_as_avr_libc_has_it(part: AvrPart) -> None:
    if shutil.which("avr-gcc") is None or not Path("/usr/lib/avr/include/avr/io.h").exists():
        pytest.skip("avr-libc with gcc-avr is not installed")
    command = ["avr-gcc", f"-mmcu={first_name(part).lower()}", "-E", "-dM", "-include", "avr/io.h", "-"]
    text = subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"#define (\w+) +\(?(0x[0-9A-Fa-f]+|\d+)[U)]*$", text, re.MULTILINE))
    fuse = {"high": "HFUSE_DEFAULT", "extended": "EFUSE_DEFAULT"}[part.bootsz]

    def number(name: str) -> int:
        return int(found[name], 0)

    assert part.signature == sum(number(f"SIGNATURE_{place}") << 16 - 8 * place for place in range(3))
    assert (part.flash, part.page, part.eeprom) == (number("FLASHEND") + 1, number("SPM_PAGESIZE"), number("E2END") + 1)
    assert re.search(rf"#define {fuse} .*BOOTSZ0", text)


@pytest.mark.parametrize("part", parts().values(), ids=first_name)
def test_the_smallest_boot_section_is_as_avrdude_has_it(part: AvrPart) -> None:
    if shutil.which("avrdude") is None:
        pytest.skip("avrdude is not installed")
    listed = subprocess.run(
        ["avrdude", "-c", "arduino", "-P", "/dev/null", "-p", f"{first_name(part)}/S"], capture_output=True, text=True
    )
    (size,) = re.findall(r"boot_section_size\s*= (\d+);", listed.stdout + listed.stderr)
    assert part.boot == int(size)


@pytest.mark.parametrize(
    ("part", "fuse", "size"),
    [(M328P, 0xDE, 512), (M328P, 0xDA, 2048), (M2560, 0xD8, 8192), (M32U4, 0xD8, 4096), (M168, 0xF8, 2048)],
    ids=["Uno", "Duemilanove", "Mega 2560", "Leonardo", "Diecimila"],
)
def test_fuses_of_boards_tell_the_boot_section(part: AvrPart, fuse: int, size: int) -> None:
    """The fuses and the application's most bytes are boards.txt's of Debian's arduino-core-avr (32256, 30720, 253952, 28672,
    14336)."""
    assert part.boot_size(fuse) == size


def flash_with(part: AvrPart, start: int, code: str) -> bytes:
    return (b"\xff" * start + bytes.fromhex(code)).ljust(part.flash, b"\xff")


# The first words of the stock hex files, and what they are by the instruction set manual.
STARTS = [
    (M328P, 0x7E00, "11 24 84 b7 14 be 81 ff"),  # clr r1; in r24, MCUSR
    (M328P, 0x7800, "0c 94 34 3c"),  # jmp 0x7868
    (M2560, 0x3E000, "0d 94 89 f1"),  # jmp 0x3e312
    (M8, 0x1C00, "1f c0"),  # rjmp +0x3e
]


@pytest.mark.parametrize(("part", "start", "code"), STARTS, ids=["optiboot", "atmegaboot", "wiring", "atmega8"])
def test_a_loader_is_found_by_its_first_instructions(part: AvrPart, start: int, code: str) -> None:
    flash = flash_with(part, start, code)
    assert boot_section.size(part, Fuses(), None, lambda at, size: flash[at : at + size]) == part.flash - start


def test_where_nothing_is_found_the_section_is_the_largest() -> None:
    assert boot_section.size(M328P, Fuses(), None, lambda at, size: b"\xff" * size) == 4096


def test_the_largest_answer_counts() -> None:
    flash = flash_with(M328P, 0x7E00, "11 24 84 b7")

    def size(fuses: Fuses, given: int | None) -> int:
        return boot_section.size(M328P, fuses, given, lambda at, size: flash[at : at + size])

    assert size(Fuses(high=0xDA), None) == 2048
    assert size(Fuses(high=0xDE), 1000) == 1024
    assert size(Fuses(high=0xFF), None) == 512, "no reset leads into the loader by these: it would not be running"
    assert size(Fuses(high=0xDF), None) == 512


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(parts().values())), st.binary(max_size=64), st.integers(0, 3))
def test_any_flash(part: AvrPart, head: bytes, which: int) -> None:
    start = part.flash - part.boot_sizes[which]
    boot_section.is_start(head, start, part)
    found = boot_section.size(part, Fuses(), None, lambda at, size: head[:size])
    assert found in part.boot_sizes


@pytest.mark.parametrize(
    ("part", "start", "jumps", "code"),
    [
        (M328P, 0x7800, True, "0c 94 00 3c"),
        (M2560, 0x3E000, True, "0d 94 00 f0"),
        (M8, 0x1C00, True, "ff cd"),
        (M328P, 0x7E00, False, "ff cf"),
    ],
)
def test_the_page_that_starts_nothing(part: AvrPart, start: int, jumps: bool, code: str) -> None:
    """By hand from the instruction set manual; RJMP from 0 to word 0xE00 of the ATmega8 goes back by 0x201 and wraps."""
    page = boot_section.parked(part, start, jumps=jumps)
    assert page == bytes.fromhex(code).ljust(part.page, b"\xff")


# The plan for pages that only writing erases.

PAGES = MemoryMap(
    (
        uniform("flash", 0, 0x1000, 128, write_alignment=128, erase=Erase.BY_WRITE),
        uniform("boot section", 0x1000, 0x200, 128, writable=False),
        uniform("eeprom", 0x810000, 512, 512, erase=Erase.NEVER),
    )
)


def made(*segments: Segment, present: tuple[Range, ...] = ()) -> planning.FlashPlan:
    return planning.make(planning.place(FirmwareImage(segments, "bin"), PAGES), PAGES, present)


def test_only_the_first_page_is_erased_and_it_is_written_last() -> None:
    plan = made(Segment(0, bytes(1000)))
    assert plan.erase == (Range(0, 128),)
    assert [(part.address, part.size) for part in plan.writes] == [(128, 896), (0, 128)]


def test_blank_stretches_are_written_too() -> None:
    plan = made(Segment(0, bytes(128) + b"\xff" * 1024 + bytes(128)))
    assert plan.blank_bytes == 0
    assert sum(part.size for part in plan.writes) == 1280


def test_pages_that_hold_the_image_are_left_but_the_first() -> None:
    plan = made(Segment(0, bytes(1024)), present=tuple(Range(at, 128) for at in range(0, 1024, 128) if at != 512))
    assert plan.erase == (Range(0, 128),)
    assert [(part.address, part.size) for part in plan.writes] == [(512, 128), (0, 128)]
    everything = made(Segment(0, bytes(1024)), present=tuple(Range(at, 128) for at in range(0, 1024, 128)))
    assert everything.nothing_to_do


def test_what_lies_beside_goes_before_the_first_page() -> None:
    plan = made(Segment(0, bytes(256)), Segment(0x810000, b"kept"))
    assert [part.address for part in plan.writes] == [0x810000, 128, 0]


APP = {"start": 0, "size": 0x7800, "erase_unit": 128}
BOOT = {"start": 0x7800, "size": 0x800, "erase_unit": 128, "boot": True}
EEPROM = {"name": "eeprom", "start": 0x81_0000, "size": 1024, "erase_unit": 1}


class TestMemoryByHand:
    def test_its_runs_are_the_part(self) -> None:
        """An ATmega328P with 1,024 words of boot section (DS40001984: 32 KiB of 128 byte pages, 1 KiB of EEPROM)."""
        known = parts()[0x1E950F]
        made = AvrProfile.model_validate({"memory": [EEPROM, BOOT, APP]}).described(known.signature)
        assert made is not None
        assert (made.flash, made.page, made.eeprom, made.boot) == (known.flash, known.page, known.eeprom, 0x800)

    def test_the_boot_section_beside_one_run(self) -> None:
        made = AvrProfile.model_validate({"memory": [APP | {"size": 0x8000}], "boot_size": 500}).described(1)
        assert made is not None
        assert (made.flash, made.eeprom, made.boot) == (0x8000, 0, 512)

    @pytest.mark.parametrize(
        ("memory", "why"),
        [
            ({"flash": 0x8000, "page": 128, "boot_size": 512}, r"memory = \[\{start = 0, size = 0x7800"),
            ([APP], "boot = true"),
            ([BOOT | {"start": 0}], "boot = true"),
            ([EEPROM], "no run of flash"),
            ([APP, BOOT | {"start": 0x7880}], "none begins at 0x7800"),
            ([APP | {"boot": True}, BOOT], "its boot section last"),
            ([APP, BOOT | {"erase_unit": 256}], "pages of one size"),
            ([APP | {"size": 0x7800, "erase_unit": 96}], "power of two"),
            ([APP, BOOT, EEPROM | {"start": 0x80_0000}], "EEPROM begins at 0x810000"),
            ([APP, BOOT, EEPROM, EEPROM], "runs at 0x00810000 and 0x00810000 overlap"),
        ],
    )
    def test_what_can_not_be(self, memory: object, why: str) -> None:
        with pytest.raises(ValidationError, match=why):
            AvrProfile.model_validate({"memory": memory})

    def test_two_sizes_of_the_boot_section(self) -> None:
        with pytest.raises(ValidationError, match="boot_size is 4096, and the run with boot = true has 2048 bytes"):
            AvrProfile.model_validate({"memory": [APP, BOOT], "boot_size": 4096})
