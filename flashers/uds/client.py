"""One UDS request at a time: sent, waited for as long as the ECU asks for, and matched with its answer.

After ISO 14229-2:2021, clause 7 (P2, P2*, S3) and ISO 14229-1:2020, 8.7 (0x21 and 0x78). Knows nothing of CAN: it needs
a channel that carries PDUs.

The rule: one request is outstanding. What is not an answer to it (a late answer, an answer to another tester) is
ignored until the time is up. udsoncan's Client is not used because it takes such an answer for a fault, has no retry,
and loses what came in before a request.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Protocol

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import CanOverrun, Framing, NotAcknowledged, ProxyflashError, TransportError, WireTimeout
from ..errors import Meaning, NoResponse, OperationFailed, ProtocolError, Step, silence
from ..retries import retried
from .codec import SILENCES, TESTER_PRESENT, NegativeResponse, Nrc, decode, describe, quote, wants_no_answer

LOST = (NoResponse, ProtocolError, WireTimeout, Framing, NotAcknowledged, CanOverrun)
"""A request or its response got lost; sending it again may help. While the only other node of a bus resets, nobody
acknowledges a frame. ProtocolError: all that came was no answer, such as a late one to the request before. CanOverrun:
on a busy host, the answer may be among the frames that were lost."""

_FOREIGN_LIMIT = 32
_REMEMBERED, _HEAD = 16, 8
"""Requests whose answers may come late, and bytes of each that are kept."""
_LATE_REMEDY = (
    "Run the same command again. If that stays so: raise timings.latency in its profile above what its answers take."
)
_BUSY_LIMIT = 50
_BUSY_WAIT = 0.1
_SECONDS_PER_BYTE = 0.0002
"""What may still be queued below us when a request is handed over: at 125 kbit/s a byte takes 0.13 ms."""


class PduChannel(Protocol):
    """What carries PDUs: an IsoTpChannel, or another transport of ISO 14229-3 or -5."""

    def send(self, pdu: bytes, deadline: Deadline) -> None: ...
    def recv(self, deadline: Deadline) -> bytes | None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...


class Broadcast(Protocol):
    """Sends a request to all ECUs; it has to fit a single frame."""

    def send(self, pdu: bytes, deadline: Deadline) -> None: ...
    def close(self) -> None: ...


class UdsClient:
    """The requests to one ECU. Times in seconds; `p2` and `p2_star` without `latency`, which is added to both. `addresses`: how
    many the channel tries in turn.

    `keep_session` starts a thread that sends TesterPresent whenever nothing was sent for half of S3. It is a thread
    because the engine, or a person who is asked before the erase, may take any time between two calls, and an ECU
    whose session ran out has forgotten its security access too. With a `broadcast` it goes to all ECUs, and whatever
    else is sent, so that ECUs that were asked to keep quiet do so until the end.
    """

    def __init__(
        self,
        channel: PduChannel,
        *,
        p2: float,
        p2_star: float,
        latency: float,
        pending: float,
        broadcast: Broadcast | None = None,
        addresses: int = 1,
    ) -> None:
        self.p2 = p2
        self.p2_star = p2_star
        self.heard = False
        """Whether the ECU has answered anything since this was last set: an ECU that has is not absent."""
        self.has_answered = False
        """Whether the ECU has ever answered anything."""
        self.repeated = 0
        """How many requests were sent again since this was last set: the ECU may have lost one of them, or taken it twice."""
        self._channel = channel
        self._latency = latency
        self._pending = pending
        self._broadcast = broadcast
        self._addresses = addresses
        self._lock = clock.Lock()
        self._sent_at = clock.monotonic()
        self._asked: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._keeper: clock.SomeThread | None = None
        self._let_go = clock.Event()

    def request(
        self, request: bytes, *, limit: float | None = None, functional: bool = False, retries: int = 0
    ) -> bytes:
        """What follows the head of the positive response; raises what a negative response is mapped to. See `ask`."""
        answer = self.ask(request, limit=limit, functional=functional, retries=retries)
        if isinstance(answer, NegativeResponse):
            raise answer.error()
        return answer

    def ask(
        self,
        request: bytes,
        *,
        limit: float | None = None,
        wait: float | None = None,
        functional: bool = False,
        retries: int = 0,
        settled_by: int | None = None,
    ) -> bytes | NegativeResponse:
        """What follows the head of the positive response, or the final negative response.

        `limit`: how long the ECU may keep it pending; `wait`: how long until its first answer, instead of P2.
        `retries`: how often it is sent again, to each address, when it or its response is lost. `settled_by`: the code by which
        an ECU says to a repeated request that it carried out the first one. b"" also where a request that wants no positive
        response is not refused. Raises NoResponse, ProtocolError, OperationFailed (pending for too long), and the wire's
        errors.
        """
        lost: list[Exception] = []
        tries = (retries + 1) * self._addresses if retries else 1
        answer = retried(lambda: self._exchange(request, limit, wait, functional), tries, LOST, lost.append)
        if not lost:
            return answer
        self.repeated += 1
        # The ECU may answer each of the requests; what comes late must not be taken for the answer to the next.
        self.linger(self.p2)
        return b"" if isinstance(answer, NegativeResponse) and answer.nrc == settled_by else answer

    def drain(self) -> None:
        """Forgets responses that came late."""
        with self._lock:
            self._channel.drain()

    def linger(self, seconds: float) -> None:
        """Waits, and forgets what comes in."""
        with self._lock:
            self._linger(Deadline.after(seconds))

    def keep_session(self, s3: float) -> None:
        """From now on the ECU's session does not run out."""
        self.let_session_go()
        self._let_go = clock.Event()
        self._keeper = clock.Thread(target=self._keep, args=(s3 / 2, self._let_go), name="uds tester present")
        self._keeper.start()

    def let_session_go(self) -> None:
        self._let_go.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None

    def close(self) -> None:
        self.let_session_go()
        self._channel.close()
        if self._broadcast is not None:
            self._broadcast.close()

    def _exchange(
        self, request: bytes, limit: float | None, wait: float | None, functional: bool
    ) -> bytes | NegativeResponse:
        end = Deadline.after(self._pending if limit is None else limit)
        with self._lock:
            for _ in range(_BUSY_LIMIT):
                self._send(request, functional)
                answer = self._answer(request, end, self.p2 + self._latency if wait is None else wait)
                if not isinstance(answer, NegativeResponse) or answer.meaning is not Meaning.BUSY or end.expired:
                    break
                self._linger(end.sooner(_BUSY_WAIT))
            self._sent_at = clock.monotonic()
        return answer

    def _send(self, request: bytes, functional: bool) -> None:
        way = self._broadcast if functional and self._broadcast is not None else self._channel
        # The separation time that the ECU asks for decides how long a long request takes: at most 127 ms a frame.
        way.send(request, Deadline.after(5.0 + len(request) * 0.03))
        self._sent_at = clock.monotonic()
        if (head := request[:_HEAD]) not in self._asked:
            self._asked.append(head)

    def _linger(self, until: Deadline) -> None:
        while not until.expired:
            with suppress(*LOST):
                self._channel.recv(until)

    def _keep(self, idle: float, let_go: clock.SomeEvent) -> None:
        try:
            if self._broadcast is not None:
                while not let_go.wait(idle):
                    with suppress(*LOST):
                        self._broadcast.send(TESTER_PRESENT, Deadline.after(idle))
            while not let_go.wait(max(0.0, self._sent_at + idle - clock.monotonic())):
                with self._lock:
                    if clock.monotonic() - self._sent_at >= idle and not let_go.is_set():
                        self._present()
        except TransportError:
            return  # The next request meets the same failure, and reports it.

    def _present(self) -> None:
        with suppress(*LOST):
            self._send(TESTER_PRESENT, functional=False)
        self._sent_at = clock.monotonic()

    def _answer(self, request: bytes, end: Deadline, wait: float) -> bytes | NegativeResponse:
        patience = Deadline.after(wait + len(request) * _SECONDS_PER_BYTE)
        foreign: list[bytes] = []
        pending = 0
        while len(foreign) < _FOREIGN_LIMIT:
            response = self._channel.recv(patience)
            if response is None:
                break
            self.heard = self.has_answered = True
            answer = decode(request, response)
            if answer is None:
                foreign.append(response)
            elif (
                not isinstance(answer, NegativeResponse)
                or answer.nrc != Nrc.REQUEST_CORRECTLY_RECEIVED_RESPONSE_PENDING
            ):
                return answer
            else:
                pending += 1
                if end.expired:
                    break
                patience = end.sooner(self.p2_star + self._latency)
        if not pending and wants_no_answer(request):
            return b""
        raise self._unanswered(request, wait, end, pending, foreign)

    def _unanswered(
        self, request: bytes, wait: float, end: Deadline, pending: int, foreign: list[bytes]
    ) -> ProxyflashError:
        are_late = all(any(decode(asked, late) is not None for asked in self._asked) for late in foreign)
        if foreign and are_late and not pending and len(foreign) < _FOREIGN_LIMIT:
            cause = f"no answer to {describe(request)} within {wait:g} s; answers to earlier requests came late"
            return silence(SILENCES[Step.QUESTION], cause).advised(_LATE_REMEDY)
        if foreign and (not pending or len(foreign) == _FOREIGN_LIMIT):
            shown = quote(foreign[-1]) or "nothing"
            return ProtocolError(f"the part answered {describe(request)} with {shown}, which is not an answer to it")
        if not pending:
            meaning = SILENCES[Step.QUESTION if self.heard else Step.CONNECT]
            return silence(meaning, f"no answer to {describe(request)} within {wait:g} s")
        if end.expired:
            return OperationFailed(
                f"the part kept {describe(request)} pending (NRC 0x78, {pending} times) beyond the limit",
                remedy="Raise timings.erase or timings.pending in its profile if it needs that long.",
            )
        return silence(
            SILENCES[Step.ERASE],
            f"the part said that it works on {describe(request)} (NRC 0x78, {pending} times), then fell silent for "
            f"{self.p2_star:g} s",
        )
