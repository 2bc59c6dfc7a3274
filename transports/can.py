"""CAN and CAN FD through python-can: any of its interfaces, by its own configuration names.

One reader thread per bus hands frames to channels by arbitration id; nobody else reads from the bus. Whatever ends the
bus (the adapter unplugged, bus-off) reaches every channel that waits, at once.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import can

from .deadline import Deadline
from .errors import (
    BusOff,
    CanAbsent,
    CanBusy,
    CanForbidden,
    CanGone,
    CanOverrun,
    CanSettings,
    CanTimeout,
    NotAcknowledged,
    TransportError,
)

LOOK_SECONDS = 0.5
"""How long the reader waits for a frame before it looks whether the bus was closed."""
QUEUE_LIMIT = 10_000
"""Frames that a channel keeps unread."""
ERROR_ACK = 0x20
ERROR_BUS_OFF = 0x40
"""Bits of an error frame's id (Linux, include/uapi/linux/can/error.h: CAN_ERR_ACK, CAN_ERR_BUSOFF)."""
UNACKNOWLEDGED_LIMIT = 8
"""Error frames without a frame that came through between, until a sender is told that nobody acknowledges."""


@dataclass(frozen=True, slots=True)
class CanId:
    """An arbitration id; `extended` for 29 bits."""

    value: int
    extended: bool = False

    def __str__(self) -> str:
        return f"0x{self.value:08X}" if self.extended else f"0x{self.value:03X}"


class CanChannel:
    """Frames with one of the `receive` ids that came in since it was opened, in order, and sending under `transmit`."""

    def __init__(self, bus: CanBus, transmit: CanId, receive: tuple[CanId, ...], fd: bool) -> None:
        self.transmit = transmit
        self.receive = receive
        self.fd = fd
        self._bus = bus
        self._frames: deque[can.Message] = deque()
        self._changed = threading.Condition()
        self._failure: TransportError | None = None

    def send(self, data: bytes, deadline: Deadline, *, bit_rate_switch: bool = True) -> None:
        """Sends one frame under `transmit`. Raises CanTimeout, CanGone, BusOff, NotAcknowledged."""
        self._bus.send(
            can.Message(
                arbitration_id=self.transmit.value,
                is_extended_id=self.transmit.extended,
                data=data,
                is_fd=self.fd,
                bitrate_switch=self.fd and bit_rate_switch,
            ),
            deadline,
        )

    def recv(self, deadline: Deadline) -> can.Message | None:
        """The next frame; None when the deadline passes first. Raises CanGone, BusOff, CanOverrun."""
        with self._changed:
            while not self._frames:
                if self._failure is not None:
                    raise self._failure
                if not self._changed.wait(deadline.remaining) and not self._frames:
                    if self._failure is not None:
                        raise self._failure
                    return None
            return self._frames.popleft()

    def drain(self) -> int:
        """Forgets what came in and was not read; the number of frames."""
        with self._changed:
            count = len(self._frames)
            self._frames.clear()
            return count

    def close(self) -> None:
        self._bus.forget(self)

    def take(self, message: can.Message) -> None:
        """The reader's: a frame for this channel."""
        with self._changed:
            if len(self._frames) >= QUEUE_LIMIT:
                self._failure = CanOverrun(
                    f"{QUEUE_LIMIT:,} frames under {', '.join(map(str, self.receive))} came in and were not read"
                )
            else:
                self._frames.append(message)
            self._changed.notify()

    def fail(self, error: TransportError) -> None:
        """The reader's: nothing more will come."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()


class CanBus:
    """One CAN adapter, opened once and shared by everything that talks on its bus."""

    kind: ClassVar[str] = "can"

    def __init__(self, name: str, bus: can.BusABC, interface: str, channel_name: str, fd: bool) -> None:
        self.name = name
        self.interface = interface
        self.channel_name = channel_name
        self.fd = fd
        self._bus = bus
        self._channels: dict[tuple[int, bool], tuple[CanChannel, ...]] = {}
        self._lock = threading.Lock()
        self._failure: TransportError | None = None
        self._unacknowledged = 0
        self._closing = False
        self._reader = threading.Thread(target=self._read, name=f"can {name}", daemon=True)
        self._reader.start()

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """Opens the bus; `settings` are python-can's keys (interface, channel, bitrate, fd, data_bitrate, ...).

        Raises CanAbsent, CanBusy, CanForbidden, CanSettings.
        """
        interface = str(settings.get("interface", ""))
        channel = str(settings.get("channel", ""))
        if not interface:
            raise CanSettings(f"bus {name!r} names no interface", remedy='Add one, such as interface = "socketcan".')
        try:
            bus = can.Bus(**dict(settings))
        except Exception as error:
            raise _opening_error(name, interface, channel, error) from error
        return cls(name, bus, interface, channel, bool(settings.get("fd", False)))

    def channel(self, transmit: CanId, receive: CanId | tuple[CanId, ...], *, fd: bool | None = None) -> CanChannel:
        """A channel; `fd` None: as the bus."""
        wanted = receive if isinstance(receive, tuple) else (receive,)
        channel = CanChannel(self, transmit, wanted, self.fd if fd is None else fd)
        with self._lock:
            if self._failure is not None:
                channel.fail(self._failure)
            for item in wanted:
                key = (item.value, item.extended)
                self._channels[key] = (*self._channels.get(key, ()), channel)
        return channel

    def forget(self, channel: CanChannel) -> None:
        """Takes a channel off the bus."""
        with self._lock:
            for item in channel.receive:
                key = (item.value, item.extended)
                left = tuple(other for other in self._channels.get(key, ()) if other is not channel)
                if left:
                    self._channels[key] = left
                else:
                    self._channels.pop(key, None)

    def send(self, message: can.Message, deadline: Deadline) -> None:
        """Sends one frame. Raises CanTimeout, CanGone, BusOff, NotAcknowledged."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._unacknowledged >= UNACKNOWLEDGED_LIMIT:
                self._unacknowledged = 0
                raise NotAcknowledged(f"no node on {self.name} acknowledges frames")
            try:
                self._bus.send(message, timeout=min(LOOK_SECONDS, max(deadline.remaining, 0.001)))
                return
            except can.CanError as error:
                if self._failure is not None:
                    raise self._failure from error
                if not _is_full(error):
                    self._end(CanGone(f"{self.name}: {error}"))
                elif deadline.expired:
                    if self._unacknowledged:
                        self._unacknowledged = 0
                        raise NotAcknowledged(f"no node on {self.name} acknowledges frames") from error
                    raise CanTimeout(f"{self.name}: the adapter took no frame in time; the bus is full") from error
            except OSError as error:
                self._end(CanGone(f"{self.name}: {error.strerror or error}"))

    def close(self) -> None:
        self._closing = True
        self._reader.join()
        self._bus.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        while not self._closing:
            try:
                message = self._bus.recv(LOOK_SECONDS)
            except (can.CanError, OSError, ValueError) as error:
                if not self._closing:
                    self._end(CanGone(f"{self.name}: {error}"))
                return
            if message is None:
                continue
            if message.is_error_frame:
                self._error_frame(message)
                continue
            self._unacknowledged = 0
            if message.is_remote_frame:
                continue
            for channel in self._channels.get((message.arbitration_id, message.is_extended_id), ()):
                channel.take(message)

    def _error_frame(self, message: can.Message) -> None:
        if message.arbitration_id & ERROR_BUS_OFF:
            self._end(BusOff(f"the adapter of {self.name} went bus-off"))
        elif message.arbitration_id & ERROR_ACK:
            self._unacknowledged += 1

    def _end(self, error: TransportError) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
            channels = {channel for listed in self._channels.values() for channel in listed}
        for channel in channels:
            channel.fail(self._failure)


