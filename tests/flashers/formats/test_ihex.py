"""Intel HEX, against Intel's specification (revision A, 6 January 1988) and bincopy."""

from __future__ import annotations

from pathlib import Path

import bincopy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import ImageFormat, ImageNotWritten, ImageOverlap
from proxyflash.flashers.formats import ihex, load
from proxyflash.flashers.image import FirmwareImage, Segment, join
from proxyflash.tests.flashers.formats.text_lab import TextFormat, contents, in_bincopy

END = ":00000001FF"
"""The specification prints it so (end of file record)."""


def record(kind: int, offset: int, data: bytes) -> str:
    """A record as the specification puts it together: all bytes and the checksum add up to 0 modulo 256."""
    body = bytes([len(data), offset >> 8, offset & 0xFF, kind]) + data
    return f":{body.hex()}{-sum(body) % 256:02x}".upper()


FORMAT = TextFormat(ihex, "fw.hex")
read, written = FORMAT.read, FORMAT.written


# Each record type. The checksums were worked out by hand: 03+00+30+00+02+33+7A = E2, and 100 - E2 = 1E.


def test_a_data_record() -> None:
    assert contents(read(":0300300002337A1E", END)) == [(0x30, b"\x02\x33\x7a")]


def test_an_extended_linear_address_gives_the_upper_half() -> None:
    # 02+04+08 = 0E
    assert contents(read(":020000040800F2", ":0300300002337A1E", END)) == [(0x08000030, b"\x02\x33\x7a")]


def test_an_extended_segment_address_counts_in_16_bytes() -> None:
    # 02+02+12 = 16
    assert contents(read(":020000021200EA", ":0300300002337A1E", END)) == [(0x12030, b"\x02\x33\x7a")]


def test_a_start_segment_address_is_cs_and_ip() -> None:
    # 04+03+10+38 = 4F; CS 1000h, IP 0038h
    image = read(":0400000310000038B1", ":0300300002337A1E", END)
    assert image.entry == 0x10038


def test_a_start_linear_address_is_eip() -> None:
    # 04+05+08+01+CD = DF
    assert read(":04000005080001CD21", ":0300300002337A1E", END).entry == 0x080001CD


def test_an_entry_of_zero_is_one() -> None:
    assert read(record(5, 0, bytes(4)), ":0300300002337A1E", END).entry == 0
    assert read(":0300300002337A1E", END).entry is None


def test_the_end_of_file_alone_is_an_empty_image() -> None:
    assert read(END).segments == ()


# Addresses, as the specification's data record counts them for each kind of base.


def test_offsets_wrap_within_a_segment_of_64_kib() -> None:
    image = read(record(2, 0, b"\x12\x00"), record(0, 0xFFFE, b"abcd"), END)
    assert contents(image) == [(0x12000, b"cd"), (0x21FFE, b"ab")]


def test_offsets_run_on_over_64_kib_under_a_linear_base() -> None:
    image = read(record(4, 0, b"\x00\x01"), record(0, 0xFFFE, b"abcd"), END)
    assert contents(image) == [(0x1FFFE, b"abcd")]


def test_linear_addresses_wrap_at_4_gib() -> None:
    image = read(record(4, 0, b"\xff\xff"), record(0, 0xFFFE, b"abcd"), END)
    assert contents(image) == [(0, b"cd"), (0xFFFFFFFE, b"ab")]


def test_the_last_base_counts_whatever_its_kind() -> None:
    image = read(record(4, 0, b"\x00\x02"), record(2, 0, b"\x10\x00"), record(0, 0, b"a"), record(4, 0, b"\x00\x00"),
                 record(0, 4, b"b"), END)  # fmt: skip
    assert contents(image) == [(4, b"b"), (0x10000, b"a")]


def test_records_may_come_in_any_order() -> None:
    image = read(record(0, 8, b"ij"), record(0, 0, b"abcd"), record(0, 4, b"efgh"), record(0, 32, b"z"), END)
    assert contents(image) == [(0, b"abcdefghij"), (32, b"z")]


def test_a_data_record_may_be_empty() -> None:
    assert contents(read(record(0, 0x100, b""), record(0, 0, b"ab"), record(0, 9, b""), record(0, 2, b"c"), END)) == [
        (0, b"abc")
    ]


@pytest.mark.parametrize(
    ("second", "twice"),
    [(record(0, 2, b"cd"), 0x2), (record(0, 2, b"xy"), 0x2), (record(0, 0, b"abcd"), 0), (record(0, 3, b"d"), 0x3)],
    ids=["equal bytes", "other bytes", "the same record", "one byte"],
)
def test_an_overlap_names_both_lines(second: str, twice: int) -> None:
    with pytest.raises(ImageOverlap, match="by lines 2 and 4") as raised:
        read("", record(0, 0, b"abcd"), record(0, 0x100, b"q"), second, END)
    assert raised.value.address == twice
    assert f"0x{twice:08X} is given twice" in raised.value.cause


def test_an_overlap_by_wrapping_names_both_lines() -> None:
    with pytest.raises(ImageOverlap, match="by lines 2 and 3"):
        read(record(2, 0, b"\x10\x00"), record(0, 1, b"z"), record(0, 0xFFFF, b"abc"), END)


