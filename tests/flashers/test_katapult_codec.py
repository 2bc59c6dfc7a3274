"""Katapult's messages, byte by byte, as its protocol.md and frames of running bootloaders have them."""

from __future__ import annotations

import pytest
from proxyflash.flashers.errors import ProtocolError
from proxyflash.flashers.katapult.codec import (
    CRC,
    Admin,
    Command,
    Result,
    about,
    admin,
    message,
    messages_in,
    node_ids,
    unassigned,
    word,
)

UUID = bytes.fromhex("0e0d81e4210c")


def test_the_crc_is_mcrf4xx() -> None:
    """Check value of the catalogue of CRCs; protocol.md says "standard CRC16-CCITT", of which there are several."""
    assert CRC(b"123456789") == 0x6F91


@pytest.mark.parametrize(
    ("data", "code"),
    [
        # protocol.md, "NACK" and "Command Error".
        ("0188f10068959903", Result.NACK),
        ("0188f20000bf9903", Result.COMMAND_ERROR),
        # Seen on a bus: CONNECT.
        ("01881100f17c9903", Command.CONNECT),
    ],
)
def test_messages_without_payload(data: str, code: int) -> None:
    assert message(code) == bytes.fromhex(data)
    assert list(messages_in(bytearray.fromhex(data))) == [(code, b"")]


def test_a_block_has_its_address_ahead() -> None:
    """protocol.md, "Send Block": the payload's length in words, the address, the block; little endian."""
    data = message(Command.SEND_BLOCK, word(0x08002000) + bytes(64))
    assert data[:8] == bytes.fromhex("0188121100200008")
    assert len(data) == 76
    assert data[-2:] == b"\x99\x03"


def test_the_answer_to_connect() -> None:
    """Its beginning was seen on a bus: protocol 1.1.0, the application at 0x08002000, blocks of 64 bytes."""
    payload = bytes.fromhex("00010100 00200008 40000000".replace(" ", ""))
    found = about(payload + b"stm32f072xb\0\0\0\0\0v0.0.1-75-g90eb71b\0\0")
    assert (found.protocol, found.start, found.block) == ("1.1.0", 0x08002000, 64)
    assert (found.mcu, found.software) == ("stm32f072xb", "v0.0.1-75-g90eb71b")


def test_an_older_katapult_reports_no_version() -> None:
    assert about(bytes.fromhex("020001000020000840000000") + b"rp2040\0\0").software == ""


@pytest.mark.parametrize("payload", [b"", bytes(11), bytes(12), bytes.fromhex("000101000020000841000000")])
def test_an_impossible_answer_to_connect(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        about(payload)


def test_an_answer_in_frames_with_noise_before_it() -> None:
    kept = bytearray(b"\x00\x01")
    assert list(messages_in(kept)) == []
    data = message(Result.ACKNOWLEDGED, word(Command.EOF) + word(3))
    for start in range(0, len(data), 8):
        kept += data[start : start + 8]
        found = list(messages_in(kept))
    assert found == [(Result.ACKNOWLEDGED, word(Command.EOF) + word(3))]
    assert kept == b""


def test_a_garbled_answer_is_no_answer() -> None:
    whole = message(Result.ACKNOWLEDGED, word(Command.EOF) + word(3))
    for place in range(4, len(whole)):
        kept = bytearray(whole)
        kept[place] ^= 0x10
        with pytest.raises(ProtocolError):
            list(messages_in(kept))


def test_the_admin_messages() -> None:
    """Klipper's CANBUS_protocol.md, and what passes on a bus while a board is flashed."""
    assert admin(Admin.QUERY_UNASSIGNED) == b"\x00"
    assert admin(Admin.SET_NODE_ID, UUID, 0x81) == bytes.fromhex("110e0d81e4210c81")
    assert admin(Admin.REQUEST_BOOTLOADER, UUID) == bytes.fromhex("020e0d81e4210c")
    assert node_ids(0x81) == (0x202, 0x203)
    assert unassigned(bytes.fromhex("200e0d81e4210c11")) == (UUID, 0x11)
    assert unassigned(bytes.fromhex("200e0d81e4210c")) == (UUID, 0x01)
    assert unassigned(bytes.fromhex("210e0d81e4210c11")) is None
    assert unassigned(b"\x20\x0e") is None
