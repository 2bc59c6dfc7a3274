"""Datagrams to one host and port, over UDP: what a part on a network speaks whose serial protocol can do without a line.

A datagram that comes in is one packet, whole or not at all. While a part restarts, its host may say that nobody listens
there: that is silence, as on a line.
"""

from __future__ import annotations

import ipaddress
import re
import select
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Self

from . import clock
from .deadline import Deadline
from .errors import UdpAbsent, UdpGone, UdpSettings
from .recording.recorder import Recorder
from .transport import Transport, Where

LARGEST = 1472
"""Bytes of a datagram that is one Ethernet frame: 1500, less the headers of IPv4 and UDP (RFC 894, 791, 768)."""
DRAIN_LIMIT = 1000
"""Datagrams that `drain` forgets at most."""


class UdpSocket(Transport):
    """One socket, connected: it hears nobody else."""

    kind: ClassVar[str] = "udp"
    where_form: ClassVar[str] = "HOST:PORT"
    settings_schema: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "host": {"type": "string", "description": "A name, or an address of IPv4 or IPv6. Needed."},
        "port": {
            "type": "integer",
            "description": "UDP port. Default: the port of the component's protocol, 1337 for `smp-udp`; else needed.",
        },
    }
    recorder: Recorder | None = None

    def __init__(self, name: str, connected: socket.socket) -> None:
        self.name = name
        self._socket = connected
        self._readable = select.poll()
        self._readable.register(connected.fileno(), select.POLLIN)

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """`settings`: host, a name or an address of IPv4 or IPv6, and port. Sends nothing. Raises UdpSettings, UdpAbsent."""
        host, port = _checked(settings)
        clock.real(f"the UDP socket to {host}")
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            connected = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            raise UdpAbsent(f"the host {host!r} is not known: {_why(error)}") from error
        try:
            connected.connect(address)
        except OSError as error:
            connected.close()
            raise UdpAbsent(f"there is no way to {host}: {_why(error)}") from error
        connected.setblocking(False)
        return cls(name, connected)

    @classmethod
    def where(cls, text: str) -> Where | None:
        """HOST or HOST:PORT; an address of IPv6 stands in brackets."""
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_][A-Za-z0-9_.-]*))(?::([0-9]{1,5}))?", text)
        if found is None:
            return None
        host = _one_way(found[1] or found[2])
        if found[3]:
            return Where({"host": host, "port": int(found[3])}, host)
        return Where({"host": host}, host, left_out=("port",))

    @classmethod
    def keys(cls, settings: Mapping[str, Any]) -> Iterable[str]:
        return ("host", "port")

    @classmethod
    def check(cls, name: str, settings: Mapping[str, Any]) -> None:
        _checked(settings)

    def send(self, data: bytes) -> None:
        """Sends one datagram. It may be lost, without an error. Raises UdpGone."""
        if self.recorder is not None:
            self.recorder.serial(self.name, True, data)
        for _ in range(2):
            try:
                self._socket.send(data)
                return
            except ConnectionRefusedError:
                # That came back for an earlier datagram; this one was not sent.
                continue
            except BlockingIOError:
                # A full queue loses datagrams, as the network does.
                return
            except OSError as error:
                raise self._gone("sending", error) from error

    def receive(self, deadline: Deadline | float) -> bytes | None:
        """The next datagram; None when the deadline passes first. Raises UdpGone."""
        deadline = Deadline.of(deadline)
        return self._receive(deadline, drained=False)

    def drain(self) -> None:
        """Forgets what came in. Raises UdpGone."""
        for _ in range(DRAIN_LIMIT):
            if self._receive(Deadline(0.0), drained=True) is None:
                return

    def close(self) -> None:
        """A second call does nothing."""
        self._socket.close()

    def _receive(self, deadline: Deadline, *, drained: bool) -> bytes | None:
        try:
            while self._readable.poll(min(deadline.remaining * 1000, 1e9)):
                with suppress(BlockingIOError, ConnectionRefusedError):
                    data = self._socket.recv(0x1_0000)
                    if self.recorder is not None:
                        self.recorder.serial(self.name, False, data, drained=drained)
                    return data
                if deadline.expired:
                    break
        except (OSError, ValueError) as error:
            raise self._gone("receiving", error) from error
        return None

    def _gone(self, doing: str, error: Exception) -> UdpGone:
        if self.recorder is not None:
            self.recorder.note(self.name, f"gone, while {doing}: {error}")
        return UdpGone(f"the way to the part of {self.name} is gone, while {doing}: {_why(error)}")


def _checked(settings: Mapping[str, Any]) -> tuple[str, int]:
    for key in settings:
        if key not in ("host", "port"):
            raise UdpSettings(f"a UDP bus has no key {key!r}; there are: host, port").about(key)
    host, port = settings.get("host"), settings.get("port")
    if not isinstance(host, str) or not host:
        raise UdpSettings("a UDP bus needs a host, a text")
    if port is None:
        raise UdpSettings("a UDP bus needs a port, unless the protocol of its component has one of its own")
    if type(port) is not int or not 0 < port < 0x1_0000:
        raise UdpSettings(f"port = {port!r} is not a port of UDP")
    return host, port


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _one_way(host: str) -> str:
    """A host as it is always written."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()
