"""Serves an emulated CAN wire to other processes over a Unix socket, and joins it with any of python-can's buses.

A record of the socket, either way, is 80 bytes, big endian: id (4), flags (1), length (1), credits (2), 8 of padding,
data (64). Flags: 1 extended, 2 remote, 4 error, 8 FD, 16 bit rate switch, 32 no frame at all. The server gives a
client as many credits as its transmit queue has room; a frame costs one, so that a client's send blocks as it does on a
real driver whose queue is full.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import can

from .can_wire import CanWire, WireGone

RECORD = struct.Struct(">IBBH8x64s")
EXTENDED, REMOTE, ERROR, FD, BRS, NO_FRAME = 1, 2, 4, 8, 16, 32
CREDITS = 32
"""Frames of a client that are under way at once."""


def pack(message: can.Message) -> bytes:
    """One frame as a record."""
    flags = (
        EXTENDED * message.is_extended_id
        | REMOTE * message.is_remote_frame
        | ERROR * message.is_error_frame
        | FD * message.is_fd
        | BRS * message.bitrate_switch
    )
    length = message.dlc if message.is_remote_frame else len(message.data)
    return RECORD.pack(message.arbitration_id, flags, length, 0, bytes(message.data))


def unpack(record: bytes) -> tuple[can.Message | None, int]:
    """The frame of a record, None if it has none, and its credits."""
    identifier, flags, length, credits, data = RECORD.unpack(record)
    if flags & NO_FRAME:
        return None, credits
    remote = bool(flags & REMOTE)
    message = can.Message(
        arbitration_id=identifier,
        is_extended_id=bool(flags & EXTENDED),
        is_remote_frame=remote,
        is_error_frame=bool(flags & ERROR),
        is_fd=bool(flags & FD),
        bitrate_switch=bool(flags & BRS),
        dlc=length,
        data=None if remote else data[: min(length, 64)],
    )
    return message, credits


def credit(count: int) -> bytes:
    return RECORD.pack(0, NO_FRAME, 0, count, b"")


def serve_can(wire: CanWire, path: Path) -> Callable[[], None]:
    """Serves a wire at a Unix socket; each client is a node. The function returned ends it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    clients: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            clients.append(client)
            threading.Thread(target=_serve_client, args=(wire, client), name="can client", daemon=True).start()

    thread = threading.Thread(target=accept, name=f"can server {path.name}", daemon=True)
    thread.start()

    def close() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        path.unlink(missing_ok=True)

    return close


def _serve_client(wire: CanWire, client: socket.socket) -> None:
    sending = threading.Lock()

    def send(record: bytes) -> None:
        # A client that doesn't read any more is about to go.
        with sending, contextlib.suppress(OSError):
            client.sendall(record)

    node = wire.attach("client", lambda message: send(pack(message)), host=True)
    send(credit(CREDITS))
    try:
        for record in _records(client):
            message, _ = unpack(record)
            if message is not None:
                node.send(message)
                send(credit(1))
    except (OSError, WireGone, ValueError):
        pass
    finally:
        node.detach()
        client.close()


def _records(connection: socket.socket) -> Iterator[bytes]:
    """The records that come in, until the other end closes."""
    kept = b""
    while piece := connection.recv(64 * RECORD.size):
        kept += piece
        whole = len(kept) // RECORD.size * RECORD.size
        for start in range(0, whole, RECORD.size):
            yield kept[start : start + RECORD.size]
        kept = kept[whole:]


class RemoteNode:
    """A client's node of a served wire: what CanNode is in the wire's own process."""

    def __init__(self, path: str, receive: Callable[[can.Message], None]) -> None:
        self.gone = False
        self.bus_off = False
        self._receive = receive
        self._credits = threading.Semaphore(0)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise can.CanInitializationError(f"{path}: {error.strerror}", error.errno) from error
        self._thread = threading.Thread(target=self._read, name="can remote", daemon=True)
        self._thread.start()

    def send(self, message: can.Message, timeout: float | None = None) -> bool:
        """As CanNode.send."""
        if self.gone:
            raise WireGone(self._socket)
        if not self._credits.acquire(timeout=timeout):
            return False
        try:
            self._socket.sendall(pack(message))
        except OSError:
            self.gone = True
            raise WireGone("the server is gone") from None
        return True

    def detach(self) -> None:
        self.gone = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for record in _records(self._socket):
                message, credits = unpack(record)
                if credits:
                    self._credits.release(credits)
                if message is not None:
                    self._receive(message)
        if not self.gone:
            self.gone = True
            self._receive(can.Message(is_error_frame=True, arbitration_id=0))


def bridge(wire: CanWire, bus: can.BusABC) -> Callable[[], None]:
    """Joins a wire with a bus of python-can, both ways. The function returned ends it; the bus stays open."""
    node = wire.attach("bridge", lambda message: bus.send(message, 1.0))

    def forward(message: can.Message) -> None:
        if not message.is_error_frame:
            node.send(message, 1.0)

    notifier = can.Notifier(bus, [forward])

    def close() -> None:
        notifier.stop()
        node.detach()

    return close
