"""`LoopBus`: the host's place in a ring. A real ring is behind a Unix socket, an emulated or a recorded one in this process.

[bus.ring]
kind = "loop"
socket = "/run/ring.sock"
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import AdapterAbsent, AdapterGone, BadSettings
from proxyflash.transports.recording.recorder import Recorder
from proxyflash.transports.transport import HostCheck, Transport

from .record import LoopFrame

SOCKETS = "PROXYFLASH_LOOP_SOCKETS"
"""Of the environment: the folder that has a socket for each ring of this host."""


class LoopSettings(BadSettings):
    code = "E-LOOP-SETTINGS"
    default_remedy = "A bus of kind loop has one key: socket, the path of the ring's socket."


class LoopAbsent(AdapterAbsent):
    code = "E-LOOP-ABSENT"
    default_remedy = "Is the program that serves the ring running?"


class LoopGone(AdapterGone):
    code = "E-LOOP-GONE"
    default_remedy = "Start the program that serves the ring again, then run the same command."


class Ring(Protocol):
    """What is behind the bus. Each method raises OSError when the ring is gone."""

    def send(self, node: int, data: bytes) -> None: ...

    def receive(self, seconds: float) -> tuple[int, bytes] | None:
        """The next frame; None when none came in time."""

    def leave(self) -> None: ...


class SocketRing:
    """A ring behind a Unix socket, which has a frame in each packet: the node, then the bytes."""

    def __init__(self, path: str) -> None:
        clock.real(f"the socket {path}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def send(self, node: int, data: bytes) -> None:
        self._socket.send(bytes([node]) + data)

    def receive(self, seconds: float) -> tuple[int, bytes] | None:
        # A time-out of 0 would mean something else to a socket.
        self._socket.settimeout(max(seconds, 0.001))
        try:
            data = self._socket.recv(256)
        except TimeoutError:
            return None
        if not data:
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        return data[0], data[1:]

    def leave(self) -> None:
        self._socket.close()


class LoopBus(Transport):
    """One ring."""

    kind: ClassVar[str] = "loop"
    recorder: Recorder | None = None

    def __init__(self, name: str, ring: Ring) -> None:
        self.name = name
        self._ring = ring

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """`settings`: `socket`, a path; or `ring`, a Ring of this process. Raises LoopSettings, LoopAbsent."""
        match dict(settings):
            case {"ring": ring}:
                return cls(name, ring)
            case {"socket": str(path), **rest} if not rest:
                try:
                    return cls(name, SocketRing(path))
                except OSError as error:
                    raise LoopAbsent(f"no ring at {path}: {error.strerror}") from error
        raise LoopSettings(f"{name}: these keys do not hold: {', '.join(settings) or 'none'}")

    def exchange(self, node: int, data: bytes, deadline: Deadline) -> bytes | None:
        """What a node answers; None when it doesn't. Raises LoopGone."""
        try:
            while self._ring.receive(0.0) is not None:
                pass  # What came too late answers an earlier request.
            if self.recorder is not None:
                self.recorder.add(LoopFrame, self.name, True, node, data, size=len(data))
            self._ring.send(node, data)
            while (frame := self._ring.receive(deadline.remaining)) is not None:
                if self.recorder is not None:
                    self.recorder.add(LoopFrame, self.name, False, *frame, size=len(frame[1]))
                if frame[0] == node:
                    return frame[1]
        except OSError as error:
            raise LoopGone(f"the ring {self.name} is gone: {error.strerror}") from error
        return None

    @classmethod
    def host_checks(cls) -> Iterator[HostCheck]:
        there = ", ".join(map(str, sockets()))
        yield HostCheck(f"rings: {there or 'none'}", True if there else None, f"Set {SOCKETS} to a folder of sockets.")

    def close(self) -> None:
        self._ring.leave()


def sockets() -> list[Path]:
    """Of the rings of this host."""
    folder = os.environ.get(SOCKETS)
    return sorted(Path(folder).glob("*.sock")) if folder else []
