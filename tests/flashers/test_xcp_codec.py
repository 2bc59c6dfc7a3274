"""XCP's packets: frames of other people's implementations (LibOpenBLT and OpenBLT), and the document's test pattern."""

from __future__ import annotations

import pytest
from proxyflash.flashers.errors import ProtocolError
from proxyflash.flashers.xcp import codec
from proxyflash.flashers.xcp.codec import Checksum, Command, Connected, Programming

PATTERN = bytes.fromhex("0102030405060708090a0b0c0d0e0f10 f1f2f3f4f5f6f7f8f9fafbfcfdfeff00")
"""The pattern of part 2's table of checksums, as pyxcp's tests have it with the values below."""
SUMS = {
    0x01: ("XCP_ADD_11", 0x10, 0x10),
    0x02: ("XCP_ADD_12", 0x0F10, 0x0F10),
    0x03: ("XCP_ADD_14", 0x00000F10, 0x00000F10),
    0x04: ("XCP_ADD_22", 0x1800, 0x0710),
    0x05: ("XCP_ADD_24", 0x00071800, 0x00080710),
    0x06: ("XCP_ADD_44", 0x140C03F8, 0xFC040B10),
    0x07: ("XCP_CRC_16", 0xC76A, 0xC76A),
    0x08: ("XCP_CRC_16_CITT", 0x9D50, 0x9D50),
    0x09: ("XCP_CRC_32", 0x89CD97CE, 0x89CD97CE),
}
LITTLE = codec.connected(bytes.fromhex("ff10000808000101"))
BIG = Connected(0x10, "big", 1, 8, "1.1")


def test_connect_on_classic_can() -> None:
    assert Connected(0x10, "little", 1, 8, "1.1") == LITTLE


def test_connect_on_fd() -> None:
    assert codec.connected(bytes.fromhex("ff10004040000101")).max_cto == 64


@pytest.mark.parametrize("answer", ["ff", "ff10000008000101", "ff10060808000101"])
def test_an_answer_to_connect_that_can_t_be(answer: str) -> None:
    with pytest.raises(ProtocolError):
        codec.connected(bytes.fromhex(answer))


def test_program_start_of_openblt() -> None:
    assert codec.programming(bytes.fromhex("ff000008000000"), 8) == Programming(8, 1, 0.0)


def test_program_start_with_block_mode() -> None:
    found = codec.programming(bytes.fromhex("ff0001082a0200"), 8)
    assert (found.max_cto, found.block_packets) == (8, 42)
    assert found.separation == pytest.approx(0.0002)
    assert (found.program_bytes(1), found.block_bytes(1)) == (6, 252)


def test_set_mta_in_both_orders() -> None:
    assert LITTLE.mta(0x08006000, 0).hex() == "f600000000600008"
    assert BIG.mta(0x08006000, 1).hex() == "f600000108006000"


def test_the_packets_of_a_block() -> None:
    """Part 2, PROGRAM_NEXT: the first packet says how many elements the block has, each later one how many are left."""
    packets = [packet.hex() for packet in codec.block(bytes(range(14)), 6, 1)]
    assert packets == ["d00e000102030405", "ca08060708090a0b", "ca020c0d"]


@pytest.mark.parametrize(
    ("granularity", "program", "program_max"),
    [
        (1, "d00401020304", "c901020304"),
        (2, "d00201020304", "c90001020304"),
        (4, "d001000001020304", "c900000001020304"),
    ],
)
def test_elements_lie_at_multiples_of_their_size(granularity: int, program: str, program_max: str) -> None:
    data = bytes.fromhex("01020304")
    assert codec.program(Command.PROGRAM, 4 // granularity, data, granularity).hex() == program
    assert codec.program_max(data, granularity).hex() == program_max


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("kind", SUMS)
def test_the_checksums_of_the_document(kind: int, order: str) -> None:
    name, little, big = SUMS[kind]
    value = little if order == "little" else big
    session = LITTLE if order == "little" else BIG
    found = session.checksum(bytes((0xFF, kind, 0, 0)) + session.dword(value))
    assert isinstance(found, Checksum)
    assert (found.name, found.value, found.proves) == (name, value, kind >= 7)
    assert found.compute is not None
    assert found.compute(PATTERN) == value


def test_a_checksum_of_the_maker_s_is_not_computed() -> None:
    assert LITTLE.checksum(bytes.fromhex("ffff000001020304")).compute is None


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("ff584350e0070000", 0x7E0),
        ("ff584350000007e0", 0x7E0),
        ("ff5843501100da98", 0x98DA0011),
        ("ff58435098da0011", 0x98DA0011),
        ("ff10000808000101", None),
        ("ff584350", None),
    ],
)
def test_a_slave_s_id(answer: str, found: int | None) -> None:
    assert codec.slave_id(bytes.fromhex(answer)) == found
