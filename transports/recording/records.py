"""What a recording is made of: one record for each thing that passed on a bus, with one clock for all buses.

Each kind of record is a class, registered under the entry-point group `proxyflash.records` by its `kind`. The class says how
its records are written into a recording, read from one, and shown to a person.
"""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, ClassVar, Self

from ..plain import plain, quoted, word

BUS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""As the bench file has it."""
LONGEST_TRANSFER = 86_400
"""Seconds that a transfer may take."""
HIGHEST_RATE = 1_000_000_000
"""Bit/s of a serial line."""
CONFIGURATION_BYTES = (9, 0xFFFF)
"""Of a USB configuration's descriptor, with what follows it: its own bytes, and what wTotalLength can say (USB 2.0, 9.6.3)."""
_CAN_ID = re.compile("[0-9A-Fa-f]{1,8}")

CAN_EFF, CAN_RTR, CAN_ERR = 0x8000_0000, 0x4000_0000, 0x2000_0000
"""Linux, include/uapi/linux/can.h."""


class CanFlag(IntFlag):
    """What a CAN frame is. The values are this project's own."""

    EXTENDED = 1
    REMOTE = 2
    ERROR = 4
    FD = 8
    BIT_RATE_SWITCH = 16
    ERROR_STATE = 32


class Fields:
    """Takes the fields of one line of a recording, each of the type that is wanted; nothing may be left.

    Each method raises ValueError for a value that does not hold."""

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
            raise ValueError(f"bus = {quoted(value)} is not a name of a bus")
        return value

    def data(self, key: str, longest: int) -> bytes:
        value = bytes.fromhex(self.take(key, str))
        if len(value) > longest:
            raise ValueError(f"{key} has {len(value)} bytes")
        return value

    def end(self) -> None:
        if self._value:
            raise ValueError(f"{quoted(next(iter(self._value)))} is not known")


def clock_text(seconds: float) -> str:
    """A time of day in UTC to the microsecond. `seconds`: since 1970."""
    whole = int(seconds)
    return f"{time.strftime('%H:%M:%S', time.gmtime(whole))}.{min(round((seconds - whole) * 1e6), 999_999):06d}"


@dataclass(frozen=True, slots=True)
class Record(ABC):
    """One thing that happened. `time`: seconds since 1970 to the microsecond, from one monotonic clock for all buses.

    `bus`: the name in the bench file.
    """

    kind: ClassVar[str] = ""
    """As the recording and the entry point have it."""
    of_bus: ClassVar[bool] = True
    """Whether a record needs the name of a bus."""
    text_file: ClassVar[str] = ""
    """The exported file that has a line for each record of this kind, such as "serial.txt"; "": none."""
    time: float
    bus: str

    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """What the recording has of it beside time, bus and kind: values of JSON."""

    @classmethod
    @abstractmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
        """The same back. A recording may come from a stranger: it takes every field, with limits. Raises ValueError."""

    def shown(self) -> str:
        """What `text_file` says of it behind time and bus. Of what a part says it is shown, not obeyed: see `plain`."""
        return ""

    @property
    def line(self) -> str:
        """Its line of `text_file`: UTC, bus, and what `shown` says."""
        return f"{clock_text(self.time)} {plain(self.bus)} {self.shown()}"


@dataclass(frozen=True, slots=True)
class CanFrame(Record):
    """One frame. `flags`: of CanFlag. A remote frame's `data` has as many zeros as it asks for."""

    kind: ClassVar[str] = "can"
    outgoing: bool
    can_id: int
    flags: int
    data: bytes

    def fields(self) -> dict[str, Any]:
        made: dict[str, Any] = {"out": self.outgoing, "id": f"{self.can_id:X}", "data": self.data.hex()}
        if self.flags:
            made["flags"] = [flag.name.lower() for flag in CanFlag if self.flags & flag and flag.name]
        return made

    @classmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
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
        longest = 64 if flags & CanFlag.FD else 8
        return cls(time, bus, fields.take("out", bool), can_id, int(flags), fields.data("data", longest))


@dataclass(frozen=True, slots=True)
class SerialBytes(Record):
    """What one write sent, or what one read got. `drained`: it was read to be forgotten."""

    kind: ClassVar[str] = "serial"
    text_file: ClassVar[str] = "serial.txt"
    outgoing: bool
    data: bytes
    drained: bool = False

    def fields(self) -> dict[str, Any]:
        made: dict[str, Any] = {"out": self.outgoing, "data": self.data.hex()}
        return made | {"drained": True} if self.drained else made

    @classmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
        data = fields.data("data", 1 << 18)
        return cls(time, bus, fields.take("out", bool), data, fields.take("drained", bool, False))

    def shown(self) -> str:
        """Direction, bytes in hex and as ASCII."""
        characters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in self.data)
        arrow = "->" if self.outgoing else "<x" if self.drained else "<-"
        return f"{arrow} {self.data.hex(' ').upper()}  |{characters}|"


@dataclass(frozen=True, slots=True)
class SerialLine(Record):
    """What this host changed of a line: baudrate (bit/s), parity ("N", "E", "O"), dtr, rts (True: asserted)."""

    kind: ClassVar[str] = "line"
    text_file: ClassVar[str] = "serial.txt"
    changes: tuple[tuple[str, int | str], ...]

    def fields(self) -> dict[str, Any]:
        return {"changes": dict(self.changes)}

    @classmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
        return cls(time, bus, tuple(_changes(fields.take("changes", dict))))

    def shown(self) -> str:
        return f":: {plain(' '.join(f'{key}={value}' for key, value in self.changes))}"


