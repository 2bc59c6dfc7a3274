"""What a step may ask of the engine, beyond what the agent knows: `handlerProperties.proxyflash` of an inline step.

    "proxyflash": {"onFailure": "rollback", "conditions": [{"supply": {"min": 11.5}}], "attempts": 3, "allowDowngrade": true,
                   "timeoutSeconds": 600}

The agent ignores handler properties that it doesn't know, so such a manifest stays valid for it; without the key a step
means just what it means there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from ...enumerators.bench import Bench
from ...enumerators.benchfile.validation import first_fault
from ...transports.plain import meant
from ..errors import ManifestField
from . import conditions
from .conditions import Condition
from .manifest import InlineStep, Strict, as_tuple
from .policy import Policy, Seconds

KEY = "proxyflash"
OnFailure = Literal["stop", "continue", "rollback"]


class _Fields(Strict):
    onFailure: OnFailure | None = None
    conditions: Annotated[tuple[dict[str, Any], ...], BeforeValidator(as_tuple), Field(max_length=20)] = ()
    attempts: Annotated[int, Field(ge=1, le=1000)] | None = None
    allowDowngrade: bool = False
    timeoutSeconds: Seconds | None = None


@dataclass(frozen=True, slots=True)
class StepOptions:
    """`on_failure`, `timeout` (seconds): None: as the policy has it. `attempts`: 0: no limit of the step's own."""

    on_failure: OnFailure | None = None
    conditions: tuple[Condition, ...] = ()
    attempts: int = 0
    allow_downgrade: bool = False
    timeout: float | None = None

    def attempts_under(self, policy: Policy) -> int:
        """How often the step may be tried: the lower limit of the two; a manifest widens no policy. 0: no limit."""
        limits = [limit for limit in (self.attempts, policy.attempts) if limit]
        return min(limits, default=0)

    def seconds_under(self, policy: Policy) -> float:
        """How long each action of the step may take; 0: no limit."""
        return self.timeout or policy.timeout_seconds or 0


def split(step: InlineStep, place: str) -> tuple[InlineStep, StepOptions]:
    """The step as its handler sees it, and what the engine is asked for. Raises ManifestField."""
    if KEY not in step.handlerProperties:
        return step, StepOptions()
    rest = {key: value for key, value in step.handlerProperties.items() if key != KEY}
    place = f"{place}.handlerProperties.{KEY}"
    try:
        fields = _Fields.model_validate(step.handlerProperties[KEY])
    except ValidationError as error:
        fault = first_fault(error)
        near = meant(str(fault.place[-1]), _Fields.model_fields) if fault.kind == "extra_forbidden" else ""
        raise ManifestField(
            f"{fault.at(place)}: {fault.message}{near}", remedy="The options: proxyflash help updates"
        ) from None
    found = tuple(conditions.parse(raw, f"{place}.conditions[{at}]") for at, raw in enumerate(fields.conditions))
    options = StepOptions(fields.onFailure, found, fields.attempts or 0, fields.allowDowngrade, fields.timeoutSeconds)
    return step.model_copy(update={"handlerProperties": rest}), options


def start_conditions(bench: Bench, policy: Policy) -> list[Condition]:
    """What the policy wants to hold before an update starts. Raises ManifestField with the key."""
    place = f"{bench.file.path}: updates.conditions"
    return [conditions.parse(raw, f"{place}[{at}]") for at, raw in enumerate(policy.conditions)]
