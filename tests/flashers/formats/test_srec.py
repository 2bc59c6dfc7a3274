"""Motorola S-record, against the example that its description prints, and bincopy."""

from __future__ import annotations

from pathlib import Path

import bincopy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import ImageFormat, ImageNotWritten, ImageOverlap
from proxyflash.flashers.formats import load, srec
from proxyflash.flashers.image import FirmwareImage, Segment, join
from proxyflash.tests.flashers.formats.text_lab import TextFormat, contents, in_bincopy

EXAMPLE = """\
S00600004844521B
S1130000285F245F2212226A000424290008237C2A
S11300100002000800082629001853812341001813
S113002041E900084E42234300182342000824A952
S107003000144ED492
S9030000FC
"""
"""M68000 Family Programmer's Reference Manual, appendix C: a module called HDR with 52 bytes of code."""
CODE = bytes.fromhex(
    "285F245F2212226A000424290008237C 00020008000826290018538123410018 41E900084E42234300182342000824A9 00144ED4"
)
END = "S9030000FC"


def record(kind: int, address: int, data: bytes = b"") -> str:
    """A record as the manual puts it together: all bytes and the checksum add up to FF modulo 256."""
    size = {0: 2, 1: 2, 2: 3, 3: 4, 5: 2, 6: 3, 7: 4, 8: 3, 9: 2}[kind]
    body = bytes([size + len(data) + 1]) + address.to_bytes(size, "big") + data
    return f"S{kind}{body.hex()}{255 - sum(body) % 256:02x}".upper()


FORMAT = TextFormat(srec, "fw.s19")
read, written = FORMAT.read, FORMAT.written


def test_the_manuals_example() -> None:
    image = read(*EXAMPLE.splitlines())
    assert contents(image) == [(0, CODE)]
    assert image.entry is None


def test_the_manuals_example_with_a_count() -> None:
    # 03+00+04 = 07, and FF - 07 = F8.
    assert contents(read(*EXAMPLE.splitlines()[:-1], "S5030004F8", END)) == [(0, CODE)]


def test_a_count_at_the_end_shows_that_the_file_is_whole() -> None:
    # So bincopy ends a file that has no entry.
    assert contents(read(*EXAMPLE.splitlines()[:-1], "S5030004F8")) == [(0, CODE)]
    with pytest.raises(ImageFormat, match="line 4 announces 4 data records, and there are 2 before it"):
        read(*EXAMPLE.splitlines()[:3], "S5030004F8")
    with pytest.raises(ImageFormat, match="line 3 is the last"):
        read("S10512346162F1", "S5030001FB", record(1, 0, b"x"))


# Each record type. The checksums were worked out by hand: 05+12+34+61+62 = 10E, and FF - 0E = F1.


def test_data_with_16_bits_of_address() -> None:
    assert contents(read("S10512346162F1", END)) == [(0x1234, b"ab")]


def test_data_with_24_bits_of_address() -> None:
    # 06+56+12+34+61+62 = 165
    assert contents(read("S2065612346162" + "9A", "S804000000FB")) == [(0x561234, b"ab")]


def test_data_with_32_bits_of_address() -> None:
    # 07+80+56+12+34+61+62 = 1E6
    assert contents(read("S307805612346162" + "19", "S70500000000FA")) == [(0x80561234, b"ab")]


@pytest.mark.parametrize(
    ("termination", "entry"),
    [("S9031234B6", 0x1234), ("S804561234" + "5F", 0x561234), ("S70580561234" + "DE", 0x80561234), (END, None)],
    ids=["S9", "S8", "S7", "none"],
)
def test_the_entry_is_in_the_termination(termination: str, entry: int | None) -> None:
    # 03+12+34 = 49, 04+56+12+34 = A0, 05+80+56+12+34 = 121
    assert read("S10512346162F1", termination).entry == entry


SYMBOLS = "$$ fw.elf\r\n  x $403000\r\n  _start $401000\r\n$$ \r\n"
"""As `objcopy -O symbolsrec` of binutils 2.40 writes it."""


def test_a_list_of_symbols_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "fw.sym").write_text(SYMBOLS + EXAMPLE)
    assert contents(load(tmp_path / "fw.sym")) == [(0, CODE)]


@pytest.mark.parametrize(("text", "line"), [("$$ fw\n  x 403000\n$$\n", 2), ("$$ fw\n$$\n  x $40\n", 3)])
def test_a_symbol_is_read_over_in_the_list_alone(text: str, line: int) -> None:
    with pytest.raises(ImageFormat, match=f"line {line} does not begin with 'S'"):
        read(text + EXAMPLE)


def test_a_record_among_symbols_counts() -> None:
    assert contents(read("$$ fw", f"{record(1, 0, b'ab')} $12", "$$", END)) == [(0, b"ab")]


