"""What a recording is made of: one record for each thing that passed on CAN, serial lines and USB, with one clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import ClassVar

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


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened. `time`: seconds since 1970 to the microsecond, from one monotonic clock for all buses.

    `bus`: the name in the bench file.
    """

    kind: ClassVar[str] = ""
    time: float
    bus: str


@dataclass(frozen=True, slots=True)
class CanFrame(Record):
    """One frame. `flags`: of CanFlag. A remote frame's `data` has as many zeros as it asks for."""

    kind: ClassVar[str] = "can"
    outgoing: bool
    can_id: int
    flags: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SerialBytes(Record):
    """What one write sent, or what one read got. `drained`: it was read to be forgotten."""

    kind: ClassVar[str] = "serial"
    outgoing: bool
    data: bytes
    drained: bool = False


@dataclass(frozen=True, slots=True)
class SerialLine(Record):
    """What this host changed of a line: baudrate (bit/s), parity ("N", "E", "O"), dtr, rts (True: asserted)."""

    kind: ClassVar[str] = "line"
    changes: tuple[tuple[str, int | str], ...]


@dataclass(frozen=True, slots=True)
class UsbControl(Record):
    """One control transfer to the device at `address` of the host's USB bus `root`.

    `setup`: its 8 bytes (USB 2.0, 9.3). `data`: of the data stage, in either direction. `status`: 0, or a negative
    error number of Linux (-32: STALL). `seconds`: how long it took.
    """

    kind: ClassVar[str] = "usb"
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


@dataclass(frozen=True, slots=True)
class UsbDevices(Record):
    """The devices that were there when this host looked."""

    kind: ClassVar[str] = "devices"
    devices: tuple[UsbSeen, ...]


@dataclass(frozen=True, slots=True)
class Note(Record):
    """What a person wants to know beside the traffic: a bus opened, a bus failed."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """What was asked outside of the buses, and what came of it: a command of the bench file, a key, a step's action.

    `bus` is "". `text`: the answer; where `failed` is set, why there was none.
    """

    kind: ClassVar[str] = "answer"
    question: str
    text: str
    failed: bool = False


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
