"""Raw binary: the bytes as they are, and what becomes of gaps."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import ImageMisplaced, ImageNotWritten
from proxyflash.flashers.formats import load
from proxyflash.flashers.formats import raw as binary
from proxyflash.flashers.image import FirmwareImage, Segment


def written(*segments: tuple[int, bytes]) -> bytes:
    stream = BytesIO()
    binary.write(FirmwareImage(tuple(Segment(*one) for one in segments), "bin"), stream)
    return stream.getvalue()


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_an_image_without_addresses(data: bytes) -> None:
    image = binary.read(BytesIO(data), "fw.bin")
    assert b"".join(segment.data for segment in image.segments) == data
    assert image.relocatable
    assert (image.format, image.entry) == ("bin", None)


def test_gaps_are_filled_with_what_erased_flash_holds() -> None:
    assert written((0x100, b"ab"), (0x105, b"c")) == b"ab\xff\xff\xffc"


def test_an_image_of_several_memories_is_refused() -> None:
    mib = 1 << 20
    assert len(written((0, b"a"), (16 * mib + 1, b"b"))) == 16 * mib + 2
    with pytest.raises(ImageNotWritten, match=r"gaps of 16,777,217 bytes between 0x00000000 and 0x01000002"):
        written((0, b"a"), (16 * mib + 2, b"b"))
    # Many gaps that would pass one by one.
    with pytest.raises(ImageNotWritten, match="gaps of 17,825,775 bytes"):
        written(*((number * mib, b"x") for number in range(18)))


@pytest.mark.parametrize("address", [0, 0x08000000, 0xFFFFFFFC, 0x1_0000_0000, (1 << 64) - 4])
def test_it_goes_where_it_is_told_to(address: int, tmp_path: Path) -> None:
    (tmp_path / "fw.bin").write_bytes(b"abcd")
    image = load(tmp_path / "fw.bin", address=address)
    assert [(segment.address, bytes(segment.data)) for segment in image.segments] == [(address, b"abcd")]
    assert not image.relocatable
    assert len(image.sha256) == 64


@pytest.mark.parametrize("address", [-1, (1 << 64) - 3, 1 << 64, 1 << 80])
def test_an_address_that_is_none_is_refused(address: int, tmp_path: Path) -> None:
    (tmp_path / "fw.bin").write_bytes(b"abcd")
    with pytest.raises(ImageMisplaced, match=f"can't be placed at {address:#x}") as raised:
        load(tmp_path / "fw.bin", address=address)
    assert raised.value.exit_status == 12


def test_without_an_address_it_has_none(tmp_path: Path) -> None:
    (tmp_path / "fw.bin").write_bytes(b"abcd")
    assert load(tmp_path / "fw.bin").relocatable
