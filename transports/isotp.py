"""ISO-TP (ISO 15765-2): PDUs of up to 4 GiB over CAN frames.

Through the kernel's CAN_ISOTP socket where the bus is socketcan and the kernel has it, else through can-isotp over a
`CanChannel`. Both give the same errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from .can import CanBus, CanId
from .deadline import Deadline


class Addressing(StrEnum):
    """How ISO-TP finds its peer (ISO 15765-2, 10.3). NORMAL_FIXED is 29-bit, 0x18DA<target><source>."""

    NORMAL = "normal"
    NORMAL_FIXED = "normal-fixed"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True)
class IsoTpAddress:
    """`request`: the id that we send under, `response`: the one that the peer answers under.

    NORMAL_FIXED derives both from `target` and `source` and ignores nothing else. EXTENDED puts `target` into the
    first data byte of what we send, and expects `source` in what comes back.
    """

    addressing: Addressing = Addressing.NORMAL
    request: CanId | None = None
    response: CanId | None = None
    target: int | None = None
    source: int | None = None


@dataclass(frozen=True, slots=True)
class IsoTpOptions:
    """Timings and sizes. `block_size` and `st_min` (the byte as sent) are what we ask of a peer that sends to us.

    `padding`: the byte that fills short frames, None for none. `tx_dl`: CAN FD frame size that we send (8 to 64).
    `squash_st_min`: send without the peer's separation time. `backend`: "auto", "kernel" or "user".
    """

    block_size: int = 0
    st_min: int = 0
    padding: int | None = 0xCC
    tx_dl: int = 8
    bit_rate_switch: bool = True
    squash_st_min: bool = False
    n_bs_timeout: float = 1.0
    n_cr_timeout: float = 1.0
    backend: str = "auto"


class IsoTpChannel:
    """One peer: send a PDU, receive a PDU."""

    @classmethod
    def open(cls, bus: CanBus, address: IsoTpAddress, settings: IsoTpOptions | None = None) -> Self:
        raise NotImplementedError

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        """Sends one PDU; returns once its last frame is handed to the bus.

        Raises IsoTpTimeout (no flow control, or the deadline), IsoTpFraming (overflow, too many waits), and the CAN
        errors of the bus.
        """
        raise NotImplementedError

    def recv(self, deadline: Deadline) -> bytes | None:
        """The next PDU; None when the deadline passes with nothing begun. Raises IsoTpTimeout, IsoTpFraming."""
        raise NotImplementedError

    def drain(self) -> None:
        """Forgets what came in and was not read."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
