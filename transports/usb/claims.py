"""Which USB devices the proxyflash processes of this host work on, so that none takes the device of another.

A device that leaves its bus at a reset and comes back at another port may be taken for an equal one. Each process says
which devices it follows by the names of abstract Unix sockets, which all users can list and which end with the process.
Processes in another network namespace are not seen.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket

PREFIX = "proxyflash-usb"
LISTED = Path("/proc/net/unix")
DEVICES = Path("/sys/bus/usb/devices")
MOST_SERIALS = 4
"""Serial numbers that a claim names: a socket's name has 107 bytes."""
_NUMBERS = itertools.count(1)


class Claimed(NamedTuple):
    """A device that is followed: where it was seen last, and its serial numbers as `mark` has them."""

    place: str
    serials: frozenset[str]


def is_anothers(seen: Claimed, own: Claimed, others: Iterable[Claimed]) -> bool:
    """Whether a device that is there now is one of the `others` that are followed, and not `own`: by its serial number, or where
    that does not tell them apart, by its place."""
    others = [other for other in others if other.place != own.place]
    theirs = any(seen.serials & other.serials for other in others)
    if theirs != bool(seen.serials & own.serials):
        return theirs
    return seen.place != own.place and any(other.place == seen.place for other in others)


def returned(
    own: Claimed,
    came: Iterable[Claimed],
    others: Sequence[Claimed],
    is_away: Callable[[str], bool],
    *,
    only_one: bool,
) -> str:
    """The place to which a device has come back that is not at its own place; "": it is not back, or several may be meant.

    `came`: the devices that came since it left. A device is known by its serial number, unless another followed device with that
    number is away too, and else, with `only_one`, by being the only device that came. As long as another followed device is
    away, the only device may be that. `others`: the devices that are followed. `is_away`: whether a place is empty.
    """
    away = [other for other in others if other.place != own.place and is_away(other.place)]
    known = own.serials.difference(*(other.serials for other in away))
    mine = [seen for seen in came if not is_anothers(seen, own, others)]
    for alike in ([seen for seen in mine if seen.serials & known], mine if only_one and not away else []):
        if len(places := {seen.place for seen in alike}) == 1:
            return places.pop()
    return ""


class Claim:
    """This process's word on one device."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def say(self, place: str, serials: Collection[str] = ()) -> None:
        """The device is, or was last, at this port path. Says nothing where the host has no such sockets."""
        import socket

        marked = ",".join(sorted(marks(serials))[:MOST_SERIALS])
        said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            said.bind(f"\0{PREFIX}/{os.getpid()}/{next(_NUMBERS)}/{place}/{marked}")
        except OSError:
            said.close()
            return
        self.close()
        self._socket = said

    def close(self) -> None:
        """A second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def mark(serial: str) -> str:
    """What stands for a serial number in a claim."""
    return hashlib.sha256(serial.encode()).hexdigest()[:8]


def marks(serials: Collection[str]) -> frozenset[str]:
    return frozenset(mark(serial) for serial in serials if serial)


def is_away(place: str) -> bool:
    """Whether no USB device is plugged in there now."""
    return not (DEVICES / place).exists()


def of_others() -> Iterator[Claimed]:
    """What other processes say."""
    form = rf"@{PREFIX}/([0-9]{{1,9}})/[0-9]{{1,9}}/([0-9][0-9.-]{{0,40}})/([0-9a-f,]{{0,40}})"
    with suppress(OSError):
        for line in LISTED.read_text(errors="replace").splitlines():
            found = re.fullmatch(form, line.rpartition(" ")[2])
            if found and int(found[1]) != os.getpid():
                yield Claimed(found[2], frozenset(filter(None, found[3].split(","))))
