"""`ClockedCanBus`: a bus of python-can whose `recv` follows the project's clock, and can be woken."""

from __future__ import annotations

from abc import abstractmethod

import can

from ...transports import clock


class ClockedCanBus(can.BusABC):
    """A subclass's `_recv_internal` returns no frame when the time is up, and when the bus was woken."""

    def recv(self, timeout: float | None = None) -> can.Message | None:
        """The next frame that the filters let through; None: there is none in time, or the bus was woken."""
        until = None if timeout is None else clock.monotonic() + timeout
        while True:
            message, filtered = self._recv_internal(timeout)
            if message is None or filtered or self._matches_filters(message):
                return message
            if until is not None:
                timeout = max(0.0, until - clock.monotonic())

    @abstractmethod
    def wake(self) -> None:
        """Has a `recv` that waits, or else the next one, return without a frame."""
