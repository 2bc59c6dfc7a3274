"""Lengths of CAN frames: worked by hand from Bosch CAN 2.0 and ISO 11898-1:2015, and against a bit by bit encoder."""

from __future__ import annotations

import random

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.transports.can.bits import FD_SIZES, classic_bits, crc15, fd_bits, frame_seconds


def frame(
    identifier: int, data: bytes = b"", *, extended: bool = False, fd: bool = False, brs: bool = True
) -> can.Message:
    return can.Message(
        arbitration_id=identifier, data=data, is_extended_id=extended, is_fd=fd, bitrate_switch=fd and brs
    )


def remote(identifier: int, dlc: int, *, extended: bool = False) -> can.Message:
    return can.Message(arbitration_id=identifier, dlc=dlc, is_extended_id=extended, is_remote_frame=True)


# The encoder of the tests: strings of bits, in the order of the standard's figures.


def bits(value: int, count: int) -> str:
    return format(value, f"0{count}b") if count else ""


def crc_of(text: str) -> str:
    """Bosch CAN 2.0, part A, 3.1.1: the shift register as the document's program has it."""
    register = 0
    for bit in text:
        next_bit = int(bit) ^ register >> 14
        register = register << 1 & 0x7FFF
        if next_bit:
            register ^= 0x4599
    return bits(register, 15)


def stuffed(text: str) -> str:
    out = ""
    for bit in text:
        out += bit
        if len(out) >= 5 and len(set(out[-5:])) == 1:
            out += "1" if bit == "0" else "0"
    return out


def slow_classic(message: can.Message) -> int:
    rtr = str(int(message.is_remote_frame))
    if message.is_extended_id:
        text = (
            "0"
            + bits(message.arbitration_id >> 18, 11)
            + "11"
            + bits(message.arbitration_id & 0x3FFFF, 18)
            + rtr
            + "00"
        )
    else:
        text = "0" + bits(message.arbitration_id, 11) + rtr + "00"
    text += bits(message.dlc, 4) + "".join(bits(byte, 8) for byte in message.data)
    body = stuffed(text + crc_of(text))
    return len(body + "1" + "01" + "1111111" + "111")  # CRC delimiter, ACK slot and delimiter, EOF, intermission


def slow_fd(message: can.Message) -> tuple[int, int]:
    if message.is_extended_id:
        head = "0" + bits(message.arbitration_id >> 18, 11) + "11" + bits(message.arbitration_id & 0x3FFFF, 18) + "010"
    else:
        head = "0" + bits(message.arbitration_id, 11) + "0010"
    head += str(int(message.bitrate_switch))
    size = next(size for size in FD_SIZES if size >= len(message.data))
    data = bytes(message.data).ljust(size, b"\0")
    rest = (
        str(int(message.error_state_indicator))
        + bits(FD_SIZES.index(size), 4)
        + "".join(bits(byte, 8) for byte in data)
    )
    dynamic = stuffed(head + rest)
    whole = dynamic if not _ends_in_five(head + rest) else dynamic[:-1]
    crc = 4 + (17 if size <= 16 else 21)
    fixed = len(range(0, crc, 4))
    nominal = len(stuffed(head))
    return nominal + len("1" + "01" + "1111111" + "111"), len(whole) - nominal + crc + fixed


def _ends_in_five(text: str) -> bool:
    """Whether a stuff bit would follow the last bit."""
    return len(stuffed(text)) > len(stuffed(text[:-1])) + 1


# Worked by hand.


def test_the_check_value_of_crc_15() -> None:
    """CRC-15/CAN of the RevEng catalogue: the CRC of "123456789" is 0x059E."""
    assert crc15(int.from_bytes(b"123456789", "big"), 72) == 0x059E


def test_a_frame_of_zeros() -> None:
    """Id 0 without data: SOF, 11 + 3 + 4 zeros, and a CRC of 15 zeros; a stuff bit after each five of the 34."""
    assert classic_bits(frame(0)) == 34 + 34 // 5 + 13


def test_an_fd_frame_without_dynamic_stuff_bits() -> None:
    """SOF, id 0x555, RRS, IDE, FDF, res, BRS: 17 bits that alternate; ESI and DLC are five zeros, after which the CRC
    field's fixed stuff bit comes in the place of a dynamic one. CRC field: 4 + 17 bits, 6 fixed stuff bits."""
    assert fd_bits(frame(0x555, fd=True)) == (17 + 13, 5 + 21 + 6)


def test_an_extended_fd_frame_without_dynamic_stuff_bits() -> None:
    """SOF, 11, SRR, IDE, 18, RRS, FDF, res, BRS: 36 bits."""
    assert fd_bits(frame(0x15555555, extended=True, fd=True)) == (36 + 13, 5 + 21 + 6)


