"""`xmodem`: loaders that take a file by XMODEM, with a checksum, a CRC or blocks of 1024 bytes, as they ask for it.

After the "X/YMODEM Protocol Reference" (C. Forsberg, 1988-06-18), 4, 7 and 8. The order of things is in flasher.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .codec import Piece
from .flasher import MenuFlasher
from .profile import MenuProfile
from .sender import Sender


class XmodemProfile(MenuProfile):
    protocol = "xmodem"


class XmodemFlasher(MenuFlasher):
    """One part behind a serial port. The loader gets no file size: what it takes is padded to whole blocks."""

    protocol = "xmodem"
    Profile = XmodemProfile

    def _transfer(self, sender: Sender, data: bytes, blocks: Sequence[Piece]) -> Iterator[int]:
        yield from sender.send(blocks)
        sender.end(self._is_judged)
