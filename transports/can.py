"""CAN and CAN FD through python-can: any of its interfaces, by its own configuration names.

One reader thread per bus hands frames to channels by arbitration id; nobody else reads from the bus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import can

from .deadline import Deadline


@dataclass(frozen=True, slots=True)
class CanId:
    """An arbitration id; `extended` for 29 bits."""

    value: int
    extended: bool = False


class CanChannel:
    """Frames with one of the `receive` ids that came in since it was opened, in order, and sending under `transmit`."""

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Sends one frame under `transmit`. Raises CanTimeout, CanGone, BusOff, NotAcknowledged."""
        raise NotImplementedError

    def recv(self, deadline: Deadline) -> can.Message | None:
        """The next frame; None when the deadline passes first. Raises CanGone, BusOff."""
        raise NotImplementedError

    def drain(self) -> int:
        """Forgets what came in and was not read; the number of frames."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class CanBus:
    """One CAN adapter, opened once and shared by everything that talks on its bus."""

    kind: ClassVar[str] = "can"
    name: str
    fd: bool
    interface: str
    """python-can's name of the interface, such as "socketcan"."""
    channel_name: str
    """python-can's channel, such as "can0": the kernel's name where the interface is socketcan."""

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """Opens the bus; `settings` are python-can's keys (interface, channel, bitrate, fd, data_bitrate, ...).

        Raises CanAbsent, CanBusy, CanForbidden, CanSettings.
        """
        raise NotImplementedError

    def channel(self, transmit: CanId, receive: CanId | tuple[CanId, ...], *, fd: bool | None = None) -> CanChannel:
        """A channel; `fd` None: as the bus."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