@dataclass(frozen=True, slots=True)
class UsbControl(Record):
    """One control transfer to the device at `address` of the host's USB bus `root`.

    `setup`: its 8 bytes (USB 2.0, 9.3). `data`: of the data stage, in either direction. `status`: 0, or a negative
    error number of Linux (-32: STALL). `seconds`: how long it took.
    """

    kind: ClassVar[str] = "usb"
    text_file: ClassVar[str] = "usb.txt"
    root: int
    address: int
    setup: bytes
    data: bytes
    status: int
    seconds: float

    @property
    def incoming(self) -> bool:
        """Whether its data comes from the device."""
        return bool(self.setup[0] & 0x80)

    def fields(self) -> dict[str, Any]:
        return {
            "root": self.root,
            "address": self.address,
            "setup": self.setup.hex(),
            "data": self.data.hex(),
            "status": self.status,
            "seconds": self.seconds,
        }

    @classmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
        root, address = fields.number("root", 0, 0xFFFF), fields.number("address", 0, 0xFF)
        setup, data = fields.data("setup", 8), fields.data("data", 0xFFFF)
        if len(setup) != 8:
            raise ValueError("setup is not 8 bytes")
        status = fields.number("status", -4095, 0)
        return cls(time, bus, root, address, setup, data, status, fields.seconds("seconds", LONGEST_TRANSFER))

    def shown(self) -> str:
        """The device, the setup packet, the direction of the data and the data."""
        arrow = "<-" if self.incoming else "->"
        failed = f" {os.strerror(-self.status)}" if self.status else ""
        data = f" {self.data.hex(' ')}" if self.data else ""
        return f"{self.root}.{self.address} {self.setup.hex(' ')} {arrow}{data}{failed}"


@dataclass(frozen=True, slots=True)
class UsbSeen:
    """A device that is there: where, and its descriptors as they are on the wire (USB 2.0, 9.6).

    `speed`: libusb's enum libusb_speed. `configurations`: each with its interfaces and endpoints.
    """

    root: int
    address: int
    ports: tuple[int, ...]
    speed: int
    device: bytes
    configurations: tuple[bytes, ...]

    def fields(self) -> dict[str, Any]:
        return {
            "root": self.root,
            "address": self.address,
            "ports": list(self.ports),
            "speed": self.speed,
            "device": self.device.hex(),
            "configurations": [item.hex() for item in self.configurations],
        }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Raises ValueError."""
        if not isinstance(value, dict):
            raise ValueError("a device is not an object")
        fields = Fields(dict(value))
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
        root, address = fields.number("root", 0, 0xFFFF), fields.number("address", 0, 0xFF)
        seen = cls(root, address, tuple(ports), fields.number("speed", 0, 255), device, parsed)
        fields.end()
        return seen


@dataclass(frozen=True, slots=True)
class UsbDevices(Record):
    """The devices that were there when this host looked."""

    kind: ClassVar[str] = "devices"
    text_file: ClassVar[str] = "usb.txt"
    devices: tuple[UsbSeen, ...]

    def fields(self) -> dict[str, Any]:
        return {"devices": [seen.fields() for seen in self.devices]}

    @classmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
        return cls(time, bus, tuple(map(UsbSeen.parse, fields.take("devices", list))))

    def shown(self) -> str:
        listed = ", ".join(
            f"{seen.root}.{seen.address} {seen.device[9]:02x}{seen.device[8]:02x}:"
            f"{seen.device[11]:02x}{seen.device[10]:02x}"
            for seen in self.devices
        )
        return f"devices: {listed or 'none'}"


@dataclass(frozen=True, slots=True)
class Note(Record):
    """What a person wants to know beside the traffic: a bus opened, a bus failed."""

    kind: ClassVar[str] = "note"
    of_bus: ClassVar[bool] = False
    text: str

    def fields(self) -> dict[str, Any]:
        return {"text": self.text}

    @classmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
        return cls(time, bus, fields.take("text", str))


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """What was asked outside of the buses, and what came of it: a command of the bench file, a key, a step's action.

    `bus` is "". `text`: the answer; where `failed` is set, why there was none.
    """

    kind: ClassVar[str] = "answer"
    of_bus: ClassVar[bool] = False
    question: str
    text: str
    failed: bool = False

    def fields(self) -> dict[str, Any]:
        made: dict[str, Any] = {"question": self.question, "text": self.text}
        return made | {"failed": True} if self.failed else made

    @classmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
        texts = fields.take("question", str), fields.take("text", str)
        return cls(time, bus, *texts, fields.take("failed", bool, False))


def raw_id(frame: CanFrame) -> int:
    """The id with Linux's flags for extended, remote and error frames."""
    flags = frame.flags
    return (
        frame.can_id
        | (CAN_EFF if flags & CanFlag.EXTENDED else 0)
        | (CAN_RTR if flags & CanFlag.REMOTE else 0)
        | (CAN_ERR if flags & CanFlag.ERROR else 0)
    )


def fd_flags(frame: CanFrame) -> int:
    """Linux's flags of an FD frame: CANFD_BRS 0x01, CANFD_ESI 0x02."""
    return (1 if frame.flags & CanFlag.BIT_RATE_SWITCH else 0) | (2 if frame.flags & CanFlag.ERROR_STATE else 0)


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
