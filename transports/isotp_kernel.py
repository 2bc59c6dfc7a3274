"""ISO-TP through the kernel's CAN_ISOTP socket (Linux, include/uapi/linux/can/isotp.h and net/can/isotp.c).

What the kernel keeps for itself: N_Bs and N_Cr are 1 s, and a PDU longer than the module's max_pdu_size (8300 bytes
unless it is loaded with another) is refused. The socket sees neither bus-off nor missing acknowledgement; the bus's own
reader does, so its failure is looked at between short waits.
"""

from __future__ import annotations

import errno
import select
import socket
import struct

from .can import CanBus, CanId, again
from .deadline import Deadline
from .errors import CanGone, IsoTpFraming, IsoTpSettings, IsoTpTimeout, TransportError
from .isotp import LONGEST_PDU, Addressing, IsoTpAddress, IsoTpChannel, IsoTpOptions

SOL_CAN_ISOTP = 106
CAN_ISOTP_OPTS, CAN_ISOTP_RECV_FC, CAN_ISOTP_LL_OPTS = 1, 2, 5
CAN_ISOTP_EXTEND_ADDR, CAN_ISOTP_TX_PADDING = 0x002, 0x004
CAN_ISOTP_FORCE_TXSTMIN, CAN_ISOTP_RX_EXT_ADDR = 0x080, 0x200
CANFD_MTU, CANFD_BRS = 72, 0x01
"""Linux, include/uapi/linux/can/isotp.h and include/uapi/linux/can.h."""
LOOK_SECONDS = 0.2
"""How long a wait on the socket lasts before the bus's failure is looked at."""


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


class KernelIsoTp(IsoTpChannel):
    """The kernel's CAN_ISOTP socket."""

    def __init__(self, bus: CanBus, address: IsoTpAddress, options: IsoTpOptions) -> None:
        """Raises OSError as the kernel does."""
        request, response = address.ids()
        self._bus = bus
        self._name = bus.channel_name
        self._socket = socket.socket(socket.PF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP)
        try:
            self._socket.setsockopt(SOL_CAN_ISOTP, CAN_ISOTP_OPTS, packed_options(address, options))
            self._socket.setsockopt(SOL_CAN_ISOTP, CAN_ISOTP_RECV_FC, packed_flow_control(options))
            if options.tx_dl > 8:
                self._socket.setsockopt(SOL_CAN_ISOTP, CAN_ISOTP_LL_OPTS, packed_link_layer(options))
            self._socket.bind((bus.channel_name, _kernel_id(response), _kernel_id(request)))
            self._socket.setblocking(False)
            self._sends_as = request
            bus.sent_by_kernel.add(request)
        except BaseException:
            self._socket.close()
            raise

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        """As IsoTpChannel says."""
        if not pdu:
            raise ValueError("ISO-TP carries no empty PDU")
        while True:
            if not self._ready(deadline, writing=True):
                raise IsoTpTimeout(f"sending {len(pdu)} bytes took longer than it may")
            try:
                self._socket.send(pdu)
                break
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise IsoTpSettings(
                        f"the kernel's ISO-TP takes no PDU of {len(pdu):,} bytes",
                        remedy='Load can-isotp with a larger max_pdu_size, or set backend = "user" in the profile.',
                    ) from error
                raise self._named(error) from error
        # The socket is writable again once the last frame has left; what went wrong until then is its error.
        if not self._ready(deadline, writing=True):
            raise IsoTpTimeout(f"sending {len(pdu)} bytes took longer than it may")
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise self._named(OSError(code, ""))

    def recv(self, deadline: Deadline) -> bytes | None:
        """As IsoTpChannel says."""
        if not self._ready(deadline, writing=False):
            return None
        try:
            return self._socket.recv(LONGEST_PDU)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._named(error) from error

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
        self._socket.close()
        self._bus.sent_by_kernel.discard(self._sends_as)

    def _ready(self, deadline: Deadline, *, writing: bool) -> bool:
        """Whether the socket can be written to, or read from, before the deadline. Raises the bus's failure."""
        readers, writers = ([], [self._socket]) if writing else ([self._socket], [])
        while True:
            if self._bus.failure is not None:
                raise again(self._bus.failure)
            if any(select.select(readers, writers, [], min(LOOK_SECONDS, deadline.remaining))):
                return True
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
