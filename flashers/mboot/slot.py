"""`.sb` files: boot images of NXP's elftosb and nxpimage, which the bootloader carries out itself (RECEIVE SB FILE).

The file says what is erased, written and started, often encrypted, so neither can be planned here. A file that resets the part
or jumps ends its data phase early, with status ABORT DATA PHASE (MCUBOOTRM, "ReceiveSBFile command").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import ImageWrongPart
from ..flasher import Slot, SlotAccess, Target
from .client import Client, Ended
from .profile import MbootProfile

MOST = 0x400_0000
"""Bytes of a file, at most."""
SIGNATURES = ((0x14, b"STMP"), (0, b"sbv3"))
"""Where versions 1 and 2, and 3, have what."""


class Starting(NamedTuple):
    """`let_go`: has the part's next reset start its application. `start`: resets the part. `started`: once the file has."""

    let_go: Callable[[], None]
    start: Callable[[], None]
    started: Callable[[], None]


class SbSlot(SlotAccess):
    def __init__(self, client: Client, profile: MbootProfile, starting: Starting) -> None:
        self._client = client
        self._profile = profile
        self._starting = starting
        self._taken = b""
        self._has_ended = False
        """Whether the file itself has started something else."""

    def slot(self, target: Target | None = None) -> Slot:
        return Slot("flash", MOST)

    def upload(self, image: bytes) -> Iterator[int]:
        """Raises ImageWrongPart for what is not an `.sb` file, before anything is sent."""
        if not any(image[at : at + len(sign)] == sign for at, sign in SIGNATURES):
            raise ImageWrongPart(
                "the file is not an .sb file, and the component's profile has sb = true",
                remedy="Give an .sb file, or leave sb away for a program that proxyflash places itself.",
            )
        self._taken, self._has_ended = b"", False
        self._starting.let_go()
        done = 0
        try:
            for done in self._client.receive_sb_file(image, self._profile.erase + self._profile.program):
                yield done
        except Ended:
            self._has_ended = True
        self._taken = image
        if done < len(image):
            yield len(image)

    def verdict(self, image: bytes) -> str:
        return "carried out by the bootloader" if image and self._taken == image else ""

    def activate(self, image: bytes) -> None:
        if self._has_ended:
            self._starting.started()
        else:
            self._starting.start()

    def seconds_for(self, size: int) -> float | None:
        """The wire's time."""
        return self._client.link.seconds(size + size // self._client.packet * 8)
