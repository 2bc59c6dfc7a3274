"""`microsoft/simulator:1`: does nothing, and says of each action what a file of the host says, for trying an update out.

As Azure Device Update's simulator handler (src/extensions/step_handlers/simulator_handler/src/simulator_handler.cpp of
Azure/iot-hub-device-update, and docs/agent-reference/how-to-simulate-update-result.md). The file is
`du-simulator-data.json` in the folder of TMPDIR, TMP, TEMP or TEMPDIR, the first that is set, else in /tmp:

    {"download": {"<file name>" or "*": RESULT}, "isInstalled": {"<installedCriteria>" or "*": RESULT},
     "backup": RESULT, "install": RESULT, "apply": RESULT, "restore": RESULT, "cancel": RESULT}

RESULT is {"resultCode", "extendedResultCode", "resultDetails"}. What it leaves out is a success; IsInstalled is then
INSTALLED. handlerProperties: `installedCriteria`; others are let be.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...enumerators.bench_component import BenchComponent
from ...enumerators.host import HostComponent
from ...transports import json_text, named_files
from ..engine.results import ActionResult, ResultCode
from ..errors import ManifestField, StepFailed
from ..manifests.manifest import InlineStep
from .handler import StepHandler

NAME = "du-simulator-data.json"
MOST_BYTES = 1 << 20
"""Of that file."""


class SimulatorHandler(StepHandler):
    """The file is read for each action."""

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        if not isinstance(step.handlerProperties.get("installedCriteria", ""), str):
            raise ManifestField(f"{place}.handlerProperties.installedCriteria: no text")

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        return ""

    def is_installed(self) -> ActionResult:
        criteria = self.context.step.handlerProperties.get("installedCriteria", "")
        return _result(_chosen(_data().get("isInstalled"), criteria), ResultCode.INSTALLED)

    def download(self) -> ActionResult:
        result = ActionResult(ResultCode.DOWNLOAD_SUCCESS)
        data = _data().get("download")
        for name in self.context.step.files:
            result = _result(_chosen(data, name), ResultCode.DOWNLOAD_SUCCESS)
            if not result.succeeded:
                break
        return result

    def backup(self) -> ActionResult:
        return _result(_data().get("backup"), ResultCode.BACKUP_SUCCESS)

    def install(self) -> ActionResult:
        return _result(_data().get("install"), ResultCode.INSTALL_SUCCESS)

    def apply(self) -> ActionResult:
        return _result(_data().get("apply"), ResultCode.APPLY_SUCCESS)

    def restore(self) -> ActionResult:
        return _result(_data().get("restore"), ResultCode.RESTORE_SUCCESS)

    def cancel(self) -> ActionResult:
        return _result(_data().get("cancel"), ResultCode.CANCEL_SUCCESS)


def data_file() -> Path:
    folder = next((value for name in ("TMPDIR", "TMP", "TEMP", "TEMPDIR") if (value := os.environ.get(name))), "/tmp")
    return Path(folder) / NAME


def _data() -> dict[str, Any]:
    """Empty where there is no file. Raises StepFailed for a file that is not a JSON object."""
    path = data_file()
    if not path.is_file():
        return {}
    try:
        data = json_text.parse(named_files.read(path, MOST_BYTES), most=MOST_BYTES)
    except (OSError, ValueError) as error:
        raise StepFailed(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise StepFailed(f"{path}: no JSON object")
    return data


def _chosen(results: Any, key: str) -> Any:
    if not isinstance(results, dict):
        return None
    chosen = results.get(key) if key else None
    return chosen if isinstance(chosen, dict) else results.get("*")


def _result(found: Any, otherwise: ResultCode) -> ActionResult:
    """A number that is missing, or is none, counts as 0, as the agent reads it."""
    if not isinstance(found, dict):
        return ActionResult(otherwise)
    details = found.get("resultDetails")
    return ActionResult(
        _number(found.get("resultCode")),
        _number(found.get("extendedResultCode")),
        details if isinstance(details, str) else "",
    )


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    # Infinity and NaN are none in JSON, but Python's reader takes them.
    return int(value) if abs(value) < 1 << 32 else 0
