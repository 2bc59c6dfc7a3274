"""CANopen's frames, byte by byte, as CiA 301 and CiA 305 have them and as other people's implementations sent them."""

from __future__ import annotations

import pytest
from proxyflash.flashers.canopen import codec
from proxyflash.flashers.canopen.codec import Abort, Lss, Nmt, Status

SEEN = {
    # Frames of other people's implementations: a client's and its server's, in the order of a program download.
    "8005": codec.nmt(Nmt.PRE_OPERATIONAL, 5),
    "8200": codec.nmt(Nmt.RESET_COMMUNICATION, 0),
    "4000100000000000": codec.upload(0x1000, 0),
    "40561f0100000000": codec.upload(0x1F56, 1),
    "2f511f0100000000": codec.expedited(0x1F51, 1, b"\0"),
    "2f511f0103000000": codec.expedited(0x1F51, 1, b"\3"),
    "c6501f018b130000": codec.block_download(0x1F50, 1, 5003),
    "c924330000000000": codec.block_end(5003, 0x3324),
    "21501f018b130000": codec.download(0x1F50, 1, 5003),
    "40571f0100000000": codec.upload(0x1F57, 1),
}


@pytest.mark.parametrize("data", SEEN)
def test_frames_of_other_peoples_implementations(data: str) -> None:
    assert SEEN[data].hex() == data


def test_the_crc_is_that_of_the_document() -> None:
    """CiA 301, 7.2.4.3.16: of "123456789" it is 0x31C3."""
    assert codec.crc16(b"123456789") == 0x31C3


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        # CiA 301, 7.2.4.3.3 and 7.2.4.3.4: n in bits 2 and 3, then in bits 1 to 3; the toggle bit is bit 4, c bit 0.
        (codec.expedited(0x1017, 0, b"\xe8\x03"), "2b171000e8030000"),
        (codec.expedited(0x1F50, 1, b"\1\2\3"), "27501f0101020300"),
        (codec.expedited(0x1F50, 1, b"\1\2\3\4"), "23501f0101020304"),
        (codec.download_segment(b"1234567", 0, last=False), "0031323334353637"),
        (codec.download_segment(b"12", 1, last=True), "1b31320000000000"),
        (codec.upload_segment(1), "7000000000000000"),
        # 7.2.4.3.10: the sequence number, and bit 7 with the last segment; 7.2.4.3.11: bytes of it that hold no data.
        (codec.block_segment(b"1234567", 127, last=False), "7f31323334353637"),
        (codec.block_segment(b"1", 3, last=True), "8331000000000000"),
        (codec.block_end(8, 0x1234), "d934120000000000"),
        (codec.block_end(7, 0x1234), "c134120000000000"),
        # 7.2.4.3.17.
        (codec.abort(0x1F50, 1, Abort.GENERAL), "80501f0100000008"),
        # CiA 305.
        (codec.lss(Lss.SWITCH_ALL, 0), "0400000000000000"),
        (codec.lss(Lss.CONFIGURE_NODE, 5), "1105000000000000"),
        (codec.lss_word(Lss.SELECT_SERIAL, 0x1E240), "4340e20100000000"),
        (codec.fastscan(0x2E5, 0x1F, 0, 0), "51e50200001f0000"),
    ],
)
def test_frames_of_the_documents(frame: bytes, data: str) -> None:
    assert frame.hex() == data


def test_heartbeats() -> None:
    """CiA 301, 7.2.8.3.2: one byte; a node that is guarded toggles bit 7 of it."""
    assert [codec.heartbeat(bytes((value,))) for value in (0, 4, 5, 0x7F, 0x85)] == [0, 4, 5, 0x7F, 5]
    assert [codec.heartbeat(data) for data in (b"", b"\x01", b"\x05\0", bytes(8))] == [None] * 4


def test_every_abort_code_has_words() -> None:
    assert set(codec.ABORTS) == set(Abort)
    assert codec.abort_words(0x0604_0043) == "0x06040043, general parameter incompatibility"
    assert codec.abort_words(0x0F00_0001) == "0x0F000001, a code of its maker"


def test_the_flash_status() -> None:
    """CiA 302-3: bit 0 in progress, the code in bits 1 to 7, above 63 and bits 16 to 31 the maker's."""
    assert set(codec.STATUSES) == set(Status)
    assert codec.status_words(0x06) == "data format error or CRC error"
    assert codec.status_words(0x08) == "not cleared before it was written"
    assert codec.status_words(0x1234_0080) == "the maker's code 64, the maker's detail 0x1234"
    assert codec.status_words(0x7E) == "unspecified error"
