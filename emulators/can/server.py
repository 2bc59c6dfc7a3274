"""Serves an emulated CAN wire to other processes over a Unix socket.

A record of the socket, either way, is 80 bytes, big endian: id (4), flags (1), length (1), credits (2), time (8, seconds
since 1970), data (64). The first record of the server has no frame: its id is MAGIC, flag FD says whether the wire is
CAN FD, and it gives the client as many credits as its node's transmit queue has room for. A frame costs one, and the
server gives it back once the frame has gone over the wire, so that a client's send blocks as it does on a real driver
whose queue is full, and the server never waits for a client. The first record of the client has no frame either: with
OWN set, its own frames come back to it too.

What a client sends is not trusted: a record that says anything else ends the connection. A client that doesn't read
loses frames, and an error frame reports the loss; the wire never waits for it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import can

from ...transports import clock, private_files
from ...transports.can.bits import FD_SIZES
from ...transports.errors import CanBusy
from .wire import (
    CAN_ERR_BUSOFF,
    CAN_ERR_CRTL,
    CAN_ERR_CRTL_RX_OVERFLOW,
    TRANSMIT_QUEUE,
    CanWire,
    WireGone,
)

RECORD = struct.Struct(">IBBHd64s")
EXTENDED, REMOTE, ERROR, FD, BRS, NO_FRAME, ESI, OWN = 1, 2, 4, 8, 16, 32, 64, 128
MAGIC = 0x7066_7731
BACKLOG = 4096
"""Frames that wait for a client to read them; further ones are lost to it."""
MOST_CLIENTS = 64
"""At once on one wire; another one is hung up on. Each has two threads."""
HELLO_SECONDS = 5.0
"""How long a server may take for its first record."""


def pack(message: can.Message) -> bytes:
    """One frame as a record."""
    flags = (
        EXTENDED * message.is_extended_id
        | REMOTE * message.is_remote_frame
        | ERROR * message.is_error_frame
        | FD * message.is_fd
        | BRS * message.bitrate_switch
        | ESI * message.error_state_indicator
        | OWN * (not message.is_rx)
    )
    length = message.dlc if message.is_remote_frame else len(message.data)
    return RECORD.pack(message.arbitration_id, flags, length, 0, message.timestamp, bytes(message.data))


def unpack(record: bytes) -> can.Message | None:
    """The frame of a record, None if it has none. Raises ValueError when it is none that a controller sends."""
    identifier, flags, length, _, timestamp, data = RECORD.unpack(record)
    if flags & NO_FRAME:
        return None
    remote = bool(flags & REMOTE)
    if flags & FD and length not in FD_SIZES:
        raise ValueError(f"no FD frame has {length} bytes")
    return can.Message(
        timestamp=timestamp,
        arbitration_id=identifier,
        is_extended_id=bool(flags & EXTENDED),
        is_remote_frame=remote,
        is_error_frame=bool(flags & ERROR),
        is_fd=bool(flags & FD),
        is_rx=not flags & OWN,
        bitrate_switch=bool(flags & BRS),
        error_state_indicator=bool(flags & ESI),
        dlc=length,
        data=None if remote else data[:length],
        check=True,
    )


def serve_can(wire: CanWire, path: Path) -> Callable[[], None]:
    """Serves a wire at a Unix socket; each client is a node. The function returned ends it.

    Raises CanBusy when another process serves at this path.
    """
    clock.real(f"the socket {path}")
    if _is_served(path):
        raise CanBusy(f"{path} is served by another process", remedy="End that process, or name another folder.")
    listener = private_files.listener(path)
    clients: set[_Client] = set()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            for ended in [client for client in clients if not client.thread.is_alive()]:
                clients.discard(ended)
            if len(clients) >= MOST_CLIENTS:
                connection.close()
                continue
            clients.add(_Client(wire, connection))

    thread = clock.Thread(target=accept, name=f"can server {path.name}")
    thread.start()

    def close() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        for client in clients:
            client.close()
        path.unlink(missing_ok=True)

    return close


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class _Client:
    """The server's end of one connection.

    The wire's thread hands over a frame without waiting: into the socket if it takes it, else into a backlog, which a
    thread of its own writes out.
    """

    def __init__(self, wire: CanWire, connection: socket.socket) -> None:
        self._wire = wire
        self._socket = connection
        self._changed = clock.Condition()
        self._backlog: deque[bytes] = deque()
        self._writing = False
        self._overrun = False
        self._ended = False
        self.thread = clock.Thread(target=self._serve, name="can client")
        self._writer = clock.Thread(target=self._write, name="can client writer")
        self.thread.start()

    def close(self) -> None:
        self._hang_up()
        self.thread.join()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        # First of all: once it is on the wire, a frame may come that waited for somebody to acknowledge it.
        self._send(RECORD.pack(MAGIC, NO_FRAME | (FD if self._wire.data_bitrate else 0), 0, TRANSMIT_QUEUE, 0.0, b""))
        node = self._wire.attach(
            "client",
            lambda message: self._send(pack(message)),
            host=True,
            sent=lambda: self._send(RECORD.pack(0, NO_FRAME, 0, 1, 0.0, b"")),
            lost=self._hang_up,
        )
        self._writer.start()
        try:
            for record in _records(self._socket):
                message = unpack(record)
                if message is None:
                    node.echo = bool(record[4] & OWN)
                    continue
                if message.is_error_frame or (message.is_fd and not self._wire.data_bitrate):
                    raise ValueError("a frame that no client may send")
                if not node.send(message, 0.0) and not node.bus_off:
                    raise ValueError("more frames than it has credits for")
        except (OSError, WireGone, ValueError):
            pass
        finally:
            node.leave()
            self._hang_up()
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self._writer.join()
            self._socket.close()

    def _send(self, record: bytes) -> None:
        with self._changed:
            if not self._writing:
                try:
                    sent = self._socket.send(record, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    return
                if sent == len(record):
                    return
                record = record[sent:]
                self._writing = True
            if len(self._backlog) < BACKLOG:
                self._backlog.append(record)
            elif record[4] & NO_FRAME:
                self._backlog.append(
                    record
                )  # Credits must not get lost; there are never more than TRANSMIT_QUEUE of them.
            else:
                self._overrun = True
            self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._writing or self._ended)
                if self._ended:
                    return
                pieces = b"".join(self._backlog)
                self._backlog.clear()
                if not pieces and self._overrun:
                    data = bytes((0, CAN_ERR_CRTL_RX_OVERFLOW, 0, 0, 0, 0, 0, 0))
                    pieces = pack(can.Message(is_error_frame=True, arbitration_id=CAN_ERR_CRTL, data=data))
                    self._overrun = False
                if not pieces:
                    self._writing = False
                    continue
            try:
                self._socket.sendall(pieces)
            except OSError:
                return


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
    """A client's node of a served wire: what CanNode is in the wire's own process. `fd`: the wire is CAN FD.

    Raises CanInitializationError when nothing serves at `path`.
    """

    def __init__(
        self, path: str, receive: Callable[[can.Message], None], lost: Callable[[], None], echo: bool = False
    ) -> None:
        clock.real(f"the CAN wire of another process at {path}")
        self.gone = False
        self.bus_off = False
        self.fd = False
        self._receive = receive
        self._lost = lost
        self._credits = clock.Semaphore(0)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(HELLO_SECONDS)
            self._socket.connect(path)
            self._hello(echo)
            self._socket.settimeout(None)
        except OSError as error:
            self._socket.close()
            raise can.CanInitializationError(f"{path}: {error.strerror or error}", error.errno) from error
        self._thread = clock.Thread(target=self._read, name="can remote")
        self._thread.start()

    def _hello(self, echo: bool) -> None:
        first = self._socket.recv(RECORD.size, socket.MSG_WAITALL)
        identifier, flags, _, credits, _, _ = RECORD.unpack(first.ljust(RECORD.size, b"\0"))
        if identifier != MAGIC:
            raise ConnectionAbortedError("what listens there serves no emulated CAN wire")
        self.fd = bool(flags & FD)
        self._credits.release(credits)
        self._socket.sendall(RECORD.pack(0, NO_FRAME | (OWN if echo else 0), 0, 0, 0.0, b""))

    def send(self, message: can.Message, timeout: float | None = None) -> bool:
        """As CanNode.send."""
        taken = self._credits.acquire(timeout=timeout)
        if self.gone:
            raise WireGone("the server is gone")
        if not taken or self.bus_off:
            return False
        try:
            self._socket.sendall(pack(message))
        except OSError:
            self._end()
            raise WireGone("the server is gone") from None
        return True

    def leave(self) -> None:
        """What it has sent, the server sends on."""
        self.detach()

    def detach(self) -> None:
        self.gone = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _end(self) -> None:
        """Nothing can be sent any more: wakes who waits to."""
        self.gone = True
        self._credits.release(TRANSMIT_QUEUE)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for record in _records(self._socket):
                message = unpack(record)
                if message is None:
                    self._credits.release(max(1, int.from_bytes(record[6:8], "big")))
                    continue
                if message.is_error_frame and message.arbitration_id & CAN_ERR_BUSOFF:
                    self.bus_off = True
                    self._credits.release(TRANSMIT_QUEUE)
                self._receive(message)
        self._end()
        self._lost()
