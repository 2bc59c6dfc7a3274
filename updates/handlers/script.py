"""`microsoft/script:1`: runs a script of the update, as Azure Device Update's script handler does (release 1.1:
src/extensions/step_handlers/script_handler/src/script_handler.cpp of Azure/iot-hub-device-update, and its README.md).

handlerProperties: `scriptFileName` (one of the step's files; required), `arguments`, `installedCriteria`, `apiVersion`
("1.0", the default, or "1.1"). The command line and the result file are the handler's, to the letter; see
docs/step-handlers.md for both. A script that ends with another status than 0 has failed, whatever its result file says.
Properties of other names are let be, as the agent does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

from ...flashers.errors import Cancelled
from ...transports import json_text, private_files
from ...transports.plain import quoted
from ..engine.results import COMPONENT_SCRIPT_HANDLER, FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code
from ..errors import ManifestField, ScriptFailed
from ..manifests.manifest import InlineStep
from . import programs
from .handler import StepHandler
from .properties import one_of_the_files

KEYS = ("scriptFileName", "arguments", "installedCriteria", "apiVersion")
NOT_AVAILABLE = "n/a"
UNKNOWN_FAILURE = 0x30500206
"""The extended code of a failure for which the script gives none."""
ENDED_BADLY = 0x1000
"""What the extended code of a script that ended with another status than 0 counts from (aduc/result.h)."""
MAX_RESULT = 1 << 20
"""Bytes of a result file, at most."""


class ScriptHandler(StepHandler):
    """One run of the script for each action."""

    runs_script = True
    component_code: ClassVar[int] = COMPONENT_SCRIPT_HANDLER
    versions: ClassVar[dict[str, str]] = {"1.0": "1.0", "1.1": "1.1"}
    """What `apiVersion` may be, and the version of the script's interface that it means."""

    @classmethod
    def draft(cls, version: str, files: Sequence[str]) -> dict[str, Any]:
        return {"scriptFileName": files[0]}

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        properties = step.handlerProperties
        for key in KEYS:
            if not isinstance(properties.get(key, ""), str):
                raise ManifestField(f"{place}.handlerProperties.{key}: {quoted(properties[key])} is not a text")
            if "\0" in properties.get(key, ""):
                raise ManifestField(f"{place}.handlerProperties.{key}: a NUL, which no argument of a program has")
        one_of_the_files(properties.get("scriptFileName"), step, f"{place}.handlerProperties.scriptFileName")
        if properties.get("apiVersion", "1.0") not in cls.versions:
            known = ", ".join(cls.versions)
            raise ManifestField(
                f"{place}.handlerProperties.apiVersion: {quoted(properties['apiVersion'])} is none of {known}"
            )

    def is_installed(self) -> ActionResult:
        return self._run("is-installed")

    def download(self) -> ActionResult:
        self._put_files()
        return self._run("download")

    def install(self) -> ActionResult:
        return self._run("install")

    def apply(self) -> ActionResult:
        return self._run("apply")

    def cancel(self) -> ActionResult:
        return self._run("cancel")

    def command(self, action: str) -> list[str]:
        """The command line for an action."""
        properties = self.context.step.handlerProperties
        folder = self.context.work_folder
        script = str(folder / properties["scriptFileName"])
        version = self.versions[properties.get("apiVersion", "1.0")]
        verb = ["--action", action] if version == "1.1" else [f"--action-{action}"]
        criteria = properties.get("installedCriteria")
        return [
            script,
            *verb,
            *self._leading(),
            *self._arguments(properties.get("arguments", "")),
            "--work-folder",
            str(folder),
            "--result-file",
            str(self._result_file(action)),
            *(["--installed-criteria", criteria] if criteria else []),
        ]

    def _leading(self) -> list[str]:
        """What comes before the update's own arguments."""
        return []

    def _arguments(self, text: str) -> list[str]:
        """The arguments, split at single spaces, with the component's facts put in."""
        record = self.context.record
        facts = {
            "--component-id-val": record.id if record else "",
            "--component-name-val": record.name if record else "",
            "--component-manufacturer-val": record.manufacturer if record else "",
            "--component-model-val": record.model if record else "",
            "--component-version-val": record.version if record else "",
            "--component-group-val": record.group if record else "",
        }
        words = iter([word for word in text.split(" ") if word])
        found = []
        for word in words:
            if word == "--component-prop-val":
                name = next(words, "")
                value = record.record()["properties"].get(name, "") if record else ""
                found.append(_argument(value))
            elif word in facts:
                found.append(_argument(facts[word]))
            else:
                found.append(word)
        return found

    def _put_files(self) -> None:
        folder = self.context.work_folder
        try:
            private_files.folder(folder)
            script = self.context.step.handlerProperties["scriptFileName"]
            # The script comes last and whole: where it is, a cut has left nothing out.
            for name in sorted(self.context.files, key=lambda name: name == script):
                with private_files.whole(folder / name) as target:
                    self.context.pour(name, target)
                    os.fchmod(target.fileno(), 0o700 if name == script else 0o600)
        except OSError as error:
            raise ScriptFailed(f"{error.filename or folder}: {error.strerror}", remedy="Is the disk full?") from error

    def _result_file(self, action: str) -> Path:
        return self.context.work_folder / f"action_{action}_aduc_result.json"

    def _run(self, action: str) -> ActionResult:
        script = self.context.work_folder / self.context.step.handlerProperties["scriptFileName"]
        if not script.exists():
            self._put_files()
        for name in self.context.files:
            # Earlier actions, and other steps' scripts, had this folder too.
            self.context.check(name, self.context.work_folder / name)
        result_file = self._result_file(action)
        result_file.unlink(missing_ok=True)
        # What the clean-up after a cancellation does isn't cancelled itself.
        cancelled = (lambda: False) if action == "cancel" else self.context.run.cancelled
        try:
            # The script's own output goes to our stderr: stdout is for data.
            with programs.started(
                self.command(action), programs.clean_environment(), self.context.work_folder, stdout=2
            ) as process:
                if not programs.ended(process, cancelled):
                    # What the script had done by then, nobody knows.
                    changed = action in ("install", "apply")
                    raise Cancelled(f"{script.name} --action {action} was ended on request", touched=changed)
        except OSError as error:
            raise ScriptFailed(
                f"{script.name} can't be run: {error.strerror or error}",
                remedy="Does it begin with #! and the path of an interpreter that this host has?",
            ) from error
        status = process.returncode
        if status != 0:
            code = extended_code(FACILITY_STEP_HANDLERS, self.component_code, ENDED_BADLY + (status & 0xFF))
            return ActionResult(ResultCode.FAILURE, code, f"{script.name} --action {action} ended with {status}")
        return _read_result(result_file)


