"""XMODEM and YMODEM in words, after the "X/YMODEM Protocol Reference" (C. Forsberg, 1988-06-18).

Anything but a block or a control character is a text: the commands and the messages of a loader's console.
"""

from __future__ import annotations

import binascii

from ...transports.plain import counted, word
from ..describing import Said, StreamDescriber, shown
from .codec import LONG, SHORT, Control

SENDERS = frozenset({Control.SOH, Control.STX, Control.EOT, Control.CAN})
"""What a sender's blocks and its end begin with."""
RECEIVERS = frozenset({Control.ACK, Control.NAK, Control.CAN})
STARTS = {Control.C: "C: send with CRC", Control.G: "G: send as a stream with CRC"}
"""By which a receiver asks for a file (8.2 and 6)."""
LONGEST_TEXT = 256
"""Bytes of a text without a new line that are shown on one line."""


class XymodemDescriber(StreamDescriber):
    """One transfer after the other. Each side's bytes are cut on their own: a stream is not answered block by block."""

    half_duplex = False

    def __init__(self, part: str = "") -> None:
        super().__init__(part)
        self._checksum = False
        """Whether blocks have a checksum of one byte instead of a CRC."""
        self._blocks = 0
        """Sent since the transfer began."""

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        return self._from_sender(data, ended) if sent else self._from_receiver(data, ended)

    def _from_sender(self, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        match data[0]:
            case Control.SOH | Control.STX:
                size = SHORT if data[0] == Control.SOH else LONG
                whole = 3 + size + (1 if self._checksum else 2)
                if len(data) < whole:
                    return (
                        (len(data), Said(f"block {data[1] if len(data) > 1 else ''} cut short", True))
                        if ended
                        else None
                    )
                return whole, self._block(bytes(data[:whole]), size)
            case Control.EOT:
                self._blocks = 0
                return 1, Said("EOT")
            case Control.CAN:
                self._blocks = 0
                return _run(data, Control.CAN, "CAN")
            case _:
                return _text(data, SENDERS, ended)

    def _block(self, block: bytes, size: int) -> Said:
        number, data, check = block[1], block[3 : 3 + size], block[3 + size :]
        faults = []
        if block[2] != 0xFF - number:
            faults.append("the number's complement is wrong")
        if self._checksum:
            if check != bytes([sum(data) & 0xFF]):
                faults.append("checksum wrong")
        elif check != binascii.crc_hqx(data, 0).to_bytes(2, "big"):
            faults.append("CRC wrong")
        words = f"block {number}, {counted(size, 'byte')}"
        if number == 0 and not self._blocks:
            words = _header(data)
        else:
            self._blocks += 1
        return Said(", ".join((words, *faults)), bool(faults))

    def _from_receiver(self, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        first = data[0]
        if first == Control.ACK:
            return 1, Said("ACK")
        if first == Control.NAK:
            if not self._blocks:
                self._checksum = True
                return 1, Said("NAK: send with checksum, or again")
            return 1, Said("NAK", True)
        if first == Control.CAN:
            # The next transfer begins with its first block again.
            self._blocks = 0
            return _run(data, Control.CAN, "CAN")
        if first in STARTS and all(byte not in range(0x20, 0x7F) or byte == first for byte in data[:2]):
            if not self._blocks:
                self._checksum = False
            return 1, Said(STARTS[Control(first)])
        return _text(data, RECEIVERS, ended)


def _header(data: bytes) -> str:
    """Block 0 of a batch (5): the file's name and its size in decimal digits; without a name it is the last one."""
    name, _, rest = data.partition(b"\0")
    if not name:
        return "block 0, no more files"
    digits = rest.split(b"\0")[0].split(b" ")[0]
    size = f", {counted(int(digits), 'byte')}" if digits.isdigit() and len(digits) < 16 else ""
    return f"block 0, file {shown(name, 64)}{size}"


def _run(data: bytearray, byte: int, name: str) -> tuple[int, Said]:
    """As many of a byte as there are, with the backspaces that may follow them (4.1). Two end the transfer."""
    number = len(data) - len(data.lstrip(bytes([byte])))
    size = number
    while size < len(data) and data[size] == 0x08:
        size += 1
    return size, Said(f"{number} {name}" if number > 1 else name, number > 1)


def _text(data: bytearray, controls: frozenset[Control], ended: bool) -> tuple[int, Said] | None:
    """What comes before the next new line or control character."""
    for at, byte in enumerate(data[:LONGEST_TEXT]):
        if at and byte in controls:
            return at, _said(data[:at])
        if byte == 0x0A:
            return at + 1, _said(data[:at])
    if ended or len(data) >= LONGEST_TEXT:
        size = min(len(data), LONGEST_TEXT)
        return size, _said(data[:size])
    return None


def _said(data: bytearray) -> Said:
    text = bytes(data).strip(b"\r\n")
    if not text:
        return Said("")
    readable = all(0x20 <= byte < 0x7F or byte in b"\t\r\x1b\b" for byte in text)
    return Said(f"text: {word(text.decode('ascii'))}" if readable else f"unknown: {shown(text)}")
