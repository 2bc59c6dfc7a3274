"""Result codes of Azure Device Update's agent, and the report in its shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import IntEnum

from ...transports.errors import ProxyflashError
from ...transports.outside import Outside, OutsideFailed
from ..errors import StepFailed


class ResultCode(IntEnum):
    """The agent's result codes (ADUC_Result, types/update_content.h). Above 0 is success.

    A reboot or a restart that is asked for *immediately* stops the update there; the plain ones wait until the other
    components of the child update are done.
    """

    FAILURE = 0
    CANCELLED = -1
    SUCCESS = 1
    DOWNLOAD_SUCCESS = 500
    DOWNLOAD_SKIPPED_ALREADY_INSTALLED = 503
    DOWNLOAD_NO_MATCHING_COMPONENTS = 504
    INSTALL_SUCCESS = 600
    INSTALL_IN_PROGRESS = 601
    INSTALL_ALREADY_INSTALLED = 603
    INSTALL_NO_MATCHING_COMPONENTS = 604
    INSTALL_IMMEDIATE_REBOOT = 605
    INSTALL_REBOOT = 606
    INSTALL_IMMEDIATE_AGENT_RESTART = 607
    INSTALL_AGENT_RESTART = 608
    APPLY_SUCCESS = 700
    APPLY_IMMEDIATE_REBOOT = 705
    APPLY_REBOOT = 706
    APPLY_IMMEDIATE_AGENT_RESTART = 707
    APPLY_AGENT_RESTART = 708
    CANCEL_SUCCESS = 800
    CANCEL_UNABLE = 801
    INSTALLED = 900
    NOT_INSTALLED = 901
    BACKUP_SUCCESS = 1000
    BACKUP_UNSUPPORTED = 1001
    RESTORE_SUCCESS = 1100
    RESTORE_UNSUPPORTED = 1101
    RESTORE_IMMEDIATE_REBOOT = 1105
    RESTORE_REBOOT = 1106
    RESTORE_IMMEDIATE_AGENT_RESTART = 1107
    RESTORE_AGENT_RESTART = 1108


FACILITY_STEP_HANDLERS = 3
COMPONENT_SCRIPT_HANDLER = 5
COMPONENT_FLASH_HANDLER = 32
"""Custom step handlers count from 32."""


def extended_code(facility: int, component: int, value: int) -> int:
    """An extended result code: facility (4 bits), component (8 bits), value (20 bits)."""
    return (facility & 0xF) << 28 | (component & 0xFF) << 20 | (value & 0xFFFFF)


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What one action of a step handler came to."""

    code: int
    extended: int = 0
    details: str = ""

    @property
    def succeeded(self) -> bool:
        return self.code > 0

    @property
    def brought_back(self) -> bool:
        """Of a Restore: whether there is again what was there before."""
        return self.succeeded and self.code != ResultCode.RESTORE_UNSUPPORTED

    def report(self) -> dict[str, object]:
        return {
            "resultCode": self.code,
            "extendedResultCodes": f"{self.extended & 0xFFFFFFFF:08X}",
            "resultDetails": self.details,
        }


def asked(outside: Outside, question: str, call: Callable[[], ActionResult]) -> ActionResult:
    """The result of an action that reaches outside of the buses; under replay the recorded result, and nothing is called.

    Raises what `call` raises; under replay StepFailed for an action that failed, and for a recorded result that is broken.
    """
    results: list[ActionResult] = []
    errors: list[ProxyflashError] = []

    def look() -> str:
        try:
            results.append(call())
        except ProxyflashError as error:
            errors.append(error)
            raise OutsideFailed(error.cause) from error
        return json.dumps(asdict(results[0]))

    try:
        text = outside.ask(question, look)
    except OutsideFailed as error:
        if errors:
            # With its own cause.
            raise errors[0] from errors[0].__cause__
        raise StepFailed(str(error)) from error
    return results[0] if results else _recorded(question, text)


def _recorded(question: str, text: str) -> ActionResult:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and found.keys() == {"code", "extended", "details"}:
        code, extended, details = found["code"], found["extended"], found["details"]
        numbers = all(type(number) is int and abs(number) < 1 << 32 for number in (code, extended))
        if numbers and isinstance(details, str):
            return ActionResult(code, extended, details)
    raise StepFailed(f"the recorded result of {question} is broken", remedy="Record it again.")
