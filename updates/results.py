"""Result codes of Azure Device Update's agent, and the report in its shape."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


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
