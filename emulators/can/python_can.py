"""python-can's interface "proxyflash": an emulated CAN wire of this process, or of another one over a Unix socket.

can.Bus(interface="proxyflash", channel="powertrain")               # a CanWire of this process
can.Bus(interface="proxyflash", channel="unix:/path/powertrain.sock")  # served by `proxyflash emulate`
"""

from __future__ import annotations

from typing import Any

import can

from ...transports import clock
from ...transports.can.bits import FD_SIZES
from .. import registry as wires
from .clocked import ClockedCanBus
from .wire import CAN_ERR_CRTL, CAN_ERR_CRTL_RX_OVERFLOW, CanWire, WireGone

RECEIVE_QUEUE = 32_768
"""Frames that wait to be read; further ones are lost, and an error frame reports the loss, as with socketcan."""

_WAKE = can.Message()


class EmulatedCanBus(ClockedCanBus):
    """`channel`: the wire's name, or "unix:" and the path of a served one. Other keys, those of the adapter that it
    stands for, change nothing: the bit rates are the wire's.

    Raises CanInitializationError when there is no such wire, or `fd` is wanted of one without a data bit rate.
    """

    def __init__(
        self,
        channel: str,
        can_filters: Any = None,
        fd: bool = False,
        receive_own_messages: bool = False,
        **kwargs: Any,
    ) -> None:
        self._queue: clock.SomeQueue[can.Message | None] = clock.Queue()
        """What came in; None: nothing more will; _WAKE: whoever waits is to stop waiting."""
        self._overrun = False
        self._fd = fd
        self.channel_info = f"emulated CAN {channel}"
        self._channel = channel
        if channel.startswith("unix:"):
            from .server import RemoteNode

            self._node: Any = RemoteNode(
                channel.removeprefix("unix:"), self._take, lambda: self._queue.put(None), receive_own_messages
            )
            has_fd = self._node.fd
        else:
            wire = wires.find(channel)
            if not isinstance(wire, CanWire):
                raise can.CanInitializationError(f"there is no emulated CAN wire {channel!r} in this process")
            self._node = wire.attach("host", self._take, host=True, lost=lambda: self._queue.put(None))
            self._node.echo = receive_own_messages
            has_fd = bool(wire.data_bitrate)
        if fd and not has_fd:
            self._node.detach()
            raise can.CanInitializationError(f"the emulated wire {channel!r} is classic CAN: it has no data bit rate")
        self._can_protocol = can.CanProtocol.CAN_FD if fd else can.CanProtocol.CAN_20
        super().__init__(channel=channel, can_filters=can_filters)

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Blocks while the transmit queue is full. Raises CanTimeoutError, CanOperationError, ValueError."""
        if self._is_shutdown:
            raise can.CanOperationError("the bus has been shut down")
        if msg.is_error_frame:
            raise ValueError("an error frame can't be sent")
        if msg.is_fd and not self._fd:
            raise can.CanOperationError("an FD frame can't be sent by a bus that was opened without fd")
        if self._node.bus_off:
            raise can.CanOperationError("the controller is bus-off")
        try:
            taken = self._node.send(_frozen(msg), timeout)
        except WireGone:
            raise can.CanOperationError("the adapter has been unplugged") from None
        if not taken and self._node.bus_off:
            raise can.CanOperationError("the controller is bus-off")
        if not taken:
            raise can.CanTimeoutError("the transmit queue stayed full")

    def _take(self, message: can.Message) -> None:
        """The wire's: a frame came in."""
        if message.is_fd and not self._fd:
            return
        if self._queue.qsize() >= RECEIVE_QUEUE:
            self._overrun = True
        else:
            self._queue.put(message)

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        if self._is_shutdown:
            raise can.CanOperationError("the bus has been shut down")
        if self._overrun and self._queue.empty():
            self._overrun = False
            data = bytes((0, CAN_ERR_CRTL_RX_OVERFLOW, 0, 0, 0, 0, 0, 0))
            return can.Message(is_error_frame=True, arbitration_id=CAN_ERR_CRTL, data=data), True
        try:
            message = self._queue.get(timeout=timeout) if timeout != 0 else self._queue.get_nowait()
        except clock.Empty:
            return None, False
        if message is _WAKE:
            return None, False
        if message is None:
            self._queue.put(None)
            if self._is_shutdown:
                raise can.CanOperationError("the bus has been shut down")
            raise can.CanOperationError("the adapter has been unplugged")
        received = can.Message(
            timestamp=message.timestamp,
            arbitration_id=message.arbitration_id,
            is_extended_id=message.is_extended_id,
            is_remote_frame=message.is_remote_frame,
            is_error_frame=message.is_error_frame,
            channel=self._channel,
            dlc=message.dlc,
            data=bytes(message.data),
            is_fd=message.is_fd,
            is_rx=message.is_rx,
            bitrate_switch=message.bitrate_switch,
            error_state_indicator=message.error_state_indicator,
        )
        return received, message.is_error_frame

    def wake(self) -> None:
        self._queue.put(_WAKE)

    def change_bit_rate(self, bitrate: int) -> None:
        """The host opens its adapter again. Raises CanOperationError where the wire is another process's."""
        if self._channel.startswith("unix:"):
            raise can.CanOperationError("the bit rate of a wire of another process is set there")
        self._node.change_bit_rate(bitrate)

    @property
    def state(self) -> can.BusState:
        return can.BusState.ERROR if self._node.bus_off else can.BusState.ACTIVE

    @state.setter
    def state(self, new_state: can.BusState) -> None:
        raise NotImplementedError("an emulated controller's state can't be set")

    def shutdown(self) -> None:
        was_open = not self._is_shutdown
        super().shutdown()
        if was_open:
            self._node.leave()
            self._queue.put(None)  # Wakes a thread that waits in recv.


def _frozen(message: can.Message) -> can.Message:
    """A copy that its sender can't change any more; an FD frame filled up to a size that there is.

    Raises ValueError for what no controller sends.
    """
    data = bytes(message.data)
    if message.is_fd and len(data) <= FD_SIZES[-1]:
        data = data.ljust(next(size for size in FD_SIZES if size >= len(data)), b"\0")
    return can.Message(
        arbitration_id=message.arbitration_id,
        is_extended_id=message.is_extended_id,
        is_remote_frame=message.is_remote_frame,
        dlc=message.dlc if message.is_remote_frame else len(data),
        data=None if message.is_remote_frame else data,
        is_fd=message.is_fd,
        bitrate_switch=message.bitrate_switch,
        error_state_indicator=message.error_state_indicator,
        check=True,
    )
