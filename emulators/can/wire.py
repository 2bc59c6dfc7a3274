"""`CanWire`: an emulated CAN or CAN FD bus (ISO 11898-1): arbitration, true frame times, acknowledgement, faults.

Nodes put frames into their transmit queues. Whenever the bus is idle, the lowest id among the queues' first frames goes
next; it takes as many bit times as its bits, stuff bits among them, and is then given to every other powered node. The
schedule is absolute: a frame begins when the one before it has ended or, on an idle bus, when it was put into its
queue; a wake-up that comes late does not make the bus slower, and a wake-up after a pause does not make it faster.
What a node sends after a frame that was brought to it late counts as put into its queue earlier by as much.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import can

from ...transports import clock
from ...transports.can.bits import frame_seconds
from .. import registry as wires
from ..faults import Fault, Faults

TRANSMIT_QUEUE = 32
"""Frames that a node's controller and driver keep; a further one has to wait."""
CAN_ERR_CRTL = 0x04
CAN_ERR_CRTL_RX_OVERFLOW = 0x01
CAN_ERR_ACK = 0x20
CAN_ERR_BUSOFF = 0x40
"""Ids of error frames, and a bit of data[1] with CRTL, as Linux has them (include/uapi/linux/can/error.h)."""
LEAVE_SECONDS = 0.5
"""How long a node that leaves waits for its frames to be sent: nobody may be there to acknowledge them."""
RETRY_SECONDS = 0.001
"""How often an unacknowledged frame is sent again; real controllers do so at once, and say so as often."""
LATE_SECONDS = 0.05
"""A schedule that is further behind than this starts again: the machine was asleep, not the bus fast."""


class WireGone(Exception):
    """This node's adapter has been unplugged."""


