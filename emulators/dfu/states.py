"""The states of a device in DFU mode: USB DFU 1.1 (USB-IF, 2004-08-05), annex A.2.3 to A.2.11.

Which requests a state takes is the table `TAKEN`; every other request is stalled, and brings dfuERROR with
errSTALLEDPKT. What a download is for, the memory behind knows (`DfuMemory`): this file knows only the order of things.
Work (an erase, a program) begins at the GETSTATUS that follows its download, and its result is reported once its time
is over, as ST's AN2662, 4.5 describes it. DFU_ABORT is taken in the two SYNC states too, which hosts rely on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from ...transports import clock
from ..usb.device import Stall


class State(IntEnum):
    """bState (6.1.2)."""

    APP_IDLE = 0
    APP_DETACH = 1
    IDLE = 2
    DNLOAD_SYNC = 3
    DNBUSY = 4
    DNLOAD_IDLE = 5
    MANIFEST_SYNC = 6
    MANIFEST = 7
    MANIFEST_WAIT_RESET = 8
    UPLOAD_IDLE = 9
    ERROR = 10


class Status(IntEnum):
    """bStatus (6.1.2)."""

    OK = 0x00
    ERR_TARGET = 0x01
    ERR_FILE = 0x02
    ERR_WRITE = 0x03
    ERR_ERASE = 0x04
    ERR_CHECK_ERASED = 0x05
    ERR_PROG = 0x06
    ERR_VERIFY = 0x07
    ERR_ADDRESS = 0x08
    ERR_NOTDONE = 0x09
    ERR_FIRMWARE = 0x0A
    ERR_VENDOR = 0x0B
    ERR_USBR = 0x0C
    ERR_POR = 0x0D
    ERR_UNKNOWN = 0x0E
    ERR_STALLEDPKT = 0x0F


DETACH, DNLOAD, UPLOAD, GETSTATUS, CLRSTATUS, GETSTATE, ABORT = range(7)
"""bRequest (table 3.2)."""
LONGEST_POLL = 0xFFFFFF
TAKEN: Mapping[State, frozenset[int]] = {
    State.IDLE: frozenset({DNLOAD, UPLOAD, GETSTATUS, GETSTATE, ABORT}),
    State.DNLOAD_SYNC: frozenset({GETSTATUS, GETSTATE, ABORT}),
    State.DNBUSY: frozenset(),
    State.DNLOAD_IDLE: frozenset({DNLOAD, GETSTATUS, GETSTATE, ABORT}),
    State.MANIFEST_SYNC: frozenset({GETSTATUS, GETSTATE, ABORT}),
    State.MANIFEST: frozenset(),
    State.MANIFEST_WAIT_RESET: frozenset(),
    State.UPLOAD_IDLE: frozenset({UPLOAD, GETSTATUS, GETSTATE, ABORT}),
    State.ERROR: frozenset({GETSTATUS, CLRSTATUS, GETSTATE}),
}


class DfuRefused(Exception):
    """The memory refuses an upload. `status`: the status that GETSTATUS then reports."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class DfuMemory(ABC):
    """What a device downloads into and uploads from."""

    seconds = 0.0
    """How long the work since it was last set to 0.0 takes."""
    resets = False
    """The work done needs a reset of the part to take effect."""

    @abstractmethod
    def begin(self) -> None:
        """A new download or upload starts."""

    @abstractmethod
    def carry_out(self, block: int, data: bytes) -> Status:
        """What was downloaded to a block. Raises PowerLost."""

    def complete(self) -> bool:
        """Whether the download may end here."""
        return True

    @abstractmethod
    def manifest(self) -> Status:
        """Puts what was downloaded into force; judges it. Raises PowerLost."""

    @abstractmethod
    def upload(self, block: int, length: int) -> bytes:
        """At most `length` bytes; fewer at the end. Raises Refused."""


@dataclass(frozen=True, slots=True)
class Traits:
    """`transfer_size`: the longest block, in bytes. `can_upload`, `tolerant`: bits of bmAttributes.

    `leaves`: manifestation ends DFU mode. `empty_start`: an empty download is taken in dfuIDLE too (DfuSe's
    way out). `early`: what a GETSTATUS gets that comes before the poll time-out is over: "busy" again, or "stall", as
    A.2.5 and A.2.8 have it. `fail_at`: which piece of work fails, counted from 1 (0: none), with `fail_with`.
    """

    transfer_size: int
    can_upload: bool
    tolerant: bool
    leaves: bool
    empty_start: bool = False
    early: str = "busy"
    fail_at: int = 0
    fail_with: Status = Status.ERR_PROG


