"""What `monitor` keeps of the CAN frames that it hears: for each id their number, their rate and the last of them; the bus load.

Bytes in, numbers out: nothing here waits, opens or prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import can

from ..flashers.describing import ERROR, EXTENDED
from ..transports.can.bits import frame_seconds
from ..transports.recording.records import CanFlag, CanFrame

MOST_IDS = 10_000
"""Ids that are counted; a faulty node may send under any of 2**29."""


@dataclass(slots=True)
class Id:
    """The frames under one id. `rate`: frames a second between the last two looks. `secret`: the last is not to be shown."""

    bus: str
    last: CanFrame
    count: int = 0
    rate: float = 0.0
    secret: bool = False
    _seen: int = 0

    def look(self, seconds: float) -> None:
        """Sets the rate, `seconds` after the look before."""
        self.rate = (self.count - self._seen) / seconds
        self._seen = self.count


@dataclass
class FrameCounts:
    """`bit_rates`: of arbitration and data, in bit/s, by the bus; a bus that has none has no known load."""

    bit_rates: Mapping[str, tuple[int, int]]
    ids: dict[tuple[str, int, int], Id] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)
    """The share of time, 0.0 to 1.0, for which a bus was busy between the last two looks."""
    frames: int = 0
    errors: int = 0
    """Error frames, which are no frames of a node."""
    _busy: dict[str, float] = field(default_factory=dict)

    def take(self, frame: CanFrame, *, secret: bool = False) -> None:
        """A frame that passed. `secret`: it holds something that is not to be shown."""
        if frame.flags & ERROR:
            self.errors += 1
            return
        self.frames += 1
        key = (frame.bus, frame.can_id, frame.flags & EXTENDED)
        found = self.ids.get(key)
        if found is None:
            if len(self.ids) >= MOST_IDS:
                return
            found = self.ids[key] = Id(frame.bus, frame)
        found.count += 1
        found.last = frame
        found.secret = secret
        rates = self.bit_rates.get(frame.bus)
        if rates is not None:
            self._busy[frame.bus] = self._busy.get(frame.bus, 0.0) + about(len(frame.data), frame.flags, rates)

    def look(self, seconds: float) -> None:
        """Sets rates and loads, `seconds` after the look before."""
        for found in self.ids.values():
            found.look(seconds)
        self.loads = {bus: min(self._busy.get(bus, 0.0) / seconds, 1.0) for bus in self.bit_rates}
        self._busy.clear()

    def sorted(self) -> Iterator[Id]:
        """By bus and id, the lower one first, as the bus itself has it."""
        for key in sorted(self.ids):
            yield self.ids[key]


@lru_cache(maxsize=1024)
def about(size: int, flags: int, bit_rates: tuple[int, int]) -> float:
    """How long a frame of this size occupies the bus, in seconds, with stuff bits as mixed data has them.

    To count the stuff bits of each frame would take longer than all else that is done with it.
    """
    message = can.Message(
        arbitration_id=0x2A5,
        is_extended_id=bool(flags & CanFlag.EXTENDED),
        is_remote_frame=bool(flags & CanFlag.REMOTE),
        is_fd=bool(flags & CanFlag.FD),
        bitrate_switch=bool(flags & CanFlag.BIT_RATE_SWITCH),
        dlc=size,
        data=None if flags & CanFlag.REMOTE else bytes(0xA7 * n * n & 0xFF for n in range(1, size + 1)),
    )
    return frame_seconds(message, *bit_rates)
