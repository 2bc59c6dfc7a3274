"""The processor of an emulated ECU: at reset it chooses its stage, then serves UDS requests (ISO 14229-1:2020).

Written from the standard, clause by clause (each service says which), sharing nothing with the flasher. Programming
services exist in the bootloader only; the application goes there by DiagnosticSessionControl, programmingSession. In the
bootloader the application's identifiers (F188, F189, F194, F195) are refused by requestOutOfRange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from ...transports import clock
from ..application import Application
from ..board import Board, ResetPulled
from ..can.isotp import EcuAddress, IsoTpNode, Request
from ..can.wire import CanWire
from ..flash import FlashRefused
from ..keys import Range, Table
from ..supply import Supply
from .maker import Levels, Maker, Order
from .memory import UdsMemory
from .nrc import Nrc, RequestRefused, sub_function
from .security import SecurityAccess

POSITIVE = 0x40
DEFAULT, EXTENDED = 1, 3
"""Sessions (table 25)."""
SILENT_WHEN_FUNCTIONAL = (0x11, 0x12, 0x31, 0x7E, 0x7F)
"""Refusals that a functional request gets no answer for (7.5.3.3, table 5)."""
EARLY = 0.8
"""Share of P2 or P2*, after which responsePending asks the tester to wait longer."""


@dataclass(frozen=True, kw_only=True)
class Variation(Table):
    """How this ECU differs from the standard's: keys of the `emulated` table."""

    security_level: Annotated[int, Range(0, 0x7D)] = 1
    """Sub-function of SecurityAccess that requests the seed, an odd number. 0: no security access."""
    secret: str = "5a5a5a5a"
    """Bytes in hexadecimal. The key is the seed xor these bytes."""
    key_delay: Annotated[float, Range(0)] = 10.0
    """Seconds to wait after three wrong keys."""
    routine_erase: Annotated[int, Range(0, 0xFFFF)] = 0xFF00
    """Identifier of the erase routine."""
    routine_check: Annotated[int, Range(0, 0xFFFF)] = 0x0202
    """Identifier of the routine that checks the memory."""
    routine_dependencies: Annotated[int, Range(0, 0xFFFF)] = 0xFF01
    """Identifier of the routine that checks the dependencies."""
    routine_preconditions: Annotated[int, Range(0, 0xFFFF)] = 0x0203
    """Identifier of the routine that checks the preconditions."""
    preconditions: Annotated[int, Range(0, 0xFF)] = 0
    """Status that the routine of the preconditions answers with. 0: all are met."""
    s3: Annotated[float, Range(0)] = 5.0
    """Seconds without a request after which a session ends."""
    boot_window: Annotated[float, Range(0)] = 0.0
    """Seconds after its start within which a request must meet the bootloader. 0: the programming session enters it."""
    silent_resets: bool = False
    """Whether ECUReset and the programming session, which both reset the ECU, get no answer."""
    refuse: Annotated[int, Range(0, 0xFF)] = 0
    """Negative response code to every programming session. 0: none is refused."""
    locked: bool = False
    """Whether every download is refused (NRC 0x70), whatever the key."""
    mute: bool = False
    """Whether the part never answers."""
    fail_check: bool = False
    """Whether the memory check always finds a fault."""
    download_ends: Literal["session", "exit", "reset", "s3", "power"] = "session"
    """What ends a download that is not complete: "session" a new session or a reset; or only "exit" RequestTransferExit, which
    is refused, "reset" ECUReset, "s3" a session that ran out, "power" a power loss. A power loss ends it in each case."""
    repeats: bool = True
    """Whether a block that is sent again is acknowledged again. Otherwise the block is refused (NRC 0x73)."""
    seed_delay: Annotated[float, Range(0)] = 0.0
    """Seconds after each start in which no seed is given (NRC 0x37)."""
    poll: Annotated[int, Range(0)] = 0
    """Number of requests for a routine's result (31 03) that come too early: the routine runs on after the answer to its
    start. 0: the answer to the start has the result."""
    poll_by_start: bool = False
    """Whether the start (31 01) is sent again for the result, in place of 31 03; its answer then has the routine's status."""
    block_size: Annotated[int, Range(0, 0xFF)] = 0
    """Block size in the ECU's flow control. 0: no limit."""
    st_min: Annotated[int, Range(0, 0xFF)] = 0
    """STmin in the ECU's flow control, as its byte on the bus."""