# The text around the records.


@pytest.mark.parametrize(
    "text",
    [
        b":020000040800F2\r\n:0300300002337A1E\r\n:00000001FF\r\n",
        b":020000040800f2\n:0300300002337a1e\n:00000001ff\n",
        b"\n\n:020000040800F2\n\n  :0300300002337A1E \t\n:00000001FF\n\n\n",
        b":020000040800F2\n:0300300002337A1E\n:00000001FF",
        b":020000040800F2\r:0300300002337A1E\r:00000001FF\r",
        b":020000040800F2\n:0300300002337A1E // 00030> .3z\n:00000001FF\n",
        b"; built on Monday\n# by make\n:020000040800F2\n// .text\n:0300300002337A1E; x\n:00000001FF\n; end\n",
        b":020000040800F2\n:0300300002337A1E\n:00000001FF\n:00000001FF\n\x1a",
    ],
    ids=["CRLF", "lower case", "blanks", "no newline at the end", "CR", "avrdude's comments", "comments", "two ends"],
)
def test_text_that_is_read_all_the_same(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "fw.hex").write_bytes(text)
    assert contents(load(tmp_path / "fw.hex")) == [(0x08000030, b"\x02\x33\x7a")]


BROKEN = {
    "a wrong checksum": ([":0300300002337A1F"], "line 1 has the checksum 0x1F, and its bytes give 0x1E"),
    "a wrong byte": ([":0300300002337B1E"], "line 1 has the checksum 0x1E, and its bytes give 0x1D"),
    "data cut off": ([":0300300002331E"], "line 1 announces 3 bytes of data and has 2"),
    "more data than announced": ([":0300300002337A001E"], "line 1 announces 3 bytes of data and has 4"),
    "half a byte": ([":0300300002337A1"], "line 1 has an odd number of hex digits (15)"),
    "a letter": ([":03003000O2337A1E"], "line 1 has 'O' in its digits"),
    "text within it": ([":0300300002337A 1E"], "line 1 has ' ' in its digits"),
    "text after its count": ([":03 xyz"], "line 1 has ' ' in its digits"),
    "only a colon": ([":"], "line 1 announces no count and has 0"),
    "a header alone": ([":00000000"], "line 1 announces 0 bytes of data and has 0"),
    "no colon": (["0300300002337A1E"], "line 1 does not begin with ':'"),
    "a colon with a bit flipped": ([";0300300002337A1E", END], "line 1 does not begin with ':'"),
    "a record in a comment": (["; built :0300300002337A1E", END], "line 1 does not begin with ':'"),
    "a line feed damaged": ([":0300300002337A1E\0:0300330002337A1B", END], "line 1 has '\\x00' in its digits"),
    "a text": (["built on Monday"], "line 1 does not begin with ':'"),
    "a type that isn't known": ([record(6, 0, b"")], "line 1 has the record type 0x06"),
    "a short segment address": ([record(2, 0, b"\x10")], "line 1 has 1 bytes of data, and its type 2"),
    "a long linear address": ([record(4, 0, b"\0\0\0")], "line 1 has 3 bytes of data, and its type 2"),
    "a short start segment": ([record(3, 0, b"\0\0")], "line 1 has 2 bytes of data, and its type 4"),
    "a short start address": ([record(5, 0, b"\0\0")], "line 1 has 2 bytes of data, and its type 4"),
    "an end with data": ([record(1, 0, b"a")], "line 1 has 1 bytes of data, and its type 0"),
    "no end": ([":0300300002337A1E"], "line 1 is the last, and no end-of-file record follows"),
    "no end, blanks": ([":0300300002337A1E", "", ""], "line 1 is the last"),
    "data after the end": ([END, "", ":0300300002337A1E"], "line 3 comes after the end-of-file record"),
    "garbage after the end": ([END, "\x1b"], "line 2 comes after the end-of-file record"),
    "an endless line": ([END, ":" + "00" * 600], "line 2 is longer than any record"),
    "an S-record in between": ([":0300300002337A1E", "S9030000FC"], "line 2 does not begin with ':'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said_with_its_line(name: str) -> None:
    FORMAT.refuses(*BROKEN[name])


def test_a_line_number_deep_in_the_file() -> None:
    lines = [record(0, i * 16, bytes(16)) for i in range(3000)]
    lines[2345] = lines[2345].replace(":10", ":11")
    with pytest.raises(ImageFormat, match="line 2346 announces 17 bytes of data and has 16"):
        read(*lines, END)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (b"\xef\xbb\xbf:00000001FF\n", "UTF-8 with a byte order mark"),
        (":00000001FF\n".encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + ":00000001FF\n".encode("utf-16-be"), "UTF-16"),
        (":00000001FF\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (":00000001FF\n".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        (":00000001FF\n".encode("utf-32"), "UTF-32"),
    ],
)
def test_other_encodings_are_named(text: bytes, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "fw.hex").write_bytes(text)
    with pytest.raises(ImageFormat, match=rf"line 1 begins with the bytes [0-9A-F ]+: the text is {encoding}, not"):
        load(tmp_path / "fw.hex")


@pytest.mark.parametrize("text", [b"", b"\n \r\n", b":00000001FF\n", b":020000040800F2\n:00000001FF\n"])
def test_a_file_without_data_is_empty(text: bytes, tmp_path: Path) -> None:
    FORMAT.finds_no_data(text, tmp_path)


# What it costs.


def test_a_gap_of_4_gib_costs_nothing() -> None:
    lines = [record(0, 0, b"low"), record(4, 0, b"\xff\xff"), record(0, 0xFFF0, b"high"), END]
    image, peak = FORMAT.peak_while_reading("\n".join(lines).encode())
    assert contents(image) == [(0, b"low"), (0xFFFFFFF0, b"high")]
    assert image.size == 7
    assert peak < 1 << 20


def test_the_memory_of_a_file_in_the_worst_order_stays_in_proportion() -> None:
    # A byte in each record, from the top downwards: no record continues another.
    text = "\n".join([*(record(0, 0xFFFF - i, b"x") for i in range(40000)), END]).encode()
    image, peak = FORMAT.peak_while_reading(text)
    assert image.size == 40000
    assert peak < 20 * len(text)


# Against bincopy, both ways, and round trips.


@st.composite
def images(draw: st.DrawFn, top: int = 1 << 32) -> FirmwareImage:
    """A few segments, near each other, near 64 KiB borders or far apart."""
    chunks: list[Segment] = []
    end = 0
    for data in draw(st.lists(st.binary(min_size=1, max_size=90), min_size=1, max_size=4)):
        gap = draw(st.one_of(st.integers(1, 40), st.sampled_from([0xFFE0, 0x10000]), st.integers(1, top // 8)))
        chunks.append(Segment(end + gap, data))
        end = chunks[-1].end
    entry = draw(st.none() | st.integers(0, 0xFFFFFFFF))
    return FirmwareImage(join(chunks), "ihex", "fw.hex", entry)


@given(images())
@settings(max_examples=100, deadline=None)
def test_reading_what_was_written_gives_the_same(image: FirmwareImage) -> None:
    again = FORMAT.read_bytes(written(image))
    assert again == image
    assert again.sha256 == image.sha256


@given(images())
@settings(max_examples=100, deadline=None)
def test_bincopy_reads_what_was_written(image: FirmwareImage) -> None:
    oracle = bincopy.BinFile()
    oracle.add_ihex(written(image).decode())
    assert contents(oracle) == contents(image)
    assert oracle.execution_start_address == image.entry


@given(images(), st.sampled_from([1, 8, 16, 32, 255]))
@settings(max_examples=100, deadline=None)
def test_what_bincopy_writes_is_read(image: FirmwareImage, width: int) -> None:
    oracle = in_bincopy(image)
    again = FORMAT.read_bytes(oracle.as_ihex(width).encode())
    assert contents(again) == contents(image)
    assert again.entry == image.entry


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40, unique=True))
@settings(max_examples=50, deadline=None)
def test_what_bincopy_writes_with_20_bit_segments_is_read(paragraphs: list[int]) -> None:
    # Whole paragraphs of 16 bytes, since bincopy writes records over a segment's end without wrapping.
    oracle = bincopy.BinFile()
    for paragraph in paragraphs:
        oracle.add_binary(paragraph.to_bytes(16, "big"), paragraph * 16)
    image = FORMAT.read_bytes(oracle.as_ihex(16, 24).encode())
    assert contents(image) == contents(oracle)


def test_what_its_addresses_cannot_hold_is_refused() -> None:
    with pytest.raises(ImageNotWritten, match="4 GiB"):
        written(FirmwareImage((Segment(0xFFFFFFFF, b"ab"),), "elf"))
    with pytest.raises(ImageNotWritten, match="entry point"):
        written(FirmwareImage((Segment(0, b"ab"),), "elf", entry=1 << 32))
    assert written(FirmwareImage((Segment(0xFFFFFFFE, b"ab"),), "elf", entry=0xFFFFFFFF))


# Whatever comes in.


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_an_image_or_an_image_error(data: bytes) -> None:
    FORMAT.reads_or_refuses(data)


@given(images(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_refused_or_says_the_same(image: FirmwareImage, data: st.DataObject) -> None:
    text = bytearray(written(image))
    match data.draw(st.sampled_from(["change", "cut", "double", "insert"])):
        case "change":
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
        case "cut":
            del text[data.draw(st.integers(1, len(text) - 1)) :]
        case "double":
            lines = text.splitlines(keepends=True)
            place = data.draw(st.integers(0, len(lines) - 1))
            text = bytearray(b"".join([*lines[: place + 1], *lines[place:]]))
        case "insert":
            place = data.draw(st.integers(0, len(text)))
            text[place:place] = data.draw(st.binary(min_size=1, max_size=3))
    # No change of one character, and no byte put in or left out, passes both the count and the checksum.
    again = FORMAT.reads_or_refuses(bytes(text))
    assert again is None or again.segments == image.segments
