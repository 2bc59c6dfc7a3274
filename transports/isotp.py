"""ISO-TP (ISO 15765-2): PDUs of up to 4 GiB over CAN frames.

Through the kernel's CAN_ISOTP socket where the bus is socketcan and the kernel has it, else through can-isotp over a
`CanChannel`. Both give the same errors. can-isotp's state machine runs on the caller's own thread: `send` and `recv`
turn it until they are done, and wait on the channel in between; it has no threads here.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum

import isotp

from .can import CanBus, CanChannel, CanId
from .deadline import Deadline
from .errors import CanGone, IsoTpFraming, IsoTpSettings, IsoTpTimeout, TransportError

LONGEST_PDU = 1 << 20
"""Bytes of a PDU that is taken from a peer; a first frame that announces more is answered by an overflow."""
WAIT_FRAMES = 100
"""Flow control frames in a row that may ask us to wait."""


class Addressing(StrEnum):
    """How ISO-TP finds its peer (ISO 15765-2, 10.3). NORMAL_FIXED is 29-bit, 0x18DA<target><source>."""

    NORMAL = "normal"
    NORMAL_FIXED = "normal-fixed"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True)
class IsoTpAddress:
    """`request`: the id that we send under, `response`: the one that the peer answers under.

    NORMAL_FIXED derives both from `target` and `source`. EXTENDED puts `target` into the first data byte of what we
    send, and expects `source` in what comes back.
    """

    addressing: Addressing = Addressing.NORMAL
    request: CanId | None = None
    response: CanId | None = None
    target: int | None = None
    source: int | None = None

    def ids(self) -> tuple[CanId, CanId]:
        """The ids of both directions. Raises IsoTpSettings when the address lacks what its kind needs."""
        if self.addressing is Addressing.NORMAL_FIXED:
            if self.target is None or self.source is None:
                raise IsoTpSettings("normal-fixed addressing needs target and source")
            base = 0x18DA0000
            return (
                CanId(base | self.target << 8 | self.source, True),
                CanId(base | self.source << 8 | self.target, True),
            )
        if self.request is None or self.response is None:
            raise IsoTpSettings(f"{self.addressing} addressing needs request and response")
        if self.addressing is Addressing.EXTENDED and (self.target is None or self.source is None):
            raise IsoTpSettings("extended addressing needs target and source")
        return self.request, self.response


@dataclass(frozen=True, slots=True)
class IsoTpOptions:
    """Timings and sizes. `block_size` and `st_min` (the byte as sent) are what we ask of a peer that sends to us.

    `padding`: the byte that fills short frames, None for none. `tx_dl`: CAN FD frame size that we send (8 to 64).
    `squash_st_min`: send without the peer's separation time. `n_bs_timeout`, `n_cr_timeout`: seconds. `backend`:
    "auto", "kernel" or "user".
    """

    block_size: int = 0
    st_min: int = 0
    padding: int | None = 0xCC
    tx_dl: int = 8
    bit_rate_switch: bool = True
    squash_st_min: bool = False
    n_bs_timeout: float = 1.0
    n_cr_timeout: float = 1.0
    backend: str = "auto"


class IsoTpChannel(ABC):
    """One peer: send a PDU, receive a PDU."""

    @staticmethod
    def open(bus: CanBus, address: IsoTpAddress, options: IsoTpOptions | None = None) -> IsoTpChannel:
        """A channel to one peer. Raises IsoTpSettings."""
        chosen = options or IsoTpOptions()
        if chosen.backend not in ("auto", "kernel", "user"):
            raise IsoTpSettings(f"backend {chosen.backend!r} is none of auto, kernel, user")
        if chosen.tx_dl > 8 and not bus.fd:
            raise IsoTpSettings(f"tx_dl = {chosen.tx_dl} needs CAN FD, and {bus.name} is opened without fd")
        if chosen.backend == "kernel" or (chosen.backend == "auto" and bus.interface == "socketcan"):
            try:
                return KernelIsoTp(bus, address, chosen)
            except OSError as error:
                if chosen.backend == "kernel" or error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
                    raise IsoTpSettings(
                        f"the kernel's ISO-TP socket on {bus.channel_name}: {error.strerror or error}",
                        remedy='sudo modprobe can-isotp; or backend = "user" in the profile.',
                    ) from error
        return UserIsoTp(bus, address, chosen)

    @abstractmethod
    def send(self, pdu: bytes, deadline: Deadline) -> None:
        """Sends one PDU; returns once its last frame is handed to the bus.

        Raises IsoTpTimeout (no flow control, or the deadline), IsoTpFraming (overflow, too many waits), and the CAN
        errors of the bus.
        """

    @abstractmethod
    def recv(self, deadline: Deadline) -> bytes | None:
        """The next PDU; None when the deadline passes with nothing begun. Raises IsoTpTimeout, IsoTpFraming."""

    @abstractmethod
    def drain(self) -> None:
        """Forgets what came in and was not read."""

    @abstractmethod
    def close(self) -> None: ...


class UserIsoTp(IsoTpChannel):
    """can-isotp's state machine over a CanChannel."""

    def __init__(self, bus: CanBus, address: IsoTpAddress, options: IsoTpOptions) -> None:
        request, response = address.ids()
        self._fd = options.tx_dl > 8
        self._brs = options.bit_rate_switch
        self._channel: CanChannel = bus.channel(request, response, fd=self._fd)
        self._deadline = Deadline.after(0)
        self._error: TransportError | None = None
        self._wait = 0.0
        params = {
            "stmin": options.st_min,
            "blocksize": options.block_size,
            "tx_padding": options.padding,
            "tx_data_length": options.tx_dl,
            "tx_data_min_length": 8 if options.padding is not None else None,
            "can_fd": self._fd,
            "bitrate_switch": self._fd and self._brs,
            "override_receiver_stmin": 0.0 if options.squash_st_min else None,
            "rx_flowcontrol_timeout": int(options.n_bs_timeout * 1000),
            "rx_consecutive_frame_timeout": int(options.n_cr_timeout * 1000),
            "wftmax": WAIT_FRAMES,
            "max_frame_size": LONGEST_PDU,
        }
        self._logic = isotp.TransportLayerLogic(
            rxfn=self._rx, txfn=self._tx, address=_library_address(address, request, response),
            error_handler=self._keep_error, params=params,
        )  # fmt: skip
        self._n_bs = options.n_bs_timeout

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        """As IsoTpChannel says."""
        logic = self._logic
        self._deadline = deadline
        self._error = None
        try:
            logic.send(pdu)
            self._wait = 0.0
            logic.process(do_rx=False)
            while logic.transmitting():
                self._raise_error()
                if deadline.expired:
                    raise IsoTpTimeout(f"sending {len(pdu)} bytes took longer than it may")
                self._turn(deadline)
            self._raise_error()
        except TransportError:
            logic.stop_sending()
            logic.clear_tx_queue()
            raise

    def _turn(self, deadline: Deadline) -> None:
        """One turn of the machine while a message is being sent."""
        if self._logic.is_tx_transmitting_cf():
            # A stream of consecutive frames: only the separation time that the peer asked for is waited out.
            delay = self._logic.next_cf_delay()
            if delay:
                time.sleep(min(delay, deadline.remaining))
            self._wait = 0.0
        else:
            # Waiting for flow control: no longer than can-isotp's own N_Bs timer, which the turn looks at.
            self._wait = min(self._n_bs, deadline.remaining) + 0.001
        self._logic.process()

    def recv(self, deadline: Deadline) -> bytes | None:
        """As IsoTpChannel says."""
        logic = self._logic
        self._deadline = deadline
        self._error = None
        while not logic.available():
            active = logic.is_rx_active()
            if deadline.expired and not active:
                return None
            # A PDU that has begun is bounded by N_Cr, which can-isotp keeps; look at its timer soon after it ran out.
            self._wait = 0.05 if active else deadline.remaining
            logic.process()
            if not logic.available():
                self._raise_error()
        data = logic.recv()
        return bytes(data) if data is not None else None

    def drain(self) -> None:
        self._channel.drain()
        self._logic.stop_receiving()
        self._logic.clear_rx_queue()

    def close(self) -> None:
        self._channel.close()

    def _rx(self, timeout: float) -> isotp.CanMessage | None:
        wait, self._wait = self._wait, 0.0
        message = self._channel.recv(Deadline.after(wait))
        if message is None:
            return None
        return isotp.CanMessage(
            arbitration_id=message.arbitration_id,
            data=bytes(message.data),
            extended_id=message.is_extended_id,
            is_fd=message.is_fd,
            bitrate_switch=message.bitrate_switch,
        )

    def _tx(self, message: isotp.CanMessage) -> None:
        self._channel.send(message.data, self._deadline, bit_rate_switch=self._brs)

    def _keep_error(self, error: Exception) -> None:
        kept = _named(error)
        if kept is not None and self._error is None:
            self._error = kept

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _library_address(address: IsoTpAddress, request: CanId, response: CanId) -> isotp.Address:
    """can-isotp's own address of the same peer."""
    if address.addressing is Addressing.NORMAL_FIXED:
        return isotp.Address(
            isotp.AddressingMode.NormalFixed_29bits, target_address=address.target, source_address=address.source
        )
    if address.addressing is Addressing.EXTENDED:
        mode = isotp.AddressingMode.Extended_29bits if request.extended else isotp.AddressingMode.Extended_11bits
        return isotp.Address(
            mode, txid=request.value, rxid=response.value,
            target_address=address.target, source_address=address.source,
        )  # fmt: skip
    mode = isotp.AddressingMode.Normal_29bits if request.extended else isotp.AddressingMode.Normal_11bits
    return isotp.Address(mode, txid=request.value, rxid=response.value)