class CanNode:
    """One controller on the wire. `receive` is called on the wire's thread with each frame of others.

    `sent` is called when a frame of its own has gone over the wire, `lost` once if the adapter is unplugged or the wire
    closed. With `echo`, frames of its own come back too, marked by is_rx = False. No call may raise or wait.
    """

    def __init__(
        self,
        wire: CanWire,
        name: str,
        receive: Callable[[can.Message], None],
        sent: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self.name = name
        self.receive = receive
        self.sent = sent
        self.lost = lost
        self.echo = False
        self.is_on = True
        self.gone = False
        self.bus_off = False
        self.bitrate = wire.bitrate
        """That of its controller: nodes with another one neither hear nor acknowledge it. In bit/s."""
        self.late = 0.0
        """How long after its end on the bus the last frame was brought to this node. In seconds."""
        self.queue: deque[tuple[float, can.Message]] = deque()
        """Frames to send, each with the time on `time.monotonic`'s clock when it was put here."""
        self._wire = wire

    @property
    def hears(self) -> bool:
        """Whether it takes part in the bus: receives and acknowledges."""
        return self.is_on and not self.gone and not self.bus_off

    def hears_at(self, bitrate: int) -> bool:
        """Whether it takes part in the bus at that bit rate."""
        return self.hears and self.bitrate == bitrate

    def change_bit_rate(self, bitrate: int) -> None:
        """Frames that are not sent yet are lost."""
        with self._wire.changed:
            if bitrate == self.bitrate:
                return
            self.queue.clear()
            self.bitrate = bitrate
            self._wire.changed.notify_all()

    def send(self, message: can.Message, timeout: float | None = None, *, at: float | None = None) -> bool:
        """Puts a frame into the transmit queue; False when it stays full for `timeout` seconds (None: no limit).

        `at`: when it was ready, on `time.monotonic`'s clock, if that is known to be earlier. The frame is the wire's
        from now on. False as well when this controller is bus-off. Raises WireGone.
        """
        changed = self._wire.changed
        with changed:
            if len(self.queue) >= TRANSMIT_QUEUE:
                changed.wait_for(lambda: len(self.queue) < TRANSMIT_QUEUE or self.gone or self.bus_off, timeout)
            if self.gone:
                raise WireGone(self.name)
            if self.bus_off or len(self.queue) >= TRANSMIT_QUEUE:
                return False
            now = clock.monotonic()
            self.queue.append((now - self.late if at is None else min(now, at), message))
            changed.notify_all()
            return True

    def leave(self) -> None:
        """Detaches once what it has taken is sent: a driver does that also when the program that gave it has ended."""
        self.flush()
        self.detach()

    def flush(self) -> None:
        """Waits until what it has taken is sent, for a while."""
        with self._wire.changed:
            self._wire.changed.wait_for(lambda: not self.queue or not self.hears, LEAVE_SECONDS)

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
        self.changed = clock.Condition()
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
        self._thread = clock.Thread(target=self._run, name=f"can wire {channel}")
        self._thread.start()

    def host_settings(self) -> dict[str, Any]:
        """How python-can opens this wire."""
        settings: dict[str, Any] = {"interface": "proxyflash", "channel": self.channel, "bitrate": self.bitrate}
        if self.data_bitrate:
            settings |= {"fd": True, "data_bitrate": self.data_bitrate}
        return settings

    @property
    def ended_at(self) -> float:
        """When the last frame ended, on `time.monotonic`'s clock; for those that receive it."""
        return self._free_at if self.pace else clock.monotonic()

    def attach(
        self,
        name: str,
        receive: Callable[[can.Message], None],
        *,
        host: bool = False,
        sent: Callable[[], None] = lambda: None,
        lost: Callable[[], None] = lambda: None,
    ) -> CanNode:
        """A new node. `host`: an adapter, which faults of the plan may hit."""
        node = CanNode(self, name, receive, sent, lost)
        with self.changed:
            if self._closing:
                node.gone = True
                return node
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
        """Ends the wire; to its nodes it is as if their adapters were unplugged."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        self._thread.join()
        self._unplug(list(self._nodes))
        if wires.find(self.channel) is self:
            wires.forget(self.channel)

    # The wire's own thread.

    def _run(self) -> None:
        while True:
            with self.changed:
                while not self._closing and (node := self._next()) is None and not self._held_is_due():
                    self.changed.wait(max(0.0, self._held[0][0] - clock.monotonic()) if self._held else None)
                if self._closing:
                    return
                alone = node is not None and not any(
                    other.hears_at(node.bitrate) for other in self._nodes if other is not node
                )
                ready, message = node.queue[0] if node is not None else (0.0, None)
            self._release_held()
            if node is None or message is None:
                continue
            if alone:
                self._unacknowledged(node)
            else:
                self._transmit(node, ready, message)

    def _next(self) -> CanNode | None:
        """The node that wins arbitration."""
        waiting = [node for node in self._nodes if node.queue and node.hears]
        if len(waiting) < 2:
            return waiting[0] if waiting else None
        return min(waiting, key=lambda node: priority(node.queue[0][1]))

    def _transmit(self, node: CanNode, ready: float, message: can.Message) -> None:
        seconds = frame_seconds(message, node.bitrate, self.data_bitrate or node.bitrate)
        self._wait(ready, seconds)
        with self.changed:
            if not node.queue or node.queue[0][1] is not message:
                return  # It lost its supply, or its adapter was unplugged, while it sent.
            node.queue.popleft()
            self.frames += 1
            self.busy_seconds += seconds
            self.changed.notify_all()
            listeners = [other for other in self._nodes if other is not node and other.hears_at(node.bitrate)]
            hosts = [other for other in self._nodes if id(other) in self._hosts]
        message.timestamp = clock.time()
        node.sent()
        if node.echo:
            own = copy.copy(message)
            own.is_rx = False
            node.receive(own)
        match fault := self.faults.draw():
            case Fault.DISCONNECT:
                self._unplug(hosts)
            case Fault.BUS_OFF:
                self._go_bus_off(hosts)
            case Fault.DROP:
                pass
            case Fault.DELAY:
                self._held.append((clock.monotonic() + self.faults.plan.delay_seconds, node, message))
            case _:
                if fault is Fault.CORRUPT:
                    message = copy.copy(message)
                    message.data = bytearray(self.faults.corrupted(bytes(message.data)))
                for listener in listeners * (2 if fault is Fault.DUPLICATE else 1):
                    listener.late = min(clock.monotonic() - self.ended_at, LATE_SECONDS)
                    listener.receive(message)

    def _wait(self, ready: float, seconds: float) -> None:
        """Sleeps until the end of a frame that was put into its queue at `ready` and takes `seconds`."""
        if not self.pace:
            return
        now = clock.monotonic()
        begin = max(self._free_at, ready)
        if begin < now - LATE_SECONDS:
            begin = now
        self._free_at = begin + seconds * self.pace
        if self._free_at > now:
            clock.sleep(self._free_at - now)

    def _unacknowledged(self, node: CanNode) -> None:
        """Nobody else is there: the frame stays in the queue, and the node gets an error frame."""
        node.receive(_error_frame(CAN_ERR_ACK))
        with self.changed:
            self.changed.wait(RETRY_SECONDS)

    def _unplug(self, nodes: list[CanNode]) -> None:
        for node in nodes:
            self.detach(node)
            node.lost()

    def _go_bus_off(self, nodes: list[CanNode]) -> None:
        for node in nodes:
            with self.changed:
                node.bus_off = True
                node.queue.clear()
                self.changed.notify_all()
            node.receive(_error_frame(CAN_ERR_BUSOFF))

    def _held_is_due(self) -> bool:
        return bool(self._held) and self._held[0][0] <= clock.monotonic()

    def _release_held(self) -> None:
        while self._held_is_due():
            _, sender, message = self._held.popleft()
            with self.changed:
                listeners = [node for node in self._nodes if node is not sender and node.hears_at(sender.bitrate)]
            for node in listeners:
                node.receive(message)


def _error_frame(identifier: int) -> can.Message:
    return can.Message(timestamp=clock.time(), is_error_frame=True, arbitration_id=identifier, data=bytes(8))


def priority(message: can.Message) -> tuple[int, int, int, int, int]:
    """Sorts as arbitration does (ISO 11898-1:2015, 10.4.2.3): bit by bit as sent, where a 0 wins.

    The 11 leading bits; then RTR, for which an extended frame sends a recessive SRR; IDE; the 18 bits of an extended
    frame, and its RTR.
    """
    remote = int(message.is_remote_frame)
    if message.is_extended_id:
        return message.arbitration_id >> 18, 1, 1, message.arbitration_id & 0x3FFFF, remote
    return message.arbitration_id, remote, 0, 0, 0
