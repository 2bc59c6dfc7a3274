"""ISO-TP (ISO 15765-2): PDUs of up to 4 GiB over CAN frames.

Through the kernel's CAN_ISOTP socket where the bus is socketcan and the kernel has it, else through can-isotp over a
`CanChannel`. Both give the same errors. can-isotp's state machine runs on the caller's own thread: `send` and `recv`
turn it until they are done, and wait on the channel in between; it has no threads here, and sees only frames that the
standard has heeded (`isotp_frames`).
"""

from __future__ import annotations

import errno
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import can
import isotp
import isotp.tools

from . import clock
from .can import CanBus, CanChannel, CanId
from .deadline import Deadline
from .errors import IsoTpContested, IsoTpFraming, IsoTpSettings, IsoTpTimeout, TransportError
from .isotp_frames import FRAME_SIZES, LAST_FLOW_STATUS, heeded, is_flow_control

LONGEST_PDU = 1 << 20
"""Bytes of a PDU that is taken from a peer; a first frame that announces more is answered by an overflow."""
WAIT_FRAMES = 100
"""Flow control frames in a row that may ask us to wait."""
RUN_ON_SECONDS = 60.0
"""How far beyond the deadline a PDU may run that began before it."""
LATE_FRAMES = 1000
"""Frames that are looked through after the deadline for a PDU that came in time."""
LOGGER = "proxyflash.isotp"
"""can-isotp logs what it hands to its error handler as well; unless a program wants to see that, it goes nowhere."""

logging.getLogger(LOGGER).addHandler(logging.NullHandler())


class Addressing(StrEnum):
    """How ISO-TP finds its peer (ISO 15765-2, 10.3). NORMAL_FIXED is 29-bit, 0x18DA<target><source>.

    Mixed addressing is EXTENDED with its address extension as both `target` and `source`: the frames are the same. Its
    29-bit ids are 0x18CE<target><source>.
    """

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
    `squash_st_min`: send without the peer's separation time. `n_bs_timeout`, `n_cr_timeout`: seconds; the kernel's are
    always 1.0. `backend`: "auto", "kernel" or "user".
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


_NO_KERNEL_ISOTP = 'sudo modprobe can-isotp; or backend = "user" in the profile.'
_KERNEL_REMEDIES = {
    errno.ENODEV: "Is the interface still there? Run: ip link",
    errno.EINVAL: "CAN FD frames need an interface with mtu 72: sudo ip link set NAME mtu 72",
}


class IsoTpChannel(ABC):
    """One peer: send a PDU, receive a PDU.

    Another tester that sends under our id breaks what the peer is being sent, or has answers come that are not ours. That
    it is there is no failure; where an exchange fails, it is its reason.
    """

    latest: Deadline | None = None
    """No PDU is waited for beyond this, also none that has begun; None: each has RUN_ON_SECONDS beyond its deadline."""
    _contested_id: CanId | None = None
    """The id under which another tester has sent since our last PDU began."""

    @staticmethod
    def open(bus: CanBus, address: IsoTpAddress, options: IsoTpOptions | None = None) -> IsoTpChannel:
        """A channel to one peer. Raises IsoTpSettings."""
        chosen = options or IsoTpOptions()
        _check(bus, address, chosen)
        if chosen.backend == "kernel" or (chosen.backend == "auto" and bus.interface == "socketcan"):
            from .isotp_kernel import KernelIsoTp

            try:
                return KernelIsoTp(bus, address, chosen)
            except OSError as error:
                if chosen.backend == "kernel" or error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
                    raise IsoTpSettings(
                        f"the kernel's ISO-TP socket on {bus.channel_name}: {error.strerror or error}",
                        remedy=_KERNEL_REMEDIES.get(error.errno or 0, _NO_KERNEL_ISOTP),
                    ) from error
        return UserIsoTp(bus, address, chosen)

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        """Sends one PDU; returns once its last frame is handed to the bus.

        Raises IsoTpTimeout (no flow control, or the deadline), IsoTpFraming (overflow, too many waits, a reserved flow
        status), IsoTpContested in place of either, the CAN errors of the bus, and ValueError for an empty PDU.
        """
        if not pdu:
            raise ValueError("ISO-TP carries no empty PDU")
        self._contested_id = None
        try:
            self._send(pdu, deadline)
        except (IsoTpTimeout, IsoTpFraming) as error:
            self._raise_contested(error.cause)
            raise

    def recv(self, deadline: Deadline) -> bytes | None:
        """The next PDU; None when the deadline passes with nothing begun.

        One that has begun is waited for while its frames keep coming, up to RUN_ON_SECONDS beyond the deadline, and not
        beyond `latest`. Raises IsoTpTimeout, IsoTpFraming, IsoTpContested in place of either or of None, and the CAN
        errors of the bus.
        """
        try:
            pdu = self._recv(deadline)
        except (IsoTpTimeout, IsoTpFraming) as error:
            self._raise_contested(error.cause)
            raise
        if pdu is None:
            self._raise_contested("no answer came")
        return pdu

    def _contest(self, identifier: CanId) -> None:
        self._contested_id = identifier

    def _raise_contested(self, cause: str) -> None:
        contested, self._contested_id = self._contested_id, None
        if contested is not None:
            raise IsoTpContested(f"{cause}, and another tester sends under {contested}")

    def _end(self, deadline: Deadline) -> Deadline:
        """Until when a PDU is waited for that began before the deadline."""
        end = deadline.at + RUN_ON_SECONDS
        return Deadline(end if self.latest is None else min(end, max(self.latest.at, deadline.at)))

    @abstractmethod
    def _send(self, pdu: bytes, deadline: Deadline) -> None: ...

    @abstractmethod
    def _recv(self, deadline: Deadline) -> bytes | None: ...

    @abstractmethod
    def drain(self) -> None:
        """Forgets what came in and was not read."""

    @abstractmethod
    def close(self) -> None: ...


