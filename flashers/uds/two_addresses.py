"""`TwoAddresses`: one ECU whose bootloader has other CAN ids than its application.

The rule: nobody remembers which of the two runs. What is silent at one address is asked at the other one next; and the answer to
what may end in a reset may come from either.
"""

from __future__ import annotations

from ...transports.can.bus import CanBus
from ...transports.deadline import Deadline
from ...transports.errors import IsoTpTimeout, TransportError
from ...transports.isotp.opening import IsoTpChannel
from .client import PduChannel
from .codec import Service, wants_no_answer
from .profile import UdsAddress, UdsProfile

_MOVES = (Service.DIAGNOSTIC_SESSION_CONTROL, Service.ECU_RESET)
_SLICE = 0.01
"""Seconds for which one of the two is listened to, in turn."""


class TwoAddresses:
    """`application` is asked first."""

    def __init__(self, application: PduChannel, bootloader: PduChannel) -> None:
        self._current, self._other = application, bootloader
        self._listens_to_both = False
        self._awaits = False
        """Whether an answer is due, and nothing has come in yet."""

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        self._awaits = not wants_no_answer(pdu)
        self._listens_to_both = pdu[0] in _MOVES
        try:
            self._current.send(pdu, deadline)
        except IsoTpTimeout:
            self._turn()
            raise

    def recv(self, deadline: Deadline) -> bytes | None:
        pdu = self._recv_of_both(deadline) if self._listens_to_both else self._current.recv(deadline)
        if pdu is None and self._awaits:
            self._turn()
        self._awaits = False
        return pdu

    def drain(self) -> None:
        self._current.drain()
        self._other.drain()

    def close(self) -> None:
        try:
            self._current.close()
        finally:
            self._other.close()

    def _recv_of_both(self, deadline: Deadline) -> bytes | None:
        while True:
            if (pdu := self._current.recv(deadline.sooner(_SLICE))) is not None:
                return pdu
            if (pdu := self._other.recv(deadline.sooner(_SLICE))) is not None:
                self._turn()
                return pdu
            if deadline.expired:
                return None

    def _turn(self) -> None:
        self._current, self._other = self._other, self._current


def opened(bus: CanBus, address: UdsAddress, profile: UdsProfile, latest: Deadline | None = None) -> PduChannel:
    """The channel, or both, to the ECU. `latest`: see `IsoTpChannel`. Raises IsoTpSettings."""
    options = profile.iso_tp.options(profile.timings.latency)
    channels: list[IsoTpChannel] = []
    try:
        for where in address.every_isotp():
            channels.append(IsoTpChannel.open(bus, where, options))
            channels[-1].latest = latest
    except TransportError:
        for channel in channels:
            channel.close()
        raise
    return channels[0] if len(channels) == 1 else TwoAddresses(channels[0], channels[1])
