"""The requests of USB DFU 1.1 (table 3.2) to one open interface, and what their status means.

The rule that keeps this simple: after each request that makes the device work, `settle` asks GETSTATUS until it says
what came of it, and waits as long as it says, never shorter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError, TransportError, UsbStall, UsbTimeout
from ...transports.usb.bus import UsbDevice
from ..errors import (
    ImageWrongPart,
    Meaning,
    OperationFailed,
    PartError,
    PartProtected,
    PartRefused,
    ProtocolError,
    VerifyMismatch,
)
from ..retries import retried
from .codec import IN, LAST_BLOCK, MEANINGS, OUT, DfuSeCommand, DfuState, DfuStatus, Request, Status, parse_status

REQUEST_SECONDS = 5.0
"""How long a control request may take; a device that is at work answers GETSTATUS all the same."""
STATUS_TRIES = 3
"""How often a GETSTATUS that got lost is repeated: it reports the same again."""
IDLE_TRIES = 4
LEAVE_TRIES = 2

FAILURES: Mapping[DfuStatus, type[ProxyflashError]] = {
    DfuStatus.errTARGET: ImageWrongPart,
    DfuStatus.errFILE: ImageWrongPart,
    DfuStatus.errVERIFY: VerifyMismatch,
    DfuStatus.errFIRMWARE: VerifyMismatch,
    DfuStatus.errVENDOR: PartProtected,
    DfuStatus.errADDRESS: PartRefused,
    DfuStatus.errSTALLEDPKT: PartRefused,
    DfuStatus.errNOTDONE: PartRefused,
}
"""Which error a status means (6.1.2); the others are OperationFailed. A DfuSe device says errTARGET of an address that it
does not allow (AN2662, 4.5), which is PartRefused."""
REMEDIES: Mapping[DfuStatus, str] = {
    DfuStatus.errTARGET: "Is it the right file for this component?",
    DfuStatus.errFILE: "Is it the right file for this component?",
    DfuStatus.errVENDOR: "The part is read-protected, or its maker forbids it. Lifting a read protection erases the part "
    "whole; ST's own tools do that, proxyflash does not.",
    DfuStatus.errNOTDONE: "The part waits for more data: is the file whole?",
    DfuStatus.errFIRMWARE: "The part judges what it was given to be no whole firmware: is it the right file?",
}


class DfuLink:
    """One claimed DFU interface. `work`: the seconds that one piece of the device's work may take."""

    def __init__(self, device: UsbDevice, interface: int, *, dfuse: bool, work: float) -> None:
        self.device = device
        self.interface = interface
        self._dfuse = dfuse
        self._work = work

    def download(self, block: int, data: bytes, what: str) -> None:
        """DNLOAD; `block` is wBlockNum, cut to its 16 bits. Raises what the device's status means if it refuses, or
        UsbStall if that gives no reason."""
        try:
            taken = self.device.control_out(
                OUT, Request.DNLOAD, block & LAST_BLOCK, self.interface, data, Deadline.after(REQUEST_SECONDS)
            )
        except UsbStall:
            self._fail_if_it_tells_why(what)
            raise
        if taken != len(data):
            raise ProtocolError(f"{what}: the device took {taken} of {len(data)} bytes")

    def upload(self, block: int, size: int, what: str) -> bytes:
        """UPLOAD of up to `size` bytes. Raises as `download`."""
        deadline = Deadline.after(REQUEST_SECONDS)
        try:
            return self.device.control_in(IN, Request.UPLOAD, block & LAST_BLOCK, self.interface, size, deadline)
        except UsbStall:
            self._fail_if_it_tells_why(what)
            raise

    def status(self, tries: int = STATUS_TRIES) -> Status:
        """GETSTATUS."""

        def ask() -> Status:
            deadline = Deadline.after(REQUEST_SECONDS)
            return parse_status(self.device.control_in(IN, Request.GETSTATUS, 0, self.interface, 6, deadline))

        return retried(ask, tries, UsbTimeout)

    def settle(self, what: str, done: Sequence[DfuState], tries: int = STATUS_TRIES) -> Status:
        """Asks GETSTATUS until the device is in one of `done`, waiting as long as it says. Raises its failure."""
        deadline = Deadline.after(self._work)
        while True:
            status = self.status(tries)
            if status.state in done and status.status is DfuStatus.OK:
                return status
            if status.state is DfuState.dfuERROR or status.status is not DfuStatus.OK:
                self.fail(what, status)
            if deadline.expired:
                raise OperationFailed(
                    f"{what}: still in {status.state.name} after {self._work:g} s",
                    remedy="If the part may take longer, raise work in its profile.",
                )
            self._wait(status, deadline)

    def fail(self, what: str, status: Status) -> NoReturn:
        """Raises what a status means, and clears it."""
        with suppress(TransportError):
            self.clear()
        kind = FAILURES.get(status.status, OperationFailed)
        error = kind(
            f"{what}: the device reports {status.status.name} in {status.state.name}",
            remedy=REMEDIES.get(status.status),
        )
        if status.status is DfuStatus.errTARGET and self._dfuse:
            error = PartRefused(f"{what}: the device does not allow this address ({status.status.name})")
        if isinstance(error, PartError) and MEANINGS.get(status.status) is Meaning.REFUSED:
            error.passes = False
        raise error

    def _fail_if_it_tells_why(self, what: str) -> None:
        status = self.status()
        if status.status is not DfuStatus.OK:
            self.fail(what, status)

    def clear(self) -> None:
        """CLRSTATUS: from dfuERROR to dfuIDLE."""
        self._send(Request.CLRSTATUS)

    def abort(self) -> None:
        """ABORT: from a transfer to dfuIDLE."""
        self._send(Request.ABORT)

    def become_idle(self) -> bool:
        """Brings the device to dfuIDLE from whatever an earlier transfer left it in; False if only a reset helps."""
        deadline = Deadline.after(self._work)
        tries = IDLE_TRIES
        while True:
            status = self.status()
            state = status.state
            if state is DfuState.dfuIDLE:
                return True
            if state is DfuState.dfuMANIFEST_WAIT_RESET:
                return False
            if state in (DfuState.dfuDNBUSY, DfuState.dfuMANIFEST, DfuState.dfuMANIFEST_SYNC):
                if deadline.expired:
                    raise ProtocolError(f"the device stays in {state.name} for {self._work:g} s")
                self._wait(status, deadline)
                continue
            tries -= 1
            if tries < 0:
                raise ProtocolError(f"the device stays in {state.name} and does not become idle")
            if state is DfuState.dfuERROR:
                self.clear()
            else:
                with suppress(UsbStall):
                    self.abort()

    # DfuSe.

    def command(self, payload: bytes, what: str) -> None:
        """A DfuSe command. It is carried out at the GETSTATUS that follows; the next one reports the result."""
        self.download(0, payload, what)
        self.settle(what, (DfuState.dfuDNLOAD_IDLE,))

    def point(self, address: int) -> None:
        """Sets the address that block 2 stands for."""
        payload = bytes([DfuSeCommand.SET_ADDRESS_POINTER]) + address.to_bytes(4, "little")
        self.command(payload, f"set the address 0x{address:08X}")

    def leave(self, address: int) -> None:
        """AN3156, 5.5 (leave DFU mode): set the address, an empty download, and GETSTATUS, at which the part goes."""
        self.point(address)
        self.download(0, b"", "leave DFU mode")
        for _ in range(LEAVE_TRIES):
            try:
                self.status(tries=1)
                return
            except (UsbStall, UsbTimeout, ProtocolError):
                # Gone before it answered, or the request was lost: asked again, it is gone or goes.
                continue
            except TransportError:
                return

    def _send(self, request: Request) -> None:
        self.device.control_out(OUT, request, 0, self.interface, b"", Deadline.after(REQUEST_SECONDS))

    def _wait(self, status: Status, deadline: Deadline) -> None:
        """Until the device may be asked again. To sleep for nothing would take a while all the same."""
        if status.poll_ms:
            self.device.wait(min(status.poll_ms / 1000, deadline.remaining))