def test_a_count_of_24_bits() -> None:
    # 04+00+00+01 = 05
    assert contents(read("S10512346162F1", "S604000001FA", END)) == [(0x1234, b"ab")]


def test_counts_of_blocks() -> None:
    # C.2: S5 counts the S1, S2 and S3 records of a block.
    one, two, count = record(1, 0, b"a"), record(1, 1, b"b"), record(5, 1)
    assert contents(read(one, count, two, count, END)) == [(0, b"ab")]
    with pytest.raises(ImageFormat, match="line 4 announces 3 data records, and there are 2 before it"):
        read(one, count, two, record(5, 3), END)


def test_a_file_that_is_cut_after_the_count_of_a_later_block() -> None:
    one, two, count = record(1, 0, b"a"), record(1, 1, b"b"), record(5, 1)
    with pytest.raises(ImageFormat, match="line 4 is the last, and no termination record follows"):
        read(one, count, two, count)
    assert contents(read(one, count, two, record(5, 2))) == [(0, b"ab")]


@pytest.mark.parametrize("count", ["S5030002FA", "S5030000FC", "S604000002F9", "S604010001F9"])
def test_a_wrong_count_is_refused(count: str) -> None:
    with pytest.raises(ImageFormat, match=r"line 2 announces \d+ data records, and there are 1 before it"):
        read("S10512346162F1", count, END)


def test_sizes_may_be_mixed_and_records_come_in_any_order() -> None:
    image = read(record(3, 4, b"ef"), record(0, 0, b"x"), record(1, 0, b"ab"), record(2, 2, b"cd"), record(1, 99, b"z"),
                 record(5, 4), record(7, 0))  # fmt: skip
    assert contents(image) == [(0, b"abcdef"), (99, b"z")]


def test_the_last_address_of_each_size() -> None:
    image = read(record(1, 0xFFFF, b"a"), record(2, 0xFFFFFF, b"b"), record(3, 0xFFFFFFFF, b"c"), record(7, 0))
    assert contents(image) == [(0xFFFF, b"a"), (0xFFFFFF, b"b"), (0xFFFFFFFF, b"c")]


@pytest.mark.parametrize("second", [record(1, 2, b"cd"), record(2, 2, b"xy")], ids=["equal bytes", "other bytes"])
def test_an_overlap_names_both_lines(second: str) -> None:
    with pytest.raises(ImageOverlap, match="by lines 2 and 4") as raised:
        read(record(0, 0), record(1, 0, b"abcd"), record(1, 0x100, b"q"), second, END)
    assert raised.value.address == 2


@pytest.mark.parametrize(
    "text",
    [EXAMPLE.replace("\n", "\r\n"), EXAMPLE.replace("A", "a").replace("F", "f").replace("E", "e"), EXAMPLE.strip(),
     EXAMPLE.replace("\n", "  \n\n"), "\n" + EXAMPLE, EXAMPLE.replace("\n", "\r"), "; gsrec\n" + EXAMPLE,
     EXAMPLE.replace("\n", " // 00\n"), EXAMPLE + "\x1a", EXAMPLE.replace("S", "s")],
    ids=["CRLF", "lower case", "no newline at the end", "blanks", "a blank line first", "CR", "a comment first",
         "comments after records", "a control-Z at the end", "s"],
)  # fmt: skip
def test_text_that_is_read_all_the_same(text: str, tmp_path: Path) -> None:
    (tmp_path / "fw.s19").write_bytes(text.encode())
    assert contents(load(tmp_path / "fw.s19")) == [(0, CODE)]


