"""Who an ECU says it is, where it reports its version only in another session than the default one.

The rule: the ECU is asked as it is first. The steps that the profile names are taken only if it has refused, and never in the
programming session; afterwards the ECU is in its default session.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ...transports.deadline import Deadline
from ..errors import OperationFailed, PartError, PartRefused, PartWrongMode, ProfileWrong, Unsupported
from . import session
from .client import LOST, UdsClient
from .identity import Told, read_identity, version_of
from .profile import UdsProfile

TRIES = 3
"""How often the steps are taken where one of them, or its answer, was lost. A key that was refused is not sent again."""
_PASSING = (PartRefused, PartWrongMode, OperationFailed, Unsupported)


def told_in_session(
    client: UdsClient, profile: UdsProfile, keys: session.Keys, deadline: Deadline, active: int | None
) -> Told:
    """As `read_identity`. `active`: the active session; None: the ECU does not tell it.

    Without the session or the key the version is not known: it counts as lost, not as refused.
    """
    told = read_identity(client, profile, deadline)
    identifiers = profile.identifiers
    if not identifiers.version_after or told.identity.version or active == profile.sessions.programming:
        return told
    alone = profile.model_copy(update={"functional": False})
    version, lost = "", frozenset(identifiers.version)
    try:
        for _ in range(TRIES):
            with suppress(*LOST, *_PASSING):
                for word in identifiers.version_after:
                    session.take_step(client, alone, keys, word)
                version, lost = version_of(client, profile, deadline)
            if version or deadline.expired:
                break
    except (PartError, ProfileWrong):
        pass
    finally:
        client.let_session_go()
        session.to_default(client, alone)
    return Told(replace(told.identity, version=version), told.lost | lost)
