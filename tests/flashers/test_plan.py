"""The plan: what is erased and written, in which order, and what is refused before anything is."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from proxyflash.flashers import plan as planning
from proxyflash.flashers.errors import ImageEmpty, ImageMisplaced, ImageTooLarge, ImageWrongPart
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.memory import Beside, Erase, EraseRun, MemoryMap, Range, Region, Write, uniform
from proxyflash.flashers.vector_table import VectorTable

UNIT = 1024
FLASH = uniform("flash", 0x1000, 8 * UNIT, UNIT, write_alignment=8)
MAP = MemoryMap((FLASH,))


def image(*segments: tuple[int, bytes], relocatable: bool = False) -> FirmwareImage:
    return FirmwareImage(
        tuple(Segment(address, data) for address, data in segments), "bin", "fw.bin", relocatable=relocatable
    )


def units(*numbers: int) -> list[Range]:
    return [Range(0x1000 + number * UNIT, UNIT) for number in numbers]


def test_only_touched_units_are_erased() -> None:
    made = planning.make(image((0x1000 + UNIT, b"a" * 10), (0x1000 + 5 * UNIT - 1, b"bc")), MAP)
    assert sorted(made.erase) == units(1, 4, 5)
    assert made.write_bytes == 16 + 8 + 8


def test_the_unit_that_makes_it_bootable_goes_first_and_comes_back_last() -> None:
    made = planning.make(image((0x1000, bytes(range(1, 251)) * 16)), MAP)
    assert made.erase[0] == units(0)[0]
    assert made.writes[-1].address == 0x1000
    assert made.writes[-1].size == planning.HEAD
    assert made.writes[0].address == 0x1000 + UNIT
    written = {segment.address + i: b for segment in made.writes for i, b in enumerate(bytes(segment.data))}
    assert bytes(written[0x1000 + i] for i in range(4000)) == bytes(range(1, 251)) * 16


def test_blank_blocks_are_erased_but_not_written() -> None:
    data = b"x" * 256 + b"\xff" * 512 + b"y" * 256
    made = planning.make(image((0x1000 + UNIT, data)), MAP)
    assert made.blank_bytes == 512
    assert made.write_bytes == 512
    assert list(made.erase) == units(1)


def test_pages_that_writing_erases_are_counted() -> None:
    """ATmega328P (DS40001984): pages of 128 bytes, so 4,000 bytes from 0 on take 32 of them."""
    pages = uniform("flash", 0, 0x7E00, 128, write_alignment=128, erase=Erase.BY_WRITE)
    made = planning.make(image((0, b"a" * 4000)), MemoryMap((pages,)))
    assert (len(made.erase), len(made.erased), made.erased_bytes) == (1, 32, 4096)
    there = made.erased[5:]
    again = planning.make(image((0, b"a" * 4000)), MemoryMap((pages,)), there)
    assert again.erased == made.erased[:5]


def test_what_commands_erase_is_all_that_is_erased() -> None:
    made = planning.make(image((0x1000 + UNIT, b"a" * 10), (0x1000 + 5 * UNIT - 1, b"bc")), MAP)
    assert (list(made.erased), made.erased_bytes) == (units(1, 4, 5), 3 * UNIT)


def test_erased_value_of_the_part_counts() -> None:
    zero = uniform("flash", 0, 4 * UNIT, UNIT, erased_value=0)
    made = planning.make(image((0, bytes(512) + b"\xff" * 512)), MemoryMap((zero,)))
    assert made.blank_bytes == 512
    assert sum(bytes(segment.data).count(0xFF) for segment in made.writes) == made.write_bytes == 512


def test_present_units_are_left_alone_but_for_the_head() -> None:
    fw = image((0x1000, b"z" * (4 * UNIT)))
    made = planning.make(fw, MAP, present=units(0, 1, 2))
    assert sorted(made.erase) == units(0, 3)
    assert sorted(made.present) == units(1, 2)
    assert made.present_bytes == 2 * UNIT
    assert [(part.address, part.size) for part in made.unproven()] == [(0x1000, UNIT), (0x1000 + 3 * UNIT, UNIT)]


def test_all_present_is_nothing_to_do() -> None:
    made = planning.make(image((0x1000, b"z" * (4 * UNIT))), MAP, present=units(0, 1, 2, 3))
    assert made.nothing_to_do
    assert list(made.unproven()) == []


def test_writes_are_aligned_and_filled_with_the_erased_value() -> None:
    made = planning.make(image((0x1000 + UNIT + 3, b"abc")), MAP)
    assert [(segment.address, bytes(segment.data)) for segment in made.writes] == [
        (0x1000 + UNIT, b"\xff\xff\xffabc\xff\xff")
    ]


def test_runs_that_share_an_aligned_word_become_one_write() -> None:
    made = planning.make(image((0x1000 + UNIT, b"ab"), (0x1000 + UNIT + 4, b"cd")), MAP)
    assert [bytes(segment.data) for segment in made.writes] == [b"ab\xff\xffcd\xff\xff"]


def test_whole_segments_keep_their_shape_and_order() -> None:
    region = uniform("app", 0x1000, 8 * UNIT, UNIT, write=Write.WHOLE_SEGMENTS)
    data = b"s" * 100 + b"\xff" * 1000 + b"t" * 100
    made = planning.make(image((0x1000, data), (0x2000, b"u")), MemoryMap((region,)))
    assert [(s.address, s.size) for s in made.writes] == [(0x1000, 1200), (0x2000, 1)]


def test_mixed_erase_units() -> None:
    region = Region("flash", 0x08000000, 1 << 20, (EraseRun(4, 16384), EraseRun(1, 65536), EraseRun(7, 131072)))
    touched = list(region.erase_units(0x0800C000, 0x08020001))
    assert touched == [Range(0x0800C000, 16384), Range(0x08010000, 65536), Range(0x08020000, 131072)]


def test_relocatable_images_go_to_the_first_region() -> None:
    assert planning.place(image((0, b"abc"), relocatable=True), MAP).start == 0x1000


def test_refusals() -> None:
    with pytest.raises(ImageTooLarge, match=r"0x00002FFF.*1 bytes short"):
        planning.place(image((0x1000, bytes(8 * UNIT + 1))), MAP)
    with pytest.raises(ImageMisplaced, match="not in the part's memory"):
        planning.place(image((0x0, b"abc")), MAP)
    with pytest.raises(ImageEmpty):
        planning.place(image(), MAP)
    locked = MemoryMap((uniform("rom", 0, UNIT, UNIT, writable=False),))
    with pytest.raises(ImageMisplaced, match="may not be written"):
        planning.place(image((0, b"abc")), locked)


@pytest.mark.parametrize(
    ("stack", "reset"),
    [(0, 0x09), (0x20000001, 0x09), (0x20000000, 0x08), (0x20000000, 0x1001)],
    ids=["no stack", "stack not aligned", "not thumb", "outside"],
)
def test_an_image_without_a_vector_table_is_refused(stack: int, reset: int) -> None:
    arm = MemoryMap((uniform("flash", 0, 8 * UNIT, UNIT, head=VectorTable()),))
    good = struct.pack("<II", 0x20000000, 0x09) + bytes(56)
    assert planning.place(image((0, good)), arm).size == 64
    with pytest.raises(ImageWrongPart, match="vector table"):
        planning.place(image((0, struct.pack("<II", stack, reset) + bytes(56))), arm)


def test_an_image_that_leaves_the_vector_table_alone_is_fine() -> None:
    flash = uniform("flash", 8 * UNIT, 8 * UNIT, UNIT, head=VectorTable())
    arm = MemoryMap((uniform("ram", 0, 8 * UNIT, UNIT), flash))
    assert planning.place(image((9 * UNIT, b"calibration")), arm).start == 9 * UNIT
    assert planning.place(image((0, b"below"), (9 * UNIT, b"calibration")), arm).start == 0


def test_nothing_is_erased_that_the_part_starts_by_unless_the_image_brings_it() -> None:
    arm = MemoryMap((uniform("flash", 0, 8 * UNIT, UNIT, head=VectorTable()),))
    for start in (1, 7, 8, UNIT - 4):
        placed = planning.place(image((start, b"calibration")), arm)
        assert planning.headless(placed, arm) == (list(arm.regions) if start >= 8 else [])
        with pytest.raises(ImageMisplaced, match="would be lost"):
            planning.make(placed, arm, used=planning.headless(placed, arm))
        if start >= 8:
            assert planning.make(placed, arm).erase  # A part that holds nothing has nothing to lose.
    assert planning.headless(planning.place(image((UNIT, b"calibration")), arm), arm) == []
    blank = planning.place(image((0, b"\xff" * 64 + b"data")), arm)
    with pytest.raises(ImageWrongPart, match="vector table"):
        planning.make(blank, arm)
    assert planning.make(blank, arm, present=[Range(0, UNIT)]).nothing_to_do


PART = MemoryMap(
    (FLASH, uniform("boot section", FLASH.end, UNIT, UNIT, writable=False)),
    (
        Beside("fuses", 0x820000, 3, ((0x62, 0xD9, None),)),
        Beside("signature", 0x840000, 3, ((0x1E, 0x95, 0x0F),), names_part=True),
        Beside("option bytes", 0x1FFF0000, 16, readable=True),
    ),
)


def test_what_the_part_holds_already_is_left_out() -> None:
    code, boot = (0x1000, b"code"), (FLASH.end, b"boot")
    asked: list[int] = []

    def holds(part: Segment) -> bool:
        asked.append(part.address)
        return True

    there = (boot, (0x820000, b"\x62\xd9"), (0x840000, b"\x1e\x95\x0f"), (0x1FFF0004, b"opt"))
    placed = planning.place(image(code, *there), PART, holds)
    assert [(segment.address, bytes(segment.data)) for segment in placed.segments] == [code]
    assert len(placed.left_out) == 4
    # Of the fuses and the signature it is known; the rest is read.
    assert asked == [FLASH.end, 0x1FFF0004]
    whole = planning.place(image((0x1000, b"a" * 9 * UNIT)), PART, lambda part: True)
    assert [(segment.address, segment.size) for segment in whole.segments] == [(0x1000, 8 * UNIT)]


@pytest.mark.parametrize(
    ("part", "holds", "said"),
    [
        ((FLASH.end, b"boot"), False, "boot section.*holds other bytes"),
        ((FLASH.end, b"boot"), None, "boot section.*can't be read"),
        ((0x820000, b"\x63"), None, "fuses.*holds other bytes|fuses.*can't be read"),
        ((0x820002, b"\xff"), None, "fuses.*can't be read"),
        ((0x1FFF0000, b"\x5a"), False, "option bytes.*holds other bytes"),
        ((0x10001014, b"\0\xf0\7\0"), True, "UICR"),
        ((0x5000_0000, b"text"), True, "not in the part's memory"),
    ],
)
def test_what_can_not_be_written_is_refused_or_left_out_on_request(
    part: tuple[int, bytes], holds: bool | None, said: str
) -> None:
    wanted = image((0x1000, b"code"), part)
    answer = None if holds is None else lambda part: bool(holds)
    with pytest.raises(ImageMisplaced, match=said) as raised:
        planning.place(wanted, PART, answer)
    assert "--only flash" in raised.value.remedy
    placed = planning.place(replace(wanted, only=("Flash",)), PART, answer)
    assert [segment.address for segment in placed.segments] == [0x1000]
    assert len(placed.left_out) == 1


def test_only_leaves_out_no_end_of_an_image() -> None:
    too_large = replace(image((0x2000, bytes(8 * UNIT))), only=("flash",))
    with pytest.raises(ImageTooLarge):
        planning.place(too_large, MAP)
    # What begins before a memory, as a bootloader in the same file, is left out.
    below = replace(image((0x0800, bytes(4 * UNIT))), only=("flash",))
    assert [(s.address, s.size) for s in planning.place(below, MAP).segments] == [(0x1000, 2 * UNIT)]


def test_another_part_s_signature_is_refused() -> None:
    with pytest.raises(ImageWrongPart, match="signature 1E 98 01, and this one's is 1E 95 0F"):
        planning.place(image((0x1000, b"code"), (0x840000, b"\x1e\x98\x01")), PART)


def test_a_program_for_another_processor_is_refused() -> None:
    arm = MemoryMap((uniform("flash", 0, 8 * UNIT, UNIT, head=VectorTable()),))
    for machine in ("EM_ARM", "EM_AVR"):
        built = FirmwareImage((Segment(UNIT, b"code"),), "elf", target={"machine": machine})
        if machine == "EM_ARM":
            assert planning.place(built, arm).size == 4
        else:
            with pytest.raises(ImageWrongPart, match="EM_AVR"):
                planning.place(built, arm)


def test_segments_that_are_written_whole_are_erased_whole() -> None:
    """A UDS download writes each segment from its start: no unit of it may stay as it is, whatever it holds."""
    ecu = MemoryMap((uniform("flash", 0, 8 * UNIT, UNIT, write=Write.WHOLE_SEGMENTS),))
    wanted = image((0, bytes(range(1, 201)) * 2), (4 * UNIT, b"calibration"))
    units = [unit for _, unit in planning.units_of(wanted, ecu)]
    assert planning.make(wanted, ecu, units).nothing_to_do
    plan = planning.make(wanted, ecu, units[:1])
    assert sorted(plan.erase) == units
    assert plan.writes == wanted.segments
    assert plan.present == ()
