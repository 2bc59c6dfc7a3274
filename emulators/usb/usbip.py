"""One emulated USB device at the end of a stream that speaks USB/IP, as Linux's `vhci_hcd` does.

Linux, Documentation/usb/usbip_protocol.rst (version 1.1.1): headers of 48 bytes, big endian; USBIP_CMD_SUBMIT and
USBIP_CMD_UNLINK from the host, USBIP_RET_SUBMIT and USBIP_RET_UNLINK back. Control, bulk and
interrupt transfers; no isochronous ones.

USB/IP has no bus reset: the host side resets its own port. The requests that follow show it. The Linux hub driver begins
each enumeration with a request for the device descriptor, with a length that nothing else asks for: 64, or 8 in its old
scheme (drivers/usb/core/hub.c, hub_port_init). SET_ADDRESS, which comes next, `vhci_hcd` answers itself. An enumeration
has several resets before it ends in a configuration: only that of a configured device is one to its application.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from enum import IntEnum

from ...transports import clock
from .device import DEVICE, SETUP, Stall, StandardRequest, UsbFunction
from .usbip_transfers import Transfers
from .wire import DeviceGone, Port, TransferTimeout, UsbWire

HEADER = struct.Struct(">5I28s")
"""command, seqnum, devid, direction, ep; the rest is the command's own."""
SUBMIT = struct.Struct(">IiiiI8s")
"""transfer_flags, transfer_buffer_length, start_frame, number_of_packets, interval, setup."""
RET_SUBMIT = struct.Struct(">iiiii8x")
"""status, actual_length, start_frame, number_of_packets, error_count."""
UNLINK = struct.Struct(">I24x")
"""seqnum of what is taken back."""
RET_UNLINK = struct.Struct(">i24x")
"""status."""
LONGEST = 0xFFFF
"""Bytes of a transfer: the most that a control transfer's data can have (wLength)."""
ENUMERATION_LENGTHS = (8, 64)
MOST_UNANSWERED = 1000
"""Transfers that may wait at once."""
QUIET_SECONDS = 0.05
"""Without a request for so long, the stream of a device that has left is ended. A request that vhci_hcd sends into an ended
stream would hang until its own time-out, while the hub driver holds the port: 5 s."""
LAST_ANSWERS_SECONDS = 2.0
"""How long answers may go on before the stream is ended all the same."""


class Command(IntEnum):
    """The values of `command`."""

    SUBMIT = 1
    UNLINK = 2
    RET_SUBMIT = 3
    RET_UNLINK = 4


class Protocol(Exception):
    """What came over the stream is not USB/IP; or it ended."""


class UsbIpDevice:
    """What is plugged in at a port, served over one end of a stream by a thread, until either side ends it.

    It begins without a configuration, as after a reset. When the other side ends the stream, the device is unplugged
    from its wire.
    """

    def __init__(self, wire: UsbWire, port: Port, function: UsbFunction, stream: socket.socket) -> None:
        clock.real("USB/IP")
        self.function = function
        self._wire = wire
        self._port = port
        self._stream = stream
        self._answering = clock.Lock()
        self._asked = clock.monotonic()
        """When the last request came."""
        self._unanswered: set[int] = set()
        """seqnum of the transfers that the device lets wait for ever."""
        self._closing = False
        self._transfers = Transfers(function, self._reply)
        function.reset()
        function.ready = self._progress
        self._thread = clock.Thread(target=self._serve, name=f"usbip-{wire.channel}-{port.number}")
        self._thread.start()

    def close(self) -> None:
        """Ends the stream once the requests that are under way are answered. A second call does nothing."""
        self._closing = True
        ends = clock.monotonic() + LAST_ANSWERS_SECONDS
        while self._thread.is_alive() and (now := clock.monotonic()) < ends and now < self._asked + QUIET_SECONDS:
            self._thread.join(self._asked + QUIET_SECONDS - now)
        answered = self._answering.acquire(timeout=max(0.0, ends - clock.monotonic()))
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        if answered:
            self._answering.release()
        self._thread.join()

    def _serve(self) -> None:
        try:
            while True:
                header = self._receive(HEADER.size)
                with self._answering:
                    self._answer(header)
        except (OSError, Protocol):
            pass
        finally:
            self._stream.close()
            with self._wire.changed:
                if not self._closing and self._port.function is self.function:
                    self._wire.unplug(self._port)

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._stream.recv(size - len(data))
            if not part:
                raise Protocol("the stream ended")
            data += part
        return bytes(data)

    def _answer(self, header: bytes) -> None:
        command, number, _, direction, endpoint, rest = HEADER.unpack(header)
        if command == Command.UNLINK:
            self._unlink(number, *UNLINK.unpack(rest))
            return
        if command != Command.SUBMIT:
            raise Protocol(f"command {command:#x}")
        _, size, _, _, _, setup = SUBMIT.unpack(rest)
        if not 0 <= size <= LONGEST:
            raise Protocol(f"a transfer of {size} bytes")
        data = b"" if direction else self._receive(size)
        if endpoint:
            self._submit(endpoint | (0x80 if direction else 0), number, size, data)
            return
        self._asked = clock.monotonic()
        status, answer = self._transfer(setup, data)
        if status == -errno.ETIMEDOUT:
            # The host takes it back when it has waited long enough.
            self._unanswered.add(number)
            self._bound()
            return
        answer = answer[:size]
        self._reply(number, len(answer) if direction else len(data) * (status == 0), answer, status)

    def _submit(self, address: int, number: int, size: int, data: bytes) -> None:
        """A transfer on an endpoint but 0; from one of a device that has left nothing comes any more."""
        if self._port.function is not self.function:
            self._unanswered.add(number)
        elif not self._transfers.submit(address, number, size, data):
            self._reply(number, 0, b"", -errno.EPIPE)
        self._bound()

    def _progress(self) -> None:
        with self._answering, contextlib.suppress(OSError):
            if self._port.function is self.function:
                self._transfers.progress()

    def _bound(self) -> None:
        if len(self._unanswered) + len(self._transfers) > MOST_UNANSWERED:
            raise Protocol("too many transfers at once")

    def _reply(self, number: int, count: int, answer: bytes, status: int = 0) -> None:
        reply = RET_SUBMIT.pack(status, count, 0, 0, 0)
        self._stream.sendall(HEADER.pack(Command.RET_SUBMIT, number, 0, 0, 0, reply) + answer)

    def _unlink(self, number: int, victim: int) -> None:
        waited = victim in self._unanswered or self._transfers.unlink(victim)
        status = -errno.ECONNRESET if waited else 0
        self._unanswered.discard(victim)
        self._stream.sendall(HEADER.pack(Command.RET_UNLINK, number, 0, 0, 0, RET_UNLINK.pack(status)))

    def _transfer(self, setup: bytes, data: bytes) -> tuple[int, bytes]:
        """The status of an URB (Documentation/driver-api/usb/error-codes.rst), and what the device gave."""
        kind, request, value, _, length = SETUP.unpack(setup)
        about_device = kind == 0x80 and request == StandardRequest.GET_DESCRIPTOR and value >> 8 == DEVICE
        if about_device and length in ENUMERATION_LENGTHS and self.function.configuration:
            self.function.reset()
            self.function.bus_reset()
        try:
            return 0, self._wire.control(self._port, self.function, setup, data)
        except Stall:
            return -errno.EPIPE, b""
        except TransferTimeout:
            return -errno.ETIMEDOUT, b""
        except DeviceGone:
            # Nobody acknowledges.
            return -errno.EPROTO, b""