def unended(deadline: Deadline, end: Deadline) -> IsoTpTimeout:
    """A PDU that began before the deadline, and whose frames still came at the end of all patience."""
    return IsoTpTimeout(f"the peer did not end its message within {end.at - deadline.at:.3g} s after the deadline")


def _check(bus: CanBus, address: IsoTpAddress, options: IsoTpOptions) -> None:
    """Raises IsoTpSettings for what neither backend can do."""
    wrong = ""
    if options.backend not in ("auto", "kernel", "user"):
        wrong = f"backend {options.backend!r} is none of auto, kernel, user"
    elif options.backend == "kernel" and bus.interface != "socketcan":
        wrong = f"backend kernel needs a socketcan bus, and {bus.name} is {bus.interface}"
    elif options.tx_dl not in FRAME_SIZES:
        wrong = f"tx_dl = {options.tx_dl} is none of {', '.join(map(str, FRAME_SIZES))}"
    elif options.tx_dl > 8 and not bus.fd:
        wrong = f"tx_dl = {options.tx_dl} needs CAN FD, and {bus.name} is opened without fd"
    for name in ("block_size", "st_min", "padding"):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= 0xFF:
            wrong = f"{name} = {value} is no byte"
    for name in ("n_bs_timeout", "n_cr_timeout"):
        if not 0 < getattr(options, name) < 3600:
            wrong = f"{name} = {getattr(options, name)} is no number of seconds up to an hour"
    for name in ("target", "source"):
        value = getattr(address, name)
        if value is not None and not 0 <= value <= 0xFF:
            wrong = f"{name} = {value:#x} is no byte"
    for name, identifier in zip(("request", "response"), address.ids(), strict=True):
        if not 0 <= identifier.value <= (0x1FFF_FFFF if identifier.extended else 0x7FF):
            wrong = f"{name} = {identifier} is no {29 if identifier.extended else 11}-bit id"
    if wrong:
        raise IsoTpSettings(wrong)


class _Rivals(CanChannel):
    """Sees frames of others under the id that we send under. Keeps none."""

    def __init__(self, bus: CanBus, request: CanId, prefix: bytes, seen: Callable[[CanId], None]) -> None:
        super().__init__(bus, request, (request,), bus.fd)
        self._prefix = prefix
        self._seen = seen

    def take(self, message: can.Message) -> None:
        if self._bus.is_foreign(message) and bytes(message.data).startswith(self._prefix):
            self._seen(self.transmit)


