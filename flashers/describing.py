"""What passes on a bus, in words: a `Describer` for each part makes a `Line` of each message that it sees.

The rule: describers only show. Nothing decides by what they say, they never raise, whatever the bytes, and what they keep
of a message that has not ended is bounded.

Each family has its describers in its `describe.py`; `Bootloader.describer` makes one for a component. `Describing` puts
those of all buses together, and shows plain bytes where no describer knows the protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ..transports.outside import without_key
from ..transports.plain import plain, word
from ..transports.recording.records import (
    Answer,
    CanFlag,
    CanFrame,
    Note,
    Record,
    SerialBytes,
    SerialLine,
    UsbControl,
    UsbDevices,
)

EXTENDED, REMOTE, ERROR, FD = (int(flag) for flag in (CanFlag.EXTENDED, CanFlag.REMOTE, CanFlag.ERROR, CanFlag.FD))
"""As numbers: an operation on a flag takes as long as all else that is done with a frame."""
MOST_SHOWN = 16
"""Bytes of a value that words show."""
MOST_PLAIN = 64
"""Bytes of a read or write of an unknown protocol that words show."""
LONGEST_MESSAGE = 0x1_1000
"""Bytes of a serial line that wait for the end of their message; a longer message is shown as plain bytes."""


@dataclass(frozen=True, slots=True)
class Line:
    """One message in words.

    `time`: seconds since 1970 at which its last record passed. `sent`: whether it went to the part; None: neither way, or not
    known. `data`: its bytes, of a long message the first ones. `part`: the component's name; "": no component is known.
    `failed`: it refuses something, or reports a failure.
    """

    time: float
    bus: str
    sent: bool | None
    words: str
    data: bytes = b""
    part: str = ""
    failed: bool = False

    @property
    def arrow(self) -> str:
        """The direction in two characters, as the exported text files have it."""
        return "::" if self.sent is None else "->" if self.sent else "<-"

    def __str__(self) -> str:
        """Bus, component, direction and words, on one line; the time is the reader's to put ahead."""
        return plain(" ".join(filter(None, (self.bus, self.part, self.arrow, self.words))))

    def document(self) -> dict[str, Any]:
        """As values of JSON."""
        return {
            "kind": "message",
            "time": self.time,
            "bus": self.bus,
            "component": self.part,
            "sent": self.sent,
            "words": self.words,
            "data": self.data.hex(),
            "failed": self.failed,
        }


class Said(NamedTuple):
    """What a message says. `failed`: as `Line` has it."""

    words: str
    failed: bool = False


class Describer(ABC):
    """Describes the messages of one part. `part`: its name in the bench file."""

    addressed: ClassVar[bool] = False
    """Whether it knows its part's messages from those of other parts on the bus."""

    secret = False
    """Whether the record that it took last holds something that is not to be shown, such as a key."""

    def __init__(self, part: str = "") -> None:
        self.part = part

    @abstractmethod
    def take(self, record: Record) -> Iterable[Line] | None:
        """The messages that end with this record, often none; None: the record is not of this part, or not of this protocol."""

    def end(self) -> Iterable[Line]:
        """The messages that have begun and not ended. They are forgotten."""
        return ()

    def line(self, record: Record, sent: bool | None, said: Said, data: bytes = b"") -> Line:
        """The line of a message whose last record this is."""
        return Line(record.time, record.bus, sent, said.words, bytes(data), self.part, said.failed)


class StreamDescriber(Describer):
    """Base for protocols on a serial line: cuts what each side sends into messages, however it was read and written."""

    half_duplex: ClassVar[bool] = True
    """Whether a side that is answered has ended its message. What is left of it then is shown as it is."""

    def __init__(self, part: str = "") -> None:
        super().__init__(part)
        self._kept = {True: bytearray(), False: bytearray()}
        self._last: dict[bool, SerialBytes] = {}

    @abstractmethod
    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        """The length of the first message of `data`, which is not empty, and what it says; None: its end has not come.

        `ended`: nothing more will come, so None means that there is no message. A message without words makes no line.
        """

    def take(self, record: Record) -> Iterable[Line] | None:
        if isinstance(record, SerialLine):
            return [self.line(record, None, _changed(record))]
        if not isinstance(record, SerialBytes):
            return None
        found: list[Line] = []
        if self.half_duplex and self._kept[not record.outgoing]:
            found += self._taken(not record.outgoing, ended=True)
        self._kept[record.outgoing] += record.data
        self._last[record.outgoing] = record
        return [*found, *self._taken(record.outgoing, ended=False)]

    def end(self) -> Iterable[Line]:
        return [line for sent in (True, False) for line in self._taken(sent, ended=True)]

    def _taken(self, sent: bool, ended: bool) -> Iterator[Line]:
        kept = self._kept[sent]
        while kept:
            cut = self.cut(sent, kept, ended)
            if cut is None and not ended and len(kept) <= LONGEST_MESSAGE:
                return
            size, said = cut or (len(kept), Said(f"unknown: {shown(kept)}"))
            data = bytes(kept[:size])
            del kept[:size]
            if said.words:
                yield self.line(self._last[sent], sent, said, data)


