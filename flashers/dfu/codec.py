"""USB DFU 1.1 and DfuSe on the wire: requests, states, status codes, descriptors. Bytes in, values out; no I/O.

Names and numbers are those of the USB Device Firmware Upgrade Specification 1.1 (USB-IF, 2004-08-05) and of ST's UM0391
and AN3156 for DfuSe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from ..errors import USUAL_SILENCES, Meaning, ProtocolError, Step

OUT = 0x21
IN = 0xA1
"""bmRequestType: class request to an interface, host to device and back (DFU 1.1, table 3.2)."""


class Request(IntEnum):
    """bRequest (DFU 1.1, table 3.2)."""

    DETACH = 0
    DNLOAD = 1
    UPLOAD = 2
    GETSTATUS = 3
    CLRSTATUS = 4
    GETSTATE = 5
    ABORT = 6


class DfuState(IntEnum):
    """bState (DFU 1.1, 6.1.2)."""

    appIDLE = 0
    appDETACH = 1
    dfuIDLE = 2
    dfuDNLOAD_SYNC = 3
    dfuDNBUSY = 4
    dfuDNLOAD_IDLE = 5
    dfuMANIFEST_SYNC = 6
    dfuMANIFEST = 7
    dfuMANIFEST_WAIT_RESET = 8
    dfuUPLOAD_IDLE = 9
    dfuERROR = 10


class DfuStatus(IntEnum):
    """bStatus (DFU 1.1, 6.1.2)."""

    OK = 0x00
    errTARGET = 0x01
    errFILE = 0x02
    errWRITE = 0x03
    errERASE = 0x04
    errCHECK_ERASED = 0x05
    errPROG = 0x06
    errVERIFY = 0x07
    errADDRESS = 0x08
    errNOTDONE = 0x09
    errFIRMWARE = 0x0A
    errVENDOR = 0x0B
    errUSBR = 0x0C
    errPOR = 0x0D
    errUNKNOWN = 0x0E
    errSTALLEDPKT = 0x0F


MEANINGS: Mapping[int, Meaning] = {
    DfuStatus.errTARGET: Meaning.REFUSED,
    DfuStatus.errFILE: Meaning.REFUSED,
    DfuStatus.errADDRESS: Meaning.REFUSED,
    DfuStatus.errVENDOR: Meaning.REFUSED,
    DfuStatus.errNOTDONE: Meaning.LOST,
    DfuStatus.errUSBR: Meaning.LOST,
    DfuStatus.errPOR: Meaning.LOST,
    DfuStatus.errSTALLEDPKT: Meaning.LOST,
}
"""Of a status that is not OK; the others are FAILED."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.END: Meaning.DONE, Step.START: Meaning.DONE}
"""After the last block, and once it is asked to start its application, a device answers no more: it restarts. What comes back
says whether it did: `DfuSession.reset` and `DfuSlot._manifest` look at that, for a stall or a device that has gone means the same
as a silence there."""


class DfuSeCommand(IntEnum):
    """First byte of a download to block 0 (UM0391, 5.2; AN3156, 5)."""

    GET_COMMANDS = 0x00
    SET_ADDRESS_POINTER = 0x21
    ERASE = 0x41
    READ_UNPROTECT = 0x92


APPLICATION_SPECIFIC = 0xFE
DFU_SUBCLASS = 0x01
PROTOCOL_DFU_MODE = 0x02
"""bInterfaceProtocol: 1 in the running application, 2 in DFU mode (DFU 1.1, 4.1.2 and 4.2.3)."""
FUNCTIONAL_DESCRIPTOR = 0x21
DFUSE_VERSION = 0x011A
FIRST_DATA_BLOCK = 2
"""DfuSe: wValue of the first data block; 0 are commands, 1 isn't used (AN3156, 5.2)."""
LAST_BLOCK = 0xFFFF


@dataclass(frozen=True, slots=True)
class Functional:
    """The DFU functional descriptor (DFU 1.1, table 4.2)."""

    can_download: bool
    can_upload: bool
    manifestation_tolerant: bool
    will_detach: bool
    detach_ms: int
    transfer_size: int
    version: int


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to GETSTATUS (DFU 1.1, 6.1.2). `poll_ms`: how long to wait before the next one."""

    status: DfuStatus
    poll_ms: int
    state: DfuState


def parse_functional(extra: bytes) -> Functional | None:
    """The functional descriptor among an interface's class-specific descriptors; None if there is none."""
    offset = 0
    while offset + 2 <= len(extra) and extra[offset] >= 2:
        piece = extra[offset : offset + extra[offset]]
        if piece[1] == FUNCTIONAL_DESCRIPTOR and len(piece) >= 7:
            attributes = piece[2]
            return Functional(
                bool(attributes & 1),
                bool(attributes & 2),
                bool(attributes & 4),
                bool(attributes & 8),
                int.from_bytes(piece[3:5], "little"),
                int.from_bytes(piece[5:7], "little"),
                int.from_bytes(piece[7:9], "little") if len(piece) >= 9 else 0x0100,
            )
        offset += extra[offset]
    return None


def parse_status(data: bytes) -> Status:
    """The six bytes of a GETSTATUS answer. Raises ProtocolError."""
    if len(data) != 6:
        raise ProtocolError(f"the device answered GETSTATUS with {len(data)} bytes instead of 6")
    try:
        return Status(DfuStatus(data[0]), int.from_bytes(data[1:4], "little"), DfuState(data[4]))
    except ValueError as error:
        raise ProtocolError(f"the device answered GETSTATUS with {data.hex(' ')}: {error}") from None
