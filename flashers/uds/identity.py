"""Who an ECU says it is: ReadDataByIdentifier (ISO 14229-1:2020, clause 11.2; identifiers: annex C.1), nothing else.

Reading identifiers is allowed in every session and changes nothing, so the same questions serve the enumerator, which
asks a running ECU, and the flasher, which asks its bootloader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ...transports.deadline import Deadline
from ..errors import PartError
from ..flasher import Identity, ProbeResult, State
from .client import LOST, UdsClient
from .codec import NegativeResponse, Service
from .profile import UdsProfile

_UNTOLD = (*LOST, PartError)
LONGEST_TEXT = 128
"""Characters of a value that a person is shown; ISO 14229-1 describes none longer than 17."""
LIMIT = 5.0
"""Seconds that an ECU may take to tell one identifier."""
_LATE = 1.0
"""Seconds that its answer may take where none came within P2: an ECU at work, or a bus that is full, may be that late."""


def read_identifier(
    client: UdsClient, identifier: int, *, limit: float = LIMIT, wait: float | None = None
) -> bytes | NegativeResponse:
    """The value of one identifier, or why the ECU doesn't tell it. `wait`: as that of `UdsClient.ask`.

    Raises NoResponse, ProtocolError, OperationFailed (pending for longer than `limit` seconds), transport errors.
    """
    request = bytes((Service.READ_DATA_BY_IDENTIFIER,)) + identifier.to_bytes(2, "big")
    return client.ask(request, limit=limit, wait=wait, retries=1)


def active_session(
    client: UdsClient, profile: UdsProfile, *, limit: float = LIMIT, wait: float | None = None
) -> int | None:
    """The active session's type; None where the ECU doesn't tell. Parameters and errors are those of
    `read_identifier`."""
    value = read_identifier(client, profile.identifiers.session, limit=limit, wait=wait)
    return value[0] if not isinstance(value, NegativeResponse) and value else None


@dataclass(frozen=True, slots=True)
class Told:
    """Who an ECU says it is. `lost`: the identifiers that were asked for without an answer: not refused, but not known."""

    identity: Identity = field(default_factory=Identity)
    lost: frozenset[int] = frozenset()


def read_identity(client: UdsClient, profile: UdsProfile, deadline: Deadline) -> Told:
    """What the ECU reports by the deadline; "" for what it refuses or is silent about."""
    wanted = profile.identifiers
    version, version_lost = version_of(client, profile, deadline)
    lost = set(version_lost)

    def tell(identifier: int) -> str:
        return _tell(client, identifier, deadline, lost)

    serial, system, hardware = tell(wanted.serial), tell(wanted.system), tell(wanted.hardware)
    details = {"system": system, "hardware": hardware}
    identity = Identity(
        part=system or hardware,
        serial=serial,
        version=version,
        bootloader=tell(wanted.bootloader),
        manufacturer=tell(wanted.supplier),
        details={name: value for name, value in details.items() if value},
    )
    return Told(identity, frozenset(lost))


def version_of(client: UdsClient, profile: UdsProfile, deadline: Deadline) -> tuple[str, frozenset[int]]:
    """The application's version, "" where it is not reported; and the identifiers of it that were lost on the way."""
    lost: set[int] = set()
    asked = profile.identifiers.version
    return next((text for identifier in asked if (text := _tell(client, identifier, deadline, lost))), ""), frozenset(
        lost
    )


def _tell(client: UdsClient, identifier: int, deadline: Deadline, lost: set[int]) -> str:
    found = _text_of(client, identifier, deadline, patient=not lost)
    if found is None:
        lost.add(identifier)
    return found or ""


def merge(earlier: Identity, later: Identity) -> Identity:
    """Both together: what the application reported first, and what only the bootloader reports."""
    return replace(
        earlier,
        part=earlier.part or later.part,
        serial=earlier.serial or later.serial,
        version=earlier.version or later.version,
        bootloader=later.bootloader or earlier.bootloader,
        manufacturer=earlier.manufacturer or later.manufacturer,
        details={**later.details, **earlier.details},
    )


def probed(
    client: UdsClient, profile: UdsProfile, deadline: Deadline, told_by: Callable[[int | None], Told]
) -> ProbeResult | None:
    """Asks a part that may be doing its work; None when it is mute. `told_by`: who it says it is, in its active session."""
    try:
        session = active_session(client, profile, limit=deadline.remaining)
    except _UNTOLD:
        return None
    told = told_by(session)
    return ProbeResult(State.RUNNING if runs(profile, session, told) else State.BOOTLOADER, told.identity)


def runs(profile: UdsProfile, session: int | None, told: Told) -> bool:
    """Whether it runs its application. A version that was lost on the way was not refused."""
    if session == profile.sessions.programming:
        return False
    tells_version = bool(told.identity.version or told.lost & set(profile.identifiers.version))
    return tells_version or profile.running_when != "version"


def text(value: bytes) -> str:
    """An identifier's value for a person: ASCII without its padding, else hexadecimal. A long one ends in "...".

    A first byte below 0x20 is the number of modules that F180 and F181 begin with, and is left out.
    """
    stripped = value.strip(b"\x00\xff \t\r\n")
    if len(value) > 1 and 0 < value[0] < 0x20:
        stripped = value[1:].strip(b"\x00\xff \t\r\n")
    if all(0x20 <= byte < 0x7F for byte in stripped):
        return _short(stripped.decode("ascii"))
    return _short(value[:LONGEST_TEXT].hex().upper())


def _short(said: str) -> str:
    return said if len(said) <= LONGEST_TEXT else f"{said[:LONGEST_TEXT]}..."


def _text_of(client: UdsClient, identifier: int, deadline: Deadline, *, patient: bool) -> str | None:
    """None: no answer came. `patient`: it may come late."""
    for wait in (None, _LATE) if patient else (None,):
        if deadline.expired:
            return None
        try:
            value = read_identifier(client, identifier, limit=min(LIMIT, deadline.remaining), wait=wait)
        except LOST:
            continue
        except PartError:
            return None
        return "" if isinstance(value, NegativeResponse) else text(value)
    return None
