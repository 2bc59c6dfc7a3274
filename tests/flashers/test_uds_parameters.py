"""Parameters of routines and downloads in bytes: checksums by their catalogued check values, requests of a real tool."""

from __future__ import annotations

from typing import Any

import pytest
from proxyflash.flashers.uds.checksums import CHECKSUMS
from proxyflash.flashers.uds.parameters import Subject, encoded
from proxyflash.flashers.uds.profile import UdsProfile
from proxyflash.flashers.uds.sequence import STANDARD, parse


@pytest.mark.parametrize(
    ("name", "check"),
    [("crc32", 0xCBF43926), ("crc32-mpeg2", 0x0376E6E7), ("crc16", 0x29B1), ("crc16-xmodem", 0x31C3), ("crc16-arc", 0xBB3D)],
)  # fmt: skip
def test_a_checksum_s_check_value(name: str, check: int) -> None:
    assert CHECKSUMS[name][1](b"123456789") == check


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # VW_Flash, lib/flash_uds.py: erase of block 5, the memory location of its download, the check of its checksum.
        (["01", "region"], "01 05"),
        (["alfi", "address", "size"], "41 05 0007FC00"),
        (["01", "region", "00 04", "crc32"], "01 05 00 04 CBF43926"),
        (["signature", "crc16"], "AABB 29B1"),
    ],
)
def test_a_block_number_and_literal_bytes(names: list[str], expected: str) -> None:
    profile = UdsProfile.model_validate({"address_by": "id", "address_length": 1})
    subject = Subject(0x80000, 0x7FC00, b"123456789", id=5, signature=b"\xaa\xbb")
    assert encoded(names, profile, subject) == bytes.fromhex(expected)


def test_the_parts_of_the_standard_order() -> None:
    order = parse(STANDARD, (), ())
    assert order.before == ("extended", "preconditions", "dtc-off", "communication-off")
    assert (order.enter, order.prepare) == (("key",), ("fingerprint", "driver"))
    assert (order.body, order.end) == (("erase", "download"), ("check", "dependencies"))


@pytest.mark.parametrize(
    ("words", "enter", "prepare", "end"),
    [
        (("programming", "write", "key", "download"), (), ("write", "key"), ()),
        (("programming", "key", "unlock", "download", "write"), ("key", "unlock"), (), ("write",)),
        (("key", "programming", "erase", "write", ("for each segment", "download")), (), (), ()),
    ],
)
def test_the_parts_of_other_orders(words: Any, enter: Any, prepare: Any, end: Any) -> None:
    """Connecting goes as far as the first step that may change the ECU."""
    own = [name for name in ("write", "unlock") if name in words]
    order = parse(words, own, ["unlock"])
    assert (order.enter, order.prepare, order.end) == (enter, prepare, end)