def _read_result(path: Path) -> ActionResult:
    """The script's verdict. Raises ScriptFailed when the file is missing or is not as documented."""
    try:
        with private_files.regular(path) as stream:
            raw = json_text.parse(stream.read(MAX_RESULT + 1), most=MAX_RESULT)
    except OSError as error:
        raise ScriptFailed(
            f"the script left no result file: {path.name}: {error.strerror}",
            remedy="It must write the file that --result-file names.",
        ) from error
    except ValueError as error:
        raise ScriptFailed(f"the script's result file {path.name} is not JSON: {error}") from error
    fields = raw if isinstance(raw, dict) else {}
    code, extended, details = (fields.get(key) for key in ("resultCode", "extendedResultCode", "resultDetails"))
    if not _is_number(code):
        raise ScriptFailed(f"the script's result file {path.name} has no resultCode")
    code, extended = int(code), int(extended) if _is_number(extended) else 0
    if code <= 0 and extended == 0:
        extended = UNKNOWN_FAILURE
    return ActionResult(code, extended, details if isinstance(details, str) else "")


def _is_number(value: object) -> TypeGuard[int | float]:
    """JSON has one kind of numbers; 600.0 is 600."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _argument(value: str) -> str:
    """A component's fact as one word of a command line, which no NUL can be in: a part may say one."""
    return value.replace("\0", "") or NOT_AVAILABLE
