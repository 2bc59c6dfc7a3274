"""The host's date and time in data that an ECU is written, such as a fingerprint.

BCD, as ISO 14229-1:2020 (C.1) has it for programmingDate (0xF199). The rule: the date comes from the host's clock, in the
host's time zone, through the bus's `outside`, so that a replay writes what was recorded.
"""

from __future__ import annotations

import re
from datetime import datetime

from ...transports import clock
from ...transports.outside import Outside
from .profile import DATE_PARTS, OwnStep, UdsProfile

QUESTION = "the host's date and time for UDS data"
_FORM = "%Y-%m-%dT%H:%M:%S"
_PART = re.compile("|".join(map(re.escape, DATE_PARTS)))


def dated(profile: UdsProfile, outside: Outside | None) -> UdsProfile:
    """The profile, with the date of this moment in the data of its fingerprint and of its steps. Raises what `ask` raises."""
    texts = [profile.fingerprint.data if profile.fingerprint else "", *(step.data for step in profile.steps)]
    if not any(_PART.search(text) for text in texts):
        return profile

    def now() -> str:
        return clock.strftime(_FORM)

    said = outside.ask(QUESTION, now) if outside is not None else now()
    moment = datetime.strptime(said, _FORM)

    def filled(text: str) -> str:
        return _PART.sub(lambda found: moment.strftime(DATE_PARTS[found[0]]), text)

    def step_of(step: OwnStep) -> OwnStep:
        return step.model_copy(update={"data": filled(step.data)})

    fingerprint = profile.fingerprint
    if fingerprint is not None:
        fingerprint = fingerprint.model_copy(update={"data": filled(fingerprint.data)})
    return profile.model_copy(update={"fingerprint": fingerprint, "steps": tuple(map(step_of, profile.steps))})
