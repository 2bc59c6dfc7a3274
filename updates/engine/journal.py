"""The journal of one update: JSON lines, appended to only, each with a checksum, on the disk before what they announce.

A line is one JSON object: `seq` (from 1, without a gap), `time` (UTC, for people: the clock may be set), `up` (seconds of the
monotonic clock), `kind`, what belongs to the kind, and last `crc`, the CRC-32 of the line without it, in hex. An interrupted
write leaves lines at the end whose `crc` is wrong: they are taken as never written. Such a line before good lines is damage.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from ...transports import clock, json_text, private_files
from ...transports.errors import NextAction, Remedy
from ..errors import JournalBroken, JournalNotWritten
from . import disk

NAME = "journal.jsonl"
LONGEST_LINE = 64 << 20
"""Bytes. The longest lists the components that an update selects."""
LONGEST_UP = 1e10
"""Seconds; more than any host runs."""
_TAIL = len(b',"crc":"01234567"}')

Record = dict[str, Any]


class Journal:
    """An open journal. One process has it at a time: the bench's lock sees to that."""

    def __init__(self, path: Path, descriptor: int, written: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._written = written
        self._failed = False

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new one, whose name is on the disk when this returns. Raises JournalNotWritten."""
        try:
            descriptor = private_files.opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        except OSError as error:
            raise _not_written(path, error) from error
        journal = cls(path, descriptor, 0)
        try:
            disk.sync_folder(path.parent)
        except OSError as error:
            journal.close()
            raise _not_written(path, error) from error
        return journal

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Opens an existing journal, to go on with; a torn line at its end is taken away.

        Raises JournalBroken, JournalNotWritten.
        """
        count, good = 0, 0
        for _, end in _lines(path):
            count, good = count + 1, end
        try:
            descriptor = private_files.opened(path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise _not_written(path, error) from error
        try:
            if os.fstat(descriptor).st_size > good:
                os.ftruncate(descriptor, good)
                os.fsync(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise _not_written(path, error) from error
        return cls(path, descriptor, count)

    def append(self, kind: str, fields: Mapping[str, Any], *, sync: bool = True) -> Record:
        """Adds a record; with `sync` it is on the disk when this returns. Raises JournalNotWritten; then it takes no more."""
        if self._failed:
            raise JournalNotWritten(f"{self.path} could not be written before")
        now = clock.now().isoformat(timespec="milliseconds")
        record = {"seq": self._written + 1, "time": now, "up": round(clock.monotonic(), 3), "kind": kind, **fields}
        try:
            _write(self._descriptor, encoded(record))
            if sync:
                os.fsync(self._descriptor)
        except OSError as error:
            # What is there now may be half a line: nothing may follow it.
            self._failed = True
            self.close()
            raise _not_written(self.path, error) from error
        self._written += 1
        return record

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def records(path: Path) -> Iterator[Record]:
    """The records of a journal, one after the other. Raises JournalBroken."""
    return (record for record, _ in _lines(path))


def timed(records: Iterable[Record]) -> Iterator[tuple[float, Record]]:
    """Each record with its seconds since 1970, by the first record's `time` and the durations from there on.

    Within one boot durations are of `up`, so a clock that is set changes nothing. Between boots, and in a journal of an earlier
    version, they are of `time`. If the clock went back, or was before the manifest was made, the duration is not known: 0.
    """
    at = made = 0.0
    last_wall: float | None = None
    last_up: float | None = None
    boot: object = None
    for record in records:
        wall, up = datetime.fromisoformat(record["time"]).timestamp(), _up(record)
        same_boot, boot = record.get("boot", boot) == boot, record.get("boot", boot)
        if last_wall is None:
            at, made = wall, _made(record)
        elif up is not None and last_up is not None and same_boot and up >= last_up:
            at += up - last_up
        elif last_wall >= made:
            at += max(0.0, wall - last_wall)
        last_wall, last_up = wall, up
        yield at, record


def _up(record: Record) -> float | None:
    """None: it has none, or a value that is not a number of seconds."""
    up: object = record.get("up")
    if isinstance(up, bool) or not isinstance(up, int | float) or not 0 <= up < LONGEST_UP:
        return None
    return float(up)


def _made(begin: Record) -> float:
    """When the manifest of an update was made, less a day: no clock of its run was right before that. 0.0: not known."""
    try:
        made = datetime.fromisoformat(begin["created"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    return made.timestamp() - 86_400 if made.tzinfo is not None else 0.0


def encoded(record: Mapping[str, Any]) -> bytes:
    """A record as its line."""
    body = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def decoded(line: bytes) -> Record | None:
    """The record of a line; None: the line is not whole."""
    if not line.endswith(b'"}\n') or line[-_TAIL - 1 : -11] != b',"crc":"':
        return None
    body = line[: -_TAIL - 1] + b"}"
    if line[-11:-3] != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = json_text.parse(body, most=LONGEST_LINE, undecoded=True)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _lines(path: Path) -> Iterator[tuple[Record, int]]:
    """The records with the offset behind each, up to what a cut left. Raises JournalBroken."""
    bad, number, offset = 0, 0, 0
    try:
        with private_files.reading(path) as stream:
            while line := stream.readline(LONGEST_LINE):
                number += 1
                record = decoded(line)
                if record is None:
                    bad = bad or number
                    continue
                if bad or record.get("seq") != number:
                    raise JournalBroken(f"{path}: line {bad or number} is damaged, and later ones are not")
                if not _dated(record):
                    raise JournalBroken(f"{path}: line {number} has no time of ISO 8601 with its zone")
                offset += len(line)
                yield record, offset
    except OSError as error:
        raise JournalBroken(f"{path}: {error.strerror}") from error


def _dated(record: Record) -> bool:
    """Whether it has its time, with a zone: others can't be compared with it."""
    try:
        return datetime.fromisoformat(record["time"]).tzinfo is not None
    except (KeyError, TypeError, ValueError):
        return False


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _not_written(path: Path, error: OSError) -> JournalNotWritten:
    room: Remedy = (f"{private_files.MAKE_ROOM}, then go on: ", NextAction.RESUME)
    return JournalNotWritten(f"{path}: {error.strerror}", remedy=room if error.errno in private_files.FULL else None)
