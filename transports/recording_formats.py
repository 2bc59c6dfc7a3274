"""Recordings as files. One format keeps everything and can be loaded again; the others are for other programs.

`recording.jsonl` has a JSON object a line: a head, then one for each record, in the order of their times. Times are
seconds since 1970 with microseconds, bytes are hexadecimal, a name that is not there is the default. The other files:

- `can.log`: candump's log format (can-utils, `man candump`, option -l), which canplayer and python-can read;
- `recording.pcapng`: for Wireshark, see `recording_pcapng`;
- `serial.txt`, `usb.txt`: what passed, a line each, for a person.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ExitStatus, ProxyflashError
from .recording import CanFlag, CanFrame, Note, Record, SerialBytes, SerialLine, UsbControl, UsbDevices, UsbSeen

FORMAT = "proxyflash recording"
SCHEMA = 1
LONGEST_LINE = 1 << 20
"""Characters of a line of the file; a transfer has 64 KiB at most."""
LONGEST_NAME = 15
"""Characters of a network interface's name (Linux, IFNAMSIZ without its end); can-utils take no more."""
_CAN_EFF, _CAN_RTR, _CAN_ERR = 0x8000_0000, 0x4000_0000, 0x2000_0000
"""Linux, include/uapi/linux/can.h."""


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
    """Writes the format that `load` reads; a file that was there is replaced whole. Raises OSError."""
    first = {"format": FORMAT, "schema": SCHEMA, "dropped": dropped, **(head or {})}
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(first) + "\n")
        for record in records:
            file.write(json.dumps(_as_json(record)) + "\n")
    part.replace(path)


def load(path: Path) -> Recording:
    """Reads what `save` wrote. Raises BadRecording, with the line where it broke."""
    records: list[Record] = []
    try:
        with path.open("rb") as file:
            head = _head(path, _line(path, 1, file.readline(LONGEST_LINE)))
            number = 1
            while line := file.readline(LONGEST_LINE):
                number += 1
                records.append(_record(path, number, _line(path, number, line)))
    except OSError as error:
        raise BadRecording(f"{path}: {error.strerror or error}", remedy="Name a recording.") from error
    dropped = head.pop("dropped", 0)
    if type(dropped) is not int or dropped < 0:
        raise BadRecording(f"{path}:1: dropped = {dropped!r} is no count")
    return Recording(tuple(records), head, dropped)


def save_all(records: Sequence[Record], folder: Path, *, dropped: int = 0) -> list[Path]:
    """Writes all formats into a folder, each only if it has something to hold; the files. Raises OSError.

    What an earlier recording left there is gone.
    """
    from .recording_pcapng import write_pcapng

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "recording.jsonl"]
    save(records, files[0], dropped=dropped)
    texts = {"can.log": candump_log(records), "serial.txt": serial_text(records), "usb.txt": usb_text(records)}
    for name, lines in texts.items():
        text = "".join(f"{line}\n" for line in lines)
        (folder / name).unlink(missing_ok=True)
        if text:
            files.append(folder / name)
            files[-1].write_text(text, encoding="utf-8")
    (folder / "recording.pcapng").unlink(missing_ok=True)
    if any(isinstance(record, (CanFrame, SerialBytes, UsbControl)) for record in records):
        files.append(folder / "recording.pcapng")
        write_pcapng(records, files[-1])
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
    return made


def _line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise BadRecording(f"{path}:{number}: the file ends in the middle of a line, or the line is too long")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRecording(f"{path}:{number}: no JSON") from error
    if not isinstance(value, dict):
        raise BadRecording(f"{path}:{number}: no JSON object")
    return value


