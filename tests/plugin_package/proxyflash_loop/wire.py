"""The wire of an emulated ring: it has the parts' answers ready when the host asks for them."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from proxyflash.emulators.bench_wire import BenchWire, Served
from proxyflash.emulators.device import BadDevice
from proxyflash.emulators.faults import Fault, Faults
from proxyflash.transports import clock

BYTE_SECONDS = 10e-6
"""What a byte takes on the wire."""


class LoopWire(BenchWire):
    """Faults count frames, in both directions. A frame that is to be delayed comes behind the next one."""

    kind: ClassVar[str] = "loop"

    def __init__(self, faults: Faults, pace: float) -> None:
        self.faults = faults
        self.pace = pace
        self.nodes: dict[int, Callable[[bytes], bytes | None]] = {}
        """What is at each node: it takes a frame and gives its answer."""
        self._answers: deque[tuple[int, bytes]] = deque()
        self._held: list[tuple[int, bytes]] = []
        self._is_gone = False
        self._lock = clock.RLock()

    @classmethod
    def make(cls, channel: str, settings: Mapping[str, Any], faults: Faults, pace: float) -> Self:
        for key in settings:
            raise BadDevice(key, "no key of an emulated ring")
        return cls(faults, pace)

    def host_settings(self) -> dict[str, Any]:
        return {"ring": self}

    def rejoin(self) -> None:
        self._is_gone = False

    def unplug(self, what: object) -> None:
        """Takes the host's place in the ring from it. `what`: brought that about."""
        self._is_gone = True

    # The host's place in the ring.

    def send(self, node: int, data: bytes) -> None:
        with self._lock:
            for frame in self._passed(node, data):
                part = self.nodes.get(frame[0])
                found = part(frame[1]) if part is not None else None
                if found is not None:
                    self._answers.extend(self._passed(frame[0], found))

    def receive(self, seconds: float) -> tuple[int, bytes] | None:
        with self._lock:
            self._require()
            if self._answers:
                return self._answers.popleft()
        clock.sleep(seconds)
        return None

    def leave(self) -> None:
        self._answers.clear()

    def _require(self) -> None:
        if self._is_gone:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def _passed(self, node: int, data: bytes) -> list[tuple[int, bytes]]:
        """What comes out at the other end."""
        self._require()
        clock.sleep(len(data) * BYTE_SECONDS * self.pace)
        fault = self.faults.draw()
        if fault in (Fault.DISCONNECT, Fault.BUS_OFF):
            self.unplug(fault)
            self._require()
        held, self._held = self._held, []
        match fault:
            case Fault.DROP:
                return held
            case Fault.DUPLICATE:
                return [(node, data), (node, data), *held]
            case Fault.CORRUPT:
                return [(node, self.faults.corrupted(data)), *held]
            case Fault.DELAY:
                self._held = [(node, data)]
                return held
        return [(node, data), *held]

    # Other programs.

    def serve(self, name: str, folder: Path) -> Served:
        """At a Unix socket, for one program at a time."""
        path = folder / f"{name}.sock"
        clock.real(f"the socket {path}")
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(1)

        def run() -> None:
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as program, suppress(ConnectionError):
                        while data := program.recv(256):
                            self.send(data[0], data[1:])
                            while self._answers:
                                node, found = self._answers.popleft()
                                program.send(bytes([node]) + found)

        def end() -> None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()
            path.unlink(missing_ok=True)

        thread = clock.Thread(target=run, name=f"ring {name}")
        thread.start()
        return Served(str(path), f'kind = "loop", socket = "{path}"', end)

    def close(self) -> None:
        self._is_gone = True
