"""ISO-TP through can-isotp over a `CanChannel`.

can-isotp's state machine runs on the caller's own thread: `send` and `recv` turn it until they are done, and wait on the
channel in between; it has no threads here, and sees only the frames that the standard does not have ignored (`frames`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import can
import isotp
import isotp.tools

from .. import clock
from ..can.bus import CanBus, CanChannel, CanId
from ..deadline import Deadline
from ..errors import IsoTpFraming, IsoTpTimeout, TransportError
from .channel import LONGEST_PDU, Addressing, IsoTpAddress, IsoTpBackEnd, IsoTpOptions, unended
from .frames import LAST_FLOW_STATUS, accepted_frame, is_flow_control

WAIT_FRAMES = 100
"""Flow control frames in a row that may ask us to wait."""
LATE_FRAMES = 1000
"""Frames that are looked through after the deadline for a PDU that came in time."""
LOGGER = "proxyflash.isotp"
"""can-isotp logs what it hands to its error handler as well; unless a program wants to see that, it goes nowhere."""

logging.getLogger(LOGGER).addHandler(logging.NullHandler())


class _OtherTesters(CanChannel):
    """Sees frames of others under the id that we send under. Keeps none."""

    def __init__(self, bus: CanBus, request: CanId, prefix: bytes, seen: Callable[[CanId], None]) -> None:
        super().__init__(bus, request, (request,), bus.fd)
        self._prefix = prefix
        self._seen = seen

    def take(self, message: can.Message) -> None:
        if self._bus.is_foreign(message) and bytes(message.data).startswith(self._prefix):
            self._seen(self.transmit)


class UserIsoTp(IsoTpBackEnd):
    """can-isotp's state machine over a CanChannel."""

    def __init__(self, bus: CanBus, address: IsoTpAddress, options: IsoTpOptions) -> None:
        request, response = address.ids()
        self._fd = options.sends_fd
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
        self._other_testers = _OtherTesters(bus, request, bytes((address.target or 0,))[: self._prefix], self.contest)
        bus.listen(self._other_testers)

    def send(self, pdu: bytes, deadline: Deadline) -> None:
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

    def recv(self, deadline: Deadline, end: Deadline) -> bytes | None:
        logic = self._logic
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
        self._other_testers.close()

    def _rx(self, timeout: float) -> isotp.CanMessage | None:
        """One frame for each turn of the machine, so that a peer that never stops doesn't hold it."""
        if self._wait is None:
            return None
        until, self._wait = Deadline.after(self._wait), None
        while (message := self._channel.recv(until)) is not None:
            self._took = True
            data = accepted_frame(bytes(message.data), self._prefix)
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
    """The state machine never waits: `_rx` does."""


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
