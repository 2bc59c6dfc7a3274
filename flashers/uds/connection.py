"""One ECU on an open channel: what it is asked, its programming session, and what a refusal in it means.

The rule: a refusal is for good or not. `Meaning` of its code says which, and of what may be lost the ECU is asked.
"""

from __future__ import annotations

from contextlib import suppress

from ...transports.deadline import Deadline
from ...transports.errors import NextAction, ProxyflashError
from ...transports.outside import Outside
from ..errors import (
    Meaning,
    NoResponse,
    PartError,
    PartRefused,
    PartWrongMode,
    SecurityDenied,
    Step,
    Unsupported,
    WrongPart,
    silence,
)
from ..flasher import Identity
from . import session
from .client import LOST, Broadcast, PduChannel
from .codec import SILENCES, NegativeResponse, Nrc, Service
from .dates import dated
from .identity import Told, active_session, runs
from .keys import keys_of
from .parameters import Subject
from .profile import UdsProfile
from .version import told_in_session

NOT_DONE = (PartRefused, PartWrongMode, SecurityDenied, Unsupported)
"""Refusals by which an ECU says that it did nothing."""
_OF_THE_TRANSFER = (Nrc.REQUEST_SEQUENCE_ERROR, Nrc.TRANSFER_DATA_SUSPENDED, Nrc.WRONG_BLOCK_SEQUENCE_COUNTER)
"""Refusals by which a transfer is lost, whatever became of the session."""
_LOST_REMEDY = "Session, unlock or transfer were lost. Run the same command again."
_S3_TIMES = 1.5
"""For S3 times this factor a session is left alone that has to run out: the ECU's clock is not ours."""
LONGEST_S3 = 60.0
"""Seconds that a session is left alone at most."""
_CLASSIC = (
    (
        "The bus is CAN FD, and the ECU is asked in classic frames: set iso_tp = {tx_dl = 64} in its profile, or {fd = true} for "
        "frames of 8 bytes, if it hears CAN FD frames only. If not: is it powered and wired, and its address right? Run: "
    ),
    NextAction.SCAN,
)


