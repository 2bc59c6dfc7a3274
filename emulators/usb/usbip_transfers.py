"""The transfers on a device's endpoints but 0 that came over USB/IP and wait for the device.

A device that is not ready says NAK on the bus, and the host asks again; over USB/IP it asks once, and the answer waits.
Endpoints answer their transfers in the order in which they came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .device import UsbFunction

Reply = Callable[[int, int, bytes], None]
"""Sends an answer: seqnum, bytes that went through, data for the host."""


@dataclass(slots=True)
class _Transfer:
    number: int
    size: int
    data: bytes
    """What the device has yet to take."""


class Transfers:
    """Not safe to call from two threads at once."""

    def __init__(self, function: UsbFunction, reply: Reply) -> None:
        self._endpoints = dict(function.endpoints)
        self._waiting: dict[int, deque[_Transfer]] = {address: deque() for address in self._endpoints}
        self._reply = reply

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def submit(self, address: int, number: int, size: int, data: bytes) -> bool:
        """A transfer comes in; False if the device has no such endpoint."""
        waiting = self._waiting.get(address)
        if waiting is None:
            return False
        waiting.append(_Transfer(number, size, data))
        self._progress(address)
        return True

    def unlink(self, number: int) -> bool:
        """The host takes a transfer back; False if it does not wait here."""
        for waiting in self._waiting.values():
            for transfer in waiting:
                if transfer.number == number:
                    waiting.remove(transfer)
                    return True
        return False

    def progress(self) -> None:
        """Answers what the device is ready for now."""
        for address in self._waiting:
            self._progress(address)

    def _progress(self, address: int) -> None:
        endpoint, waiting = self._endpoints[address], self._waiting[address]
        while waiting:
            transfer = waiting[0]
            answer = b""
            if address & 0x80:
                given = endpoint.give(transfer.size)
                if given is None:
                    return
                answer = given
            else:
                transfer.data = transfer.data[endpoint.take(transfer.data) :]
                if transfer.data:
                    return
            waiting.popleft()
            self._reply(transfer.number, len(answer) if address & 0x80 else transfer.size, answer)
