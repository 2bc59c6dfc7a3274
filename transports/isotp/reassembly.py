"""What two peers say to each other by ISO-TP, as somebody hears it who only listens (ISO 15765-2:2016, 9.6).

Bytes in, values out. A listener sends no flow control and knows no time-outs: a message has ended when its last frame came,
and is broken off when its peer begins another one or a frame of it is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .frames import LONGEST_SHORT, Pci, pci_of

KEPT = LONGEST_SHORT
"""Bytes of a message that are kept, the first ones; a peer may announce 4 GiB."""
FLOW_STATUS = {0: "ContinueToSend", 1: "Wait", 2: "Overflow"}
"""Table 18."""


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message. `data`: its first bytes, at most KEPT; `size`: how many it has; `frames`: how many carried it."""

    data: bytes
    size: int
    frames: int = 1


@dataclass(frozen=True, slots=True)
class Begun:
    """A first frame. `data`: the bytes of the message in it; `size`: how many it announces."""

    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A message that never ended. `data`: the first bytes of it; `got`: how many came of `size`."""

    data: bytes
    got: int
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow control frame. `words`: by the standard's names. `overflow`: the receiver takes no such message."""

    words: str
    overflow: bool


Heard = Message | Begun | Broken | Flow


class Reassembly:
    """One direction of a conversation. `prefix`: address bytes ahead of the PCI, 1 with extended addressing."""

    def __init__(self, prefix: int = 0) -> None:
        self._prefix = prefix
        self._size = 0
        self._got = 0
        self._frames = 0
        self._kept = bytearray()

    @property
    def is_open(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._size > 0

    @property
    def head(self) -> bytes:
        """The first byte of the message that has begun and not ended; b"": there is none."""
        return bytes(self._kept[:1])

    def feed(self, frame: bytes) -> Iterator[Heard]:
        """What a frame says; nothing for a consecutive frame within a message, and for a frame that isn't of ISO-TP."""
        data = frame[self._prefix :]
        match pci_of(frame, self._prefix):
            case Pci.SINGLE_FRAME:
                size, start = data[0] & 0x0F, 1
                if not size and len(frame) > 8:
                    size, start = data[1], 2
                if 0 < size <= len(data) - start:
                    yield from self.break_off("another message began")
                    yield Message(data[start : start + size], size)
            case Pci.FIRST_FRAME if len(data) > 2:
                size, start = int.from_bytes(data[:2], "big") & 0xFFF, 2
                if not size:
                    size, start = int.from_bytes(data[2:6], "big"), 6
                if size > len(data) - start > 0:
                    yield from self.break_off("another message began")
                    self._size, self._frames = size, 1
                    self._kept += data[start:]
                    self._got = len(self._kept)
                    yield Begun(data[start:], size)
            case Pci.CONSECUTIVE_FRAME if self._size:
                if data[0] & 0x0F != self._frames & 0x0F:
                    yield from self.break_off(
                        f"consecutive frame {self._frames & 0x0F} was due and {data[0] & 0x0F} came"
                    )
                    return
                self._frames += 1
                piece = data[1 : 1 + self._size - self._got]
                self._kept += piece[: KEPT - len(self._kept)]
                self._got += len(piece)
                if self._got == self._size:
                    message = Message(bytes(self._kept), self._size, self._frames)
                    self._forget()
                    yield message
            case Pci.FLOW_CONTROL:
                yield _flow(data)

    def break_off(self, why: str) -> Iterator[Broken]:
        """Forgets the message that has begun, if any, and reports it."""
        if self._size:
            yield Broken(bytes(self._kept), self._got, self._size, why)
            self._forget()

    def _forget(self) -> None:
        self._size = self._got = self._frames = 0
        self._kept.clear()


def separation(st_min: int) -> str:
    """STmin in words (table 20)."""
    if st_min <= 0x7F:
        return f"{st_min} ms"
    return f"{100 * (st_min - 0xF0)} us" if 0xF1 <= st_min <= 0xF9 else f"0x{st_min:02X}, which is reserved"


def _flow(data: bytes) -> Flow:
    status = data[0] & 0x0F
    words = f"flow control {FLOW_STATUS.get(status, f'0x{status:X}, which is reserved')}"
    if status == 0 and len(data) >= 3:
        words += f", block size {data[1]}, STmin {separation(data[2])}"
    return Flow(words, status >= 2)
