"""One emulated USB device at the end of a stream that speaks USB/IP, as Linux's `vhci_hcd` does.

Linux, Documentation/usb/usbip_protocol.rst (version 1.1.1): headers of 48 bytes, big endian; USBIP_CMD_SUBMIT and
USBIP_CMD_UNLINK from the host, USBIP_RET_SUBMIT and USBIP_RET_UNLINK back. Control transfers only: these devices have
no other endpoints.

USB/IP has no bus reset: the host side resets its own port. It can be told by what follows. The Linux hub driver begins
each enumeration with a request for the device descriptor, with a length that nothing else asks for: 64, or 8 in its old
scheme (drivers/usb/core/hub.c, hub_port_init). SET_ADDRESS, which comes next, `vhci_hcd` answers itself.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from enum import IntEnum

from .usb_device import DEVICE, SETUP, Stall, StandardRequest, UsbFunction
from .usb_wire import DeviceGone, Port, TransferTimeout, UsbWire

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
"""Bytes of a control transfer's data (wLength)."""
ENUMERATION_LENGTHS = (8, 64)
MOST_UNANSWERED = 1000
"""Transfers that may wait at once."""
LAST_ANSWER_SECONDS = 5.0
"""How long an answer that is under way may take before the stream is ended."""


class Command(IntEnum):
    """The values of `command`."""

    SUBMIT = 1
    UNLINK = 2
    RET_SUBMIT = 3
    RET_UNLINK = 4


class Protocol(Exception):
    """What came over the stream is no USB/IP; or it ended."""


class UsbIpDevice:
    """What is plugged in at a port, served over one end of a stream by a thread, until either side ends it.

    It begins without a configuration, as after a reset. When the other side ends the stream, the device is unplugged
    from its wire.
    """

    def __init__(self, wire: UsbWire, port: Port, function: UsbFunction, stream: socket.socket) -> None:
        self.function = function
        self._wire = wire
        self._port = port
        self._stream = stream
        self._answering = threading.Lock()
        self._enumerating = True
        self._unanswered: set[int] = set()
        """seqnum of the transfers that the device lets wait for ever."""
        self._closing = False
        function.reset()
        self._thread = threading.Thread(target=self._serve, name=f"usbip-{wire.channel}-{port.number}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the stream, after the answer that is under way. A second call does nothing."""
        answered = self._answering.acquire(timeout=LAST_ANSWER_SECONDS)
        self._closing = True
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
            raise Protocol(f"a control transfer of {size} bytes")
        data = b"" if direction else self._receive(size)
        status, answer = self._transfer(setup, data) if endpoint == 0 else (-errno.EPIPE, b"")
        if status == -errno.ETIMEDOUT:
            # The host takes it back when it has waited long enough.
            self._unanswered.add(number)
            if len(self._unanswered) > MOST_UNANSWERED:
                raise Protocol("too many transfers at once")
            return
        answer = answer[:size]
        reply = RET_SUBMIT.pack(status, len(answer) if direction else len(data) * (status == 0), 0, 0, 0)
        self._stream.sendall(HEADER.pack(Command.RET_SUBMIT, number, 0, 0, 0, reply) + answer)

    def _unlink(self, number: int, victim: int) -> None:
        status = -errno.ECONNRESET if victim in self._unanswered else 0
        self._unanswered.discard(victim)
        self._stream.sendall(HEADER.pack(Command.RET_UNLINK, number, 0, 0, 0, RET_UNLINK.pack(status)))

    def _transfer(self, setup: bytes, data: bytes) -> tuple[int, bytes]:
        """The status of an URB (Documentation/driver-api/usb/error-codes.rst), and what the device gave."""
        kind, request, value, _, length = SETUP.unpack(setup)
        begins = kind == 0x80 and request == StandardRequest.GET_DESCRIPTOR and value >> 8 == DEVICE
        begins = begins and length in ENUMERATION_LENGTHS
        if begins and not self._enumerating:
            self.function.reset()
            self.function.bus_reset()
        self._enumerating = begins
        try:
            return 0, self._wire.control(self._port, self.function, setup, data)
        except Stall:
            return -errno.EPIPE, b""
        except TransferTimeout:
            return -errno.ETIMEDOUT, b""
        except DeviceGone:
            # Nobody acknowledges.
            return -errno.EPROTO, b""
