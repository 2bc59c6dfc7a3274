"""What both ISO-TP back ends share: the peer's address, the options, and what a back end is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum

from ..can.bus import CanId
from ..deadline import Deadline
from ..errors import IsoTpSettings, IsoTpTimeout

LONGEST_PDU = 1 << 20
"""Bytes of a PDU that is taken from a peer; a first frame that announces more is answered by an overflow."""


class Addressing(StrEnum):
    """How ISO-TP finds its peer (ISO 15765-2, 10.3). NORMAL_FIXED is 29-bit, 0x18DA<target><source>.

    Mixed addressing is EXTENDED with its address extension as both `target` and `source`: the frames are the same. Its
    29-bit ids are 0x18CE<target><source>.
    """

    NORMAL = "normal"
    NORMAL_FIXED = "normal-fixed"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True)
class IsoTpAddress:
    """`request`: the id that we send under, `response`: the id that the peer answers under.

    NORMAL_FIXED derives both from `target` and `source`. EXTENDED puts `target` into the first data byte of what we
    send, and expects `source` in what comes back.
    """

    addressing: Addressing = Addressing.NORMAL
    request: CanId | None = None
    response: CanId | None = None
    target: int | None = None
    source: int | None = None

    def ids(self) -> tuple[CanId, CanId]:
        """The ids of both directions. Raises IsoTpSettings when the address has no value that its kind needs."""
        if self.addressing is Addressing.NORMAL_FIXED:
            if self.target is None or self.source is None:
                raise IsoTpSettings("normal-fixed addressing needs target and source")
            base = 0x18DA0000
            return (
                CanId(base | self.target << 8 | self.source, True),
                CanId(base | self.source << 8 | self.target, True),
            )
        if self.request is None or self.response is None:
            raise IsoTpSettings(f"{self.addressing} addressing needs request and response")
        if self.addressing is Addressing.EXTENDED and (self.target is None or self.source is None):
            raise IsoTpSettings("extended addressing needs target and source")
        return self.request, self.response


N_BS_SECONDS = N_CR_SECONDS = 1.0
"""How long a flow control, and the next consecutive frame, are waited for (ISO 15765-2:2016, table 16)."""


@dataclass(frozen=True, slots=True)
class IsoTpOptions:
    """Timings and sizes. `block_size` and `st_min` (the byte as sent) are what we ask of a peer that sends to us.

    `padding`: the byte that fills short frames, None for none. `tx_dl`: the most bytes of a frame that we send (8 to 64).
    `fd`: whether these are CAN FD frames; None: those of more than 8 bytes, which CAN FD alone has, are.
    `squash_st_min`: send without the peer's separation time. `n_bs_timeout`, `n_cr_timeout`: seconds; the kernel's are
    always 1.0. `backend`: "user" or "kernel".
    """

    block_size: int = 0
    st_min: int = 0
    padding: int | None = 0xCC
    tx_dl: int = 8
    fd: bool | None = None
    bit_rate_switch: bool = True
    squash_st_min: bool = False
    n_bs_timeout: float = N_BS_SECONDS
    n_cr_timeout: float = N_CR_SECONDS
    backend: str = "user"

    @property
    def sends_fd(self) -> bool:
        """Whether we send CAN FD frames."""
        return self.tx_dl > 8 if self.fd is None else self.fd


class IsoTpBackEnd(ABC):
    """Carries the PDUs of one peer. `contested`: the id under which another tester has sent since our last PDU began."""

    contested: CanId | None = None

    @abstractmethod
    def send(self, pdu: bytes, deadline: Deadline) -> None:
        """Sends one PDU, as `IsoTpChannel.send`, but for what is said of other testers."""

    @abstractmethod
    def recv(self, deadline: Deadline, end: Deadline) -> bytes | None:
        """The next PDU, as `IsoTpChannel.recv`. `end`: until when a PDU is waited for that began before the deadline."""

    @abstractmethod
    def drain(self) -> None:
        """Forgets what came in and was not read."""

    @abstractmethod
    def close(self) -> None: ...

    def contest(self, identifier: CanId) -> None:
        """Another tester sends under this id."""
        self.contested = identifier


def unended(deadline: Deadline, end: Deadline) -> IsoTpTimeout:
    """A PDU that began before the deadline, and whose frames still came at the end of all patience."""
    return IsoTpTimeout(f"the peer did not end its message within {end.at - deadline.at:.3g} s after the deadline")