class Connection:
    """`asks_classic`: whether the ECU is asked in classic frames on a CAN FD bus."""

    def __init__(
        self, channel: PduChannel, profile: UdsProfile, broadcast: Broadcast | None, outside: Outside | None
    ) -> None:
        """Raises ProfileWrong. `outside`: records keys, or replays them."""
        self.profile = self._undated = profile
        self._outside = outside
        self.keys = keys_of(profile, outside)
        self.client = session.client_over(channel, profile, broadcast)
        self.asks_classic = False
        self.ran = False
        """Whether an application was seen to run, as far as the ECU shows it."""
        self._found: bool | None = None
        """Whether the part was found in its bootloader; None: not known yet."""
        self._refused: tuple[bytes, int] | None = None
        """The last request that was refused, and how: what is refused twice alike is refused for good."""

    def begin(self) -> None:
        """Forgets what came in before. What is written with a date gets that of this moment."""
        self.profile = dated(self._undated, self._outside)
        self.client.drain()
        self.client.heard = False

    def wake(self) -> tuple[bool, int | None]:
        """See `session.wake`. Raises NoResponse."""
        try:
            return session.wake(self.client, self.profile)
        except NoResponse as error:
            if not self.asks_classic:
                raise
            raise error.advised(_CLASSIC) from error

    def told(self, active: int | None) -> Told:
        """Who it says it is, now, in its active session. Raises WrongPart, NoResponse where it must tell and does not answer."""
        deadline = Deadline.after(self.profile.timings.pending)
        told = told_in_session(self.client, self.profile, self.keys, deadline, active)
        wanted, identifiers = self.profile.part, self.profile.identifiers
        names = [name for key in ("system", "hardware") if (name := told.identity.details.get(key))]
        if wanted and names and wanted not in names:
            raise WrongPart(f"the profile is for {wanted}, but the part says that it is {' / '.join(names)}")
        if wanted and not names and told.lost & {identifiers.system, identifiers.hardware}:
            raise silence(SILENCES[Step.QUESTION], f"the part did not answer whether it is {wanted}")
        return told

    def enter(self) -> Identity:
        """Into the programming session, with its key, and keeps it; who the ECU said it was before."""
        awake, active = self.wake()
        told = self.told(active) if awake else Told()
        if self._found is None:
            self._found = awake and not runs(self.profile, active, told)
            self.ran = awake and not self._found and self.profile.running_when == "version"
        is_elsewhere = awake and active != self.profile.sessions.programming
        try:
            if is_elsewhere:
                session.prepare(self.client, self.profile, self.keys)
            session.enter_programming(self.client, self.profile, self.keys, prepared=is_elsewhere)
        except ProxyflashError:
            self.client.let_session_go()
            if is_elsewhere:
                session.leave_programming(self.client, self.profile)
            raise
        self.client.keep_session(self.profile.timings.s3)
        return told.identity

    def leave(self, *, resets: bool) -> None:
        """An ECU that was found in its bootloader stays there; its session runs out as it would have. `resets`: it is reset
        all the same, so that what runs in its RAM ends."""
        self.client.let_session_go()
        if resets or not self._found:
            session.start_application(self.client, self.profile)

    def abandon(self) -> None:
        """As `leave`, of an ECU that may be on its way into its bootloader: it is asked until it answers."""
        self.client.let_session_go()
        self.client.drain()
        if self._found is False:
            session.leave_programming(self.client, self.profile, Deadline.after(self.profile.timings.reset_gap))

    def start_application(self, *, after: bool = False) -> None:
        """`after`: does what the order has after the reset, too."""
        self.client.let_session_go()
        session.start_application(self.client, self.profile)
        self._found = None
        if after:
            session.finish(self.client, self.profile, self.keys)

    def runs(self) -> bool:
        """Whether its application runs, as far as the ECU shows it. A bootloader may start it a while after a reset."""
        gap = Deadline.after(self.profile.timings.reset_gap)
        while True:
            try:
                active = active_session(self.client, self.profile)
                if runs(self.profile, active, self.told(active)):
                    return True
            except (*LOST, PartError):
                return True
            if gap.expired:
                return False
            self.client.linger(self.client.p2)

    def restart(self) -> None:
        """Resets the ECU, and enters again."""
        self.client.let_session_go()
        with suppress(PartError):
            session.restart(self.client, self.profile)
        self.enter()

    def outwait_session(self) -> None:
        """Lets the session run out, and enters again."""
        self.client.let_session_go()
        self.client.linger(min(self.profile.timings.s3 * _S3_TIMES, LONGEST_S3))
        self.enter()

    def take_step(self, word: str, subject: Subject) -> None:
        """See `session.take_step`."""
        session.take_step(self.client, self.profile, self.keys, word, subject, self.request)

    def ask(self, request: bytes, *, limit: float, settled_by: int | None = None) -> bytes | NegativeResponse:
        """See `UdsClient.ask`; what is lost is sent again as often as the profile says."""
        return self.client.ask(request, limit=limit, retries=self.profile.timings.retries, settled_by=settled_by)

    def request(
        self, request: bytes, *, limit: float | None = None, functional: bool = False, settled_by: int | None = None
    ) -> bytes:
        """What follows the head of the positive response. Raises the error that a negative response means during programming."""
        retries = self.profile.timings.retries
        answer = self.client.ask(request, limit=limit, functional=functional, retries=retries, settled_by=settled_by)
        if isinstance(answer, NegativeResponse):
            raise self.refusal(answer)
        if request[0] == Service.TRANSFER_DATA:
            self._refused = None
        return answer

    def run_routine(self, routine: int, parameters: bytes) -> bytes:
        """The routine's status record. Raises what a negative response is mapped to."""
        start = session.routine_request(routine, parameters)
        started = self.request(start, limit=self.profile.timings.erase, settled_by=self._runs_on)
        return session.result_of(self.client, self.profile, start, started, self.request)

    def ask_routine(self, routine: int, parameters: bytes) -> bytes | NegativeResponse:
        """As `run_routine`; what the ECU refuses is returned."""
        limit = self.profile.timings.erase
        start = session.routine_request(routine, parameters)
        started = self.ask(start, limit=limit, settled_by=self._runs_on)
        return session.result_of(self.client, self.profile, start, started, lambda asked: self.ask(asked, limit=limit))

    @property
    def _runs_on(self) -> int | None:
        """How an ECU refuses to start a routine again that runs on after its first start was answered, and that answer lost."""
        routines = self.profile.routines
        return Nrc.CONDITIONS_NOT_CORRECT if routines.poll and routines.poll_by == "results" else None

    def refusal(self, answer: NegativeResponse) -> ProxyflashError:
        """The error that a refusal during programming means, with whether it passes: where the ECU may have lost its session or
        its unlock, it is asked."""
        error = answer.error()
        if answer.meaning not in (Meaning.LOST, Meaning.NOT_HERE):
            return error
        refused = (answer.request, answer.nrc)
        lost = refused != self._refused or answer.request[0] == Service.TRANSFER_DATA
        self._refused = refused
        if lost and answer.nrc not in _OF_THE_TRANSFER:
            with suppress(*LOST):
                seed = answer.meaning is Meaning.LOST
                lost = not session.is_unlocked(self.client, self.profile, self.keys, seed=seed)
        if not isinstance(error, PartError):
            return PartWrongMode(error.cause, remedy=_LOST_REMEDY).passing(True) if lost else error
        error.passes = lost
        return error.advised(_LOST_REMEDY) if lost else error
