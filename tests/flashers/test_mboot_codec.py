"""MBoot's packets, byte by byte: frames of other people's implementations (blhost of spsdk 3.12, and the loader of its maker's
published source), and the worked examples of the reference manual.
"""

from __future__ import annotations

import pytest
from proxyflash.flashers.errors import ProtocolError
from proxyflash.flashers.mboot.codec import (
    Answer,
    Command,
    Frame,
    Property,
    Status,
    answer,
    command,
    framed,
    next_frame,
    short,
    version_text,
)

WRITE = bytes.fromhex("5aa41000 9bef 04010003 00a00000 28000000 00000000")
SUCCESS = bytes.fromhex("5aa40c00 2372 a0000002 00000000 04000000")
NOT_ERASED = bytes.fromhex("5aa40c00 92a6 a0000002 69000000 04000000")
PING_RESPONSE = bytes.fromhex("5aa7 00020150 0000 aaea")


def test_a_write_command() -> None:
    """WriteMemory of 40 bytes to 0xA000 in memory 0, as blhost sends it."""
    assert command(Command.WRITE_MEMORY, 0xA000, 40, 0, has_data=True) == WRITE


def test_get_property() -> None:
    """KBTLDR110RM, table "GetProperty Command Packet Format (Example)": CurrentVersion."""
    assert command(Command.GET_PROPERTY, Property.BOOTLOADER_VERSION, 0)[6:] == bytes.fromhex(
        "07000002 01000000 00000000"
    )


def test_frames_without_a_payload() -> None:
    assert [short(kind) for kind in (Frame.PING, Frame.ACK, Frame.NAK)] == [b"\x5a\xa6", b"\x5a\xa1", b"\x5a\xa2"]


def test_responses() -> None:
    assert answer(SUCCESS[6:]) == Answer(0xA0, Status.SUCCESS, (Command.WRITE_MEMORY,))
    assert answer(NOT_ERASED[6:]) == Answer(0xA0, Status.FLASH_COMMAND_FAILURE, (Command.WRITE_MEMORY,))


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_frames_that_come_in_pieces(step: int) -> None:
    """With noise before, and an acknowledgement in front of a response."""
    stream = b"\0\xff\x5a\x11" + PING_RESPONSE + short(Frame.ACK) + SUCCESS + short(Frame.ACK_ABORT) + NOT_ERASED
    kept, found = bytearray(), []
    for start in range(0, len(stream), step):
        kept += stream[start : start + step]
        while (frame := next_frame(kept)) is not None:
            found.append(frame)
    assert found == [
        (Frame.PING_RESPONSE, PING_RESPONSE[2:8]),
        (Frame.ACK, b""),
        (Frame.COMMAND, SUCCESS[6:]),
        (Frame.ACK_ABORT, b""),
        (Frame.COMMAND, NOT_ERASED[6:]),
    ]


@pytest.mark.parametrize("place", range(1, len(SUCCESS)))
def test_a_garbled_response_is_not_taken(place: int) -> None:
    spoilt = bytearray(SUCCESS)
    spoilt[place] ^= 0x10
    kept = bytearray(spoilt) + bytes(4096)
    found = None
    try:
        found = next_frame(kept)
    except ProtocolError:
        return
    assert found is None or found[0] is not Frame.COMMAND


def test_the_end_of_the_data() -> None:
    assert next_frame(bytearray(framed(Frame.DATA, b""))) == (Frame.DATA, b"")


@pytest.mark.parametrize("payload", [b"", b"\xa0\0\0\0", b"\xa0\0\0\2\0\0\0\0", b"\xa0\0\0\0\0\0\0\0"])
def test_responses_that_are_none(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        answer(payload)


def test_versions() -> None:
    assert version_text(0x4B010501) == "K1.5.1"
