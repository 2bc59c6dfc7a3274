"""`microsoft/swupdate:1` and `:2`: images for SWUpdate, as Azure Device Update's handlers install them.

Version 1 (src/extensions/step_handlers/swupdate_handler/src/swupdate_handler.cpp of Azure/iot-hub-device-update): one file,
handed to SWUpdate; `installedCriteria` (required) is compared with the first line of /etc/adu-version; after Apply the host
is restarted at once. Where the agent's own script is installed it is used, as the agent does; else swupdate itself, with
/etc/swupdate.cfg where that is, which names the public key that images are verified by.

Version 2 (swupdate_handler_v2 of the same, with its README.md): a script of the update does it, called as a
`microsoft/script:1` is, with `--swu-file` before the arguments, and one result file for all actions. Restore calls it to cancel.
Other handlerProperties are let be.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ...enumerators.bench_component import BenchComponent
from ...enumerators.host import HostComponent
from ..engine.results import FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code
from ..errors import StepFailed
from ..manifests.manifest import InlineStep
from . import programs, properties
from .handler import StepHandler
from .script import ENDED_BADLY, ScriptHandler

COMPONENT_SWUPDATE_HANDLER = 1
AGENT_LOGS = "/var/log/adu"
VERDICT = re.compile(r"\bSWUPDATE (successful|failed)\b")
FIRST_LINE = 4096
"""Bytes of the version file that are looked at."""


class SwupdateHandler(StepHandler):
    """`microsoft/swupdate:1`. SWUpdate isn't interrupted: a cancellation takes effect after it.

    A subclass may name other files and another program.
    """

    version_file: ClassVar[Path] = Path("/etc/adu-version")
    agent_script: ClassVar[Path] = Path("/usr/lib/adu/adu-swupdate.sh")
    configuration: ClassVar[Path] = Path("/etc/swupdate.cfg")
    program: ClassVar[tuple[str, ...]] = ("swupdate",)

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        properties.one_file(step, place)
        properties.criteria(step, place)

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        return "" if cls.agent_script.exists() else "SWUpdate has no way back without the agent's script"

    def is_installed(self) -> ActionResult:
        """By the version file. A missing file counts as another version: with the agent it fails."""
        wanted = self.context.step.handlerProperties[properties.CRITERIA]
        try:
            with self.version_file.open("rb") as stream:
                text = stream.read(FIRST_LINE).decode("utf-8", "replace")
        except OSError:
            text = ""
        told = text.split("\n", 1)[0].strip()
        return ActionResult(ResultCode.INSTALLED if told == wanted else ResultCode.NOT_INSTALLED)

    def download(self) -> ActionResult:
        if not self.agent_script.exists() and shutil.which(self.program[0], path=programs.PATH) is None:
            raise StepFailed("swupdate is not there", remedy="Install SWUpdate: apt install swupdate")
        return ActionResult(ResultCode.DOWNLOAD_SUCCESS)

    def backup(self) -> ActionResult:
        """With two slots the old one stays as it is."""
        return ActionResult(ResultCode.BACKUP_SUCCESS if self.agent_script.exists() else ResultCode.BACKUP_UNSUPPORTED)

    def install(self) -> ActionResult:
        (name,) = self.context.step.files
        file = str(self.context.files[name].absolute())
        self.context.check(name)
        if self.agent_script.exists():
            return self._run(ResultCode.INSTALL_SUCCESS, str(self.agent_script), "-l", AGENT_LOGS, "-i", file)
        configuration = ("-f", str(self.configuration)) if self.configuration.exists() else ()
        return self._run(ResultCode.INSTALL_SUCCESS, *self.program, *configuration, "-i", file)

    def apply(self) -> ActionResult:
        if self.agent_script.exists():
            return self._run(ResultCode.APPLY_IMMEDIATE_REBOOT, str(self.agent_script), "-l", AGENT_LOGS, "-a")
        return ActionResult(ResultCode.APPLY_IMMEDIATE_REBOOT)

    def restore(self) -> ActionResult:
        if self.agent_script.exists():
            return self._run(ResultCode.RESTORE_SUCCESS, str(self.agent_script), "-l", AGENT_LOGS, "-r")
        return ActionResult(ResultCode.RESTORE_UNSUPPORTED)

    def _run(self, success: ResultCode, *arguments: str) -> ActionResult:
        status, said = programs.run(arguments, environment=programs.clean_environment())
        # SWUpdate 2022.12 (Debian's) at times ends with 1 when all went well; the last that it says of an update counts.
        verdicts = VERDICT.findall(said)
        if status == 0 or (arguments[0] == self.program[0] and verdicts and verdicts[-1] == "successful"):
            return ActionResult(success)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        told = [line for line in lines if "ERROR" in line.upper()] or lines[-1:]
        code = extended_code(FACILITY_STEP_HANDLERS, COMPONENT_SWUPDATE_HANDLER, ENDED_BADLY + (status & 0xFF))
        details = f"{Path(arguments[0]).name} ended with {status}: {'; '.join(told)[-400:]}"
        return ActionResult(ResultCode.FAILURE, code, details)


class SwupdateScriptHandler(ScriptHandler):
    """`microsoft/swupdate:2`. Which of its files is the script, its author says."""

    component_code: ClassVar[int] = COMPONENT_SWUPDATE_HANDLER
    versions: ClassVar[dict[str, str]] = {"1.0": "1.0", "2.0": "1.0", "1.1": "1.1", "2.1": "1.1"}

    @classmethod
    def draft(cls, version: str, files: Sequence[str]) -> dict[str, Any]:
        return {}

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        super().check(step, on_component=on_component, place=place)
        properties.one_of_the_files(
            step.handlerProperties.get("swuFileName"), step, f"{place}.handlerProperties.swuFileName"
        )

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        return ""

    def backup(self) -> ActionResult:
        return ActionResult(ResultCode.BACKUP_SUCCESS)

    def restore(self) -> ActionResult:
        result = self.cancel()
        if result.code == ResultCode.CANCEL_SUCCESS:
            return ActionResult(ResultCode.RESTORE_SUCCESS, details=result.details)
        return ActionResult(ResultCode.FAILURE, result.extended, f"the script did not cancel: {result.details}")

    def _leading(self) -> list[str]:
        return ["--swu-file", str(self.context.work_folder / self.context.step.handlerProperties["swuFileName"])]

    def _result_file(self, action: str) -> Path:
        return self.context.work_folder / "aduc_result.json"
