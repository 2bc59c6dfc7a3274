"""The frames of the bootloader, as the host sees them: command, payload, and the sum of all bytes modulo 256."""

from __future__ import annotations

from enum import IntEnum

from proxyflash.flashers.errors import PartRefused, ProtocolError

ANSWERED, REFUSED = 0x80, 0xFF
"""Set in the command of an answer; the whole of a refusal's."""


class Command(IntEnum):
    """All answer with the same bit pattern and ANSWERED."""

    HELLO = 1
    ENTER = 2
    ERASE = 3
    WRITE = 4
    READ = 5
    CRC = 6
    START = 7
    GET_LABEL = 8
    SET_LABEL = 9


REASONS = {1: "not in the bootloader", 2: "no such address", 3: "not erased", 4: "no firmware to start"}


def request(command: Command, payload: bytes = b"") -> bytes:
    body = bytes([command]) + payload
    return body + bytes([sum(body) & 0xFF])


def is_whole(frame: bytes) -> bool:
    """Whether its sum is right: if not, it is as good as lost."""
    return len(frame) >= 2 and sum(frame[:-1]) & 0xFF == frame[-1]


def answer(command: Command, frame: bytes) -> bytes:
    """The payload. Raises PartRefused, ProtocolError."""
    if frame[0] == REFUSED:
        why = REASONS.get(frame[1], f"reason {frame[1]}")
        raise PartRefused(f"the part refuses {command.name}: {why}")
    if frame[0] != command | ANSWERED:
        raise ProtocolError(f"the part answers {command.name} with 0x{frame[0]:02X}")
    return frame[1:-1]
