"""`CanWire`: an emulated CAN or CAN FD bus (ISO 11898-1): arbitration, true frame times, acknowledgement, faults.

Nodes put frames into their transmit queues. Whenever the bus is idle, the lowest id among the queues' first frames goes
next; it takes as many bit times as its bits, stuff bits among them, and is then given to every other powered node. The
schedule is absolute: a wake-up that comes late does not make the bus slower.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import can

from . import wires
from .can_bits import frame_seconds
from .faults import Fault, Faults

TRANSMIT_QUEUE = 32
"""Frames that a node's controller and driver keep; a further one has to wait."""
CAN_ERR_ACK = 0x20
CAN_ERR_BUSOFF = 0x40
"""Ids of error frames, as Linux has them (include/uapi/linux/can/error.h)."""
RETRY_SECONDS = 0.001
"""How often an unacknowledged frame is sent again; real controllers do so at once, and say so as often."""
LATE_SECONDS = 0.05
"""A schedule that is further behind than this starts anew: the machine was asleep, not the bus fast."""


class WireGone(Exception):
    """This node's adapter has been unplugged."""


class CanNode:
    """One controller on the wire. `receive` is called on the wire's thread with each frame of others."""

    def __init__(self, wire: CanWire, name: str, receive: Callable[[can.Message], None]) -> None:
        self.name = name
        self.receive = receive
        self.is_on = True
        self.gone = False
        self.bus_off = False
        self.queue: deque[can.Message] = deque()
        self._wire = wire

    def send(self, message: can.Message, timeout: float | None = None) -> bool:
        """Puts a frame into the transmit queue; False when it stays full for `timeout` seconds (None: no limit).

        Raises WireGone.
        """
        with self._wire.changed:
            ready = self._wire.changed.wait_for(lambda: len(self.queue) < TRANSMIT_QUEUE or self.gone, timeout)
            if self.gone:
                raise WireGone(self.name)
            if not ready or self.bus_off:
                return False
            self.queue.append(message)
            self._wire.changed.notify_all()
            return True

    def power(self, on: bool) -> None:
        """An unpowered node neither sends nor hears nor acknowledges."""
        with self._wire.changed:
            self.is_on = on
            if not on:
                self.queue.clear()
            self._wire.changed.notify_all()

    def detach(self) -> None:
        self._wire.detach(self)


