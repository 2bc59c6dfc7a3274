"""Recordings as files. One format keeps everything and can be loaded again; the others are for other programs.

`recording.jsonl` has a JSON object a line: a head, then one for each record, in the order of their times. Times are
seconds since 1970 with microseconds, bytes are hexadecimal, a name that is not there is the default. The other files:

- `can.log`: candump's log format (can-utils, `man candump`, option -l), which canplayer and python-can read;
- `recording.pcapng`: for Wireshark, see `pcapng`;
- `serial.txt`, `usb.txt`: what passed, a line each, for a person.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .. import json_text, named_files, private_files
from ..errors import ExitStatus, ProxyflashError
from ..plain import plain, quoted, word
from .pcapng import write_pcapng
from .records import (
    CAN_EFF,
    Answer,
    CanFlag,
    CanFrame,
    Note,
    Record,
    SerialBytes,
    SerialLine,
    UsbControl,
    UsbDevices,
    UsbSeen,
    fd_flags,
    raw_id,
)

FORMAT = "proxyflash recording"
SCHEMA = 1
LONGEST_LINE = 1 << 20
"""Bytes of a line of the file; a transfer has 64 KiB at most."""
MOST_BYTES = 1 << 31
MOST_RECORDS = 6_000_000
"""Bytes and records of a recording that is read: more than `record` keeps."""
MOST_ARGUMENTS = 1000
LONGEST_WORD = 4096
"""Characters of an argument."""
BUS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""As the bench file has it."""
LAST_TIME = 1 << 32
"""Seconds since 1970 that a recording may have: what the exported formats have room for."""
LONGEST_TRANSFER = 86_400
"""Seconds that a transfer may take."""
HIGHEST_RATE = 1_000_000_000
"""Bit/s of a serial line."""
CONFIGURATION_BYTES = (9, 0xFFFF)
"""Of a USB configuration's descriptor, with what follows it: its own bytes, and what wTotalLength can say (USB 2.0, 9.6.3)."""
_SHA256 = re.compile("[0-9a-f]{64}")
_CAN_ID = re.compile("[0-9A-Fa-f]{1,8}")
LONGEST_NAME = 15
"""Characters of a network interface's name (Linux, IFNAMSIZ without its end); can-utils take no more."""