@pytest.mark.parametrize(("size", "crc_field"), [(16, 4 + 17 + 6), (20, 4 + 21 + 7)])
def test_the_fd_crc_has_17_bits_up_to_16_bytes_and_21_beyond(size: int, crc_field: int) -> None:
    """0x55 alternates: the only run of five may be DLC's; with DLC 10 (1010) and 11 (1011) there is none."""
    assert fd_bits(frame(0x555, b"\x55" * size, fd=True))[1] == 5 + 8 * size + crc_field


def test_an_fd_frame_is_filled_up_to_a_size_that_there_is() -> None:
    assert fd_bits(frame(0x555, b"\x55" * 9, fd=True)) == fd_bits(frame(0x555, b"\x55" * 9 + bytes(3), fd=True))


# The bounds that are in every textbook: frames with their 3 bits of interframe space.


@pytest.mark.parametrize(
    ("extended", "size", "least", "most"),
    [(False, 0, 47, 55), (False, 1, 55, 65), (False, 8, 111, 135), (True, 0, 67, 80), (True, 8, 131, 160)],
)
def test_lengths_lie_within_the_known_bounds(extended: bool, size: int, least: int, most: int) -> None:
    """44 (64 extended) + 8 n bits and 3 of interframe space; a stuff bit at most after each 4 of the 34 (54) + 8 n."""
    rng = random.Random(1)
    lengths = []
    for _ in range(400):
        identifier = rng.randrange(1 << (29 if extended else 11))
        data = rng.choice([rng.randbytes(size), b"\x3c" * size, b"\x0f" * size, bytes(size)])
        lengths.append(classic_bits(frame(identifier, data, extended=extended)))
    assert least <= min(lengths) <= max(lengths) <= most


def test_the_mean_length_of_random_frames() -> None:
    """Id 0x7E0 with 8 bytes: about 115.8 bits (its runs cost two stuff bits); CAN FD with 64 bytes at 500k/2M: about 343 us."""
    rng = random.Random(2)
    classic = [classic_bits(frame(0x7E0, rng.randbytes(8))) for _ in range(1000)]
    assert sum(classic) / len(classic) == pytest.approx(115.8, abs=1)
    fd = [
        frame_seconds(frame(rng.randrange(1 << 11), rng.randbytes(64), fd=True), 500_000, 2_000_000) for _ in range(300)
    ]
    assert sum(fd) / len(fd) == pytest.approx(343e-6, abs=4e-6)


def test_a_remote_frame_has_no_data_whatever_its_length_code() -> None:
    """Id 0x555, RTR 1, DLC 8: the 47 bits of an empty frame, with a stuff bit at most."""
    assert 47 <= classic_bits(remote(0x555, 8)) <= 55
    assert classic_bits(remote(0x555, 8)) == slow_classic(remote(0x555, 8))


def test_frame_times() -> None:
    short = frame(0)
    assert frame_seconds(short, 500_000, 500_000) == pytest.approx(53 / 500_000)
    switched = frame(0x555, fd=True)
    assert frame_seconds(switched, 500_000, 2_000_000) == pytest.approx(30 / 500_000 + 32 / 2_000_000)
    slow = frame(0x555, fd=True, brs=False)
    assert frame_seconds(slow, 500_000, 2_000_000) == pytest.approx(sum(fd_bits(slow)) / 500_000)


# Any frame.

identifiers = st.one_of(
    st.tuples(st.integers(0, 0x7FF), st.just(False)), st.tuples(st.integers(0, 0x1FFFFFFF), st.just(True))
)
payloads = st.one_of(
    st.binary(max_size=64), st.lists(st.sampled_from([0x00, 0xFF, 0x0F, 0x3C, 0x83]), max_size=64).map(bytes)
)


@settings(max_examples=300, deadline=None)
@given(identifiers, payloads)
def test_classic_frames_are_as_long_as_the_slow_encoder_says(identifier: tuple[int, bool], payload: bytes) -> None:
    message = frame(identifier[0], payload[:8], extended=identifier[1])
    unstuffed = (67 if identifier[1] else 47) + 8 * len(message.data)
    counted = classic_bits(message)
    assert counted == slow_classic(message)
    assert unstuffed <= counted <= unstuffed + (unstuffed - 13 - 1) // 4


@settings(max_examples=300, deadline=None)
@given(identifiers, payloads, st.booleans(), st.booleans())
def test_fd_frames_are_as_long_as_the_slow_encoder_says(
    identifier: tuple[int, bool], payload: bytes, brs: bool, esi: bool
) -> None:
    message = frame(identifier[0], payload, extended=identifier[1], fd=True, brs=brs)
    message.error_state_indicator = esi
    assert fd_bits(message) == slow_fd(message)


@settings(max_examples=100, deadline=None)
@given(identifiers, st.integers(0, 8))
def test_remote_frames_are_as_long_as_the_slow_encoder_says(identifier: tuple[int, bool], dlc: int) -> None:
    message = remote(identifier[0], dlc, extended=identifier[1])
    assert classic_bits(message) == slow_classic(message)