class Ecu(Board):
    """`part`: its row of parts.toml. `running`: the application that runs now; None in the bootloader."""

    def __init__(
        self,
        name: str,
        part: Mapping[str, Any],
        serial: str,
        variation: Variation,
        supply: Supply,
        memory: UdsMemory,
        wire: CanWire,
        address: EcuAddress,
        maker: Maker,
        *,
        pace: float,
    ) -> None:
        super().__init__(name, supply, pace=pace)
        self._part = part
        self._serial = serial
        self._variation = variation
        self._memory = memory
        self._security = main = SecurityAccess(
            variation.security_level, bytes.fromhex(variation.secret), variation.key_delay, variation.seed_delay
        )
        if maker.levels or maker.seed_data:
            others = {
                level: SecurityAccess(level, secret, variation.key_delay, variation.seed_delay)
                for level, secret in maker.levels.items()
            }
            self._security = Levels(self._security, others, maker.seed_data)
        self._maker = maker
        self._address = self._boot_address = address
        if maker.boot_ids:
            request, response = maker.boot_ids
            self._boot_address = replace(address, request=request, response=response)
        self._main = main
        self._was_unlocked = False
        self._settled = 0.0
        self._order = Order(maker.rules)
        self._results: dict[int, tuple[int, int]] = {}
        """With `poll`: of each routine the questions that come too early, and its result."""
        self.running: Application | None = None
        self._to_bootloader = False
        self._is_confirmed = True
        """Whether the application was asked for `confirm` since the last download."""
        self._fingerprint = b""
        self.link = IsoTpNode(
            self, wire, address, fd=wire.data_bitrate is not None, block_size=variation.block_size,
            st_min=variation.st_min, max_length=part["block_length"],
        )  # fmt: skip
        memory.flash.busy = self._work
        supply.listen(self.link.node.power)
        self._is_cold = True
        """It was without supply, and its receiver empty, until it was switched on."""
        supply.listen(self._switched)
        self._service = 0
        self._has_failed = False
        """Whether the routine that was asked for found fault."""
        self._worked = 0.0
        self._patience = 0.0
        self._start_session(DEFAULT, "power")

    def _switched(self, on: bool) -> None:
        if not on:
            with self.changed:
                self._is_cold = True
                self.link.forget()

    def firmware(self) -> None:
        # A frame that arrives once it has its supply is not lost, however late the processor's thread runs.
        self.link.forget(frames=not self._is_cold)
        began = "power" if self._is_cold else "session" if self._to_bootloader else "reset"
        self._is_cold = False
        self._security.restarted()
        self._start_session(DEFAULT, began)
        found = self._memory.application()
        self.running = None
        self.link.move(self._boot_address)
        if self._to_bootloader:
            self._to_bootloader = False
            self._start_session(self._maker.programming)
            self._main.unlocked = self._was_unlocked or self._main.unlocked
            if not self._variation.silent_resets:
                self.link.send(bytes([0x50, self._maker.programming]) + self._times())
        elif found is not None:
            self._wait_in_bootloader(self._variation.boot_window)
            self.running = found if self._session == DEFAULT else None
            if self.running is not None:
                self.link.move(self._address)
        while True:
            request = self.link.receive(self._variation.s3 if self._session != DEFAULT else None)
            if request is None:
                self._start_session(DEFAULT, "s3")
                if self._has_an_application_to_start():
                    self._restart()
            else:
                self._serve(request)

    def _wait_in_bootloader(self, seconds: float) -> None:
        """The boot window: whoever starts a session within it keeps the bootloader."""
        until = clock.monotonic() + seconds
        while self._session == DEFAULT and (left := until - clock.monotonic()) > 0:
            request = self.link.receive(left)
            if request is not None:
                self._serve(request)

    def _start_session(self, session: int, by: str = "session") -> None:
        """`by`: what began it, one of ENDINGS."""
        self._session = session
        self._settled = clock.monotonic() + (self._maker.settle if session != DEFAULT else 0.0)
        self._order.restarted()
        if session != self._maker.programming or not self._maker.keeps_key:
            self._security.lock()
        if by == "power" or self._variation.download_ends in ("session", by):
            self._memory.abandon()

    def _has_an_application_to_start(self) -> bool:
        """A bootloader whose session has ended has nothing to wait for where there is an application."""
        return self.running is None and self._session == DEFAULT and self._memory.application() is not None

    def _serve(self, request: Request) -> None:
        if not request.data or self._variation.mute:
            return
        service = self._service = request.data[0]
        self._worked = 0.0
        self._patience = self._part["p2"] * EARLY
        self._has_failed = False
        try:
            if clock.monotonic() < self._settled:
                raise RequestRefused(Nrc.SERVICE_NOT_IN_SESSION)
            self._order.check(request.data, functional=request.functional)
            answer = self._dispatch(request.data)
        except RequestRefused as refusal:
            if not (request.functional and refusal.nrc in SILENT_WHEN_FUNCTIONAL):
                self.link.send(bytes([0x7F, service, refusal.nrc]))
            return
        except FlashRefused:
            self.link.send(bytes([0x7F, service, Nrc.PROGRAMMING_FAILURE]))
            return
        if not self._has_failed:
            self._order.answered(request.data)
        if answer is not None:
            self.link.send(bytes([service + POSITIVE]) + answer)

    def _dispatch(self, data: bytes) -> bytes | None:
        """The answer behind the service id; None: none is sent. Raises RequestRefused."""
        always: dict[int, Callable[[bytes], bytes | None]] = {
            0x10: self._session_control,
            0x11: self._ecu_reset,
            0x14: self._clear_diagnostic_information,
            0x22: self._read_data,
            0x31: self._routine_control,
            0x3E: self._tester_present,
        }
        in_a_session: dict[int, Callable[[bytes], bytes | None]] = {
            0x27: self._security.serve,
            0x28: self._communication_control,
            0x85: self._dtc_setting,
        }
        in_bootloader: dict[int, Callable[[bytes], bytes | None]] = {
            0x23: self._read_memory,
            0x2E: self._write_data,
            0x34: self._request_download,
            0x35: self._request_upload,
            0x36: self._transfer_data,
            0x37: self._transfer_exit,
        }
        service = data[0]
        serve = always.get(service) or in_a_session.get(service) or in_bootloader.get(service)
        if serve is None:
            raise RequestRefused(Nrc.SERVICE_NOT_SUPPORTED)
        if service in in_a_session and self._session == DEFAULT:
            raise RequestRefused(Nrc.SERVICE_NOT_IN_SESSION)
        if service in in_bootloader and not self._programming:
            raise RequestRefused(Nrc.SERVICE_NOT_IN_SESSION)
        return serve(data[1:])

    @property
    def _programming(self) -> bool:
        return self.running is None and self._session == self._maker.programming

    # Diagnostic and communication management (clause 10).

    def _session_control(self, data: bytes) -> bytes | None:
        variation, programming = self._variation, self._maker.programming
        kind, quiet = sub_function(data, (DEFAULT, programming, EXTENDED, *self._maker.sessions), 1)
        if kind == programming and variation.refuse:
            raise RequestRefused(variation.refuse)
        if kind == programming and self.running is not None:
            if variation.boot_window:
                raise RequestRefused(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
            # The application hands over to the bootloader, which answers once it is up.
            if not variation.silent_resets:
                self._pending()
            self._to_bootloader = True
            self._was_unlocked = self._maker.keeps_key and self._main.unlocked
            self._restart()
        before = self._session
        self._start_session(kind)
        if before != DEFAULT and self._has_an_application_to_start():
            if not (quiet or variation.silent_resets):
                self.link.send(bytes([0x50, kind]) + self._times())
            self._restart()
        return None if quiet else bytes([kind]) + self._times()

    def _times(self) -> bytes:
        p2, p2_star = int(self._part["p2"] * 1000), int(self._part["p2_star"] * 100)
        return p2.to_bytes(2, "big") + p2_star.to_bytes(2, "big")

    def _ecu_reset(self, data: bytes) -> bytes | None:
        kind, quiet = sub_function(data, (1, 3), 1)
        if not quiet and not self._variation.silent_resets:
            self.link.send(bytes([0x51, kind]))
        self._restart()
        return None

    def _clear_diagnostic_information(self, data: bytes) -> bytes | None:
        if len(data) != 3:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        return b""

    def _restart(self) -> None:
        self.link.busy(self._part["reset_seconds"] * self.pace)
        raise ResetPulled

    def _communication_control(self, data: bytes) -> bytes | None:
        kind, quiet = sub_function(data, range(4), 2)
        if not 1 <= data[1] & 0x03 <= 3:  # Annex B.1: which messages.
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        return None if quiet else bytes([kind])

    def _dtc_setting(self, data: bytes) -> bytes | None:
        kind, quiet = sub_function(data, (1, 2), None)
        return None if quiet else bytes([kind])

    def _tester_present(self, data: bytes) -> bytes | None:
        _, quiet = sub_function(data, (0,), 1)
        return None if quiet else b"\x00"

    # Data transmission (clause 11).

    def _read_data(self, data: bytes) -> bytes | None:
        if not data or len(data) % 2:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        known = self._identifiers()
        answer = b""
        for offset in range(0, len(data), 2):
            value = known.get(int.from_bytes(data[offset : offset + 2], "big"))
            if value is not None:
                answer += data[offset : offset + 2] + value
        if not answer:
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        return answer

    def _identifiers(self) -> dict[int, bytes]:
        part, running = self._part, self.running
        found = {
            0xF180: b"\x01" + part["bootloader"].encode(),
            0xF186: bytes([self._session]),
            0xF18A: part["supplier"].encode(),
            0xF18C: self._serial.encode(),
            0xF191: part["hardware"].encode(),
            0xF197: part["system"].encode(),
        }
        if self._fingerprint:
            found[0xF15B] = self._fingerprint
        if running is not None and self._is_confirmed:
            version = running.version.encode()
            found |= {0xF188: running.product.encode(), 0xF189: version, 0xF194: running.product.encode()}
            found |= {0xF195: version}
        return found

    def _read_memory(self, data: bytes) -> bytes | None:
        self._security.need()
        return self._memory.read(data)

    def _write_data(self, data: bytes) -> bytes | None:
        if len(data) < 3:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        if int.from_bytes(data[:2], "big") not in (0xF15A, 0xF184, 0xF199, *self._maker.writes):
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        self._security.need()
        if self._maker.dated and data[2:5].hex() != clock.strftime("%y%m%d"):
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        self._fingerprint = data[2:]
        return data[:2]

    # Routines (clause 14).

    def _routine_control(self, data: bytes) -> bytes | None:
        if len(data) < 3:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        head, argument = data[:3], data[3:]
        routine = int.from_bytes(head[1:], "big")
        variation = self._variation
        if routine == variation.routine_preconditions:
            passed = variation.preconditions == 0
            status = variation.preconditions
        elif routine == self._maker.confirm and self.running is not None:
            self._security.need()
            self._is_confirmed = passed = True
            status = 0
        elif not self._programming:
            raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
        elif variation.poll:
            return self._polled(routine, head, argument)
        else:
            passed = self._routine(routine, head[0], argument)
            status = 0 if passed else 1
        kind, quiet = sub_function(head, (1,), None)
        self._has_failed = not passed
        answer = self._memory.check_answer if routine == variation.routine_check else b""
        return None if quiet and passed else bytes([kind]) + head[1:] + (answer or bytes([status]))

    def _polled(self, routine: int, head: bytes, argument: bytes) -> bytes:
        """startRoutine, and requestRoutineResults (14.2): the last byte says whether it runs (1), passed (0) or failed (2)."""
        if self._variation.poll_by_start:
            return self._polled_by_start(routine, head, argument)
        early, result = self._results.get(routine, (0, 0))
        if head[0] == 0x03 and routine in self._results:
            self._results[routine] = (max(0, early - 1), result)
            self._has_failed = bool(early or result)
            return head + bytes([1 if early else result])
        if head[0] != 0x01 or early:
            raise RequestRefused(Nrc.CONDITIONS_NOT_CORRECT if early else Nrc.REQUEST_SEQUENCE_ERROR)
        passed = self._routine(routine, head[0], argument)
        self._results[routine] = (self._variation.poll, 0 if passed else 2)
        return head

    def _polled_by_start(self, routine: int, head: bytes, argument: bytes) -> bytes:
        """startRoutine, which is answered by how far the routine is, until it has ended and was reported as ended."""
        if head[0] != 0x01:
            raise RequestRefused(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
        if routine not in self._results:
            passed = self._routine(routine, head[0], argument)
            self._results[routine] = (self._variation.poll, 0 if passed else 2)
        early, result = self._results.pop(routine)
        if early:
            self._results[routine] = (early - 1, result)
        self._has_failed = bool(early or result)
        return head + bytes([1 if early else result])

    def _routine(self, routine: int, kind: int, argument: bytes) -> bool:
        """One of the programming routines: whether it passed. Raises RequestRefused."""
        variation, memory = self._variation, self._memory
        known = (variation.routine_erase, variation.routine_check, variation.routine_dependencies)
        if routine not in known:
            if not memory.call(routine, argument):
                raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
            self._security.need()
            return True
        self._security.need()
        sub_function(bytes([kind]), (1,), 1)
        if routine == variation.routine_erase:
            memory.erase(argument)
            return True
        if routine == variation.routine_check:
            return memory.check(argument) and not variation.fail_check
        if argument:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        return memory.check_dependencies()

    # Upload and download (clause 15).

    def _request_download(self, data: bytes) -> bytes | None:
        self._security.need()
        if self._variation.locked:
            raise RequestRefused(Nrc.UPLOAD_DOWNLOAD_NOT_ACCEPTED)
        self._is_confirmed = not self._maker.confirm
        return self._memory.request_transfer(data, uploading=False)

    def _request_upload(self, data: bytes) -> bytes | None:
        self._security.need()
        return self._memory.request_transfer(data, uploading=True)

    def _transfer_data(self, data: bytes) -> bytes | None:
        return self._memory.transfer(data, repeats=self._variation.repeats)

    def _transfer_exit(self, data: bytes) -> bytes | None:
        try:
            return self._memory.exit_transfer(data)
        except RequestRefused:
            if self._variation.download_ends == "exit":
                self._memory.abandon()
            raise

    # What the services share.

    def _pending(self) -> None:
        self.link.send(bytes([0x7F, self._service, Nrc.RESPONSE_PENDING]))

    def _work(self, seconds: float) -> None:
        """Flash operations take their time; a waiting tester gets responsePending ahead of P2, then ahead of each P2*."""
        self._worked += seconds * self.pace
        if self._worked > self._patience:
            self._pending()
            self._worked = 0.0
            self._patience = self._part["p2_star"] * EARLY
        self.link.busy(seconds * self.pace)
