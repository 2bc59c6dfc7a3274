"""`HostChanges`: wakes who waits for a device or a network interface of this host.

The kernel announces a device that comes or goes by a uevent. udev sends another one once its rules have given the device its
permissions. The kernel announces a network interface that is set up by a message of rtnetlink. Any user may listen.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import Self

from . import clock

KOBJECT_UEVENT, KERNEL_AND_UDEV = 15, 1 | 2
"""NETLINK_KOBJECT_UEVENT of linux/netlink.h, and its two groups."""
LINKS = 1
"""RTMGRP_LINK of linux/rtnetlink.h."""
SETTLE_SECONDS = 0.2
"""How long after a change more of the same may come: one plug is a dozen messages."""
LONGEST = 1 << 16


class HostChanges:
    """Listens from now on. A context manager. On simulated time, and where it may not listen, it only waits."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        if clock.current().is_simulated:
            return
        for protocol, groups in ((KOBJECT_UEVENT, KERNEL_AND_UDEV), (socket.NETLINK_ROUTE, LINKS)):
            with suppress(OSError):
                opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
                self._sockets.append(opened)
                opened.bind((0, groups))

    def wait(self, seconds: float) -> None:
        """Until something has changed, and no longer than `seconds`."""
        if not self._sockets:
            clock.sleep(seconds)
            return
        if select.select(self._sockets, [], [], seconds)[0]:
            clock.sleep(min(SETTLE_SECONDS, seconds))
            for opened in self._sockets:
                with suppress(OSError):
                    while opened.recv(LONGEST):
                        pass

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()
        self._sockets.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
