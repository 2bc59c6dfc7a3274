"""The way into an ECU's bootloader and out of it again.

After ISO 14229-1:2020: DiagnosticSessionControl (10.2), ECUReset (10.3), SecurityAccess (10.4), CommunicationControl
(10.5), TesterPresent (10.7), ControlDTCSetting (10.8), RoutineControl (14.2), in the order of the pre-programming,
programming and post-programming steps of clause 16.

The rule: an ECU may fall silent at any step, because it resets on its way, and says nothing of it. So each step asks
until it is answered or the profile's reset gap is over, and looks at the active session instead of remembering it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from ...transports.deadline import Deadline
from ...transports.errors import IsoTpContested, ProxyflashError
from ..errors import (
    NoResponse,
    OperationFailed,
    PartError,
    PartRefused,
    PartWrongMode,
    ProtocolError,
    RebootFailed,
    SecurityDenied,
    Step,
    Unsupported,
    silence,
)
from ..keys.making import KeyFunction, key_for
from .client import LOST, Broadcast, PduChannel, UdsClient
from .codec import NOT_HERE, SILENCES, NegativeResponse, Nrc, Service, wants_no_answer
from .identity import active_session
from .parameters import Subject, encoded
from .profile import Security, UdsProfile
from .two_addresses import TwoAddresses

Keys = Mapping[str, tuple[Security, KeyFunction | None]]
"""What each step that unlocks the ECU does so by."""

Answer = TypeVar("Answer", bytes, bytes | NegativeResponse)

NOTHING = Subject()
ALIVE = bytes((Service.TESTER_PRESENT, 0x00))
DTC_ON = bytes((Service.CONTROL_DTC_SETTING, 0x01))
DTC_OFF = bytes((Service.CONTROL_DTC_SETTING, 0x02))

DEAF_SECONDS = 1.0
"""N_Bs of ISO 15765-2:2016, table 16: so long an ECU waits for a flow control, and may hear nothing else."""
FIRST_SECONDS = 3.2
"""How long an ECU has for its first answer of all. It may still start, or work, and answer its first requests late."""
_SEED_PAUSE = 0.5
_POLL_PAUSE = 0.1
_ENTRIES = 3
"""How often an ECU may reset between its programming session and its key."""


def client_over(channel: PduChannel, profile: UdsProfile, broadcast: Broadcast | None = None) -> UdsClient:
    timings = profile.timings
    return UdsClient(
        channel,
        p2=timings.p2,
        p2_star=timings.p2_star,
        latency=timings.latency,
        pending=timings.pending,
        broadcast=broadcast,
        addresses=2 if isinstance(channel, TwoAddresses) else 1,
    )


def session_request(session: int) -> bytes:
    return bytes((Service.DIAGNOSTIC_SESSION_CONTROL, session))


def reset_request(profile: UdsProfile) -> bytes:
    return bytes((Service.ECU_RESET, profile.reset))


def routine_request(routine: int, parameters: bytes = b"") -> bytes:
    """startRoutine."""
    return bytes((Service.ROUTINE_CONTROL, 0x01)) + routine.to_bytes(2, "big") + parameters


def result_of(
    client: UdsClient, profile: UdsProfile, start: bytes, started: Answer, ask: Callable[[bytes], Answer]
) -> Answer:
    """A routine's result: what its start was answered, or with `routines.poll` what it is once the routine has ended.

    `start`: the request that has started it; `ask`: sends a request. Raises OperationFailed when the routine runs for longer than
    `timings.erase`.
    """
    routines = profile.routines
    if not routines.poll or isinstance(started, NegativeResponse):
        return started
    end = Deadline.after(profile.timings.erase)
    by_start = routines.poll_by == "start"
    question = start if by_start else bytes((Service.ROUTINE_CONTROL, 0x03)) + start[2:4]
    answer = started if by_start else ask(question)
    while not isinstance(answer, NegativeResponse) and answer and answer[-1] == routines.running:
        if end.expired:
            raise OperationFailed(
                f"routine 0x{start[2:4].hex().upper()} of the part still runs after {profile.timings.erase:g} s",
                remedy="Raise timings.erase in its profile if it needs longer. Is routines.running of its profile right?",
            )
        client.linger(_POLL_PAUSE)
        answer = ask(question)
    return answer


def write_request(identifier: int, data: bytes) -> bytes:
    return bytes((Service.WRITE_DATA_BY_IDENTIFIER,)) + identifier.to_bytes(2, "big") + data


def wake(client: UdsClient, profile: UdsProfile) -> tuple[bool, int | None]:
    """Whether it answers, and the active session, None where it doesn't tell.

    A tester that was killed during a long answer of the ECU has left the ECU waiting for a flow control: it is asked until
    that is over. An ECU that has answered nothing yet is asked for longer. Raises NoResponse when it doesn't answer and need
    not be met while it starts.
    """
    deaf = Deadline.after(DEAF_SECONDS if client.has_answered else max(DEAF_SECONDS, FIRST_SECONDS))
    while True:
        try:
            return True, active_session(client, profile)
        except (ProtocolError, IsoTpContested):
            raise
        except LOST as error:
            if profile.stay_in_boot:
                return False, None
            if not deaf.expired:
                continue
            if isinstance(error, NoResponse):
                raise
            raise NoResponse(error.cause) from error


def prepare(client: UdsClient, profile: UdsProfile, keys: Keys) -> None:
    """The pre-programming step, in the profile's order: extended session, preconditions, and the bus kept quiet.

    What the ECU does not have, or not in its bootloader, is left out. Raises PartRefused and its like.
    """
    for word in profile.sequence.before:
        take_step(client, profile, keys, word)


def enter_programming(client: UdsClient, profile: UdsProfile, keys: Keys, *, prepared: bool = False) -> None:
    """Programming session and security access. Asked again in the programming session, it aborts a transfer.

    `prepared`: whether `prepare` was done. Raises PartWrongMode, SecurityDenied, ProfileWrong, and what a negative response
    is mapped to.
    """
    order = profile.sequence
    for entry in range(1, _ENTRIES + 1):
        try:
            _programming_session(client, profile)
        except (SecurityDenied, PartRefused, PartWrongMode, Unsupported):
            # A bootloader that wants the application's steps first has had none where they were left out.
            if entry > 1 or prepared or not order.before:
                raise
            prepare(client, profile, keys)
            _programming_session(client, profile)
        try:
            for word in order.enter:
                take_step(client, profile, keys, word)
        except LOST:
            if entry == _ENTRIES:
                raise
        else:
            return


def take_step(
    client: UdsClient,
    profile: UdsProfile,
    keys: Keys,
    word: str,
    subject: Subject = NOTHING,
    asked: Callable[..., bytes] | None = None,
) -> None:
    """One step of the order that is neither the programming session nor about an image.

    `subject`: what the parameters of a routine are about. `asked`: sends a request during programming, with a `limit`, to
    all ECUs if `functional`, and raises the error that a refusal means there. Raises PartRefused and its like,
    SecurityDenied, ProfileWrong.
    """

    def ask(request: bytes, *, limit: float | None = None, functional: bool = False) -> bytes:
        return client.request(request, limit=limit, functional=functional, retries=profile.timings.retries)

    if word in profile.own_steps:
        _own_step(client, profile, keys, word, subject, asked or ask)
        return
    match word:
        case "extended":
            request = session_request(profile.sessions.extended)
            _entered(client, profile, _optional_request(client, profile, request))
        case "preconditions":
            if isinstance(profile.routines.preconditions, int):
                _check_preconditions(client, profile, profile.routines.preconditions)
        case "dtc-off":
            if profile.dtc_control:
                _optional_request(client, profile, DTC_OFF)
        case "communication-off":
            if profile.communication_control:
                _optional_request(client, profile, bytes((Service.COMMUNICATION_CONTROL,)) + profile.communication_off)
        case "key":
            _unlock(client, *keys[word], profile.timings.s3)
        case "fingerprint":
            if profile.fingerprint is not None:
                (asked or ask)(write_request(profile.fingerprint.identifier, bytes.fromhex(profile.fingerprint.data)))


def _own_step(
    client: UdsClient, profile: UdsProfile, keys: Keys, name: str, subject: Subject, asked: Callable[..., bytes]
) -> None:
    step = profile.own_steps[name]
    try:
        if step.level is not None:
            _unlock(client, *keys[name], profile.timings.s3)
            return
        if step.session is not None:
            request = session_request(step.session)
        elif step.routine is not None:
            request = routine_request(step.routine, encoded(step.parameters, profile, subject))
        elif step.write is not None:
            request = write_request(step.write, bytes.fromhex(step.data))
        else:
            request = step.request
        answer = asked(request, limit=profile.timings.erase, functional=step.functional)
        if step.session is not None:
            _entered(client, profile, answer)
        if step.routine is not None:
            answer = result_of(client, profile, request, answer, asked)
        if step.routine is not None and not profile.routines.passes(answer):
            raise OperationFailed(
                f"step {name!r}: the part says that routine 0x{step.routine:04X} failed ({answer.hex(' ').upper()})",
                remedy="Its maker says what this status means.",
            )
    except PartError:
        if not step.optional:
            raise


def leave_programming(client: UdsClient, profile: UdsProfile, deadline: Deadline | None = None) -> None:
    """After a failed `prepare` or `enter_programming`: what ran before runs again, as far as that can be had. Never raises.

    An ECU that did not come into its programming session is not reset: it may have refused because it is at work.
    `deadline`: until when an ECU is asked that does not answer.
    """
    with suppress(ProxyflashError):
        while True:
            try:
                active = active_session(client, profile)
                break
            except LOST:
                if deadline is None or deadline.expired:
                    raise
        if active == profile.sessions.programming:
            start_application(client, profile)
        else:
            _wake_the_bus(client, profile)
            _optional_request(client, profile, session_request(profile.sessions.default))


def restart(client: UdsClient, profile: UdsProfile) -> None:
    """Hard reset, until it answers again. Raises what a refused reset is mapped to, NoResponse after the reset gap."""
    gap = Deadline.after(profile.timings.reset_gap)
    _reset(client, profile)
    while True:
        try:
            active_session(client, profile, wait=client.p2)
            return
        except LOST:
            if gap.expired:
                raise


def finish(client: UdsClient, profile: UdsProfile, keys: Keys) -> None:
    """What the order has after the reset, of the application that runs. Raises what `take_step` raises."""
    if not (after := profile.sequence.after):
        return
    try:
        for word in after:
            take_step(client, profile, keys, word)
    finally:
        client.let_session_go()
        to_default(client, profile)


def to_default(client: UdsClient, profile: UdsProfile) -> None:
    """Asks for the default session, as far as that can be had."""
    _optional_request(client, profile, session_request(profile.sessions.default))


def is_unlocked(client: UdsClient, profile: UdsProfile, keys: Keys, *, seed: bool) -> bool:
    """Whether it is in its programming session still, and with `seed` whether it is unlocked, as far as it shows it: by its
    active session, and by a seed of zeros. An ECU that does not report its session is asked for a seed all the same.

    Raises NoResponse, and what else is lost on the way.
    """
    session = active_session(client, profile)
    if session not in (profile.sessions.programming, None):
        return False
    asked = [keys[word][0] for word in profile.sequence.enter if word in keys and keys[word][1] is not None]
    if not asked or (session is not None and not seed):
        return session is not None
    answer = client.ask(bytes((Service.SECURITY_ACCESS, asked[-1].level)) + asked[-1].request_data)
    return not isinstance(answer, NegativeResponse) and not any(answer)


def start_application(client: UdsClient, profile: UdsProfile) -> None:
    """Hard reset, then the post-programming step. Returns once the ECU answers in its default session.

    Raises RebootFailed when it doesn't within the reset gap, and what a refused reset is mapped to.
    """
    gap = _await_restart(client, profile)
    _optional_request(client, profile, session_request(profile.sessions.extended))
    _wake_the_bus(client, profile)
    default = session_request(profile.sessions.default)
    if profile.functional:
        _optional_request(client, profile, default)
    while True:
        # Waiting for one answer that the ECU has promised may have taken all of the gap.
        last = gap.expired
        try:
            client.ask(default)
            return
        except LOST as error:
            if last:
                raise _not_back(profile) from error
            client.linger(client.p2)


def _await_restart(client: UdsClient, profile: UdsProfile) -> Deadline:
    """Resets it, until something that is not in its programming session answers: what still is has it before it. The end of
    the reset gap, which begins once the ECU has had its time to answer."""
    session = None
    heard = _reset(client, profile)
    gap = Deadline.after(profile.timings.reset_gap)
    while True:
        last = gap.expired
        try:
            # What it is asked while it restarts is lost, so it is asked again soon: an answer that is late still counts.
            session = active_session(client, profile, wait=client.p2)
            if session != profile.sessions.programming:
                return gap
            heard = heard or _reset(client, profile)
        except (*LOST, OperationFailed):
            session = None
        if last:
            if session is not None:
                raise RebootFailed(
                    f"{profile.timings.reset_gap:g} s after its reset the ECU is in its programming session"
                ).answers()
            raise _not_back(profile)
        if session is not None:
            client.linger(client.p2)  # After a question that was lost P2 is over already.


def _reset(client: UdsClient, profile: UdsProfile) -> bool:
    """Whether it was answered: a reset may be quicker than its answer, or none be asked for."""
    request = reset_request(profile)
    try:
        client.request(request)
    except LOST:
        return False
    return not wants_no_answer(request)


def _wake_the_bus(client: UdsClient, profile: UdsProfile) -> None:
    if profile.communication_control:
        on = bytes((Service.COMMUNICATION_CONTROL, 0x00)) + profile.communication_off[1:]
        _optional_request(client, profile, on)
    if profile.dtc_control:
        _optional_request(client, profile, DTC_ON)


def _not_back(profile: UdsProfile) -> PartError:
    gap = profile.timings.reset_gap
    return silence(SILENCES[Step.START], f"the ECU did not answer within {gap:g} s after its reset")


def _optional_request(client: UdsClient, profile: UdsProfile, request: bytes) -> bytes:
    """A request that programming does not depend on: to all ECUs if the profile says so. b"" if it is ignored.

    A functional request that is not supported is not answered (ISO 14229-1, 8.7), so it is asked of the ECU itself then.
    """
    for functional in (True, False) if profile.functional else (False,):
        with suppress(*LOST, PartError):
            answer = client.ask(request, functional=functional)
            if not isinstance(answer, NegativeResponse):
                return answer
    return b""


def _check_preconditions(client: UdsClient, profile: UdsProfile, routine: int) -> None:
    answer = client.ask(routine_request(routine), retries=profile.timings.retries)
    if isinstance(answer, NegativeResponse):
        if answer.nrc in NOT_HERE:
            return
        raise answer.error()
    if not profile.routines.passes(answer):
        raise PartRefused(
            f"the part says that it may not be programmed now (routine 0x{routine:04X}: {answer.hex(' ').upper()})",
            remedy="Its maker says what this status means, and under which conditions it may be programmed.",
        )


def _programming_session(client: UdsClient, profile: UdsProfile) -> None:
    gap = Deadline.after(profile.timings.reset_gap)
    programming = session_request(profile.sessions.programming)
    knocks = profile.stay_in_boot
    reset = False
    while True:
        # Asked again after the gap: waiting for one answer, promised before the reset, may have taken all of it.
        last = gap.expired
        try:
            answer = client.ask(programming)
            if not isinstance(answer, NegativeResponse):
                _entered(client, profile, answer)
                if _is_programming(client, profile):
                    return
            elif knocks and not reset and answer.nrc in NOT_HERE:
                reset = True
                client.ask(reset_request(profile))
                _hit_boot_window(client, profile, programming, gap)
            elif answer.nrc == Nrc.SUB_FUNCTION_NOT_SUPPORTED:
                raise PartWrongMode(answer.error().cause, remedy="Is sessions.programming of its profile right?")
            else:
                raise answer.error()
        except LOST:
            if knocks:
                _hit_boot_window(client, profile, programming, gap)
        if last:
            raise PartWrongMode(
                f"the ECU did not come into its programming session within {profile.timings.reset_gap:g} s",
                remedy="Raise timings.reset_gap in its profile if it takes longer to start. If its bootloader has CAN ids of its "
                "own, set boot_request in its address.",
            )
        client.linger(profile.timings.knock)


def _hit_boot_window(client: UdsClient, profile: UdsProfile, programming: bytes, gap: Deadline) -> None:
    """Asks for the programming session and for a sign of life in turn, quickly, until one is answered or the gap over."""
    pause = profile.timings.knock
    while not gap.expired:
        for request in (programming, ALIVE):
            with suppress(*LOST):
                if not isinstance(client.ask(request, wait=pause), NegativeResponse):
                    return


def _is_programming(client: UdsClient, profile: UdsProfile) -> bool:
    """Whether it really is: an application may have agreed, and reset to its bootloader since."""
    try:
        return active_session(client, profile) in (profile.sessions.programming, None)
    except LOST:
        return False


def _entered(client: UdsClient, profile: UdsProfile, parameters: bytes) -> None:
    """sessionParameterRecord (10.2.3): P2 in ms, P2* in 10 ms. The longer ones of the ECU and of the profile hold."""
    client.linger(profile.timings.settle)
    if len(parameters) >= 4:
        client.p2 = max(profile.timings.p2, int.from_bytes(parameters[0:2], "big") / 1000)
        client.p2_star = max(profile.timings.p2_star, int.from_bytes(parameters[2:4], "big") / 100)


def _unlock(client: UdsClient, security: Security, key: KeyFunction | None, s3: float) -> None:
    """From its seed on the session is kept: a key may take its maker's library longer to make than S3."""
    if key is None:
        return
    seed = _seed(client, security)
    if not any(seed):
        return  # It is unlocked already.
    client.keep_session(s3)
    made = key_for(key, security, seed, security.secret, security.level)
    answer = client.ask(bytes((Service.SECURITY_ACCESS, security.level + 1)) + made)
    if isinstance(answer, NegativeResponse):
        denied = answer.error()
        # Keys that were not accepted are counted, so it is not sent again: only after a seed that was forgotten it is.
        if isinstance(denied, PartError) and answer.nrc != Nrc.REQUEST_SEQUENCE_ERROR:
            denied.passing(False)
        # Of the key itself the ECU may also say that its length is wrong, or that it is out of range.
        wrong = answer.nrc in (Nrc.INCORRECT_MESSAGE_LENGTH_OR_INVALID_FORMAT, Nrc.REQUEST_OUT_OF_RANGE)
        raise SecurityDenied(denied.cause) if wrong else denied


def _seed(client: UdsClient, security: Security) -> bytes:
    """Asked for until the ECU's waiting time is over, if the profile has patience. Raises SecurityDenied."""
    request = bytes((Service.SECURITY_ACCESS, security.level)) + security.request_data
    patience = Deadline.after(security.wait)
    while True:
        answer = client.ask(request)
        if not isinstance(answer, NegativeResponse):
            return answer
        if answer.nrc != Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED or patience.expired:
            raise answer.error()
        client.linger(min(_SEED_PAUSE, patience.remaining))
