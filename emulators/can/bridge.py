"""Joins an emulated CAN wire with any of python-can's buses: what goes over the one goes over the other."""

from __future__ import annotations

from collections.abc import Callable

import can

from ...transports import clock
from .wire import CanWire, WireGone

LOOK_SECONDS = 0.1
"""How often a thread looks whether the bridge was ended."""
SEND_SECONDS = 1.0
WAITING = 4096
"""Frames that wait for the bus to take them; further ones are lost, as in any gateway."""


def bridge(wire: CanWire, bus: can.BusABC) -> Callable[[], None]:
    """Joins a wire with a bus of python-can, both ways. The function returned ends it; the bus stays open.

    A bus that fails is joined no longer.
    """
    clock.real("a bridge to another bus")
    waiting: clock.SomeQueue[can.Message] = clock.Queue(WAITING)
    ended = clock.Event()

    def take(message: can.Message) -> None:
        if not message.is_error_frame and not waiting.full():
            waiting.put_nowait(message)

    node = wire.attach("bridge", take, lost=ended.set)

    def outwards() -> None:
        while not ended.is_set():
            try:
                message = waiting.get(timeout=LOOK_SECONDS)
            except clock.Empty:
                continue
            try:
                bus.send(message, SEND_SECONDS)
            except (can.CanError, OSError, ValueError):
                continue  # Lost: the bus is full, or can't carry it. If the bus is gone, the reading thread ends.

    def inwards() -> None:
        while not ended.is_set():
            try:
                message = bus.recv(LOOK_SECONDS)
                if message is not None and not message.is_error_frame:
                    node.send(message, SEND_SECONDS)
            except (can.CanError, OSError, ValueError, WireGone):
                ended.set()
        node.detach()

    threads = [clock.Thread(target=target, name=f"can bridge {target.__name__}") for target in (outwards, inwards)]
    for thread in threads:
        thread.start()

    def close() -> None:
        ended.set()
        for thread in threads:
            thread.join()

    return close
