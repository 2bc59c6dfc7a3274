"""The way into an ECU's bootloader and out of it again.

After ISO 14229-1:2020: DiagnosticSessionControl (10.2), ECUReset (10.3), SecurityAccess (10.4), CommunicationControl
(10.5), ControlDTCSetting (10.8), RoutineControl (14.2), and the pre- and post-programming steps of clause 16.3.

The rule: an ECU may fall silent at any step, because it resets on its way, and says nothing of it. So each step asks
until it is answered or the profile's reset gap is over, and looks at the active session instead of remembering it.
Requests are encoded by udsoncan.
"""

from __future__ import annotations

from contextlib import suppress

from udsoncan.services.DiagnosticSessionControl import DiagnosticSessionControl
from udsoncan.services.RoutineControl import RoutineControl

from ..transports.deadline import Deadline
from .errors import PartConfused, PartMute, PartRefused, PartWrongMode, ProfileWrong, SecurityDenied
from .uds_client import LOST, UdsClient
from .uds_codes import NOT_HERE, Refusal, Service
from .uds_identity import active_session
from .uds_profile import KeyFunction, UdsProfile

ENTRIES = 3
"""How often an ECU may reset between the programming session and its key."""
HARD_RESET = bytes((0x11, 0x01))
ALIVE = bytes((0x3E, 0x00))
COMMUNICATION_OFF = bytes((0x28, 0x03, 0x01))
COMMUNICATION_ON = bytes((0x28, 0x00, 0x01))
DTC_OFF = bytes((0x85, 0x02))
DTC_ON = bytes((0x85, 0x01))


def session_request(session: int) -> bytes:
    return bytes(DiagnosticSessionControl.make_request(session).get_payload())


def routine_request(routine: int, parameters: bytes = b"") -> bytes:
    """startRoutine."""
    start = RoutineControl.ControlType.startRoutine
    return bytes(RoutineControl.make_request(routine, start, parameters).get_payload())


def enter(client: UdsClient, profile: UdsProfile, key: KeyFunction | None) -> None:
    """From whatever the ECU does to its unlocked bootloader. Changes nothing of its memory.

    Raises PartMute, PartWrongMode, PartRefused, SecurityDenied.
    """
    if _session_or_none(client, profile) != profile.sessions.programming:
        _pre_programming(client, profile)
    for entry in range(ENTRIES):
        _programming_session(client, profile)
        try:
            unlock(client, profile, key)
            break
        except LOST:
            if entry == ENTRIES - 1:
                raise
    if profile.fingerprint is not None:
        head = bytes((Service.WRITE_DATA_BY_IDENTIFIER,)) + profile.fingerprint.identifier.to_bytes(2, "big")
        client.request(head + profile.fingerprint.data, retries=1)


def _pre_programming(client: UdsClient, profile: UdsProfile) -> None:
    """Extended session, preconditions, fault memory and other traffic off (16.3.2)."""
    functional = profile.functional
    _agreed(client.ask(session_request(profile.sessions.extended), functional=functional, retries=1))
    if profile.routines.preconditions != "none":
        answer = client.ask(routine_request(profile.routines.preconditions))
        if isinstance(answer, Refusal):
            _agreed(answer)
        elif answer and answer[-1] != profile.routines.passed:
            raise PartRefused(
                f"the part's preconditions do not hold (routine 0x{profile.routines.preconditions:04X} says "
                f"{answer.hex(' ').upper()})",
                remedy="Its maker says under which conditions it may be programmed: supply, speed, temperature.",
            )
    if profile.dtc_control:
        _agreed(client.ask(DTC_OFF, functional=functional))
    if profile.communication_control:
        _agreed(client.ask(COMMUNICATION_OFF, functional=functional))


def _agreed(answer: bytes | Refusal) -> None:
    """Raises what a refusal is, unless it says only that the ECU has no such service here, as a bootloader may."""
    if isinstance(answer, Refusal) and answer.nrc not in NOT_HERE:
        raise answer.error()


def _programming_session(client: UdsClient, profile: UdsProfile) -> None:
    """Asks for it until the ECU says that it is in it, over the silence of a reset."""
    request = session_request(profile.sessions.programming)
    timings = profile.timings
    until = Deadline.after(timings.reset_gap)
    while True:
        try:
            answer = client.ask(request, wait=timings.knock if profile.stay_in_boot else None)
        except (*LOST, PartConfused):
            if until.expired:
                raise PartMute(f"no answer to the programming session within {timings.reset_gap:g} s") from None
            if _session_or_none(client, profile) == profile.sessions.programming:
                return
            continue
        if isinstance(answer, Refusal):
            if answer.nrc in NOT_HERE:
                raise PartWrongMode(
                    f"the part has no programming session 0x{profile.sessions.programming:02X}",
                    remedy="Is its bootloader entered another way? See sessions and stay_in_boot in its profile.",
                )
            raise answer.error()
        if len(answer) >= 4:
            # sessionParameterRecord (table 29): P2 in ms, P2* in 10 ms.
            client.p2 = max(timings.p2, int.from_bytes(answer[0:2], "big") / 1000)
            client.p2_star = max(timings.p2_star, int.from_bytes(answer[2:4], "big") / 100)
        return


def _session_or_none(client: UdsClient, profile: UdsProfile) -> int | None:
    try:
        return active_session(client, profile)
    except (*LOST, PartConfused):
        return None


def unlock(client: UdsClient, profile: UdsProfile, key: KeyFunction | None) -> None:
    """SecurityAccess at the profile's level; a seed of zeros says that it is open. Raises SecurityDenied."""
    if key is None:
        return
    security = profile.security
    seed = client.request(bytes((0x27, security.level)), retries=1)
    if not any(seed):
        return
    try:
        answer = bytes(key(seed, security.secret, security.level))
    except Exception as error:  # A function of somebody else's may raise anything.
        raise ProfileWrong(f"the key function {security.key!r} failed: {type(error).__name__}: {error}") from error
    refused = client.ask(bytes((0x27, security.level + 1)) + answer)
    if isinstance(refused, Refusal):
        denied = refused.error()
        raise denied if isinstance(denied, SecurityDenied) else SecurityDenied(denied.cause, remedy=denied.remedy)


def reset(client: UdsClient, profile: UdsProfile) -> None:
    """ECUReset. An ECU that resets before it answers has done what it was asked."""
    with suppress(*LOST, PartConfused):
        answer = client.ask(HARD_RESET)
        if isinstance(answer, Refusal):
            raise answer.error()


def post_programming(client: UdsClient, profile: UdsProfile) -> None:
    """Once the ECU is back: traffic and fault memory on, default session (16.3.4). Never raises a refusal."""
    if not _wait_alive(client, profile):
        return
    functional = profile.functional
    requests = [session_request(profile.sessions.extended)]
    requests += [COMMUNICATION_ON] if profile.communication_control else []
    requests += [DTC_ON] if profile.dtc_control else []
    for request in (*requests, session_request(profile.sessions.default)):
        with suppress(*LOST, PartConfused):
            client.ask(request, functional=functional)


def _wait_alive(client: UdsClient, profile: UdsProfile) -> bool:
    until = Deadline.after(profile.timings.reset_gap)
    while True:
        with suppress(*LOST, PartConfused):
            client.ask(ALIVE)
            return True
        if until.expired:
            return False
