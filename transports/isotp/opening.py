"""ISO-TP (ISO 15765-2): PDUs of up to 4 GiB over CAN frames.

Through can-isotp over a `CanChannel` (`user`), or where that is asked for through the kernel's CAN_ISOTP socket (`kernel`).
Both give the same errors.
"""

from __future__ import annotations

import errno

from ..can.bus import CanBus
from ..deadline import Deadline
from ..errors import IsoTpContested, IsoTpFraming, IsoTpSettings, IsoTpTimeout
from .channel import Addressing, IsoTpAddress, IsoTpBackEnd, IsoTpOptions
from .frames import FRAME_SIZES
from .kernel import KernelIsoTp
from .user import UserIsoTp

__all__ = ["Addressing", "IsoTpAddress", "IsoTpChannel", "IsoTpOptions"]

RUN_ON_SECONDS = 60.0
"""How far beyond the deadline a PDU may run that began before it."""
_NO_KERNEL_ISOTP = 'sudo modprobe can-isotp; or backend = "user" in the profile.'
_KERNEL_REMEDIES = {
    errno.ENODEV: "Is the interface still there? Run: ip link",
    errno.EINVAL: "CAN FD frames need an interface with mtu 72: sudo ip link set NAME mtu 72",
}


class IsoTpChannel:
    """One peer: send a PDU, receive a PDU.

    Another tester that sends under our id breaks what the peer is being sent, or has answers come that are not ours. That
    it is there is no failure; where an exchange fails, it is its reason.
    """

    latest: Deadline | None = None
    """No PDU is waited for beyond this, also none that has begun; None: each has RUN_ON_SECONDS beyond its deadline."""

    def __init__(self, back_end: IsoTpBackEnd) -> None:
        """Programs use `open`, which chooses the back end."""
        self.back_end = back_end

    @staticmethod
    def open(bus: CanBus, address: IsoTpAddress, options: IsoTpOptions | None = None) -> IsoTpChannel:
        """A channel to one peer. Raises IsoTpSettings."""
        chosen = options or IsoTpOptions()
        _check(bus, address, chosen)
        if chosen.backend == "user":
            return IsoTpChannel(UserIsoTp(bus, address, chosen))
        try:
            return IsoTpChannel(KernelIsoTp(bus, address, chosen))
        except OSError as error:
            raise IsoTpSettings(
                f"the kernel's ISO-TP socket on {bus.channel_name}: {error.strerror or error}",
                remedy=_KERNEL_REMEDIES.get(error.errno or 0, _NO_KERNEL_ISOTP),
            ) from error

    def send(self, pdu: bytes, deadline: Deadline | float) -> None:
        """Sends one PDU; returns once its last frame is handed to the bus.

        Raises IsoTpTimeout (no flow control, or the deadline), IsoTpFraming (overflow, too many waits, a reserved flow
        status), IsoTpContested in place of either, the CAN errors of the bus, and ValueError for an empty PDU.
        """
        deadline = Deadline.of(deadline)
        if not pdu:
            raise ValueError("ISO-TP carries no empty PDU")
        self.back_end.contested = None
        try:
            self.back_end.send(pdu, deadline)
        except (IsoTpTimeout, IsoTpFraming) as error:
            self._raise_contested(error.cause)
            raise

    def recv(self, deadline: Deadline | float) -> bytes | None:
        """The next PDU; None when the deadline passes with nothing begun.

        A PDU that has begun is waited for while its frames keep coming, up to RUN_ON_SECONDS beyond the deadline, and not
        beyond `latest`. Raises IsoTpTimeout, IsoTpFraming, IsoTpContested in place of either or of None, and the CAN
        errors of the bus.
        """
        deadline = Deadline.of(deadline)
        try:
            pdu = self.back_end.recv(deadline, self._end(deadline))
        except (IsoTpTimeout, IsoTpFraming) as error:
            self._raise_contested(error.cause)
            raise
        if pdu is None:
            self._raise_contested("no answer came")
        return pdu

    def _raise_contested(self, cause: str) -> None:
        contested, self.back_end.contested = self.back_end.contested, None
        if contested is not None:
            raise IsoTpContested(f"{cause}, and another tester sends under {contested}")

    def _end(self, deadline: Deadline) -> Deadline:
        """Until when a PDU is waited for that began before the deadline."""
        end = deadline.at + RUN_ON_SECONDS
        return Deadline(end if self.latest is None else min(end, max(self.latest.at, deadline.at)))

    def drain(self) -> None:
        """Forgets what came in and was not read."""
        self.back_end.drain()

    def close(self) -> None:
        self.back_end.close()


def _check(bus: CanBus, address: IsoTpAddress, options: IsoTpOptions) -> None:
    """Raises IsoTpSettings for what neither backend can do."""
    wrong = ""
    if options.backend not in ("kernel", "user"):
        wrong = f"backend {options.backend!r} is neither kernel nor user"
    elif options.backend == "kernel" and bus.interface != "socketcan":
        wrong = f"backend kernel needs a socketcan bus, and {bus.name} is {bus.interface}"
    elif options.tx_dl not in FRAME_SIZES:
        wrong = f"tx_dl = {options.tx_dl} is none of {', '.join(map(str, FRAME_SIZES))}"
    elif options.tx_dl > 8 and not options.sends_fd:
        wrong = f"tx_dl = {options.tx_dl} needs CAN FD, and fd is false"
    elif options.sends_fd and not bus.fd:
        said = "fd = true" if options.fd else f"tx_dl = {options.tx_dl}"
        wrong = f"{said} needs CAN FD, and {bus.name} is opened without fd"
    for name in ("block_size", "st_min", "padding"):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= 0xFF:
            wrong = f"{name} = {value} is not a byte"
    for name in ("n_bs_timeout", "n_cr_timeout"):
        if not 0 < getattr(options, name) < 3600:
            wrong = f"{name} = {getattr(options, name)} is not a number of seconds up to an hour"
    for name in ("target", "source"):
        value = getattr(address, name)
        if value is not None and not 0 <= value <= 0xFF:
            wrong = f"{name} = {value:#x} is not a byte"
    for name, identifier in zip(("request", "response"), address.ids(), strict=True):
        if not 0 <= identifier.value <= (0x1FFF_FFFF if identifier.extended else 0x7FF):
            wrong = f"{name} = {identifier} is not {'a 29' if identifier.extended else 'an 11'}-bit id"
    if wrong:
        raise IsoTpSettings(wrong)
