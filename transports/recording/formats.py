"""Recordings as files. One format keeps everything and can be loaded again; the others are for other programs.

`recording.jsonl` has a JSON object a line: a head, then one for each record, in the order of their times. Times are
seconds since 1970 with microseconds, bytes are hexadecimal, a name that is not there is the default. The other files:

- `can.log`: candump's log format (can-utils, `man candump`, option -l), which canplayer and python-can read;
- `recording.pcapng`: for Wireshark, see `pcapng`;
- `serial.txt`, `usb.txt` and those of other kinds of records: what passed, a line each, for a person.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from .. import json_text, named_files, plugins, private_files
from ..errors import ExitStatus, ProxyflashError
from ..plain import quoted
from .pcapng import PCAPNG_RECORDS, write_pcapng
from .records import BUS_NAME, CAN_EFF, CanFlag, CanFrame, Fields, Record, fd_flags, raw_id

FORMAT = "proxyflash recording"
PCAPNG = "recording.pcapng"
SCHEMA = 1
_BEGIN = re.compile(re.escape(f'{{"format": "{FORMAT}",'.encode()))
LONGEST_LINE = 1 << 20
"""Bytes of a line of the file; a transfer has 64 KiB at most."""
MOST_BYTES = 1 << 31
MOST_RECORDS = 6_000_000
"""Bytes and records of a recording that is read: more than `record` keeps."""
MOST_ARGUMENTS = 1000
LONGEST_WORD = 4096
"""Characters of an argument."""
LAST_TIME = 1 << 32
"""Seconds since 1970 that a recording may have: what the exported formats have room for."""
_SHA256 = re.compile("[0-9a-f]{64}")
LONGEST_NAME = 15
"""Characters of a network interface's name (Linux, IFNAMSIZ without its end); can-utils take no more."""


class BadRecording(ProxyflashError):
    """A recording is missing, broken, or of another kind. The message names the file and the line."""

    code = "E-RECORDING"
    exit_status = ExitStatus.BAD_FILE
    default_remedy = "Record it again: proxyflash record FILE -- COMMAND"


@dataclass(frozen=True, slots=True)
class Recording:
    """A loaded recording. `head`: what its first line says beside the format. `dropped`: records lost at its start."""

    records: tuple[Record, ...]
    head: Mapping[str, Any] = field(default_factory=dict)
    dropped: int = 0


def save(records: Iterable[Record], path: Path, *, head: Mapping[str, Any] | None = None, dropped: int = 0) -> None:
    """Writes the format that `load` reads, for its owner alone; a recording that was there is replaced whole.

    Raises OSError, also where something else is there.
    """
    refuse_other(path)
    with private_files.whole(path) as file:
        file.write(head_line(head, dropped))
        file.writelines(map(record_line, records))


def refuse_other(path: Path) -> None:
    """A recording replaces a recording or an empty file. Raises OSError where something else is there."""
    named_files.refuse_other(path, _BEGIN.match, "a recording of proxyflash")


def head_line(head: Mapping[str, Any] | None = None, dropped: int = 0) -> bytes:
    """The first line of a recording."""
    return json.dumps({"format": FORMAT, "schema": SCHEMA, "dropped": dropped, **(head or {})}).encode() + b"\n"


def record_line(record: Record) -> bytes:
    """The line of one record."""
    made = {"time": record.time, "bus": record.bus, "kind": record.kind, **record.fields()}
    return json.dumps(made).encode() + b"\n"


