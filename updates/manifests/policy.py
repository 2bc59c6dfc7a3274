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

from ...enumerators.benchfile.schema import BenchFile
from ...enumerators.errors import BenchName
from ...flashers.settings import After, Field, Settings
from ...transports.plain import meant, quoted
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
KeyId = Annotated[str, Field(min_length=1, max_length=LONGEST_KID), After(_key_id)]
Seconds = Annotated[float, Field(gt=0, le=604800)]
FloorVersion = Annotated[str, Field(max_length=200), After(_version)]


class Policy(Settings):
    """What holds for every update on this bench."""

    unsigned: Literal["allow", "refuse"] | None = None
    """`"refuse"`: take only updates that are signed under one of `roots`. `"allow"`: take unsigned updates too.
    Default: `"refuse"` if `roots` has a file, else `"allow"`. An update with a wrong signature is never taken where
    there are roots."""
    roots: tuple[Text, ...] = ()
    """Files with root keys, PEM or JWK. Relative paths start at the bench file's folder."""
    revoked: tuple[KeyId, ...] = ()
    """Root and signing keys that are not trusted any more: their names (`kid`), or their RFC 7638 thumbprints in
    base64 or hex. Upper and lower case are the same."""
    max_age_days: Annotated[float, Field(gt=0, le=36500)] | None = None
    """Days that a manifest may be old, by its `createdDateTime`. A manifest from more than one day in the future is
    refused too. Without this key no date is checked, so that a host without a clock can take updates."""
    on_failure: Literal["stop", "continue", "rollback"] = "stop"
    """After a failed step: `"stop"`, `"continue"` with the other components, or `"rollback"` everything that was
    done."""
    parallel: bool = False
    """Whether components that do not wait for each other are updated at the same time."""
    attempts: Annotated[int, Field(ge=0, le=1000)] = 0
    """How often a step is tried on a component with the same files. 0: no limit."""
    timeout_seconds: Seconds | None = None
    """Seconds that each action of a step may take if the step has no limit of its own. Default: no limit."""
    downgrade: Literal["allow", "on-request"] = "allow"
    """`"on-request"`: a component gets an older version only if the step says so."""
    floor: dict[Text, FloorVersion] = Field(default_factory=dict)
    """The lowest version that a component, or the components of a group, may get: `{NAME = "1.2"}`. The file
    must have the component or the group."""
    conditions: tuple[dict[str, Any], ...] = ()
    """What must hold before an update starts, as in a step."""
    reboot: str = Field(default="", max_length=4096)
    """A shell command that restarts the host, for steps that ask for a restart. "": a person restarts the host."""
    restart: str = Field(default="", max_length=4096)
    """A shell command that restarts the service that runs the updates, for steps that ask for it. "": a person
    restarts the service."""
    report_key: str = Field(default="", max_length=4096)
    """File with this host's own private key, PEM: `report --bundle` signs with it. A relative path starts at the bench
    file's folder. "": bundles are not signed."""

    @property
    def signed_only(self) -> bool:
        return self.unsigned == "refuse" or (self.unsigned is None and bool(self.roots))

    def check_together(self) -> None:
        if self.unsigned == "refuse" and not self.roots:
            raise ValueError('unsigned = "refuse" needs roots: without them no update could be taken')


def policy_of(file: BenchFile) -> Policy:
    """The policy of a bench file, the paths in it made absolute. Raises BenchKey and BenchName with the line."""
    policy = file.validated(Policy, file.spec.updates, "updates")
    known = dict.fromkeys(name for part in file.spec.component for name in (part.name, part.group) if name)
    for name in policy.floor:
        if name not in known:
            there = ", ".join(known) or "none"
            raise BenchName(
                f"{file.at(('updates', 'floor', name))}: updates.floor: there is no component and no group {quoted(name)}"
                f"{meant(name, known)}; "
                f"there are: {there}"
            )
    folder = file.folder
    absolute: dict[str, Any] = {"roots": tuple(str(folder / Path(root)) for root in policy.roots)}
    if policy.report_key:
        absolute["report_key"] = str(folder / policy.report_key)
    return policy.model_copy(update=absolute)
