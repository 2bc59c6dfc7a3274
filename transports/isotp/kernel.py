"""ISO-TP through the kernel's CAN_ISOTP socket (Linux, include/uapi/linux/can/isotp.h and net/can/isotp.c).

What the kernel keeps for itself: N_Bs and N_Cr are 1 s, and a PDU longer than its limit is refused (66,000 bytes; since
6.4 the module's max_pdu_size, 8300 unless it is loaded with another). The socket sees neither bus-off nor missing
acknowledgement, nor does it tell that a PDU has begun; the bus's own reader sees all of that, so it is asked. Before 6.3
poll calls a socket writable that is still sending: there the reader counts the frames of what is sent, too.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import can

from .. import clock
from ..can.bus import FULL_SECONDS, CanBus, CanChannel, CanId, copy_error
from ..deadline import Deadline
from ..errors import CanGone, IsoTpFraming, IsoTpSettings, IsoTpTimeout, TransportError
from .channel import LONGEST_PDU, Addressing, IsoTpAddress, IsoTpBackEnd, IsoTpOptions, unended
from .frames import OVERFLOW, Pci, pci_of

SOL_CAN_ISOTP = 106
CAN_ISOTP_OPTS, CAN_ISOTP_RECV_FC, CAN_ISOTP_LL_OPTS = 1, 2, 5
CAN_ISOTP_EXTEND_ADDR, CAN_ISOTP_TX_PADDING = 0x002, 0x004
CAN_ISOTP_FORCE_TXSTMIN, CAN_ISOTP_RX_EXT_ADDR = 0x080, 0x200
CANFD_MTU, CANFD_BRS = 72, 0x01
"""Linux, include/uapi/linux/can/isotp.h and include/uapi/linux/can.h."""
LOOK_SECONDS = 0.2
"""How long a wait on the socket lasts before the bus's failure is looked at."""
LONGEST_SHORT_LENGTH = 4095
"""Bytes of a PDU whose first frame has its length in 12 bits."""
N_CR_SECONDS = 1.0
"""The kernel's, after which a PDU that has begun has ended, one way or the other."""


def packed_options(address: IsoTpAddress, options: IsoTpOptions) -> bytes:
    """struct can_isotp_options: flags, frame_txtime, ext_address, txpad_content, rxpad_content, rx_ext_address."""
    flags = 0
    if options.padding is not None:
        flags |= CAN_ISOTP_TX_PADDING
    if options.squash_st_min:
        flags |= CAN_ISOTP_FORCE_TXSTMIN  # To CAN_ISOTP_TX_STMIN, which is 0 unless it is set.
    target = source = 0
    if address.addressing is Addressing.EXTENDED:
        flags |= CAN_ISOTP_EXTEND_ADDR | CAN_ISOTP_RX_EXT_ADDR
        target, source = address.target or 0, address.source or 0
    return struct.pack("=LLBBBB", flags, 0, target, options.padding or 0, 0, source)


def packed_flow_control(options: IsoTpOptions) -> bytes:
    """struct can_isotp_fc_options: bs, stmin, wftmax."""
    return struct.pack("=BBB", options.block_size, options.st_min, 0)


def packed_link_layer(options: IsoTpOptions) -> bytes:
    """struct can_isotp_ll_options: mtu, tx_dl, tx_flags; for CAN FD."""
    return struct.pack("=BBB", CANFD_MTU, options.tx_dl, CANFD_BRS if options.bit_rate_switch else 0)


