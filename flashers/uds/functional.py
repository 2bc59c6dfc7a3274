"""Functional requests: to all ECUs of a bus at once (ISO 15765-2, functional addressing), in single frames."""

from __future__ import annotations

from ...transports.can.bus import CanBus, CanChannel, CanId
from ...transports.deadline import Deadline
from .profile import IsoTp


class FunctionalRequests:
    """Sends functional requests. What answers them comes in on the ECUs' own channels."""

    def __init__(self, bus: CanBus, identifier: CanId, options: IsoTp) -> None:
        self._channel: CanChannel = bus.channel(identifier, (), fd=options.options().sends_fd)
        self._padding = options.padding_byte

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        self._channel.send(single_frame(pdu, self._padding), deadline)

    def close(self) -> None:
        self._channel.close()


def single_frame(pdu: bytes, padding: int | None) -> bytes:
    """ISO 15765-2:2016, 9.6.2.1: up to 7 bytes."""
    frame = bytes((len(pdu),)) + pdu
    return frame if padding is None else frame.ljust(8, bytes((padding,)))