_IGNORED = (
    # A peer that talks out of turn disturbs nothing that is under way (ISO 15765-2, 9.8.3: ignored).
    isotp.errors.UnexpectedConsecutiveFrameError,
    isotp.errors.UnexpectedFlowControlError,
    isotp.errors.ReceptionInterruptedWithSingleFrameError,
    isotp.errors.ReceptionInterruptedWithFirstFrameError,
    isotp.errors.InvalidCanDataError,
    isotp.errors.MissingEscapeSequenceError,
    isotp.errors.ChangingInvalidRXDLError,
)


def _named(error: Exception) -> TransportError | None:
    """can-isotp's errors by their cause; None for what ISO 15765-2 has ignored."""
    if isinstance(error, _IGNORED):
        return None
    if isinstance(error, isotp.errors.FlowControlTimeoutError):
        return IsoTpTimeout("the peer sent no flow control (N_Bs)")
    if isinstance(error, isotp.errors.ConsecutiveFrameTimeoutError):
        return IsoTpTimeout("the peer stopped in the middle of a message (N_Cr)")
    if isinstance(error, isotp.errors.OverflowError):
        return IsoTpFraming("the peer has no room for a message of this size (flow control: overflow)")
    if isinstance(error, isotp.errors.MaximumWaitFrameReachedError):
        return IsoTpFraming(f"the peer asked to wait {WAIT_FRAMES} times in a row")
    return IsoTpFraming(str(error))


