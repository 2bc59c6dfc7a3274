"""What a UART makes of a frame that another UART sent: bits on a line, sampled in the middle of the receiver's bits.

A frame is a start bit (low), data bits (least significant first), a parity bit if there is one, and stop bits (high);
the idle line is high. Two ends that agree read each other's bytes. Two that don't read what the samples give, which is
computed here from the frame's own waveform: garbage, more bytes or fewer, parity and framing errors, always the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Line:
    """The settings of one end. `parity`: "N", "E", "O", "M" (mark) or "S" (space), as pyserial has them."""

    baudrate: int = 9600
    bytesize: int = 8
    parity: str = "N"
    stopbits: float = 1

    @property
    def frame_seconds(self) -> float:
        """How long one byte keeps the line busy."""
        return (1 + self.bytesize + (self.parity != "N") + self.stopbits) / self.baudrate

    def understands(self, sender: Line) -> bool:
        """True if bytes of that sender come in as they are. The number of stop bits doesn't matter to a receiver."""
        return (self.baudrate, self.bytesize, self.parity) == (sender.baudrate, sender.bytesize, sender.parity)


@lru_cache(maxsize=4096)
def received(byte: int, sender: Line, receiver: Line, checks: bool) -> bytes:
    """The bytes that the receiver takes from one frame, followed by an idle line.

    `checks`: bytes with a parity or framing error are dropped; without it they are kept as sampled, as a Linux port
    does on which nobody set INPCK.
    """
    levels = [0, *_data_bits(byte, sender), 1]
    ratio = sender.baudrate / receiver.baudrate

    def sample(position: float) -> int:
        """The level at this time, in the sender's bits since the start edge."""
        return levels[int(position)] if position < len(levels) else 1

    taken = bytearray()
    start: float | None = 0.0
    while start is not None:
        end = start + ratio / 2
        if sample(end) == 0:  # Else it was a spike, not a start bit.
            bits = []
            for _ in range(receiver.bytesize + (receiver.parity != "N") + 1):
                end += ratio
                bits.append(sample(end))
            value = sum(bit << place for place, bit in enumerate(bits[: receiver.bytesize]))
            if not checks or bits == [*_data_bits(value, receiver), 1]:
                taken.append(value)
        start = _falling_edge(levels, end)
    return bytes(taken)


def _data_bits(byte: int, line: Line) -> list[int]:
    """Data and parity bits, in the order of the line."""
    bits = [byte >> place & 1 for place in range(line.bytesize)]
    parity = {"N": None, "E": sum(bits) % 2, "O": 1 - sum(bits) % 2, "M": 1, "S": 0}[line.parity]
    return bits if parity is None else [*bits, parity]


def _falling_edge(levels: list[int], after: float) -> float | None:
    for position in range(int(after) + 1, len(levels)):
        if levels[position] == 0 and levels[position - 1] == 1:
            return float(position)
    return None
