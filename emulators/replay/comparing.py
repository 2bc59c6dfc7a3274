"""Two recordings of the same: where they differ first, bus by bus.

What a replay lets differ doesn't count as a difference here either: times, the cuts between the bytes of a serial line,
TesterPresent without an answer, requests for descriptors, the order of what passes between two parts on one bus.
Frames are compared in order for each arbitration id, bytes for each direction, transfers for each USB device by its vendor
and product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ...transports.recording.formats import frame_text
from ...transports.recording.records import CanFrame, Record, SerialBytes, UsbControl, UsbDevices
from .can import is_keep_alive
from .track import both
from .usb import changes_nothing


@dataclass(frozen=True, slots=True)
class Difference:
    """Where one flow of a bus differs first. `flow`: which, in words with a place for the `number`, from 1.

    `sides`: what each recording has there, as bytes. `records`: the record of each in which that is, None: it has ended.
    `messages`: the message that this is of, in words, for each recording; "": not known.
    """

    bus: str
    flow: str
    number: int
    sides: tuple[str, str]
    records: tuple[Record | None, Record | None]
    messages: tuple[str, str] = ("", "")

    @property
    def time(self) -> float:
        """Of the first recording, else of the second one."""
        return next(record.time for record in self.records if record is not None)

    def __str__(self) -> str:
        one, other = (
            f"{side} ({words})" if words else side for side, words in zip(self.sides, self.messages, strict=True)
        )
        return f"{self.bus}: {self.flow.format(self.number)} differs: {one}; in the other one {other}"


def first_differences(one: Sequence[Record], other: Sequence[Record]) -> list[Difference]:
    """The first difference of each bus, the first of all first; [] where the same passed."""
    ours, theirs = _flows(one), _flows(other)
    found: dict[str, Difference] = {}
    for bus, flow in dict.fromkeys([*ours, *theirs]):
        difference = _difference(bus, flow, ours.get((bus, flow), []), theirs.get((bus, flow), []))
        if difference is not None and (bus not in found or difference.time < found[bus].time):
            found[bus] = difference
    return sorted(found.values(), key=lambda difference: difference.time)


def holds_traffic(records: Sequence[Record]) -> bool:
    """Whether there is something to compare."""
    return bool(_flows(records))


def _flows(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """What is compared in order, by bus and flow."""
    flows: dict[tuple[str, str], list[Record]] = {}
    devices: dict[tuple[str, int, int], str] = {}
    for record in records:
        match record:
            case CanFrame():
                if not (record.outgoing and is_keep_alive(record.data)):
                    way = "sent" if record.outgoing else "received"
                    flows.setdefault((record.bus, f"frame {{:,}} {way} with id {record.can_id:03X}"), []).append(record)
            case SerialBytes():
                if not record.drained:
                    way = "sent" if record.outgoing else "received"
                    flows.setdefault((record.bus, f"byte {{:,}} {way}"), []).append(record)
            case UsbDevices():
                for seen in record.devices:
                    vendor, product = seen.device[8:10], seen.device[10:12]
                    name = f"{vendor[::-1].hex()}:{product[::-1].hex()}"
                    devices[record.bus, seen.root, seen.address] = name
            case UsbControl():
                if not changes_nothing(record):
                    name = devices.get((record.bus, record.root, record.address), f"{record.root}.{record.address}")
                    flows.setdefault((record.bus, f"transfer {{:,}} with {name}"), []).append(record)
    return flows


def _difference(bus: str, flow: str, ours: list[Record], theirs: list[Record]) -> Difference | None:
    if any(isinstance(record, SerialBytes) for record in (*ours[:1], *theirs[:1])):
        return _of_bytes(bus, flow, ours, theirs)
    for number, pair in enumerate(zip_longest(ours, theirs), 1):
        one, other = map(_text, pair)
        if one != other:
            return Difference(bus, flow, number, (one, other), pair)
    return None


def _text(record: Record | None) -> str:
    match record:
        case CanFrame():
            return frame_text(record)
        case UsbControl():
            # An address is the host's, and times may differ.
            data = f" {'<-' if record.incoming else '->'} {record.data.hex(' ').upper()}" if record.data else ""
            status = f" status {record.status}" if record.status else ""
            return f"{record.setup.hex(' ').upper()}{data}{status}"
    return "nothing more"


def _of_bytes(bus: str, flow: str, ours: list[Record], theirs: list[Record]) -> Difference | None:
    one, other = (b"".join(_pieces(records)) for records in (ours, theirs))
    if one == other:
        return None
    place = next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    records = _record_at(ours, place), _record_at(theirs, place)
    return Difference(bus, flow, place + 1, both(one, other), records)


def _pieces(records: Sequence[Record]) -> Iterator[bytes]:
    for record in records:
        if isinstance(record, SerialBytes):
            yield record.data


def _record_at(records: Sequence[Record], place: int) -> Record | None:
    """The record that has the byte of this number, from 0."""
    for record in records:
        if isinstance(record, SerialBytes):
            if place < len(record.data):
                return record
            place -= len(record.data)
    return None