BROKEN = {
    "a wrong checksum": (["S10512346162F2"], "line 1 has the checksum 0xF2, and its bytes give 0xF1"),
    "a wrong byte": (["S10512346163F1"], "line 1 has the checksum 0xF1, and its bytes give 0xF0"),
    "data cut off": (["S1051234616"], "line 1 has an odd number of hex digits (9)"),
    "bytes missing": (["S105123461"], "line 1 announces 5 bytes after its count and has 3"),
    "bytes too many": (["S10512346162F100"], "line 1 announces 5 bytes after its count and has 6"),
    "no count": (["S1"], "line 1 announces no count after its count and has 0"),
    "no room for the address": (["S20312346" + "0"], "line 1 has no room for its address of 3 bytes"),
    "a letter": (["S1O512346162F1"], "line 1 has 'O' in its digits"),
    "S4": (["S4051234616200"], "line 1 has the record type 'S4', which S-record does not know"),
    "SA": (["SA051234616200"], "line 1 has the record type 'SA'"),
    "an S alone": (["S"], "line 1 has the record type 'S'"),
    "text within it": (["S105123461 62F1"], "line 1 has ' ' in its digits"),
    "a damaged S": (["#10512346162F1", END], "line 1 does not begin with 'S'"),
    "Intel HEX in between": ([":00000001FF"], "line 1 does not begin with 'S'"),
    "beyond 16 bits": ([record(1, 0xFFFF, b"ab")], "line 1 runs over the end of its 16-bit addresses"),
    "beyond 24 bits": ([record(2, 0xFFFFFF, b"ab")], "line 1 runs over the end of its 24-bit addresses"),
    "beyond 32 bits": ([record(3, 0xFFFFFFFF, b"ab")], "line 1 runs over the end of its 32-bit addresses"),
    "no end": (["S10512346162F1"], "line 1 is the last, and no termination record follows"),
    "data after the end": ([END, "S10512346162F1"], "line 2 comes after the termination record"),
    "two ends": ([END, "", END], "line 3 comes after the termination record"),
    "an endless line": ([END, "S1" + "00" * 600], "line 2 is longer than any record"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said_with_its_line(name: str) -> None:
    FORMAT.refuses(*BROKEN[name])


@pytest.mark.parametrize("text", [b"", b"\n\n", b"S00600004844521B\nS9030000FC\n", b"S9031234B6\n"])
def test_a_file_without_data_is_empty(text: bytes, tmp_path: Path) -> None:
    FORMAT.finds_no_data(text, tmp_path)


def test_a_gap_of_4_gib_costs_nothing() -> None:
    lines = [record(1, 0, b"low"), record(3, 0xFFFFFFF0, b"high"), record(7, 0)]
    image, peak = FORMAT.peak_while_reading("\n".join(lines).encode())
    assert contents(image) == [(0, b"low"), (0xFFFFFFF0, b"high")]
    assert peak < 1 << 20


# Against bincopy, both ways, and round trips.


@st.composite
def images(draw: st.DrawFn) -> FirmwareImage:
    """A few segments that need 16, 24 or 32 bits of address."""
    top = 1 << draw(st.sampled_from([16, 24, 32]))
    chunks: list[Segment] = []
    end = 0
    for data in draw(st.lists(st.binary(min_size=1, max_size=90), min_size=1, max_size=4)):
        chunks.append(Segment(end + draw(st.integers(1, top // 8)), data))
        end = chunks[-1].end
    return FirmwareImage(join(chunks), "srec", "fw.s19", draw(st.none() | st.integers(1, top - 1)))


@given(images())
@settings(max_examples=100, deadline=None)
def test_reading_what_was_written_gives_the_same(image: FirmwareImage) -> None:
    assert FORMAT.read_bytes(written(image)) == image


@given(images())
@settings(max_examples=100, deadline=None)
def test_bincopy_reads_what_was_written(image: FirmwareImage) -> None:
    oracle = bincopy.BinFile()
    oracle.add_srec(written(image).decode())
    assert contents(oracle) == contents(image)
    assert (oracle.execution_start_address or None) == image.entry


@given(images(), st.sampled_from([1, 16, 32, 250]))
@settings(max_examples=100, deadline=None)
def test_what_bincopy_writes_is_read(image: FirmwareImage, width: int) -> None:
    oracle = in_bincopy(image)
    again = FORMAT.read_bytes(oracle.as_srec(width, 32).encode())
    assert contents(again) == contents(image)
    assert again.entry == image.entry


def test_more_records_than_16_bits_count_are_counted_in_24() -> None:
    image = FirmwareImage((Segment(0, bytes(0x10000 * 32)),), "srec", "fw.s19")
    text = written(image)
    # 04+01+00+00 = 05
    assert b"\nS604010000FA\n" in text
    assert FORMAT.read_bytes(text) == image


def test_what_its_addresses_cannot_hold_is_refused() -> None:
    with pytest.raises(ImageNotWritten, match="32 bits"):
        written(FirmwareImage((Segment(0xFFFFFFFF, b"ab"),), "elf"))
    with pytest.raises(ImageNotWritten, match="32 bits"):
        written(FirmwareImage((Segment(0, b"ab"),), "elf", entry=1 << 32))


# Whatever comes in.


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_an_image_or_an_image_error(data: bytes) -> None:
    FORMAT.reads_or_refuses(data)


@given(images(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_refused_or_says_the_same(image: FirmwareImage, data: st.DataObject) -> None:
    lines = written(image).splitlines(keepends=True)
    match data.draw(st.sampled_from(["change", "cut", "drop"])):
        case "change":
            place = data.draw(st.integers(1, len(lines) - 1))
            line = bytearray(lines[place])
            # The type, S1 to S3, is in no checksum; with another one the address would have other bytes.
            line[data.draw(st.integers(2, len(line) - 1))] = data.draw(st.integers(0, 255))
            lines[place] = bytes(line)
        case "cut":
            lines[-1:] = []
        case "drop":
            # The count knows of every data record.
            del lines[data.draw(st.integers(1, len(lines) - 3))]
    again = FORMAT.reads_or_refuses(b"".join(lines))
    assert again is None or again.segments == image.segments
