"""What a recording says of the buses: how busy they were, what they can carry, and what passed around a moment.

The limits are the wires' own, without the time that a part takes to answer:

- CAN: consecutive frames of ISO-TP without stuff bits. A classic frame of 8 bytes has 111 bits with 11-bit ids (ISO 11898-1,
  10.4.2, interframe space included) and carries 7 bytes of the message (ISO 15765-2, 9.6); an FD frame carries 63 of 64.
- Serial lines: start bit, 8 data bits, parity if there is one, stop bits.
- USB: what control transfers may carry (USB 2.0, tables 5-1, 5-2 and 5-3: 24,000, 832,000 and 15,872,000 bytes a second).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import can

from ..enumerators.benchfile.schema import BenchFile
from ..enumerators.described import describers_of
from ..flashers.describing import described
from ..transports.can.bits import frame_seconds
from ..transports.recording.records import (
    CanFlag,
    CanFrame,
    Note,
    Record,
    SerialBytes,
    SerialLine,
    UsbControl,
    UsbDevices,
)
from .story import Exchange, Load, Mark, Message

STRETCHES = 120
"""Of a timeline, for each of which the load of a bus is shown."""
MOST_COUNTED = 20_000
"""Frames of a bus whose bits are counted one by one; of more, as many at even distances."""
BEFORE, AFTER = 30, 5
"""Messages that are shown before and after a moment."""
CLASSIC_FRAME, CLASSIC_CARRIES = 111, 7
FD_CARRIES = 63
_FD_FRAME = can.Message(arbitration_id=0x555, is_extended_id=False, is_fd=True, bitrate_switch=True, data=b"\x55" * 64)
"""Has no stuff bits but those at fixed places."""
CONTROL_TRANSFERS = {1: 24_000, 2: 832_000, 3: 15_872_000}
"""Bytes a second, by libusb's number of the speed: low, full, high."""
SPEEDS = {1: "low", 2: "full", 3: "high"}
DEFAULT_BAUDRATE = 9600
"""pyserial's."""
_SPEED = "speed of the fastest device"


@dataclass(frozen=True, slots=True)
class Wire:
    """One bus as it was set. `carries`: bytes of payload a second, at most; 0.0: not known. `text`: that in words."""

    kind: str
    settings: Mapping[str, Any]
    carries: float = 0.0
    text: str = ""


def wires(records: Iterable[Record], known: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Wire]:
    """The buses of a recording. `known`: the kind and the settings of each bus, as the bench file has them.

    A serial line has the rate and the parity with which most of its bytes passed, a USB bus the speed of its fastest device.
    """
    found = {bus: (kind, dict(settings)) for bus, (kind, settings) in known.items()}
    passed: dict[str, Counter[tuple[object, object]]] = {}
    for record in records:
        match record:
            case SerialLine():
                found.setdefault(record.bus, ("serial", {}))[1].update(record.changes)
            case SerialBytes():
                settings = found.setdefault(record.bus, ("serial", {}))[1]
                line = settings.get("baudrate"), settings.get("parity", "N")
                passed.setdefault(record.bus, Counter())[line] += len(record.data)
            case UsbDevices():
                settings = found.setdefault(record.bus, ("usb", {}))[1]
                settings[_SPEED] = max([settings.get(_SPEED, 0), *(seen.speed for seen in record.devices)])
            case CanFrame() | UsbControl():
                found.setdefault(record.bus, (record.kind, {}))
    for bus, lines in passed.items():
        (baudrate, parity), _ = lines.most_common(1)[0]
        found[bus][1].update(baudrate=baudrate, parity=parity)
    return {bus: Wire(kind, settings, *_limit(kind, settings)) for bus, (kind, settings) in found.items()}


def _limit(kind: str, settings: Mapping[str, Any]) -> tuple[float, str]:
    match kind:
        case "can":
            rate = _number(settings.get("bitrate"))
            if not rate:
                return 0.0, "bit rate not known"
            if settings.get("fd"):
                fast = _number(settings.get("data_bitrate")) or rate
                most = FD_CARRIES / frame_seconds(_FD_FRAME, rate, fast)
                return most, f"CAN FD at {rate:,} and {fast:,} bit/s: {most:,.0f} B/s"
            most = rate / CLASSIC_FRAME * CLASSIC_CARRIES
            return most, f"CAN at {rate:,} bit/s: {most:,.0f} B/s"
        case "serial":
            rate = _number(settings.get("baudrate")) or DEFAULT_BAUDRATE
            most = rate / _byte_bits(settings)
            return most, f"{rate:,} bit/s: {most:,.0f} B/s"
        case "usb":
            speed = settings.get(_SPEED, 0)
            most = CONTROL_TRANSFERS.get(speed, 0)
            return most, f"USB {SPEEDS[speed]} speed, control transfers: {most:,} B/s" if most else "USB"
    return 0.0, kind


def _byte_bits(settings: Mapping[str, Any]) -> float:
    stop = settings.get("stopbits", 1)
    return 9.0 + bool(settings.get("parity", "N") != "N") + (float(stop) if stop in (1, 1.5, 2) else 1.0)