SOL_CAN_ISOTP = 106
CAN_ISOTP_OPTS, CAN_ISOTP_RECV_FC, CAN_ISOTP_LL_OPTS = 1, 2, 5
EXTEND_ADDR, TX_PADDING, RX_EXT_ADDR, FORCE_TXSTMIN = 0x002, 0x004, 0x200, 0x080
CANFD_MTU, CAN_MTU, CANFD_BRS = 72, 16, 0x01
"""Linux, include/uapi/linux/can/isotp.h and include/uapi/linux/can.h."""


class KernelIsoTp(IsoTpChannel):
    """The kernel's CAN_ISOTP socket."""

    def __init__(self, bus: CanBus, address: IsoTpAddress, options: IsoTpOptions) -> None:
        """Raises OSError as the kernel does."""
        request, response = address.ids()
        self._name = bus.channel_name
        self._socket = socket.socket(socket.PF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP)
        try:
            flags = 0
            if options.padding is not None:
                flags |= TX_PADDING
            if address.addressing is Addressing.EXTENDED:
                flags |= EXTEND_ADDR | RX_EXT_ADDR
            if options.squash_st_min:
                flags |= FORCE_TXSTMIN
            # struct can_isotp_options: flags, frame_txtime, ext_address, txpad_content, rxpad_content, rx_ext_address
            self._socket.setsockopt(
                SOL_CAN_ISOTP,
                CAN_ISOTP_OPTS,
                struct.pack("=LLBBBB", flags, 0, address.target or 0, options.padding or 0, 0, address.source or 0),
            )
            # struct can_isotp_fc_options: bs, stmin, wftmax
            self._socket.setsockopt(
                SOL_CAN_ISOTP, CAN_ISOTP_RECV_FC, struct.pack("=BBB", options.block_size, options.st_min, 0)
            )
            if options.tx_dl > 8:
                # struct can_isotp_ll_options: mtu, tx_dl, tx_flags
                brs = CANFD_BRS if options.bit_rate_switch else 0
                self._socket.setsockopt(
                    SOL_CAN_ISOTP, CAN_ISOTP_LL_OPTS, struct.pack("=BBB", CANFD_MTU, options.tx_dl, brs)
                )
            self._socket.bind((bus.channel_name, _kernel_id(response), _kernel_id(request)))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        """As IsoTpChannel says."""
        while True:
            if not select.select([], [self._socket], [], deadline.remaining)[1]:
                raise IsoTpTimeout(f"sending {len(pdu)} bytes took longer than it may")
            try:
                self._socket.send(pdu)
                break
            except BlockingIOError:
                continue
            except OSError as error:
                raise _kernel_error(self._name, error) from error
        # The socket is writable again once the last frame has left; what went wrong until then is its error.
        if not select.select([], [self._socket], [], deadline.remaining)[1]:
            raise IsoTpTimeout(f"sending {len(pdu)} bytes took longer than it may")
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise _kernel_error(self._name, OSError(code, ""))

    def recv(self, deadline: Deadline) -> bytes | None:
        """As IsoTpChannel says."""
        if not select.select([self._socket], [], [], deadline.remaining)[0]:
            return None
        try:
            return self._socket.recv(LONGEST_PDU)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _kernel_error(self._name, error) from error

    def drain(self) -> None:
        while self.recv(Deadline.after(0)) is not None:
            pass

    def close(self) -> None:
        self._socket.close()


def _kernel_id(identifier: CanId) -> int:
    return identifier.value | (socket.CAN_EFF_FLAG if identifier.extended else 0)


def _kernel_error(name: str, error: OSError) -> TransportError:
    match error.errno:
        case errno.ECOMM:
            return IsoTpTimeout(f"{name}: the peer sent no flow control, or the bus took no frame (N_Bs)")
        case errno.ETIMEDOUT:
            return IsoTpTimeout(f"{name}: the peer stopped in the middle of a message (N_Cr)")
        case errno.EMSGSIZE:
            return IsoTpFraming("the peer has no room for a message of this size (flow control: overflow)")
        case errno.EILSEQ:
            return IsoTpFraming("a consecutive frame came out of sequence")
        case errno.EBADMSG:
            return IsoTpFraming("a frame's padding or length breaks ISO 15765-2")
        case _:
            return CanGone(f"{name}: {error.strerror or error.errno}")
