"""`xmodem` and `ymodem`: how a file is sent, once the loader has asked for it. The order of things is in flasher.py.

After the "X/YMODEM Protocol Reference" (C. Forsberg, 1988-06-18): XMODEM with a checksum, a CRC or blocks of 1024 bytes
(4, 7 and 8), as the loader asks for it; YMODEM and YMODEM-g (5 and 6), with the file's name and size first and an empty
name at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from ...transports.deadline import Deadline
from ..settings import Field, in_words
from .codec import Piece, header
from .flasher import XymodemFlasher
from .profile import XymodemProfile
from .sender import Sender


class XmodemProfile(XymodemProfile):
    """How to talk to a bootloader that takes a file by XMODEM. Patterns are regular expressions (Python's `re`, on bytes)."""

    protocol = "xmodem"


class XmodemFlasher(XymodemFlasher):
    """One part behind a serial port. The loader gets no file size: what it takes is padded to whole blocks."""

    protocol = "xmodem"
    Profile = XmodemProfile

    def _transfer(self, sender: Sender, data: bytes, blocks: Sequence[Piece]) -> Iterator[int]:
        yield from sender.send(blocks)
        sender.end(self._is_judged)


class YmodemProfile(XymodemProfile):
    """As of XMODEM, with a file name."""

    protocol = "ymodem"

    block_size: Literal[128, 1024] = 1024
    """Bytes of a block."""
    file_name: Annotated[
        str, Field(pattern=r"^[\x21-\x7E]+$", max_length=100), in_words("of ASCII characters, without spaces")
    ] = "firmware.bin"
    """The name of the file that is sent to the bootloader."""


class YmodemFlasher(XymodemFlasher):
    """One part behind a serial port."""

    protocol = "ymodem"
    Profile = YmodemProfile

    _profile: YmodemProfile

    def _transfer(self, sender: Sender, data: bytes, blocks: Sequence[Piece]) -> Iterator[int]:
        timings = self._profile.timings
        sender.send_header(header(self._profile.file_name, len(data)), timings.start)
        yield from sender.send(blocks)
        asked = sender.end(self._is_judged, batch=True)
        sender.end_batch(self._is_judged, Deadline.after(timings.verdict), asked=asked)
