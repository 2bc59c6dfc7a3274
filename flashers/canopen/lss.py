"""LSS (CiA 305): nodes without a node id are found by their identity, and get a node id that they give back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from ...transports import clock
from ...transports.can.bus import CanBus, CanId
from ...transports.deadline import Deadline
from ..errors import ProtocolError
from . import codec
from .codec import Ident, Lss, Nmt

ANSWER_SECONDS = 0.05
"""What a node has for an answer."""
SEND_SECONDS = 1.0
_locks: WeakKeyDictionary[CanBus, clock.SomeLock] = WeakKeyDictionary()


class LssMaster:
    """That of one bus, alone: a node's answer does not say whose it is. Raises TransportError."""

    def __init__(self, bus: CanBus) -> None:
        self._bus = bus
        self._channel = bus.channel(CanId(codec.LSS_REQUEST), CanId(codec.LSS_RESPONSE), fd=False)

    def assign(self, ident: Ident, node: int) -> bool:
        """Gives the node of this identity a node id; False: it does not answer."""
        self._send(codec.lss(Lss.SWITCH_ALL, 0))
        try:
            for command, value in zip(
                (Lss.SELECT_VENDOR, Lss.SELECT_PRODUCT, Lss.SELECT_REVISION), ident, strict=False
            ):
                self._send(codec.lss_word(command, value))
            if self._ask(codec.lss_word(Lss.SELECT_SERIAL, ident.serial), Lss.SELECTED) is None:
                return False
            answer = self._ask(codec.lss(Lss.CONFIGURE_NODE, node), Lss.CONFIGURE_NODE)
            if answer is None or answer[1]:
                raise ProtocolError(f"the node with serial number 0x{ident.serial:08X} does not take a node id by LSS")
            return True
        finally:
            self._send(codec.lss(Lss.SWITCH_ALL, 0))

    def give_back(self, ident: Ident, node: int) -> None:
        """The node has no node id again once its communication was reset."""
        if self.assign(ident, codec.UNCONFIGURED):
            channel = self._bus.channel(CanId(codec.NMT), ())
            channel.send(codec.nmt(Nmt.RESET_COMMUNICATION, node), SEND_SECONDS)
            channel.close()

    def scan(self, deadline: Deadline) -> Iterator[Ident]:
        """The nodes without a node id (fastscan, CiA 305, 7.4.4), one after the other; they notice nothing else of it."""
        self._send(codec.lss(Lss.SWITCH_ALL, 0))
        found: set[Ident] = set()
        try:
            while not deadline.expired and self._matches(0, 0x80, 0, 0):
                ident = self._one(deadline)
                # Some nodes take part again after they were found.
                if ident is None or ident in found:
                    return
                found.add(ident)
                yield ident
        finally:
            self._send(codec.lss(Lss.SWITCH_ALL, 0))

    def _one(self, deadline: Deadline) -> Ident | None:
        """The identity of one node, which then takes no part in the scan. None: it is gone, or time is up."""
        numbers = []
        for sub in range(4):
            value = 0
            for bit in reversed(range(32)):
                if deadline.expired:
                    return None
                if not self._matches(value, bit, sub, sub):
                    value |= 1 << bit
            if not self._matches(value, 0, sub, (sub + 1) % 4):
                return None
            numbers.append(value)
        return Ident(*numbers)

    def _matches(self, value: int, bit: int, sub: int, following: int) -> bool:
        return self._ask(codec.fastscan(value, bit, sub, following), Lss.FOUND) is not None

    def _send(self, data: bytes) -> None:
        self._channel.send(data, SEND_SECONDS)

    def _ask(self, data: bytes, wanted: Lss) -> bytes | None:
        self._channel.drain()
        self._send(data)
        deadline = Deadline.after(ANSWER_SECONDS)
        while (frame := self._channel.recv(deadline)) is not None:
            if frame.data[:1] == bytes((wanted,)) and len(frame.data) == codec.FRAME:
                return bytes(frame.data)
        return None

    def close(self) -> None:
        self._channel.close()


@contextmanager
def master(bus: CanBus) -> Iterator[LssMaster]:
    with _locks.setdefault(bus, clock.Lock()):
        found = LssMaster(bus)
        try:
            yield found
        finally:
            found.close()