class UserIsoTp(IsoTpChannel):
    """can-isotp's state machine over a CanChannel."""

    def __init__(self, bus: CanBus, address: IsoTpAddress, options: IsoTpOptions) -> None:
        request, response = address.ids()
        self._fd = options.tx_dl > 8
        self._brs = options.bit_rate_switch
        self._prefix = 1 if address.addressing is Addressing.EXTENDED else 0
        self._frame_seconds = bus.frame_seconds
        self._n_bs = options.n_bs_timeout
        self._n_cr = options.n_cr_timeout
        self._deadline = Deadline.after(0)
        self._error: TransportError | None = None
        self._wait: float | None = None
        self._took = False
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
            "logger_name": LOGGER,
            # can-isotp tries it by a sleep of 1 ms, twice, and needs it in its own thread alone, which is not used here.
            "wait_func": _no_wait,
        }
        self._logic = ClockedLogic(
            rxfn=self._rx, txfn=self._tx, address=_library_address(address, request, response),
            error_handler=self._keep_error, params=params,
        )  # fmt: skip
        self._channel: CanChannel = bus.channel(request, response, fd=self._fd)
        self._rivals = _Rivals(bus, request, bytes((address.target or 0,))[: self._prefix], self._contest)
        bus.listen(self._rivals)

    def _send(self, pdu: bytes, deadline: Deadline) -> None:
        logic = self._logic
        self._deadline = deadline
        self._error = None
        # Flow control that came late, for a message before this one, must not set this one going.
        self._channel.drop(lambda message: is_flow_control(bytes(message.data), self._prefix))
        try:
            logic.send(pdu)
            self._wait = None
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
            # A stream of consecutive frames: only the separation time that the peer asked for is waited out. It begins
            # at the end of the frame before (9.6.5.4), of which can-isotp knows only when the driver took it.
            delay = self._logic.next_cf_delay()
            if delay:
                clock.sleep(min(delay + self._frame_seconds, deadline.remaining))
            self._wait = 0.0
        else:
            # Waiting for flow control: no longer than can-isotp's own N_Bs timer, which the turn looks at.
            self._wait = min(self._n_bs, deadline.remaining) + 0.001
        self._logic.process()

    def _recv(self, deadline: Deadline) -> bytes | None:
        logic = self._logic
        end = self._end(deadline)
        self._deadline = end
        self._error = None
        late = 0
        while not logic.available():
            expired = deadline.expired
            # A PDU that has begun is bounded by N_Cr, which can-isotp keeps; its timer is looked at when it has run out.
            self._wait = self._n_cr + 0.001 if logic.is_rx_active() else deadline.remaining
            self._took = False
            logic.process()
            if logic.available():
                break
            self._raise_error()
            if expired and not logic.is_rx_active():
                late += 1
                if not self._took or late > LATE_FRAMES:
                    return None
            if end.expired:
                logic.stop_receiving()
                raise unended(deadline, end)
        data = logic.recv()
        return bytes(data) if data is not None else None

    def drain(self) -> None:
        self._channel.drain()
        self._logic.stop_receiving()
        self._logic.clear_rx_queue()

    def close(self) -> None:
        self._channel.close()
        self._rivals.close()

    def _rx(self, timeout: float) -> isotp.CanMessage | None:
        """One frame for each turn of the machine, so that a peer that never stops doesn't hold it."""
        if self._wait is None:
            return None
        until, self._wait = Deadline.after(self._wait), None
        while (message := self._channel.recv(until)) is not None:
            self._took = True
            data = heeded(bytes(message.data), self._prefix)
            if data is not None and is_flow_control(data, self._prefix):
                status = data[self._prefix] & 0x0F
                if status > LAST_FLOW_STATUS:
                    if self._logic.transmitting():
                        self._error = IsoTpFraming(f"the peer answered with the reserved flow status {status}")
                    data = None
            if data is not None:
                return isotp.CanMessage(
                    arbitration_id=message.arbitration_id,
                    data=data,
                    extended_id=message.is_extended_id,
                    is_fd=message.is_fd,
                    bitrate_switch=message.bitrate_switch,
                )
            if until.expired or self._error is not None:
                break
        return None

    def _tx(self, message: isotp.CanMessage) -> None:
        self._channel.send(message.data, self._deadline, bit_rate_switch=self._brs)
        # can-isotp began its separation time before the driver had the frame, which may have kept it waiting since.
        self._logic.timer_tx_stmin.start()

    def _keep_error(self, error: Exception) -> None:
        kept = _named(error)
        if kept is not None and self._error is None:
            self._error = kept

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _no_wait(seconds: float) -> None:
    """The state machine never waits by itself: `_rx` does."""


class ClockTimer(isotp.tools.Timer):
    """can-isotp's timer on the project's clock."""

    def start(self, timeout: float | None = None) -> None:
        super().start(timeout)
        self.start_time = int(clock.monotonic() * 1e9)

    def elapsed_ns(self) -> int:
        return 0 if self.start_time is None else int(clock.monotonic() * 1e9) - self.start_time

    def elapsed(self) -> float:
        return self.elapsed_ns() / 1e9


class _Clocked:
    """An attribute that holds a ClockTimer in the place of each timer that can-isotp puts there."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, logic: Any, owner: type) -> Any:
        return logic.__dict__[self._name]

    def __set__(self, logic: Any, timer: isotp.tools.Timer) -> None:
        clocked = ClockTimer(0)
        clocked.timeout = timer.timeout
        logic.__dict__[self._name] = clocked


class ClockedLogic(isotp.TransportLayerLogic):
    """can-isotp's state machine on the project's clock."""

    timer_tx_stmin = _Clocked()
    timer_rx_fc = _Clocked()
    timer_rx_cf = _Clocked()


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
