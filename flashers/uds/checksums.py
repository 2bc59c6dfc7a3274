"""Checksums that an ECU's routines are handed, by the names that a profile has for them.

Names and parameters of the catalogue of parametrised CRC algorithms; `crc16` is CRC-16/IBM-3740, which makers call CCITT
with the initial value FFFF.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import crcmod

CHECKSUMS: dict[str, tuple[int, Callable[[bytes], int]]] = {
    "crc32": (4, zlib.crc32),
    "crc32-mpeg2": (4, crcmod.mkCrcFun(0x104C11DB7, initCrc=0xFFFFFFFF, rev=False, xorOut=0)),
    "crc16": (2, crcmod.mkCrcFun(0x11021, initCrc=0xFFFF, rev=False, xorOut=0)),
    "crc16-xmodem": (2, crcmod.mkCrcFun(0x11021, initCrc=0, rev=False, xorOut=0)),
    "crc16-x25": (2, crcmod.mkCrcFun(0x11021, initCrc=0, rev=True, xorOut=0xFFFF)),
    "crc16-arc": (2, crcmod.mkCrcFun(0x18005, initCrc=0, rev=True, xorOut=0)),
}
"""How many bytes each has, and what computes it."""