def load(path: Path) -> Recording:
    """Reads what `save` wrote. Raises BadRecording, with the line where it broke."""
    try:
        with named_files.opened(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise BadRecording(
                    f"{path}: this has more than {MOST_BYTES:,} bytes", remedy="Name a shorter recording."
                )
            return read(file, str(path))
    except OSError as error:
        raise BadRecording(f"{path}: {error.strerror or error}", remedy="Name a recording.") from error
    except ValueError as error:  # A path with a zero byte.
        raise BadRecording(f"{path}: {error}", remedy="Name a recording.") from error


def read(file: BinaryIO, name: str) -> Recording:
    """Reads what `save` wrote from an open file, called `name` in errors. Raises OSError, BadRecording."""
    records: list[Record] = []
    line = file.readline(LONGEST_LINE)
    head, dropped = _head(name, _line(name, 1, line))
    number, size = 1, len(line)
    while line := file.readline(LONGEST_LINE):
        number += 1
        size += len(line)
        if size > MOST_BYTES or len(records) >= MOST_RECORDS:
            most = f"{MOST_BYTES:,} bytes or {MOST_RECORDS:,} records"
            raise BadRecording(f"{name}:{number}: this has more than {most}", remedy="Name a shorter recording.")
        records.append(_record(name, number, _line(name, number, line)))
    return Recording(tuple(records), head, dropped)


def save_all(records: Sequence[Record], folder: Path, *, dropped: int = 0) -> list[Path]:
    """Writes all formats into a folder, each only if it has something to hold; the files. Raises OSError.

    The files are for their owner alone, and so is the folder if it is made here. What an earlier recording left there is
    gone; files of these names that no recording left there are an error.
    """
    # With those that no record of this recording has, so that nothing is left of an earlier one.
    texts: dict[str, list[str]] = {"can.log": list(candump_log(records)), "serial.txt": [], "usb.txt": []}
    for record in records:
        if record.text_file:
            texts.setdefault(record.text_file, []).append(record.line)
    private_files.output_folder(folder)
    files = [folder / "recording.jsonl"]
    if not files[0].exists():
        for name in (*texts, PCAPNG):
            named_files.refuse_present(folder / name)
    save(records, files[0], dropped=dropped)
    for name, lines in texts.items():
        text = "".join(f"{line}\n" for line in lines)
        (folder / name).unlink(missing_ok=True)
        if text:
            files.append(folder / name)
            with private_files.whole(files[-1]) as file:
                file.write(text.encode())
    (folder / PCAPNG).unlink(missing_ok=True)
    if any(isinstance(record, PCAPNG_RECORDS) for record in records):
        files.append(folder / PCAPNG)
        with private_files.whole(files[-1]) as file:
            write_pcapng(records, file)
    return files


# The format that is loaded again.


def _line(name: str, number: int, line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise BadRecording(f"{name}:{number}: the file ends in the middle of a line, or the line is too long")
    try:
        value = json_text.parse(line, most=LONGEST_LINE, undecoded=True)
    except ValueError as error:
        raise BadRecording(f"{name}:{number}: no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRecording(f"{name}:{number}: no JSON object")
    return value


def _head(name: str, value: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """What the first line says beside the format, and how many records were dropped."""
    if value.pop("format", None) != FORMAT:
        raise BadRecording(f"{name}:1: this is not a recording of proxyflash", remedy="Name a recording.")
    schema = value.pop("schema", None)
    if type(schema) is not int or schema != SCHEMA:
        raise BadRecording(f"{name}:1: schema {quoted(schema)} is not known here", remedy="Is this proxyflash too old?")
    dropped = value.pop("dropped", 0)
    if type(dropped) is not int or not 0 <= dropped < 1 << 63:
        raise BadRecording(f"{name}:1: dropped = {quoted(dropped)} is not a count")
    arguments = value.get("arguments", [])
    # Without arguments there is no command that the files could belong to.
    count = len(arguments) if isinstance(arguments, list) and arguments else MOST_ARGUMENTS
    holds = {
        "arguments": _are(arguments, _is_word) and len(arguments) <= MOST_ARGUMENTS,
        "files": _are(value.get("files", []), lambda item: _is_file(item, count)),
        "status": type(value.get("status", 0)) is int and 0 <= value.get("status", 0) <= 255,
        "bench": _is_bench(value.get("bench", {})),
    }
    for key, holding in holds.items():
        if not holding:
            raise BadRecording(f"{name}:1: {key} = {quoted(value.get(key))} is not what record writes")
    return value, dropped


def _are(value: object, test: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(test, value))


def _is_word(value: object) -> bool:
    """An argument of a command line as the system may have it: not without end, no zero byte, no half a character."""
    try:
        return isinstance(value, str) and len(value) <= LONGEST_WORD and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _is_file(value: object, count: int) -> bool:
    if not isinstance(value, dict) or value.keys() != {"argument", "sha256"}:
        return False
    index, digest = value["argument"], value["sha256"]
    return type(index) is int and 0 <= index < count and isinstance(digest, str) and bool(_SHA256.fullmatch(digest))


def _is_bench(value: object) -> bool:
    """{}, or the bench file's name and text."""
    if not isinstance(value, dict) or value.keys() not in (set(), {"name", "text"}):
        return False
    try:
        return all(isinstance(item, str) and item.encode() is not None for item in value.values())
    except UnicodeEncodeError:
        return False


def _record(name: str, number: int, value: dict[str, Any]) -> Record:
    fields = Fields(value)
    try:
        kind = _kind(fields.take("kind", str))
        record = kind.parse(fields.seconds("time", LAST_TIME), fields.bus(optional=not kind.of_bus), fields)
        fields.end()
        return record
    except (ValueError, OverflowError) as error:
        raise BadRecording(f"{name}:{number}: no record: {error}") from error


@cache
def _kind(name: str) -> type[Record]:
    """Raises ValueError, PluginBroken."""
    if name not in plugins.names(plugins.RECORDS):
        raise ValueError(f"kind = {quoted(name)}")
    kind: type[Record] = plugins.load(plugins.RECORDS, name)
    return kind


# For other programs, and for people.


def candump_log(records: Iterable[Record]) -> Iterator[str]:
    """The CAN frames as lines of candump's log, with R for what came in and T for what went out."""
    names = interface_names(records := list(records))
    for record in records:
        if isinstance(record, CanFrame):
            direction = "T" if record.outgoing else "R"
            yield f"({record.time:.6f}) {names[record.bus]} {frame_text(record)} {direction}"


def interface_names(records: Iterable[Record]) -> dict[str, str]:
    """For each CAN bus a name that a network interface may have; "can0", "can1" for those that may not."""
    buses = sorted({record.bus for record in records if isinstance(record, CanFrame)})
    names: dict[str, str] = {bus: bus for bus in buses if len(bus) <= LONGEST_NAME and BUS_NAME.fullmatch(bus)}
    free = (f"can{number}" for number in range(len(buses) * 2))
    for bus in buses:
        if bus not in names:
            names[bus] = next(name for name in free if name not in names)
    return names


def frame_text(frame: CanFrame) -> str:
    """A frame as can-utils write it: 123#DEADBEEF, 123##1DEADBEEF for FD with its flags, 123#R4 for remote frames."""
    extended = frame.flags & (CanFlag.EXTENDED | CanFlag.ERROR)
    can_id = f"{raw_id(frame) & ~CAN_EFF:08X}" if extended else f"{frame.can_id:03X}"
    if frame.flags & CanFlag.REMOTE:
        return f"{can_id}#R{len(frame.data) or ''}"
    if frame.flags & CanFlag.FD:
        return f"{can_id}##{fd_flags(frame):X}{frame.data.hex().upper()}"
    return f"{can_id}#{frame.data.hex().upper()}"
