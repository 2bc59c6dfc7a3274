"""USB DFU in words, after the DFU specification 1.1 and, for DfuSe, ST's AN3156; other requests after USB 2.0, table 9-4.

Whether a device speaks DfuSe is in its functional descriptor; until that was seen, commands are shown as blocks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from ...transports.plain import counted
from ...transports.recording.records import Record, UsbControl, UsbDevices
from ..describing import Describer, Line, Said, name_in, plainly, shown
from .codec import (
    APPLICATION_SPECIFIC,
    DFU_SUBCLASS,
    DFUSE_VERSION,
    FIRST_DATA_BLOCK,
    IN,
    OUT,
    DfuSeCommand,
    DfuState,
    DfuStatus,
    Request,
    parse_functional,
)

STANDARD = {
    0: "GET_STATUS",
    1: "CLEAR_FEATURE",
    3: "SET_FEATURE",
    5: "SET_ADDRESS",
    6: "GET_DESCRIPTOR",
    7: "SET_DESCRIPTOR",
    8: "GET_CONFIGURATION",
    9: "SET_CONFIGURATION",
    10: "GET_INTERFACE",
    11: "SET_INTERFACE",
    12: "SYNCH_FRAME",
}
"""USB 2.0, table 9-4."""
DESCRIPTORS = {1: "DEVICE", 2: "CONFIGURATION", 3: "STRING", 4: "INTERFACE", 5: "ENDPOINT", 0x21: "DFU FUNCTIONAL"}
"""Table 9-5; DFU 1.1, table 4.2."""
STATES: dict[int, str] = {
    state: state.name.replace("dfuDNLOAD_", "dfuDNLOAD-").replace("dfuMANIFEST_WAIT_RESET", "dfuMANIFEST-WAIT-RESET")
    .replace("dfuMANIFEST_", "dfuMANIFEST-").replace("dfuUPLOAD_", "dfuUPLOAD-")
    for state in DfuState
}  # fmt: skip
STATUSES: dict[int, str] = {status: status.name for status in DfuStatus}
COMMANDS: dict[int, str] = {
    DfuSeCommand.GET_COMMANDS: "Get Commands",
    DfuSeCommand.SET_ADDRESS_POINTER: "Set Address Pointer",
    DfuSeCommand.ERASE: "Erase",
    DfuSeCommand.READ_UNPROTECT: "Read Unprotect",
}
"""AN3156, 5."""


def describe(setup: bytes, data: bytes, status: int, *, dfuse: bool = False) -> Said:
    """One control transfer. `setup`: its 8 bytes; `data`: of its data stage; `status`: 0, or a negative error of Linux."""
    if len(setup) != 8:
        return Said(f"unknown: {shown(setup)}")
    kind, request = setup[0], setup[1]
    value, index, length = (int.from_bytes(setup[at : at + 2], "little") for at in (2, 4, 6))
    failed = False
    if kind in (OUT, IN) and request in Request.__members__.values():
        words, failed = _dfu(Request(request), value, length, data, dfuse, status)
    elif not kind & 0x60:
        words = _standard(request, value, index, data)
    else:
        whose = ("class", "vendor", "reserved")[(kind >> 5 & 3) - 1]
        words = (
            f"{whose} request 0x{request:02X}, wValue 0x{value:04X}, wIndex 0x{index:04X}, {counted(len(data), 'byte')}"
        )
    if status:
        words += ": STALL" if status == -errno.EPIPE else f": {os.strerror(-status)}"
    return Said(words, failed or status != 0)


def _dfu(request: Request, value: int, length: int, data: bytes, dfuse: bool, status: int) -> tuple[str, bool]:
    name = request.name
    match request:
        case Request.GETSTATUS if len(data) >= 6:
            poll = int.from_bytes(data[1:4], "little")
            words = f"{name} {name_in(STATUSES, data[0])}, {name_in(STATES, data[4])}, bwPollTimeout {poll:,} ms"
            return words, data[0] != DfuStatus.OK or data[4] == DfuState.dfuERROR
        case Request.GETSTATE if data:
            return f"{name} {name_in(STATES, data[0])}", data[0] == DfuState.dfuERROR
        case Request.DETACH:
            return f"{name} wTimeout {value:,} ms", False
        case Request.DNLOAD if dfuse and value == 0 and data:
            command = name_in(COMMANDS, data[0])
            if len(data) == 5:
                return f"{name} {command} 0x{int.from_bytes(data[1:], 'little'):08X}", False
            whole = data[0] == DfuSeCommand.ERASE and len(data) == 1
            return f"{name} {command}{' of the whole memory' if whole else ''}", False
        case Request.DNLOAD | Request.UPLOAD:
            # A block that was not taken has no data in a recording.
            size = len(data) if not status else length
            if not size and request is Request.DNLOAD:
                return f"{name} block {value}, no data: {'leave DFU mode' if dfuse else 'the end of the file'}", False
            if dfuse and value == 0:
                return f"{name} commands {data.hex(' ').upper()}", False
            offset = f", data block {value - FIRST_DATA_BLOCK}" if dfuse and value >= FIRST_DATA_BLOCK else ""
            return f"{name} block {value}{offset}, {counted(size, 'byte')}", False
        case _:
            return name, False


def _standard(request: int, value: int, index: int, data: bytes) -> str:
    name = name_in(STANDARD, request)
    match name:
        case "GET_DESCRIPTOR":
            return f"{name} {name_in(DESCRIPTORS, value >> 8)} {value & 0xFF}, {counted(len(data), 'byte')}"
        case "SET_CONFIGURATION" | "SET_ADDRESS":
            return f"{name} {value}"
        case "SET_INTERFACE":
            return f"{name} {index}, alternate setting {value}"
        case _:
            return f"{name} wValue 0x{value:04X}, wIndex 0x{index:04X}{f', {shown(data)}' if data else ''}"


def speaks_dfuse(configuration: bytes) -> bool:
    """Whether a DFU interface in a configuration's descriptor, with all that follows it, is of version 1.1a."""
    offset, is_dfu = 0, False
    while offset + 2 <= len(configuration) and configuration[offset] >= 2:
        piece = configuration[offset : offset + configuration[offset]]
        if piece[1] == 4 and len(piece) >= 7:
            is_dfu = (piece[5], piece[6]) == (APPLICATION_SPECIFIC, DFU_SUBCLASS)
        elif is_dfu and (found := parse_functional(piece)) is not None and found.version == DFUSE_VERSION:
            return True
        offset += configuration[offset]
    return False


class DfuDescriber(Describer):
    """Each DFU device of a USB bus; traffic of other devices is shown by USB's own names."""

    def __init__(self, part: str = "") -> None:
        super().__init__(part)
        self._dfuse: set[tuple[int, int]] = set()

    def take(self, record: Record) -> Iterable[Line] | None:
        match record:
            case UsbDevices():
                self._dfuse = {
                    (seen.root, seen.address) for seen in record.devices if any(map(speaks_dfuse, seen.configurations))
                }
                return [plainly(record)]
            case UsbControl():
                return self._transfer(record)
            case _:
                return None

    def _transfer(self, record: UsbControl) -> Iterator[Line]:
        where = (record.root, record.address)
        if record.setup[:2] == b"\x80\x06" and record.setup[3] == 2 and speaks_dfuse(record.data):
            self._dfuse.add(where)
        said = describe(record.setup, record.data, record.status, dfuse=where in self._dfuse)
        address = f"{record.root}.{record.address} "
        yield self.line(record, not record.incoming, Said(address + said.words, said.failed), record.data)