def poll_tells(release: str) -> bool:
    """Whether this kernel's poll calls a socket writable only once it has sent (6.3 and later)."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 3)


class _FrameMonitor(CanChannel):
    """Sees what the socket doesn't show: that a PDU of the peer is coming in, that nobody acknowledges. Keeps no frame.

    `until`: when the PDU that is under way has ended by any means, on `time.monotonic`'s clock; 0.0 for none. `sent` is set
    once as many frames of our own have passed as `expect` was given; for that it `counts` them. Those beyond are another
    tester's, whom it reports to `rival`; where it doesn't count, it sees none.
    """

    def __init__(self, bus: CanBus, address: IsoTpAddress, rival: Callable[[CanId], None], *, counts: bool) -> None:
        request, response = address.ids()
        super().__init__(bus, request, (response, request) if counts else (response,), bus.fd)
        self.until = 0.0
        self.interruption: TransportError | None = None
        self.sent = clock.Event()
        self._left = 0
        # Each frame of a full bus is compared: with what it has, not with a CanId made for it.
        self._own_id, self._own_extended = request.value, request.extended
        self._rival = rival
        extended = address.addressing is Addressing.EXTENDED
        self._prefix = bytes((address.source or 0,)) if extended else b""
        self._own_prefix = bytes((address.target or 0,)) if extended else b""

    def expect(self, frames: int) -> None:
        self.sent.clear()
        self._left = frames

    def take(self, message: can.Message) -> None:
        data = bytes(message.data)
        if message.arbitration_id == self._own_id and message.is_extended_id == self._own_extended:
            self._count(data)
            return
        if not data.startswith(self._prefix):
            return
        pci = pci_of(data, len(self._prefix))
        if pci == Pci.FIRST_FRAME or (pci == Pci.CONSECUTIVE_FRAME and self.until):
            self.until = clock.monotonic() + N_CR_SECONDS
        elif pci == Pci.SINGLE_FRAME:
            self.until = 0.0

    def _count(self, data: bytes) -> None:
        if data.startswith(self._own_prefix) and pci_of(data, len(self._own_prefix)) != Pci.FLOW_CONTROL:
            if not self._left:
                self._rival(self.transmit)
                return
            self._left -= 1
            if not self._left:
                self.sent.set()

    def interrupt(self, error: TransportError) -> None:
        self.interruption = error


def frames_of(size: int, tx_dl: int, prefix: int) -> int:
    """In how many frames the kernel sends a PDU of `size` bytes (ISO 15765-2:2016, 9.6.2 and 9.6.3).

    `prefix`: bytes of address in each frame.
    """
    if size <= 7 - prefix or (tx_dl > 8 and size <= tx_dl - 2 - prefix):
        return 1
    first = tx_dl - (2 if size <= LONGEST_SHORT_LENGTH else 6) - prefix
    return 1 + -(-(size - first) // (tx_dl - 1 - prefix))


class KernelIsoTp(IsoTpBackEnd):
    """The kernel's CAN_ISOTP socket. Closing it waits for a PDU that is being sent: for N_Bs if the peer is gone."""

    def __init__(self, bus: CanBus, address: IsoTpAddress, options: IsoTpOptions) -> None:
        """Raises OSError as the kernel does."""
        clock.real("the kernel's ISO-TP")
        request, response = address.ids()
        self._bus = bus
        self._name = bus.channel_name
        self._tx_dl = options.tx_dl
        self._sends_fd = options.sends_fd
        self._prefix = 1 if address.addressing is Addressing.EXTENDED else 0
        self._answers_as = response
        self._answer_prefix = bytes((address.source or 0,))[: self._prefix]
        self._sending = False
        self._counts = not poll_tells(os.uname().release)
        self._monitor = _FrameMonitor(bus, address, self.contest, counts=self._counts)
        self._socket = socket.socket(socket.PF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP)
        try:
            self._socket.setsockopt(SOL_CAN_ISOTP, CAN_ISOTP_OPTS, packed_options(address, options))
            self._socket.setsockopt(SOL_CAN_ISOTP, CAN_ISOTP_RECV_FC, packed_flow_control(options))
            if options.sends_fd:
                self._socket.setsockopt(SOL_CAN_ISOTP, CAN_ISOTP_LL_OPTS, packed_link_layer(options))
            self._socket.bind((bus.channel_name, _kernel_id(response), _kernel_id(request)))
            self._socket.setblocking(False)
            self._sends_as = request
            bus.sent_by_kernel.add(request)
            bus.listen(self._monitor)
        except BaseException:
            self._socket.close()
            raise

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        while True:
            self._forget_error()
            if not self._ready(deadline, writing=True):
                raise IsoTpTimeout(f"sending {len(pdu)} bytes took longer than it may")
            self._monitor.expect(frames_of(len(pdu), self._tx_dl, self._prefix))
            try:
                self._socket.send(pdu)
                break
            except BlockingIOError:
                if deadline.expired:
                    raise IsoTpTimeout(f"sending {len(pdu)} bytes took longer than it may") from None
                clock.sleep(FULL_SECONDS)  # It is still sending, which poll didn't tell.
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise IsoTpSettings(
                        f"the kernel's ISO-TP takes no PDU of {len(pdu):,} bytes",
                        remedy='Load can-isotp with a larger max_pdu_size, or set backend = "user" in the profile.',
                    ) from error
                raise self._named(error) from error
        # What goes wrong until the last frame has left is the socket's error.
        self._sending = True
        if not self._has_sent(deadline):
            self._stop_sending()
            raise IsoTpTimeout(f"sending {len(pdu)} bytes took longer than it may")
        self._raise_error()
        self._sending = False

    def recv(self, deadline: Deadline, end: Deadline) -> bytes | None:
        until = deadline
        while not self._ready(until, writing=False):
            if self._monitor.until <= clock.monotonic():
                return None
            if end.expired:
                raise unended(deadline, end)
            until = Deadline(min(self._monitor.until, end.at))
        try:
            return self._socket.recv(LONGEST_PDU)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._named(error) from error
        finally:
            self._monitor.until = 0.0

    def drain(self) -> None:
        """Forgets what came in, errors of earlier messages among it."""
        while select.select([self._socket], [], [], 0)[0]:
            try:
                self._socket.recv(LONGEST_PDU)
            except BlockingIOError:
                return
            except OSError:
                continue

    def close(self) -> None:
        if self._sending:
            self._stop_sending()
        self._socket.close()
        self._monitor.close()
        self._bus.sent_by_kernel.discard(self._sends_as)

    def _stop_sending(self) -> None:
        """A peer that asks to wait again and again would hold the kernel, and whoever closes the socket, for ever.

        It counts no wait frames (N_WFTmax), and has no other end of it than the peer's word, so that is said for the peer.
        """
        self._sending = False
        with suppress(TransportError):
            self._bus.send(
                can.Message(
                    arbitration_id=self._answers_as.value,
                    is_extended_id=self._answers_as.extended,
                    data=self._answer_prefix + bytes((Pci.FLOW_CONTROL << 4 | OVERFLOW, 0, 0)),
                    is_fd=self._sends_fd,
                ),
                Deadline.after(LOOK_SECONDS),
            )

    def _forget_error(self) -> None:
        """Of messages before this one; the interface's own state stays, for the bus's reader has it too."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code in (errno.ENETDOWN, errno.ENODEV):
            raise self._named(OSError(code, os.strerror(code)))

    def _raise_error(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._sending = False
            raise self._named(OSError(code, os.strerror(code)))

    def _has_sent(self, deadline: Deadline) -> bool:
        """Whether the last frame has left before the deadline. Raises the bus's failure and the socket's error."""
        if not self._counts:
            return self._ready(deadline, writing=True)
        self._monitor.interruption = None
        while not self._monitor.sent.wait(min(LOOK_SECONDS, deadline.remaining)):
            self._raise_error()
            if self._bus.failure is not None:
                raise copy_error(self._bus.failure)
            if self._monitor.interruption is not None:
                raise copy_error(self._monitor.interruption)
            if deadline.expired:
                return False
        return True

    def _ready(self, deadline: Deadline, *, writing: bool) -> bool:
        """Whether the socket can be written to, or read from, before the deadline. Raises the bus's failure."""
        readers, writers = ([], [self._socket]) if writing else ([self._socket], [])
        self._monitor.interruption = None
        while True:
            if self._bus.failure is not None:
                raise copy_error(self._bus.failure)
            if any(select.select(readers, writers, [], min(LOOK_SECONDS, deadline.remaining))):
                return True
            if self._monitor.interruption is not None:
                raise copy_error(self._monitor.interruption)
            if deadline.expired:
                return False

    def _named(self, error: OSError) -> TransportError:
        """The failure that the kernel means by an error number of this socket."""
        match error.errno:
            case errno.ECOMM:
                return IsoTpTimeout(f"{self._name}: the peer sent no flow control, or the bus took no frame (N_Bs)")
            case errno.ETIMEDOUT:
                return IsoTpTimeout(f"{self._name}: the peer stopped in the middle of a message (N_Cr)")
            case errno.EMSGSIZE:
                return IsoTpFraming("the peer has no room for a message of this size (flow control: overflow)")
            case errno.EILSEQ:
                return IsoTpFraming("a consecutive frame came out of sequence")
            case errno.EBADMSG:
                return IsoTpFraming("a frame's padding or length breaks ISO 15765-2")
            case _:
                return CanGone(f"{self._name}: {error.strerror or error.errno}")


def _kernel_id(identifier: CanId) -> int:
    return identifier.value | (socket.CAN_EFF_FLAG if identifier.extended else 0)