class CanWire:
    """`bitrate`, `data_bitrate`: bit/s; with a data bit rate the bus is CAN FD. `pace`: 1.0 real time, 0.0 no waiting.

    Faults count frames. Corrupt turns a bit of the data, as a faulty gateway does: what a real wire turns is caught by
    the CRC. Disconnect and bus-off hit the nodes that `attach` marked as adapters of the host.
    """

    kind = "can"

    def __init__(
        self,
        channel: str,
        *,
        bitrate: int = 500_000,
        data_bitrate: int | None = None,
        faults: Faults | None = None,
        pace: float = 1.0,
    ) -> None:
        self.channel = channel
        self.bitrate = bitrate
        self.data_bitrate = data_bitrate
        self.faults = faults or Faults()
        self.pace = pace
        self.changed = threading.Condition()
        self.frames = 0
        """Frames that went over the wire."""
        self.busy_seconds = 0.0
        """Bit times that they took."""
        self._nodes: list[CanNode] = []
        self._hosts: set[int] = set()
        self._held: deque[tuple[float, CanNode, can.Message]] = deque()
        self._closing = False
        self._free_at = 0.0
        wires.register(channel, self)
        self._thread = threading.Thread(target=self._run, name=f"can wire {channel}", daemon=True)
        self._thread.start()

    def host_settings(self) -> dict[str, Any]:
        """How python-can opens this wire."""
        settings: dict[str, Any] = {"interface": "proxyflash", "channel": self.channel, "bitrate": self.bitrate}
        if self.data_bitrate:
            settings |= {"fd": True, "data_bitrate": self.data_bitrate}
        return settings

    def attach(self, name: str, receive: Callable[[can.Message], None], *, host: bool = False) -> CanNode:
        """A new node. `host`: an adapter, which faults of the plan may hit."""
        node = CanNode(self, name, receive)
        with self.changed:
            self._nodes.append(node)
            if host:
                self._hosts.add(id(node))
            self.changed.notify_all()
        return node

    def detach(self, node: CanNode) -> None:
        with self.changed:
            if node in self._nodes:
                self._nodes.remove(node)
            self._hosts.discard(id(node))
            node.gone = True
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        self._thread.join()
        wires.forget(self.channel)

    # The wire's own thread.

    def _run(self) -> None:
        while True:
            with self.changed:
                node = self._next()
                while node is None and not self._closing:
                    self.changed.wait(self._held_seconds())
                    self._release_held()
                    node = self._next()
                if self._closing or node is None:
                    return
                message = node.queue[0]
                alone = not any(other.is_on for other in self._nodes if other is not node)
            if alone:
                self._unacknowledged(node)
                continue
            self._transmit(node, message)

    def _next(self) -> CanNode | None:
        """The node that wins arbitration: the lowest id; a base frame before an extended one of the same base id."""
        waiting = [node for node in self._nodes if node.queue and node.is_on and not node.gone and not node.bus_off]
        return min(waiting, key=lambda node: _priority(node.queue[0]), default=None)

    def _transmit(self, node: CanNode, message: can.Message) -> None:
        seconds = frame_seconds(message, self.bitrate, self.data_bitrate or self.bitrate)
        self._wait(seconds)
        fault = self.faults.draw()
        with self.changed:
            if not node.queue or node.queue[0] is not message:
                return  # It lost its supply, or its adapter was unplugged, while it sent.
            node.queue.popleft()
            self.frames += 1
            self.busy_seconds += seconds
            self.changed.notify_all()
            listeners = [other for other in self._nodes if other is not node and other.is_on and not other.gone]
        match fault:
            case Fault.DISCONNECT:
                self._unplug()
            case Fault.BUS_OFF:
                self._go_bus_off()
            case Fault.DROP:
                pass
            case Fault.DELAY:
                self._held.append((time.monotonic() + self.faults.plan.delay_seconds, node, message))
            case _:
                if fault is Fault.CORRUPT:
                    message.data = bytearray(self.faults.corrupted(bytes(message.data)))
                for listener in listeners * (2 if fault is Fault.DUPLICATE else 1):
                    listener.receive(message)

    def _wait(self, seconds: float) -> None:
        if not self.pace:
            return
        now = time.monotonic()
        if self._free_at < now - LATE_SECONDS:
            self._free_at = now
        self._free_at += seconds * self.pace
        left = self._free_at - now
        if left > 0:
            time.sleep(left)

    def _unacknowledged(self, node: CanNode) -> None:
        """Nobody else is there: the frame stays in the queue, and the node is told."""
        frame = can.Message(arbitration_id=CAN_ERR_ACK, is_error_frame=True, data=bytes(8), is_extended_id=False)
        node.receive(frame)
        with self.changed:
            self.changed.wait(RETRY_SECONDS)

    def _unplug(self) -> None:
        for node in [node for node in self._nodes if id(node) in self._hosts]:
            self.detach(node)
            node.receive(can.Message(is_error_frame=True, arbitration_id=0))

    def _go_bus_off(self) -> None:
        for node in [node for node in self._nodes if id(node) in self._hosts]:
            with self.changed:
                node.bus_off = True
                node.queue.clear()
                self.changed.notify_all()
            node.receive(can.Message(is_error_frame=True, arbitration_id=CAN_ERR_BUSOFF, data=bytes(8)))

    def _held_seconds(self) -> float | None:
        return max(0.0, self._held[0][0] - time.monotonic()) if self._held else None

    def _release_held(self) -> None:
        while self._held and self._held[0][0] <= time.monotonic():
            _, sender, message = self._held.popleft()
            for node in self._nodes:
                if node is not sender and node.is_on and not node.gone:
                    node.receive(message)


def _priority(message: can.Message) -> tuple[int, int, int]:
    """Sorts as arbitration does: the 11 leading bits first, then the base format's dominant IDE bit, then the rest."""
    if message.is_extended_id:
        return message.arbitration_id >> 18, 1, message.arbitration_id & 0x3FFFF
    return message.arbitration_id, 0, int(message.is_remote_frame)
