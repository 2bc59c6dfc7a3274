"""can-isotp's state machine as a peer on an emulated CAN wire, on the project's clock: its own stacks have threads of
real time, and its timers read real time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import can
import isotp
from proxyflash.transports import clock
from proxyflash.transports.isotp.user import ClockedLogic

IDLE_SECONDS = 0.05
"""How long the stack waits for a frame until it looks whether it was stopped."""


class IsoTpStack:
    """The interface of can-isotp's `CanStack`, as far as the tests use it.

    `params`: can-isotp's. `listener`: hears each frame of the bus, too.
    """

    def __init__(
        self,
        bus: can.BusABC,
        address: isotp.Address,
        params: dict[str, Any],
        *,
        listener: Callable[[can.Message], object] = lambda message: None,
    ) -> None:
        self._bus = bus
        self._listener = listener
        self._came: deque[isotp.CanMessage] = deque()
        self._messages: clock.SomeQueue[bytearray] = clock.Queue()
        self._turn = clock.Lock()
        self._ended = False
        self._logic = ClockedLogic(rxfn=self._rx, txfn=self._tx, address=address, params=params)
        self._thread = clock.Thread(self._run, name="can-isotp")
        self._thread.start()

    def send(self, data: bytes) -> None:
        with self._turn:
            self._logic.send(data)
            self._logic.process()

    def recv(self, timeout: float) -> bytes | None:
        try:
            return bytes(self._messages.get(timeout=timeout))
        except clock.Empty:
            return None

    def stop(self) -> None:
        self._ended = True
        self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            with self._turn:
                active = self._logic.transmitting() or self._logic.is_rx_active()
            message = self._bus.recv(self._logic.sleep_time() if active else IDLE_SECONDS)
            with self._turn:
                if message is not None:
                    self._listener(message)
                    self._came.append(
                        isotp.CanMessage(
                            message.arbitration_id, message.dlc, bytes(message.data), message.is_extended_id,
                            message.is_fd, message.bitrate_switch,
                        )
                    )  # fmt: skip
                self._logic.process()
                while (data := self._logic.recv()) is not None:
                    self._messages.put(data)

    def _rx(self, timeout: float) -> isotp.CanMessage | None:
        return self._came.popleft() if self._came else None

    def _tx(self, message: isotp.CanMessage) -> None:
        self._bus.send(
            can.Message(
                arbitration_id=message.arbitration_id, data=message.data, is_extended_id=message.is_extended_id,
                is_fd=message.is_fd, bitrate_switch=message.bitrate_switch,
            )
        )  # fmt: skip