def _is_full(error: can.CanError) -> bool:
    """Whether an error of sending means only that the adapter's queue is full."""
    if getattr(error, "error_code", None) in (errno.ENOBUFS, errno.EAGAIN, errno.ETIMEDOUT):
        return True
    text = str(error).lower()
    return isinstance(error, can.CanTimeoutError) or any(word in text for word in ("timeout", "time out", "full"))


def _opening_error(name: str, interface: str, channel: str, error: Exception) -> TransportError:
    """python-can's and its drivers' ways to say why a bus does not open, told apart."""
    said = f"bus {name!r} ({interface} {channel}): {error}"
    code = error.errno if isinstance(error, OSError) else getattr(error, "error_code", None)
    if code in (errno.EACCES, errno.EPERM):
        return CanForbidden(said)
    if code in (errno.EBUSY, errno.EADDRINUSE):
        return CanBusy(said)
    if code in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
        return CanAbsent(said, remedy="This kernel has no CAN. Run: proxyflash doctor")
    if code in (errno.ENODEV, errno.ENOENT, errno.ENXIO):
        return CanAbsent(said)
    if isinstance(error, can.CanInterfaceNotImplementedError):
        known = ", ".join(sorted(can.VALID_INTERFACES))
        return CanSettings(f"bus {name!r}: python-can has no interface {interface!r}", remedy=f"It has: {known}.")
    if isinstance(error, ImportError):
        return CanSettings(said, remedy="Install the driver that this interface of python-can wants.")
    if isinstance(error, can.CanInitializationError):
        return CanAbsent(said)
    return CanSettings(said)