def _head(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    if value.pop("format", None) != FORMAT:
        raise BadRecording(f"{path}:1: this is no recording of proxyflash", remedy="Name a recording.")
    schema = value.pop("schema", None)
    if schema != SCHEMA:
        raise BadRecording(f"{path}:1: schema {schema!r} is not known here", remedy="Is this proxyflash too old?")
    return value


class _Fields:
    """Takes fields of one line, of the type that is wanted; nothing may be left."""

    def __init__(self, value: dict[str, Any]) -> None:
        self._value = value

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        value = self._value.pop(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"{key} = {value!r}"[:80])
        return value

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value: int = self.take(key, int, default)
        if not low <= value <= high:
            raise ValueError(f"{key} = {value}")
        return value

    def seconds(self, key: str) -> float:
        value: float = self.take(key, float)
        if not 0 <= value < 1e11:
            raise ValueError(f"{key} = {value}")
        return value

    def data(self, key: str, longest: int) -> bytes:
        value = bytes.fromhex(self.take(key, str))
        if len(value) > longest:
            raise ValueError(f"{key} has {len(value)} bytes")
        return value

    def end(self) -> None:
        if self._value:
            raise ValueError(f"{next(iter(self._value))!r} is not known")


def _record(path: Path, number: int, value: dict[str, Any]) -> Record:
    fields = _Fields(value)
    try:
        record = _parsed(fields)
        fields.end()
        return record
    except (ValueError, OverflowError) as error:
        raise BadRecording(f"{path}:{number}: no record: {error}") from error


def _parsed(fields: _Fields) -> Record:
    kind = fields.take("kind", str)
    when = fields.seconds("time"), fields.take("bus", str)
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
            return UsbControl(*when, root, address, setup, data, status, fields.seconds("seconds"))
        case "devices":
            return UsbDevices(*when, tuple(map(_seen, fields.take("devices", list))))
        case "note":
            return Note(*when, fields.take("text", str))
    raise ValueError(f"kind = {kind!r}"[:80])


def _can_frame(when: tuple[float, str], fields: _Fields) -> CanFrame:
    flags = CanFlag(0)
    for name in fields.take("flags", list, []):
        flag = CanFlag.__members__.get(str(name).upper())
        if flag is None:
            raise ValueError(f"flag {name!r}"[:80])
        flags |= flag
    can_id = int(fields.take("id", str), 16)
    extended = flags & (CanFlag.EXTENDED | CanFlag.ERROR)
    if not 0 <= can_id <= (0x1FFF_FFFF if extended else 0x7FF):
        raise ValueError(f"id = {can_id:X}")
    return CanFrame(
        *when, fields.take("out", bool), can_id, int(flags), fields.data("data", 64 if flags & CanFlag.FD else 8)
    )


def _changes(value: dict[str, Any]) -> Iterator[tuple[str, int | str]]:
    for key, item in value.items():
        if key not in ("baudrate", "parity", "dtr", "rts") or not isinstance(item, (int, str)):
            raise ValueError(f"changes.{key} = {item!r}"[:80])
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
    seen = UsbSeen(
        fields.number("root", 0, 0xFFFF),
        fields.number("address", 0, 0xFF),
        tuple(ports),
        fields.number("speed", 0, 255),
        device,
        tuple(map(bytes.fromhex, configurations)),
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
    """For each CAN bus a name that a network interface may have; "can0", "can1" for those that are too long."""
    buses = sorted({record.bus for record in records if isinstance(record, CanFrame)})
    names: dict[str, str] = {bus: bus for bus in buses if len(bus) <= LONGEST_NAME}
    free = (f"can{number}" for number in range(len(buses) * 2))
    for bus in buses:
        if bus not in names:
            names[bus] = next(name for name in free if name not in names)
    return names


def frame_text(frame: CanFrame) -> str:
    """A frame as can-utils write it: 123#DEADBEEF, 123##1DEADBEEF for FD with its flags, 123#R4 for remote frames."""
    extended = frame.flags & (CanFlag.EXTENDED | CanFlag.ERROR)
    can_id = f"{raw_id(frame) & ~_CAN_EFF:08X}" if extended else f"{frame.can_id:03X}"
    if frame.flags & CanFlag.REMOTE:
        return f"{can_id}#R{len(frame.data) or ''}"
    if frame.flags & CanFlag.FD:
        return f"{can_id}##{fd_flags(frame):X}{frame.data.hex().upper()}"
    return f"{can_id}#{frame.data.hex().upper()}"


def raw_id(frame: CanFrame) -> int:
    """The id with Linux's flags for extended, remote and error frames."""
    flags = frame.flags
    return (
        frame.can_id
        | (_CAN_EFF if flags & CanFlag.EXTENDED else 0)
        | (_CAN_RTR if flags & CanFlag.REMOTE else 0)
        | (_CAN_ERR if flags & CanFlag.ERROR else 0)
    )


def fd_flags(frame: CanFrame) -> int:
    """Linux's flags of an FD frame: CANFD_BRS 0x01, CANFD_ESI 0x02."""
    return (1 if frame.flags & CanFlag.BIT_RATE_SWITCH else 0) | (2 if frame.flags & CanFlag.ERROR_STATE else 0)


def _clock(record: Record) -> str:
    whole = int(record.time)
    micro = min(round((record.time - whole) * 1e6), 999_999)
    return f"{time.strftime('%H:%M:%S', time.gmtime(whole))}.{micro:06d} {record.bus}"


def serial_text(records: Iterable[Record]) -> Iterator[str]:
    """What passed on serial lines: UTC, bus, direction, bytes in hex and as ASCII."""
    for record in records:
        if isinstance(record, SerialBytes):
            shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in record.data)
            arrow = "->" if record.outgoing else "<x" if record.drained else "<-"
            yield f"{_clock(record)} {arrow} {record.data.hex(' ').upper()}  |{shown}|"
        elif isinstance(record, SerialLine):
            yield f"{_clock(record)} :: {' '.join(f'{key}={value}' for key, value in record.changes)}"


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
