"""The `[updates]` table of a bench file: what its maintainer allows an update to do. All keys may be left out.

[updates]
roots = ["keys/root.jwk"]        # whose signatures count; unsigned updates are refused then
revoked = ["release-2025"]       # keys that count no more
max_age_days = 90                # an older manifest is refused
on_failure = "rollback"
floor = {motors = "1.2"}         # no component of these gets an older version
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ...enumerators.benchfile.schema import BenchFile
from ...flashers.flasher import Settings
from .signing import LONGEST_KID, named_well
from .versions import key as version_key


def _key_id(text: str) -> str:
    if not named_well(text):
        raise ValueError("no name of a key: it has a control character, or a blank at its start or end")
    return text


def _version(text: str) -> str:
    if version_key(text) is None:
        raise ValueError("no version: numbers with dots between")
    return text


Text = Annotated[str, Field(min_length=1, max_length=4096)]
KeyId = Annotated[str, Field(min_length=1, max_length=LONGEST_KID), AfterValidator(_key_id)]
Seconds = Annotated[float, Field(gt=0, le=604800)]
FloorVersion = Annotated[str, Field(max_length=200), AfterValidator(_version)]


class Policy(Settings):
    """What holds for every update on this bench."""

    unsigned: Literal["allow", "refuse"] | None = None
    """Whether updates without a signature are taken; by default only without roots. A wrong signature never is taken with
    roots."""
    roots: tuple[Text, ...] = ()
    """Files of root keys: PEM or JWK, from the bench file's folder on."""
    revoked: tuple[KeyId, ...] = ()
    """Root and signing keys that are trusted no more, by their `kid` or their RFC 7638 thumbprint, also in hex."""
    max_age_days: Annotated[float, Field(gt=0, le=36500)] | None = None
    """Days that a manifest may be old, by its createdDateTime, or up to one day in the future. Without: no date is checked,
    so that a host without a clock can take updates."""
    on_failure: Literal["stop", "continue", "rollback"] = "stop"
    parallel: bool = False
    """Whether components without a dependency between them are updated at once."""
    attempts: Annotated[int, Field(ge=0, le=1000)] = 0
    """How often a step is tried on a component with the same files; 0: no limit."""
    timeout_seconds: Seconds | None = None
    """How long each action of a step may take that names no limit of its own; without: for ever."""
    downgrade: Literal["allow", "on-request"] = "allow"
    """Whether a component may get an older version than it has; on request: only where the step says so."""
    floor: dict[Text, FloorVersion] = Field(default_factory=dict)
    """The lowest version that a component, or the components of a group, may get."""
    conditions: tuple[dict[str, Any], ...] = ()
    """What must hold before an update starts."""
    reboot: str = Field(default="", max_length=4096)
    """A shell command that restarts the host, for steps that ask for it; empty: a person does it."""
    restart: str = Field(default="", max_length=4096)
    """A shell command that restarts the agent's service, for steps that ask for it."""

    @property
    def signed_only(self) -> bool:
        return self.unsigned == "refuse" or (self.unsigned is None and bool(self.roots))

    @model_validator(mode="after")
    def _roots_where_needed(self) -> Policy:
        if self.unsigned == "refuse" and not self.roots:
            raise ValueError('unsigned = "refuse" needs roots: without them no update could be taken')
        return self


def policy_of(file: BenchFile) -> Policy:
    """The policy of a bench file, the paths in it made absolute. Raises BenchKey with the line."""
    policy = file.validated(Policy, file.spec.updates, "updates")
    folder = file.folder
    return policy.model_copy(update={"roots": tuple(str(folder / Path(root)) for root in policy.roots)})
