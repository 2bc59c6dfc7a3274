"""Blocks as the "X/YMODEM Protocol Reference" (C. Forsberg, 1988-06-18) has them, figure by figure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyflash.flashers.errors import ProfileWrong
from proxyflash.flashers.xymodem.codec import ABORT, LAST_HEADER, Piece, Start, block, header, pieces

FIGURE_6 = bytes.fromhex(
    "01 00 FF 62 62 63 73 63 68 65 64 2E 74 78 74 00"
    "36 33 34 37 20 33 33 31 34 37 34 32 35 31 33 20"
    "31 30 30 36 34 34" + "00" * 0x5D + "CA 56"
)
"""Figure 6: the block 0 that sz sends for bbcsched.txt, of 6347 bytes, with its CRC."""


def test_the_block_of_figure_6() -> None:
    assert len(FIGURE_6) == 0x85
    data = b"bbcsched.txt\x006347 3314742513 100644".ljust(128, b"\0")
    assert block(0, data, Start.CRC) == FIGURE_6


def test_a_header_of_name_and_size_is_figure_6_without_date_and_mode() -> None:
    assert header("bbcsched.txt", 6347) == FIGURE_6[3:20] + bytes(128 - 17)


def test_a_block_with_a_checksum_as_figure_9_has_it() -> None:
    """<SOH><blk #><255-blk #><--128 data bytes--><cksum>, the sum of the data bytes without carry."""
    data = bytes([0xFF, 0x02]) + bytes(126)
    assert block(2, data, Start.CHECKSUM) == b"\x01\x02\xfd" + data + b"\x01"


def test_the_crc_is_crc_16_xmodem() -> None:
    """The check value of CRC-16/XMODEM is 0x31C3, over "123456789"; zeros before it don't count."""
    data = b"123456789".rjust(128, b"\0")
    assert block(1, data, Start.CRC) == b"\x01\x01\xfe" + data + b"\x31\xc3"
    assert block(1, data, Start.STREAM) == block(1, data, Start.CRC)


def test_a_long_block_begins_with_stx() -> None:
    data = b"123456789".rjust(1024, b"\0")
    assert block(1, data, Start.CRC) == b"\x02\x01\xfe" + data + b"\x31\xc3"


@pytest.mark.parametrize(("number", "bytes_"), [(255, b"\xff\x00"), (256, b"\x00\xff"), (257, b"\x01\xfe")])
def test_the_number_wraps_to_zero(number: int, bytes_: bytes) -> None:
    """Figure 9: "wraps 0FFH to 00H (not to 01)"."""
    assert block(number, bytes(128), Start.CRC)[1:3] == bytes_


@pytest.mark.parametrize("size", [0, 127, 129, 1023, 1025])
def test_there_are_no_other_blocks(size: int) -> None:
    with pytest.raises(ValueError, match="128 or 1024"):
        block(1, bytes(size), Start.CRC)


@pytest.mark.parametrize(
    ("size", "block_size", "blocks"),
    [
        (3 * 1024 - 24, 1024, [(1024, 1024), (1024, 2048), (1024, 3048)]),  # Figure 1.
        (2 * 1024 + 228, 1024, [(1024, 1024), (1024, 2048), (128, 2176), (128, 2276)]),  # Figure 2.
        (356, 128, [(128, 128), (128, 256), (128, 356)]),  # Figure 3.
        (1024 + 228, 1024, [(1024, 1024), (128, 1152), (128, 1252)]),  # Figure 5.
        (128, 1024, [(128, 128)]),
        (1, 128, [(128, 1)]),
        (896, 1024, [(128, n) for n in range(128, 897, 128)]),
        (897, 1024, [(1024, 897)]),
    ],
)
def test_how_a_file_is_cut(size: int, block_size: int, blocks: list[tuple[int, int]]) -> None:
    found = list(pieces(b"x" * size, block_size, 0x1A))
    assert [(len(piece.data), piece.end) for piece in found] == blocks
    assert found[-1].data.rstrip(b"\x1a").endswith(b"x")


def test_a_file_is_cut_into_whole_blocks_on_request() -> None:
    """ST's SBSFU takes each packet but the last for 1024 bytes, and counts on ceil(size / 1024) of them."""
    found = list(pieces(b"x" * 4500, 1024, 0x1A, whole=True))
    assert [(len(piece.data), piece.end) for piece in found] == [(1024, end) for end in (1024, 2048, 3072, 4096, 4500)]


@given(st.binary(max_size=5000), st.sampled_from([128, 1024]))
def test_what_is_cut_is_the_file(data: bytes, block_size: int) -> None:
    found = list(pieces(data, block_size, 0x1A))
    joined = b"".join(piece.data for piece in found)
    assert joined[: len(data)] == data
    assert set(joined[len(data) :]) <= {0x1A}
    assert len(joined) - len(data) < 1024
    assert all(piece == Piece(joined[end - len(piece.data) : end], piece.end) for piece, end in ends(found))


def ends(found: list[Piece]) -> list[tuple[Piece, int]]:
    total, listed = 0, []
    for piece in found:
        total += len(piece.data)
        listed.append((piece, total))
    return listed


def test_the_last_header_has_no_name() -> None:
    """Figure 3: SOH 00 FF NUL[128] CRC CRC."""
    assert block(0, LAST_HEADER, Start.CRC) == b"\x01\x00\xff" + bytes(130)


def test_a_long_name_takes_a_long_block() -> None:
    """Section 5, note 4."""
    assert len(header("n" * 125, 1)) == 128
    assert len(header("n" * 126, 1)) == 1024
    with pytest.raises(ProfileWrong, match="1025 characters"):
        header("n" * 1025, 1)


def test_an_abort_is_eight_cans_and_eight_backspaces() -> None:
    """Section 4.1."""
    assert ABORT == b"\x18" * 8 + b"\x08" * 8
