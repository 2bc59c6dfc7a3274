"""`FirmwareImage` and `join`, against a plain dictionary of addresses and bytes."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import ImageMisplaced, ImageOverlap
from proxyflash.flashers.image import HIGHEST, FirmwareImage, Segment, join

chunks = st.lists(st.builds(Segment, st.integers(0, 120), st.binary(max_size=25)), max_size=8)


def image(*segments: tuple[int, bytes], relocatable: bool = False) -> FirmwareImage:
    return FirmwareImage(tuple(Segment(*one) for one in segments), "bin", "fw.bin", relocatable=relocatable)


def contents(segments: tuple[Segment, ...]) -> list[tuple[int, bytes]]:
    return [(segment.address, bytes(segment.data)) for segment in segments]


def cells(segments: tuple[Segment, ...]) -> dict[int, int]:
    return {segment.address + i: byte for segment in segments for i, byte in enumerate(bytes(segment.data))}


# Joining.


@given(chunks)
@settings(max_examples=300, deadline=None)
def test_joining_keeps_every_byte_or_says_which_is_given_twice(parts: list[Segment]) -> None:
    claims: dict[int, int] = {}
    for part in parts:
        for address in range(part.address, part.end):
            claims[address] = claims.get(address, 0) + 1
    twice = sorted(address for address, count in claims.items() if count > 1)
    if twice:
        with pytest.raises(ImageOverlap) as raised:
            join(parts, source="fw.bin")
        assert raised.value.address == twice[0]
        assert raised.value.cause.startswith(f"fw.bin: 0x{twice[0]:08X} is given twice")
        return
    joined = join(parts)
    assert cells(joined) == cells(tuple(parts))
    assert all(segment.size for segment in joined)
    # Sorted, and a gap between each two of them.
    assert all(low.end < high.address for low, high in pairwise(joined))


def test_joining_names_both_pieces() -> None:
    with pytest.raises(ImageOverlap, match=r"0x00000010\.\.0x00000013 and 0x00000012\.\.0x00000012"):
        join([Segment(0x12, b"x"), Segment(0x10, b"abcd")])


def test_equal_bytes_given_twice_are_given_twice() -> None:
    with pytest.raises(ImageOverlap):
        join([Segment(0, b"ab"), Segment(1, b"b")])


# Reading.


@given(chunks, st.integers(0, 150), st.integers(0, 60), st.sampled_from([0x00, 0xFF]))
@settings(max_examples=200, deadline=None)
def test_reading_fills_what_the_image_does_not_have(parts: list[Segment], start: int, size: int, fill: int) -> None:
    try:
        fw = FirmwareImage(join(parts), "bin")
    except ImageOverlap:
        return
    has = cells(fw.segments)
    assert fw.read(start, size, fill) == bytes(has.get(address, fill) for address in range(start, start + size))
    inside = tuple(fw.within(start, start + size))
    assert cells(inside) == {address: byte for address, byte in has.items() if start <= address < start + size}
    assert all(part.size for part in inside)


def test_parts_share_the_images_memory() -> None:
    data = bytearray(b"abcdef")
    fw = FirmwareImage((Segment(0x10, memoryview(data)),), "bin")
    (part,) = fw.within(0x12, 0x14)
    data[2] = ord("X")
    assert bytes(part.data) == b"Xd"


def test_an_empty_range_has_no_parts() -> None:
    assert list(image((0x10, b"abcd")).within(0x12, 0x12)) == []
    assert list(image((0x10, b"abcd")).within(0x13, 0x11)) == []


def test_size_start_and_end() -> None:
    fw = image((0x10, b"abcd"), (0x20, b"ef"))
    assert (fw.size, fw.start, fw.end) == (6, 0x10, 0x22)


# The digest.


def test_the_digest_is_over_addresses_sizes_and_bytes() -> None:
    told = (
        bytes.fromhex("0000000008000000 0000000000000003")
        + b"abc"
        + bytes.fromhex("0000000008000100 0000000000000001")
        + b"d"
    )
    assert image((0x08000000, b"abc"), (0x08000100, b"d")).sha256 == hashlib.sha256(told).hexdigest()


def test_the_digest_tells_images_apart() -> None:
    images = [
        image((0, b"abcd")),
        image((1, b"abcd")),
        image((0, b"abce")),
        image((0, b"ab"), (3, b"cd")),
        image((0, b"a"), (2, b"bcd")),
    ]
    assert len({fw.sha256 for fw in images}) == len(images)


# Placing.


def test_placing_moves_every_segment_and_keeps_the_rest() -> None:
    fw = FirmwareImage(
        (Segment(0x100, b"ab"), Segment(0x110, b"c")), "dfu", "fw.dfu", 5, {"vendor_id": 1}, True, version="1.2.3"
    )
    placed = fw.at(0x08000000)
    assert contents(placed.segments) == [(0x08000000, b"ab"), (0x08000010, b"c")]
    assert not placed.relocatable
    assert (placed.format, placed.source, placed.entry) == (fw.format, fw.source, fw.entry)
    assert (placed.target, placed.version) == (fw.target, fw.version)
    assert contents(fw.segments) == [(0x100, b"ab"), (0x110, b"c")]


@pytest.mark.parametrize("address", [-1, HIGHEST - 3, HIGHEST, 1 << 100])
def test_placing_ends_with_64_bits_of_address(address: int) -> None:
    fw = image((0, b"abcd"), relocatable=True)
    with pytest.raises(ImageMisplaced, match=r"fw\.bin can't be placed"):
        fw.at(address)
    assert fw.at(HIGHEST - 4).end == HIGHEST
    assert fw.at(HIGHEST - 4).sha256


def test_the_digest_of_a_placed_image_is_its_own() -> None:
    fw = image((0, b"abcd"), relocatable=True)
    before = fw.sha256
    assert fw.at(0x100).sha256 == image((0x100, b"abcd")).sha256 != before