class BadRecording(ProxyflashError):
    """A file that is no recording, or a broken one."""

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
    """Writes the format that `load` reads, for its owner alone; a file that was there is replaced whole. Raises OSError."""
    first = {"format": FORMAT, "schema": SCHEMA, "dropped": dropped, **(head or {})}
    with private_files.whole(path) as file:
        file.write(json.dumps(first).encode() + b"\n")
        for record in records:
            file.write(json.dumps(_as_json(record)).encode() + b"\n")


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
    gone.
    """
    private_files.output_folder(folder)
    files = [folder / "recording.jsonl"]
    save(records, files[0], dropped=dropped)
    texts = {"can.log": candump_log(records), "serial.txt": serial_text(records), "usb.txt": usb_text(records)}
    for name, lines in texts.items():
        text = "".join(f"{line}\n" for line in lines)
        (folder / name).unlink(missing_ok=True)
        if text:
            files.append(folder / name)
            with private_files.whole(files[-1]) as file:
                file.write(text.encode())
    (folder / "recording.pcapng").unlink(missing_ok=True)
    if any(isinstance(record, (CanFrame, SerialBytes, UsbControl)) for record in records):
        files.append(folder / "recording.pcapng")
        with private_files.whole(files[-1]) as file:
            write_pcapng(records, file)
    return files


# The format that is loaded again.


def _as_json(record: Record) -> dict[str, Any]:
    made: dict[str, Any] = {"time": record.time, "bus": record.bus, "kind": record.kind}
    match record:
        case CanFrame():
            made |= {"out": record.outgoing, "id": f"{record.can_id:X}", "data": record.data.hex()}
            if record.flags:
                made["flags"] = [flag.name.lower() for flag in CanFlag if record.flags & flag and flag.name]
        case SerialBytes():
            made |= {"out": record.outgoing, "data": record.data.hex()}
            if record.drained:
                made["drained"] = True
        case SerialLine():
            made["changes"] = dict(record.changes)
        case UsbControl():
            made |= {"root": record.root, "address": record.address, "setup": record.setup.hex()}
            made |= {"data": record.data.hex(), "status": record.status, "seconds": record.seconds}
        case UsbDevices():
            made["devices"] = [
                {
                    "root": seen.root,
                    "address": seen.address,
                    "ports": list(seen.ports),
                    "speed": seen.speed,
                    "device": seen.device.hex(),
                    "configurations": [item.hex() for item in seen.configurations],
                }
                for seen in record.devices
            ]
        case Note():
            made["text"] = record.text
        case Answer():
            made |= {"question": record.question, "text": record.text}
            if record.failed:
                made["failed"] = True
    return made


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
        raise BadRecording(f"{name}:1: this is no recording of proxyflash", remedy="Name a recording.")
    schema = value.pop("schema", None)
    if type(schema) is not int or schema != SCHEMA:
        raise BadRecording(f"{name}:1: schema {quoted(schema)} is not known here", remedy="Is this proxyflash too old?")
    dropped = value.pop("dropped", 0)
    if type(dropped) is not int or not 0 <= dropped < 1 << 63:
        raise BadRecording(f"{name}:1: dropped = {quoted(dropped)} is no count")
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


class _Fields:
    """Takes fields of one line, of the type that is wanted; nothing may be left."""

    def __init__(self, value: dict[str, Any]) -> None:
        self._value = value

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        value = self._value.pop(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"{key} = {quoted(value)}")
        return value

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value: int = self.take(key, int, default)
        if not low <= value <= high:
            raise ValueError(f"{key} = {quoted(value)}")
        return value

    def seconds(self, key: str, most: float) -> float:
        value: float = self.take(key, float)
        if not 0 <= value < most:
            raise ValueError(f"{key} = {value}")
        return value

    def bus(self, *, optional: bool) -> str:
        """The name of a bus as a bench file may have it, which is short and has nothing to be escaped."""
        value: str = self.take("bus", str)
        if not BUS_NAME.fullmatch(value) and not (optional and value == ""):
            raise ValueError(f"bus = {quoted(value)} is no name of a bus")
        return value

    def data(self, key: str, longest: int) -> bytes:
        value = bytes.fromhex(self.take(key, str))
        if len(value) > longest:
            raise ValueError(f"{key} has {len(value)} bytes")
        return value

    def end(self) -> None:
        if self._value:
            raise ValueError(f"{quoted(next(iter(self._value)))} is not known")


def _record(name: str, number: int, value: dict[str, Any]) -> Record:
    fields = _Fields(value)
    try:
        record = _parsed(fields)
        fields.end()
        return record
    except (ValueError, OverflowError) as error:
        raise BadRecording(f"{name}:{number}: no record: {error}") from error


def _parsed(fields: _Fields) -> Record:
    kind = fields.take("kind", str)
    when = fields.seconds("time", LAST_TIME), fields.bus(optional=kind in ("note", "answer"))
    match kind:
        case "can":
            return _can_frame(when, fields)
        case "serial":
            data = fields.data("data", 1 << 18)
            return SerialBytes(*when, fields.take("out", bool), data, fields.take("drained", bool, False))
        case "line":
            return SerialLine(*when, tuple(_changes(fields.take("changes", dict))))
        case "usb":
            root, address = fields.number("root", 0, 0xFFFF), fields.number("address", 0, 0xFF)
            setup, data = fields.data("setup", 8), fields.data("data", 0xFFFF)
            if len(setup) != 8:
                raise ValueError("setup is not 8 bytes")
            status = fields.number("status", -4095, 0)
            return UsbControl(*when, root, address, setup, data, status, fields.seconds("seconds", LONGEST_TRANSFER))
        case "devices":
            return UsbDevices(*when, tuple(map(_seen, fields.take("devices", list))))
        case "note":
            return Note(*when, fields.take("text", str))
        case "answer":
            texts = fields.take("question", str), fields.take("text", str)
            return Answer(*when, *texts, fields.take("failed", bool, False))
    raise ValueError(f"kind = {quoted(kind)}")


def _can_frame(when: tuple[float, str], fields: _Fields) -> CanFrame:
    flags = CanFlag(0)
    for name in fields.take("flags", list, []):
        flag = CanFlag.__members__.get(str(name).upper())
        if flag is None:
            raise ValueError(f"flag {quoted(name)}")
        flags |= flag
    text = fields.take("id", str)
    can_id = int(text, 16) if _CAN_ID.fullmatch(text) else -1
    extended = flags & (CanFlag.EXTENDED | CanFlag.ERROR)
    if not 0 <= can_id <= (0x1FFF_FFFF if extended else 0x7FF):
        raise ValueError(f"id = {quoted(text)}")
    return CanFrame(
        *when, fields.take("out", bool), can_id, int(flags), fields.data("data", 64 if flags & CanFlag.FD else 8)
    )


def _changes(value: dict[str, Any]) -> Iterator[tuple[str, int | str]]:
    for key, item in value.items():
        match key:
            case "baudrate":
                holds = type(item) is int and 0 < item <= HIGHEST_RATE
            case "parity":
                holds = item in ("N", "E", "O", "M", "S")
            case "dtr" | "rts":
                holds = type(item) is bool
            case _:
                holds = False
        if not holds:
            raise ValueError(f"changes.{word(key)} = {quoted(item)}")
        yield key, item


def _seen(value: Any) -> UsbSeen:
    if not isinstance(value, dict):
        raise ValueError("a device is no object")
    fields = _Fields(dict(value))
    ports = fields.take("ports", list)
    if not all(type(port) is int and 0 <= port <= 255 for port in ports):
        raise ValueError("ports are no numbers")
    device = fields.data("device", 18)
    configurations = fields.take("configurations", list)
    if len(device) != 18 or not all(isinstance(item, str) for item in configurations):
        raise ValueError("descriptors are wrong")
    parsed = tuple(map(bytes.fromhex, configurations))
    if any(not CONFIGURATION_BYTES[0] <= len(item) <= CONFIGURATION_BYTES[1] for item in parsed):
        raise ValueError("a configuration's descriptor is too short or too long")
    seen = UsbSeen(
        fields.number("root", 0, 0xFFFF),
        fields.number("address", 0, 0xFF),
        tuple(ports),
        fields.number("speed", 0, 255),
        device,
        parsed,
    )
    fields.end()
    return seen


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


def _clock(record: Record) -> str:
    whole = int(record.time)
    micro = min(round((record.time - whole) * 1e6), 999_999)
    return f"{time.strftime('%H:%M:%S', time.gmtime(whole))}.{micro:06d} {plain(record.bus)}"


def serial_text(records: Iterable[Record]) -> Iterator[str]:
    """What passed on serial lines: UTC, bus, direction, bytes in hex and as ASCII."""
    for record in records:
        if isinstance(record, SerialBytes):
            shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in record.data)
            arrow = "->" if record.outgoing else "<x" if record.drained else "<-"
            yield f"{_clock(record)} {arrow} {record.data.hex(' ').upper()}  |{shown}|"
        elif isinstance(record, SerialLine):
            yield f"{_clock(record)} :: {plain(' '.join(f'{key}={value}' for key, value in record.changes))}"


def usb_text(records: Iterable[Record]) -> Iterator[str]:
    """What passed on USB: UTC, bus, the device, the setup packet, the direction of the data and the data."""
    for record in records:
        if isinstance(record, UsbControl):
            arrow = "<-" if record.incoming else "->"
            failed = f" {os.strerror(-record.status)}" if record.status else ""
            place = f"{record.root}.{record.address}"
            data = f" {record.data.hex(' ')}" if record.data else ""
            yield f"{_clock(record)} {place} {record.setup.hex(' ')} {arrow}{data}{failed}"
        elif isinstance(record, UsbDevices):
            listed = ", ".join(
                f"{seen.root}.{seen.address} {seen.device[9]:02x}{seen.device[8]:02x}:"
                f"{seen.device[11]:02x}{seen.device[10]:02x}"
                for seen in record.devices
            )
            yield f"{_clock(record)} devices: {listed or 'none'}"