def _number(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def loads(records: Sequence[Record], found: Mapping[str, Wire], began: float, ended: float) -> list[Load]:
    """How busy each bus was from one time to another. A bus on which nothing passed is left out."""
    length = max(ended - began, 1e-6)
    made = []
    by_bus: dict[str, list[Record]] = {}
    for record in records:
        if began <= record.time <= ended:
            by_bus.setdefault(record.bus, []).append(record)
    for bus, wire in found.items():
        own = by_bus.get(bus, [])
        passed = [record for record in own if isinstance(record, (CanFrame, SerialBytes, UsbControl))]
        if not passed:
            continue
        step = max(1, len(passed) // MOST_COUNTED)
        busy = [[0.0, 0.0] for _ in range(STRETCHES)]
        for record in passed[::step]:
            place = min(STRETCHES - 1, int((record.time - began) / length * STRETCHES))
            busy[place][_direction(record)] += step * _seconds(record, wire)
        # A serial line is two wires. What was written at once takes the time of the stretches behind, too.
        shares = _spread([max(both) for both in busy], length / STRETCHES)
        marks = [Mark(record.time, record.text) for record in own if isinstance(record, Note)]
        missing = "no bitrate is given" if wire.kind == "can" else "the speed of the bus is not known"
        unknown = "" if wire.carries else missing
        made.append(Load(bus, wire.text, tuple(shares), len(passed), tuple(marks), unknown))
    return made


def _direction(record: Record) -> int:
    return int(isinstance(record, SerialBytes) and record.outgoing)


def _spread(seconds: Sequence[float], each: float) -> list[float]:
    shares, over = [], 0.0
    for busy in seconds:
        over += busy
        shares.append(min(1.0, over / each))
        over = max(0.0, over - each)
    return shares


def _seconds(record: Record, wire: Wire) -> float:
    """How long a record takes on its wire, as far as that is known."""
    match record:
        case CanFrame():
            rate = _number(wire.settings.get("bitrate"))
            fast = _number(wire.settings.get("data_bitrate")) or rate
            if not rate or record.flags & CanFlag.ERROR:
                return 0.0
            return float(frame_seconds(_message(record), rate, fast))
        case SerialBytes():
            return len(record.data) / wire.carries if wire.carries else 0.0
        case UsbControl():
            return len(record.data) / wire.carries if wire.carries else 0.0
    return 0.0


def _message(frame: CanFrame) -> can.Message:
    return can.Message(
        arbitration_id=frame.can_id,
        is_extended_id=bool(frame.flags & CanFlag.EXTENDED),
        is_remote_frame=bool(frame.flags & CanFlag.REMOTE),
        is_fd=bool(frame.flags & CanFlag.FD),
        bitrate_switch=bool(frame.flags & CanFlag.BIT_RATE_SWITCH),
        dlc=len(frame.data),
        data=None if frame.flags & CanFlag.REMOTE else frame.data,
    )


def messages(records: Sequence[Record], file: BenchFile | None) -> list[Message]:
    """What passed, in words, in the order of its times, since 1970. `file`: the bench file says who speaks which protocol.

    Of error frames that follow each other on a bus the first one is shown, and how many there were.
    """
    # A message and a row of error frames are known to be over only when something else has come.
    lines = sorted(described(_folded(records), describers_of(records, file)), key=attrgetter("time"))
    return [Message(line.time, line.bus, line.sent, line.words, line.failed) for line in lines]


def _folded(records: Iterable[Record]) -> Iterator[Record]:
    runs: dict[str, tuple[int, float, float]] = {}
    """Of error frames that nothing else has followed on their bus: how many, and the times of the first and the last."""

    def ended(bus: str) -> Iterator[Note]:
        count, first, last = runs.pop(bus, (0, 0.0, 0.0))
        if count > 1:
            yield Note(last, bus, f"error frames within {last - first:.3f} s: {count:,}")

    for record in records:
        if isinstance(record, CanFrame) and record.flags & CanFlag.ERROR:
            count, first, _ = runs.get(record.bus, (0, record.time, 0.0))
            runs[record.bus] = count + 1, first, record.time
            if count:
                continue
        else:
            yield from ended(record.bus)
        yield record
    for bus in list(runs):
        yield from ended(bus)


def around(title: str, messages: Sequence[Message], time: float, bus: str = "") -> Exchange | None:
    """What passed around a moment. `messages`: with times since 1970; `bus`: on this one alone. None: nothing passed."""
    own = [one for one in messages if not bus or one.bus in (bus, "")]
    times = [one.time for one in own]
    # What came in at the same time belongs to what came before.
    place = bisect_right(times, time)
    first = max(0, place - BEFORE)
    shown = own[first : place + AFTER]
    if not shown:
        return None
    relative = (Message(one.time - time, one.bus, one.sent, one.words, one.failed) for one in shown)
    since = bisect_left(times, own[0].time)
    return Exchange(title, tuple(relative), first - since)
