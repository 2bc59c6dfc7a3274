"""python-can's interface "proxyflash": an emulated CAN wire of this process, or of another one over a Unix socket.

can.Bus(interface="proxyflash", channel="powertrain")               # a CanWire of this process
can.Bus(interface="proxyflash", channel="unix:/path/powertrain.sock")  # served by `proxyflash emulate`
"""

from __future__ import annotations

import queue
import time
from typing import Any

import can

from . import wires
from .can_wire import CAN_ERR_BUSOFF, CanWire, WireGone


class EmulatedCanBus(can.BusABC):
    """`channel`: the wire's name, or "unix:" and the path of a served one."""

    def __init__(self, channel: str, can_filters: Any = None, fd: bool = False, **kwargs: Any) -> None:
        self._queue: queue.SimpleQueue[can.Message] = queue.SimpleQueue()
        self._bus_off = False
        self.channel_info = f"emulated CAN {channel}"
        if channel.startswith("unix:"):
            from .can_server import RemoteNode

            self._node: Any = RemoteNode(channel.removeprefix("unix:"), self._queue.put)
        else:
            wire = wires.find(channel)
            if not isinstance(wire, CanWire):
                raise can.CanInitializationError(f"there is no emulated CAN wire {channel!r} in this process")
            self._node = wire.attach("host", self._queue.put, host=True)
        self._can_protocol = can.CanProtocol.CAN_FD if fd else can.CanProtocol.CAN_20
        super().__init__(channel=channel, can_filters=can_filters, **kwargs)

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Blocks while the transmit queue is full. Raises CanTimeoutError, CanOperationError."""
        try:
            taken = self._node.send(msg, timeout)
        except WireGone:
            raise can.CanOperationError("the adapter has been unplugged") from None
        if self._node.bus_off:
            raise can.CanOperationError("the controller is bus-off")
        if not taken:
            raise can.CanTimeoutError("the transmit queue stayed full")

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        try:
            message = self._queue.get(timeout=timeout) if timeout != 0 else self._queue.get_nowait()
        except queue.Empty:
            if self._node.gone:
                raise can.CanOperationError("the adapter has been unplugged") from None
            return None, False
        if message.is_error_frame:
            if message.arbitration_id == 0:
                raise can.CanOperationError("the adapter has been unplugged")
            self._bus_off = self._bus_off or bool(message.arbitration_id & CAN_ERR_BUSOFF)
        received = can.Message(
            timestamp=time.time(),
            arbitration_id=message.arbitration_id,
            is_extended_id=message.is_extended_id,
            is_remote_frame=message.is_remote_frame,
            is_error_frame=message.is_error_frame,
            channel=message.channel,
            dlc=message.dlc,
            data=message.data,
            is_fd=message.is_fd,
            bitrate_switch=message.bitrate_switch,
            error_state_indicator=message.error_state_indicator,
        )
        return received, False

    @property
    def state(self) -> can.BusState:
        return can.BusState.ERROR if self._bus_off else can.BusState.ACTIVE

    @state.setter
    def state(self, new_state: can.BusState) -> None:
        raise NotImplementedError("an emulated controller's state can't be set")

    def shutdown(self) -> None:
        super().shutdown()
        self._node.detach()