class DfuStates:
    """A device in DFU mode, from dfuIDLE on. `leave`: called with the seconds after which the part leaves DFU mode."""

    def __init__(self, memory: DfuMemory, traits: Traits, leave: Callable[[float], None], pace: float) -> None:
        self.state = State.IDLE
        self.status = Status.OK
        self._memory = memory
        self._traits = traits
        self._leave = leave
        self._pace = pace
        self._pending: tuple[int, bytes] | None = None
        self._outcome = Status.OK
        self._busy_until = 0.0
        self._manifested = False
        self._works = 0

    def fail(self, status: Status) -> None:
        self.state, self.status = State.ERROR, status

    def request(self, request: int, value: int, data: bytes, length: int) -> bytes:
        """A class request to the interface. Raises Stall."""
        if self.state in (State.DNBUSY, State.MANIFEST) and clock.monotonic() >= self._busy_until:
            self._work_is_over()
        try:
            if not self._takes(request):
                raise Stall
            return self._answer(request, value, data, length)
        except Stall:
            if self.state not in (State.ERROR, State.MANIFEST_WAIT_RESET):
                self.fail(Status.ERR_STALLEDPKT)
            raise

    def _takes(self, request: int) -> bool:
        if request == GETSTATUS and self.state in (State.DNBUSY, State.MANIFEST):
            return self._traits.early == "busy"
        return request in TAKEN[self.state]

    def _answer(self, request: int, value: int, data: bytes, length: int) -> bytes:
        match request:
            case _ if request == GETSTATE:
                return bytes([self.state])
            case _ if request == GETSTATUS:
                return self._get_status()
            case _ if request == DNLOAD:
                self._download(value, data)
            case _ if request == UPLOAD:
                return self._upload(value, length)
            case _:
                # CLRSTATUS and ABORT.
                self.state, self.status = State.IDLE, Status.OK
                self._pending = None
        return b""

    def _download(self, block: int, data: bytes) -> None:
        if len(data) > self._traits.transfer_size:
            raise Stall
        if self.state is State.IDLE:
            if not data and not self._traits.empty_start:
                raise Stall
            self._memory.begin()
        if data:
            self._pending = (block, data)
            self.state = State.DNLOAD_SYNC
        elif self._memory.complete():
            self._manifested = False
            self.state = State.MANIFEST_SYNC
        else:
            self.fail(Status.ERR_NOTDONE)
            raise Stall

    def _upload(self, block: int, length: int) -> bytes:
        if not self._traits.can_upload or length > self._traits.transfer_size:
            raise Stall
        if self.state is State.IDLE:
            self._memory.begin()
        try:
            data = self._memory.upload(block, length)
        except DfuRefused as refused:
            self.fail(refused.status)
            raise Stall from None
        self.state = State.UPLOAD_IDLE if len(data) == length else State.IDLE
        return data

    def _get_status(self) -> bytes:
        if self.state is State.DNLOAD_SYNC:
            if self._pending is not None:
                return self._begin_download()
            self._tell(State.DNLOAD_IDLE)
        elif self.state is State.MANIFEST_SYNC:
            if not self._manifested:
                return self._begin_manifestation()
            self._tell(State.IDLE)
        return self._status_bytes()

    def _tell(self, then: State) -> None:
        """The outcome of the work that is over."""
        if self._outcome is Status.OK:
            self.state = then
        else:
            self.fail(self._outcome)

    def _begin_download(self) -> bytes:
        assert self._pending is not None
        block, data = self._pending
        self._pending = None
        seconds = self._work(lambda: self._memory.carry_out(block, data))
        self.state = State.DNBUSY
        if self._memory.resets:
            self._memory.resets = False
            self._leave(seconds)
        return self._status_bytes()

    def _begin_manifestation(self) -> bytes:
        self._manifested = True
        seconds = self._work(self._memory.manifest)
        self.state = State.MANIFEST
        if self._traits.leaves and self._outcome is Status.OK:
            answer = self._status_bytes()
            self._leave(seconds)
            return answer
        return self._status_bytes()

    def _work(self, action: Callable[[], Status]) -> float:
        """Does it, and notes what came of it; how long it takes, in seconds."""
        self._works += 1
        self._memory.seconds = 0.0
        self._outcome = self._traits.fail_with if self._works == self._traits.fail_at else action()
        self._busy_until = clock.monotonic() + self._memory.seconds * self._pace
        return self._memory.seconds

    def _work_is_over(self) -> None:
        if self.state is State.DNBUSY:
            self.state = State.DNLOAD_SYNC
        elif self._traits.tolerant:
            self.state = State.MANIFEST_SYNC
        else:
            self._tell(State.MANIFEST_WAIT_RESET)

    def _status_bytes(self) -> bytes:
        """6.1.2. bwPollTimeout: milliseconds that the work still takes, rounded up, as far as three bytes can tell."""
        working = self._pace and self.state in (State.DNBUSY, State.MANIFEST)
        left = max(0.0, self._busy_until - clock.monotonic()) if working else 0.0
        poll = min(math.ceil(left * 1000), LONGEST_POLL)
        return bytes([self.status]) + poll.to_bytes(3, "little") + bytes([self.state, 0])