class Describing:
    """Puts the describers of several buses together. `describers`: of each bus, the first that knows a record takes it.

    `others`: whether what none of them knows is shown as bytes.
    """

    def __init__(self, describers: Mapping[str, Sequence[Describer]], *, others: bool = True) -> None:
        self._describers = describers
        self._others = others
        self.secret = False
        """As `Describer` has it, of the record that was taken last."""

    def take(self, record: Record) -> Iterable[Line]:
        """The messages that end with this record."""
        for describer in self._describers.get(record.bus, ()):
            found = describer.take(record)
            if found is not None:
                self.secret = describer.secret
                return found
        self.secret = False
        return (plainly(record),) if self._others else ()

    def end(self) -> Iterator[Line]:
        """The messages that have begun and not ended."""
        for describers in self._describers.values():
            for describer in describers:
                yield from describer.end()


def described(records: Iterable[Record], describers: Mapping[str, Sequence[Describer]]) -> Iterator[Line]:
    """The lines of a recording, in the order of their times."""
    describing = Describing(describers)
    for record in records:
        yield from describing.take(record)
    yield from describing.end()


def message_with(
    wanted: Record, records: Iterable[Record], describers: Mapping[str, Sequence[Describer]]
) -> tuple[str, bool]:
    """The message that one of the records is of, and whether that record holds something that is not to be shown.

    Of a record of several messages all of them, in words; "": no describer knows them.
    """
    describing = Describing(describers, others=False)
    is_secret: bool | None = None
    for record in records:
        lines = describing.take(record)
        if record is wanted:
            is_secret = describing.secret
        if is_secret is not None and (words := _words_like(wanted, record, lines)):
            return words, is_secret
    # On CAN a message that has not ended may be one of other ids.
    words = "" if isinstance(wanted, CanFrame) else _words_like(wanted, wanted, describing.end())
    return words, bool(is_secret)


def _words_like(wanted: Record, record: Record, lines: Iterable[Line]) -> str:
    """The words of the lines that a record ends, if these are of the same bus and side as another record."""
    if isinstance(wanted, CanFrame) and (not isinstance(record, CanFrame) or id_text(record) != id_text(wanted)):
        return ""
    sent = plainly(wanted).sent
    return "; ".join(line.words for line in lines if line.bus == wanted.bus and line.sent == sent)


def plainly(record: Record) -> Line:
    """A record whose protocol is not known: its bytes."""
    sent: bool | None = None
    data = b""
    match record:
        case CanFrame():
            sent, data = record.outgoing, record.data
            words = frame_words(record)
        case SerialBytes():
            sent, data = record.outgoing, record.data
            words = f"{'discarded: ' if record.drained else ''}{_dumped(record.data)}"
        case SerialLine():
            words = _changed(record).words
        case UsbControl():
            sent, data = not record.incoming, record.data
            words = plain(record.shown(), 4 * MOST_PLAIN)
        case UsbDevices():
            words = plain(record.shown(), 4 * MOST_PLAIN)
        case Note():
            words = word(record.text)
        case Answer():
            question, text = without_key(record.question, record.text)
            words = f"{word(question)}: {'failed: ' if record.failed else ''}{word(text)}"
        case _:
            words = word(record.shown() or record.kind)
    failed = (isinstance(record, UsbControl) and record.status != 0) or (isinstance(record, Answer) and record.failed)
    return Line(record.time, record.bus, sent, words, data, failed=failed)


def id_text(frame: CanFrame) -> str:
    """Three digits of an 11-bit id, eight of a 29-bit id, as candump shows them."""
    return f"{frame.can_id:08X}" if frame.flags & EXTENDED else f"{frame.can_id:03X}"


def frame_words(frame: CanFrame) -> str:
    """A CAN frame as candump shows one: its id, its length and its bytes."""
    if frame.flags & ERROR:
        return f"error frame 0x{frame.can_id:08X} {frame.data.hex(' ').upper()}"
    number = id_text(frame)
    if frame.flags & REMOTE:
        return f"{number} remote request, {len(frame.data)} bytes"
    fd = " FD" if frame.flags & FD else ""
    return f"{number}{fd} [{len(frame.data)}] {frame.data.hex(' ').upper()}".rstrip()


def shown(data: bytes | bytearray | memoryview, most: int = MOST_SHOWN) -> str:
    """A value for a person: a text in quotes if all of it is one, else its bytes. Of a long value the first bytes."""
    head = bytes(data[:most])
    more = f" ... ({len(data):,} bytes)" if len(data) > most else ""
    if len(head) > 2 and all(0x20 <= byte < 0x7F for byte in head):
        return f'"{head.decode("ascii")}"{more}'
    return f"{head.hex(' ').upper()}{more}" if head else "nothing"


def name_in(names: Mapping[Any, str], number: int, digits: int = 2) -> str:
    """The name that a document gives a number, or the number itself."""
    return names.get(number) or f"0x{number:0{digits}X}"


def _changed(record: SerialLine) -> Said:
    made = (
        f"{key.upper()} {'on' if value else 'off'}" if key in ("dtr", "rts") else f"{key} {value}"
        for key, value in record.changes
    )
    return Said(word(", ".join(made)))


def _dumped(data: bytes) -> str:
    head = data[:MOST_PLAIN]
    characters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in head)
    more = f" ... ({len(data):,} bytes)" if len(data) > MOST_PLAIN else ""
    return f"{head.hex(' ').upper()}  |{characters}|{more}"
